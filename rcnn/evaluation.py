"""An evaluation from end to end: the rows of runs and others, one pass over the images, and a result for each run."""

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch

from rcnn import checkpoint, config, functions, progress, provenance, rows, runtime, scoring
from rcnn.config import Config
from rcnn.datasets import DATASETS
from rcnn.datasets.images import ImageSet
from rcnn.files import digest, sweep
from rcnn.learn import elsewhere
from rcnn.printing import lossless, short
from rcnn.results import table
from rcnn.results.result import Result
from rcnn.results.summary import summarise
from rcnn.score import kept, one_pass, processes, tagclip_pass, views
from rcnn.score.one_pass import Clock
from rcnn.score.score_file import PARTS, ScoredSet, ScoreFile
from rcnn.text.classes import ClassList


@dataclass
class _Run:
    """A run that is to be measured."""

    settings: Config
    metadata: dict
    embeddings: dict[str, torch.Tensor]  # row -> (C, D), with those from elsewhere
    epochs: dict[int, torch.Tensor]
    sets: dict[str, ScoredSet]
    made_from: str = ""  # digest of all that its result depends on
    names: dict[str, str] | None = None  # of its sets in the score file that runs share

    @property
    def output(self) -> Path:
        return Path(self.settings.output)

    @property
    def path(self) -> Path:
        return self.output / "result.json"

    @property
    def kept(self) -> Path:
        return self.output / "scores_kept"

    @property
    def keeps(self) -> bool:
        return self.settings.evaluate.keep_scores


@dataclass
class _Pass:
    """A pass over the images: where its scores go, and what fills the opened file."""

    what: str
    file: ScoreFile
    fill: Callable[[ScoreFile], Clock]

    def run(self, rank: int, barrier: Callable[[], None]) -> Clock:
        """Fill the file, which the first process makes; the Clock of this process, when all have done their share."""
        if rank == 0:
            print(f"{self.what}; scores: {self.file.bytes / 1e9:.2f} GB in {self.file.folder}")
            self.file.open()
        barrier()
        clock = self.fill(self.file.open())
        barrier()
        return clock


def evaluate(
    settings: Config | Sequence[Config], images: ImageSet, classes: ClassList, again: bool = False
) -> list[Result | None]:
    """Evaluate the run in settings.output on images, or several runs in one pass; write each result.json, print the tables.

    Several runs must have their CLIP, and all options of the data set and of the evaluation in common.

    Started by torchrun, every process scores its share, and the first one measures and writes; the others return None for the
    results that were measured now. With `again`, scores and results that there may be of these very settings are forgotten.
    """
    several = [settings] if isinstance(settings, Config) else list(settings)
    first = several[0]
    on = runtime.device(first.device).type
    with processes.group(on == "cuda") as (rank, world, barrier):
        began = time.perf_counter()
        if rank:
            progress.quiet()
        if world > 1 and on == "cuda":
            several = [one.model_copy(update={"device": "cuda"}) for one in several]  # each its own
            first = several[0]
        sweep(first.cache, *(one.output for one in several))
        for one in several:
            check(one, images, classes)
        load_clip = cache(partial(runtime.load_clip, first, _metadata(first), first.evaluate.precision))
        with _first_before_others(rank, barrier):  # sentences from elsewhere are encoded once
            runs = [_read(one, classes, load_clip, rank) for one in several]
        _require_common(runs)
        sources, identity = provenance.sources(provenance.MEASURING), _identity(first, runs[0].metadata, images, on)
        background = first.evaluate.tagclip_background
        if background is None:
            background = DATASETS[first.dataset.kind].background
        for run in runs:
            run.made_from = _made_from(run, identity, images, background)
            if again and rank == 0:
                run.path.unlink(missing_ok=True)
        barrier()
        results = {run.path: found for run in runs if (found := _finished(run, sources, rank))}
        todo = [run for run in runs if run.path not in results]
        if todo:
            tower_pass = _tower_pass(todo, load_clip, images, classes, [identity, sources], rank, world)
            if again and rank == 0:
                tower_pass.file.delete()
            for run in todo if rank == 0 else ():
                _require_room(run, images, classes)
            clocks, files = [tower_pass.run(rank, barrier)], [tower_pass.file]
            go_on = first.dataset.allow_missing or not tower_pass.file.done()[1]  # else unreadable images end it below
            barrier()
            if first.evaluate.tagclip and go_on:
                with _first_before_others(rank, barrier):  # sentences are encoded once
                    tags = _tagclip_pass(todo[0], images, classes, background, [identity, sources], rank, world)
                if again and rank == 0:
                    tags.file.delete()
                clocks, files = [*clocks, tags.run(rank, barrier)], [*files, tags.file]
            if rank == 0:
                results |= _measure(todo, images, classes, files, sources, clocks, began)
        return [results.get(run.path) for run in runs]


