"""An evaluation from end to end: the rows of a run and others, one pass over the images, and the result."""

import contextlib
import itertools
import time
from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from types import MappingProxyType

import torch

from rcnn import checkpoint, config, functions, progress, provenance, rows, runtime
from rcnn.clip.image_tower import ImageFeatures
from rcnn.config import Config, EvaluateConfig
from rcnn.datasets import DATASETS
from rcnn.datasets.images import ImageSet
from rcnn.files import digest, sweep
from rcnn.functions import Function
from rcnn.learn import elsewhere
from rcnn.printing import lossless, short
from rcnn.results import table
from rcnn.results.result import Result
from rcnn.results.summary import summarise
from rcnn.score import kept, one_pass, processes, tagclip_pass, views
from rcnn.score.mssa import Scores
from rcnn.score.score_file import ScoredSet, ScoreFile
from rcnn.text.classes import ClassList


def evaluate(settings: Config, images: ImageSet, classes: ClassList, again: bool = False) -> Result | None:
    """Evaluate the run in settings.output on images; write its result.json, print the table.

    Started by torchrun, every process scores its share, and the first one measures and writes; the others return None if the
    result was measured now. With `again`, scores and a result that there may be of these very settings are forgotten.
    """
    on = runtime.device(settings.device).type
    with processes.group(on == "cuda") as (rank, world, barrier):
        began = time.perf_counter()
        check(settings, images, classes)
        if rank:
            progress.quiet()
        if world > 1 and on == "cuda":
            settings = settings.model_copy(update={"device": "cuda"})  # each its own
        output = Path(settings.output)
        sweep(settings.cache, output)
        learned, metadata = checkpoint.read_run(output)
        changed = provenance.changed_sources(metadata["sources"], provenance.sources(provenance.LEARNING))
        if changed and rank == 0:
            print(f"WARNING: the code has changed since this run was learned: {', '.join(changed)}")
        load_clip = cache(partial(runtime.load_clip, settings, metadata, settings.evaluate.precision))
        shape = learned[metadata["method"]].shape
        ours = classes, shape[1], metadata["identity"]["clip"]
        with _first_before_others(rank, barrier):  # sentences from elsewhere are encoded once
            others = {row: elsewhere.read(file, *ours, load_clip, settings.cache) for row, file in settings.rows.items()}
        losses = metadata["learning"].get("learned", {}).get(metadata["method"], {}).get("losses", [])
        epochs = checkpoint.read_epochs(output, metadata["method"], shape, losses) if settings.evaluate.epochs else {}
        embeddings = learned | others
        own = {name: functions.load(function) for name, function in settings.scorers.items()}
        sets = scored_sets(settings.evaluate, embeddings, epochs, own, (rows.BASELINE, metadata["method"]))
        identity = {
            "images": digest([_stamp(path) for path in images.paths]),
            "clip": metadata["identity"]["clip"],
            "device": on,
            **config.shaping(settings, "scores", "digits"),
        }
        background = settings.evaluate.tagclip_background
        if background is None:
            background = DATASETS[settings.dataset.kind].background
        scored = {"sets": _digests(sets), **identity}
        if own:  # a function that was changed is another one
            scored["own"] = {name: function.sha256 for name, function in own.items()}
        made_from = digest([
            scored, digest(images.labels.contiguous().numpy().tobytes()), images.left_out, list(map(str, images.missing)),
            settings.seed, settings.evaluate.tagclip and background, config.shaping(settings, "metrics", "intervals"),
        ])  # fmt: skip
        path, sources = output / "result.json", provenance.sources(provenance.MEASURING)
        # scores of other code are not continued
        sizes = len(images.paths), len(classes), settings.evaluate.batch_size
        file = ScoreFile(output / "scores", sets, *sizes, [scored, sources])
        if again and rank == 0:
            path.unlink(missing_ok=True)
            file.delete()
        barrier()
        keep, kept_in = settings.evaluate.keep_scores, output / "scores_kept"
        result = finished(path, made_from)
        if result and (kept.holds(kept_in, made_from) or not keep):
            if rank == 0:
                print(f"{table.render(result)}\n\n{path} is of these very settings; --again measures anew")
                if changed := provenance.changed_sources(result.sources, sources):
                    print(f"WARNING: the code has changed since: {', '.join(changed)}; --again measures anew")
            return result
        if keep and rank == 0:
            tables = sum(len(sets[row].scorers) for row in embeddings)
            tables += len(rows.TAGCLIP) * len(classes.tasks) * settings.evaluate.tagclip
            kept.require_room(kept_in, (4 * tables + 1) * images.labels.numel())
        model = load_clip()
        if settings.evaluate.compile:
            model.image.compile()
        share = settings.evaluate, rank, world
        what = f"{len(sets)} sets of class embeddings in one pass"
        clock = _pass(file, what, rank, barrier, lambda opened: one_pass.fill(opened, model, images.paths, sets, *share))
        go_on, tags = settings.dataset.allow_missing or not file.done()[1], None  # else unreadable images end it below
        barrier()
        if settings.evaluate.tagclip and go_on:
            tower = runtime.load_clip(settings, metadata)  # in float32, whatever the precision of the other pass
            with _first_before_others(rank, barrier):  # sentences are encoded once
                texts = tagclip_pass.encode(tower, classes, background, settings.cache)
            tag_sets = tagclip_pass.sets(texts, rows.TAGCLIP, classes.tasks)
            made_of = digest(texts.background.numpy().tobytes()), tower.scale, _digests(tag_sets)
            # in a folder of its own: each file removes what is abandoned beside it
            tags = ScoreFile(output / "tagclip_scores", tag_sets, *sizes, [made_of, identity, sources])
            if again and rank == 0:
                tags.delete()
            given = tower, images.paths, texts, classes.tasks, *share
            tag_clock = _pass(tags, "TagCLIP", rank, barrier, lambda opened: tagclip_pass.fill(opened, *given))
        if rank:
            return None
        for scores in (file, tags) if tags else (file,):
            if lost := scores.lost():
                raise ValueError(
                    f"{len(lost)} of {len(scores.batches)} batches of scores in {scores.folder} are not as they were written: "
                    "something else changed the file; run the same command again"
                )
        found = summarise(settings, metadata, classes, images, embeddings, epochs, file, tags)
        took = _seconds(clock, began, settings.evaluate.workers)
        if tags:
            took |= {"tagclip": tag_clock.encoding, "tagclip_images": tag_clock.images}
        result = Result(**found, made_from=made_from, sources=sources, seconds=took)
        if keep:
            _keep(kept_in, result, images, classes, embeddings, file, tags)
        result.save(path)
        for scores in (file, tags) if tags else (file,):
            scores.delete()
        print(f"{table.render(result)}\n\nresult file: {path}")
        return result


def _keep(folder, result, images, classes, embeddings, file, tags):
    """Write the scores that the rows of a result were measured from."""
    totals = file.totals(embeddings).items()
    tables = [kept.Table(scores, *key, result.label(*key)) for key, scores in totals]
    for row, task in itertools.product(rows.TAGCLIP if tags else (), classes.tasks):
        scores = tags.total(tagclip_pass.plane(row, task), "plain")
        tables.append(kept.Table(scores, row, "plain", result.label(row), task))
    unread = sorted(set().union(*(f.done()[1] for f in ((file, tags) if tags else (file,)))))
    facts = {
        "images": [lossless(str(path)) for path in images.paths], "unreadable": unread, "class_names": list(classes.names),
        "first_column": classes.tasks,
    }  # fmt: skip
    kept.write(folder, tables, images.labels, result.made_from, facts)


@contextlib.contextmanager
def _first_before_others(rank, barrier):
    """Have the first process do something alone, and the others after it."""
    if rank:
        barrier()
    yield
    if rank == 0:
        barrier()


def _pass(file, what, rank, barrier, fill):
    """Fill a ScoreFile, which the first process makes; the Clock of this process, when all have done their share."""
    if rank == 0:
        print(f"{what}; scores: {file.bytes / 1e9:.2f} GB in {file.folder}")
        file.open()
    barrier()
    clock = fill(file.open())
    barrier()
    return clock


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


def scored_sets(
    settings: EvaluateConfig,
    embeddings: dict[str, torch.Tensor],
    epochs: dict[int, torch.Tensor],
    own: Mapping[str, Function] = MappingProxyType({}),
    of_rows: Sequence[str] = (),
) -> dict[str, ScoredSet]:
    """Rows by all their scorers, in parts if these are measured too; epochs by the last scorer, which is the method's.

    `own` scorers score the rows `of_rows`, and come before the last.
    """
    in_parts = tuple(key for key, scorer in rows.SCORERS.items() if scorer.has_parts and settings.diagnostics)
    sets = {}
    mine = {key: partial(_own_scores, function, settings) for key, function in own.items()}
    for row, z in embeddings.items():
        *first, last = rows.scorers(row, settings)
        of_row = {key: _scorer(key, settings) for key in first} | (mine if row in of_rows else {})
        sets[row] = ScoredSet(z, of_row | {last: _scorer(last, settings)}, in_parts)
    last = rows.method_scorer(settings)
    return sets | {f"epoch/{epoch}": ScoredSet(z, {last: _scorer(last, settings)}) for epoch, z in epochs.items()}


def _scorer(key, settings):
    return partial(rows.of_key(key).score, settings=settings)


def _own_scores(function, settings, features, class_embeddings):
    """Scores by a function of one's own, which is given copies: what it does with them is felt by no other scorer."""
    scores = function(ImageFeatures(*(f.clone() for f in features)), class_embeddings.clone(), settings)
    shape = len(features.global_features), len(class_embeddings)
    if not isinstance(scores, torch.Tensor):
        raise ValueError(f"{function.name}: expected a tensor of scores {shape}, got {short(scores)}")
    if scores.shape != shape or not scores.is_floating_point():
        found = f"{tuple(scores.shape)} of {scores.dtype}"
        raise ValueError(f"{function.name}: expected scores of shape {shape} of floating-point numbers, got {found}")
    if not (total := scores.float()).isfinite().all():
        raise ValueError(f"{function.name}: expected finite scores")
    return Scores(total, None, None, None)


def _stamp(path):
    """An image file as it is now: its path, size and time of change."""
    found = path.stat()
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def finished(path: Path, made_from: str) -> Result | None:
    """The result in `path` if it was made from the same."""
    with contextlib.suppress(OSError, ValueError):
        result = Result.load(path)
        return result if result.made_from == made_from else None


def _digests(sets):
    return {name: digest(s.class_embeddings.numpy().tobytes()) for name, s in sets.items()}


def _seconds(clock, began, workers):
    """Where the time of this process's last pass went; says so when the decoding of images held up the tower."""
    if clock.waiting > 0.1 * (clock.encoding + clock.scoring) and workers < views.available_cores():
        print(f"waited {clock.waiting:.0f} s for images to be decoded; evaluate.workers={views.available_cores()} may help")
    return {
        "total": time.perf_counter() - began, "waiting_for_images": clock.waiting, "image_tower": clock.encoding,
        "scores": clock.scoring, "images": clock.images,
    }  # fmt: skip