def check(settings: Config, images: ImageSet, classes: ClassList) -> None:
    """ValueError or FileNotFoundError for what would stop an evaluation later on, after long work."""
    for task, first in classes.tasks.items():
        if not (images.labels[:, first:] == 1).any():
            raise ValueError(f"{task}: no image shows any of the {len(classes) - first} classes that it scores")
    if settings.evaluate.tagclip_background:
        try:
            ClassList(settings.evaluate.tagclip_background, 0)
        except ValueError as error:
            raise ValueError(f"evaluate.tagclip_background: {error}") from None
    for row, path in settings.rows.items():
        if row in rows.ROWS | rows.TAGCLIP or "/" in row:
            raise ValueError(f"rows.{row}: expected a name of your own, without '/'; the comparison has a row {row}")
        if functions.is_name(path):
            functions.load(path)
        elif not Path(path).is_file():
            raise FileNotFoundError(f"rows.{row}: there is no file {path}")
    for scorer, name in settings.scorers.items():
        if scorer in rows.SCORERS or "/" in scorer:
            raise ValueError(f"scorers.{scorer}: expected a name of your own, without '/'; there is a scorer {scorer}")
        if not functions.is_name(name):
            raise ValueError(f"scorers.{scorer}: expected MODULE:FUNCTION, got {short(name)}")
        functions.load(name)


def _metadata(settings):
    return checkpoint.read_run(settings.output)[1]


def _read(settings, classes, load_clip, rank):
    """A _Run as learning left it, with the rows from elsewhere."""
    learned, metadata = checkpoint.read_run(settings.output)
    changed = provenance.changed_sources(metadata["sources"], provenance.sources(provenance.LEARNING))
    if changed and rank == 0:
        print(f"WARNING: the code has changed since this run was learned: {', '.join(changed)}")
    shape = learned[metadata["method"]].shape
    ours = classes, shape[1], metadata["identity"]["clip"]
    others = {row: elsewhere.read(file, *ours, load_clip, settings.cache) for row, file in settings.rows.items()}
    losses = metadata["learning"].get("learned", {}).get(metadata["method"], {}).get("losses", [])
    wanted = settings.evaluate.epochs
    epochs = checkpoint.read_epochs(Path(settings.output), metadata["method"], shape, losses) if wanted else {}
    embeddings, own = learned | others, {name: functions.load(function) for name, function in settings.scorers.items()}
    sets = scoring.scored_sets(settings.evaluate, embeddings, epochs, own, (rows.BASELINE, metadata["method"]))
    return _Run(settings, metadata, embeddings, epochs, sets)


def _require_common(runs):
    """ValueError unless one pass over the images can serve these runs."""
    one, *others = runs
    for other in others:
        keys = config.changed(one.settings, other.settings, "scores", "digits", "metrics", "intervals")
        keys = [key for key in keys if key != "rows"]
        if one.metadata["identity"]["clip"] != other.metadata["identity"]["clip"]:
            keys.insert(0, "clip")
        if one.metadata["class_names"] != other.metadata["class_names"] or one.metadata["seen"] != other.metadata["seen"]:
            keys.insert(0, "classes")
        if keys:
            raise ValueError(f"{one.output} and {other.output} differ in {keys[0]}; one pass cannot measure both")


def _identity(settings, metadata, images, on):
    """What the scores of any set of class embeddings depend on."""
    own = {name: functions.load(function).sha256 for name, function in settings.scorers.items()}
    return {
        "images": digest([_stamp(path) for path in images.paths]),
        "clip": metadata["identity"]["clip"],
        "device": on,
        **config.shaping(settings, "scores", "digits"),
        **({"own": own} if own else {}),  # a function that was changed is another one
    }


def _made_from(run, identity, images, background):
    settings = run.settings
    return digest([
        {"sets": _digests(run.sets), **identity},
        digest(images.labels.contiguous().numpy().tobytes()), images.left_out, list(map(str, images.missing)),
        settings.seed, settings.evaluate.tagclip and background, config.shaping(settings, "metrics", "intervals"),
    ])  # fmt: skip


def _finished(run, sources, rank):
    """The result of a run if there is one of these very settings, which is then shown; else None."""
    result = finished(run.path, run.made_from)
    if not result or (run.keeps and not kept.holds(run.kept, run.made_from)):
        return None
    if rank == 0:
        print(f"{table.render(result)}\n\n{run.path} is of these very settings; --again measures anew")
        if changed := provenance.changed_sources(result.sources, sources):
            print(f"WARNING: the code has changed since: {', '.join(changed)}; --again measures anew")
    return result


def finished(path: Path, made_from: str) -> Result | None:
    """The result in `path` if it was made from the same."""
    with contextlib.suppress(OSError, ValueError):
        result = Result.load(path)
        return result if result.made_from == made_from else None


def _tower_pass(runs, load_clip, images, classes, identity, rank, world):
    """The pass for all sets of the runs, in the first run's folder; those that several runs share are scored once."""
    sets, known = {}, {}  # known: what a set is -> its name
    for i, run in enumerate(runs):
        run.names, digests = {}, _digests(run.sets)
        for name, scored in run.sets.items():
            what = digests[name], tuple(scored.scorers), scored.in_parts
            run.names[name] = known.setdefault(what, f"{i}/{name}" if i else name)
            sets.setdefault(run.names[name], scored)
    e = runs[0].settings.evaluate
    # scores of other code are not continued
    of = [{"sets": _digests(sets)}, *identity]
    file = ScoreFile(runs[0].output / "scores", sets, len(images.paths), len(classes), e.batch_size, of)

    def fill(opened: ScoreFile) -> Clock:
        model = load_clip()
        if e.compile:
            model.image.compile()
        return one_pass.fill(opened, model, images.paths, sets, e, rank, world)

    return _Pass(f"{len(sets)} sets of class embeddings in one pass", file, fill)


def _tagclip_pass(run, images, classes, background, identity, rank, world):
    """The pass of TagCLIP, which is of the classes alone."""
    e = run.settings.evaluate
    model = runtime.load_clip(run.settings, run.metadata)  # in float32, whatever the precision of the other pass
    texts = tagclip_pass.encode(model, classes, background, run.settings.cache)
    sets = tagclip_pass.sets(texts, rows.TAGCLIP, classes.tasks)
    of = [digest(texts.background.numpy().tobytes()), model.scale, _digests(sets), *identity]
    # in a folder of its own: each file removes what is abandoned beside it
    file = ScoreFile(run.output / "tagclip_scores", sets, len(images.paths), len(classes), e.batch_size, of)
    given = model, images.paths, texts, classes.tasks, e, rank, world
    return _Pass("TagCLIP", file, lambda opened: tagclip_pass.fill(opened, *given))


@contextlib.contextmanager
def _first_before_others(rank: int, barrier: Callable[[], None]) -> Iterator[None]:
    """Have the first process do something alone, and the others after it."""
    if rank:
        barrier()
    yield
    if rank == 0:
        barrier()


def _measure(runs, images, classes, files, sources, clocks, began):
    """{path: Result} of all runs from the finished files, which are then deleted."""
    for file in files:
        if lost := file.lost():
            raise ValueError(
                f"{len(lost)} of {len(file.batches)} batches of scores in {file.folder} are not as they were written: "
                "something else changed the file; run the same command again"
            )
    waited, workers = clocks[0].waiting, runs[0].settings.evaluate.workers
    if waited > 0.1 * (clocks[0].encoding + clocks[0].scoring) and workers < views.available_cores():
        print(f"waited {waited:.0f} s for images to be decoded; evaluate.workers={views.available_cores()} may help")
    results, (file, *tags) = {}, files
    for run in runs:
        own = file.renamed(run.names)
        found = summarise(run.settings, run.metadata, classes, images, run.embeddings, run.epochs, own, *tags)
        took = _seconds(*clocks) | {"total": time.perf_counter() - began}
        result = Result(**found, made_from=run.made_from, sources=sources, seconds=took)
        if run.keeps:
            _keep(run, result, images, classes, own, *tags)
        result.save(run.path)
        results[run.path] = result
        print(f"{table.render(result)}\n\nresult file: {run.path}")
    for file in files:
        file.delete()
    return results


def _require_room(run, images, classes):
    """ValueError if the disk has no room for the scores of a run that are to be kept."""
    if run.keeps:
        sets = [run.sets[row] for row in run.embeddings]
        tables = sum(1 + len(PARTS) * (s.parts(scorer) == PARTS) for s in sets for scorer in s.scorers)
        tables += len(rows.TAGCLIP) * len(classes.tasks) * run.settings.evaluate.tagclip
        kept.require_room(run.kept, (4 * tables + 1) * images.labels.numel())


def _keep(run, result, images, classes, file, tags=None):
    """Write the scores that the rows of a result were measured from."""
    tables = []
    for (row, scorer), scores in file.totals(run.embeddings).items():
        of = row, scorer, result.label(row, scorer)
        tables.append(kept.Table(scores, *of))
        if file.has_parts(row, scorer):
            tables += [kept.Table(file[row, scorer, part], *of, part=part) for part in PARTS]
    for row, task in itertools.product(rows.TAGCLIP if tags else (), classes.tasks):
        scores = tags.total(tagclip_pass.plane(row, task), "plain")
        tables.append(kept.Table(scores, row, "plain", result.label(row), task))
    unread = sorted(set().union(*(f.done()[1] for f in ((file, tags) if tags else (file,)))))
    facts = {
        "images": [lossless(str(path)) for path in images.paths], "unreadable": unread, "class_names": list(classes.names),
        "first_column": classes.tasks,
    }  # fmt: skip
    kept.write(run.kept, tables, images.labels, result.made_from, facts)


def _stamp(path):
    """An image file as it is now: its path, size and time of change."""
    found = path.stat()
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def _digests(sets):
    return {name: digest(s.class_embeddings.numpy().tobytes()) for name, s in sets.items()}


def _seconds(clock, tags=None):
    """Where the time of this process's last passes went."""
    of_tags = {"tagclip": tags.encoding, "tagclip_images": tags.images} if tags else {}
    return {
        "waiting_for_images": clock.waiting, "image_tower": clock.encoding, "scores": clock.scoring, "images": clock.images,
    } | of_tags  # fmt: skip
