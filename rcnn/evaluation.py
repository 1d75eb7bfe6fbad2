"""An evaluation from end to end: the rows of runs and others, one pass over the images, and a result for each run."""

import contextlib
import hashlib
import itertools
import time
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import torch

from rcnn import checkpoint, config, functions, progress, provenance, rows, runtime, scoring
from rcnn.config import Config
from rcnn.datasets import DATASETS
from rcnn.datasets.images import ImageSet
from rcnn.files import digest, sweep
from rcnn.learn import elsewhere
from rcnn.passes import Common, Run, digests, standardised, tagclip, tower_pass
from rcnn.printing import lossless, short
from rcnn.results import table
from rcnn.results.measuring import Unit, images_in_use, measure_all, units, unknown_as_absent
from rcnn.results.result import Result
from rcnn.results.summary import summarise
from rcnn.score import kept, processes, tagclip_pass, views
from rcnn.score.score_file import PARTS
from rcnn.text.classes import ClassList


def evaluate(
    settings: Config | Sequence[Config], images: ImageSet, classes: ClassList, again: bool = False
) -> list[Result | None]:
    """Evaluate the run in settings.output on images, or several runs in one pass; write each result.json, print the tables.

    Several runs must have their CLIP, and all options of the data set and of the evaluation in common.

    Started by torchrun, every process scores its share, and the first one measures and writes; the others return None for the
    results that were measured now. With `again`, scores and results that there may be of these very settings are forgotten.
    """
    several = [settings] if isinstance(settings, Config) else list(settings)
    on = runtime.device(several[0].device).type
    with processes.group(on == "cuda") as group:
        began = time.perf_counter()
        if group.rank:
            progress.quiet()
        if group.world > 1 and on == "cuda":
            several = [one.model_copy(update={"device": "cuda"}) for one in several]  # each its own
        first = several[0]
        sweep(first.cache, *(one.output for one in several))
        for one in several:
            check(one, images, classes)
        metadata = checkpoint.read_run(first.output)[1]
        load_clip = cache(partial(runtime.load_clip, first, metadata, first.evaluate.precision))
        with group.first_of_machine_before_others():  # sentences from elsewhere are encoded once
            runs = [_read(one, classes, load_clip, group) for one in several]
        _require_common(runs)
        labels = hashlib.sha256(images.labels.contiguous().numpy()).hexdigest()  # without a copy
        _require_same(runs, images, labels, group)
        background = first.evaluate.tagclip_background
        if background is None:
            background = DATASETS[first.dataset.kind].background
        identity = _identity(first, metadata, images, on)
        sources = provenance.sources(provenance.MEASURING)
        as_absent = unknown_as_absent(images.labels, classes, first.evaluate, first.dataset.keep_unlabelled)
        common = Common(images, classes, load_clip, as_absent, background, identity, sources, group, again)
        for run in runs:
            run.made_from = _made_from(run, labels, common)
            if again:
                run.path.unlink(missing_ok=True)
        group.barrier()
        results = {run.path: found for run in runs if (found := _finished(run, common))}
        there = group.everyone([run.path in results for run in runs])[0]  # the first process has the results
        if not all(there):
            todo = [run for run, is_there in zip(runs, there, strict=True) if not is_there]
            results |= _measure(todo, common, began)
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


def _read(settings, classes, load_clip, group):
    """A Run as learning left it, with the rows from elsewhere."""
    learned, metadata = checkpoint.read_run(settings.output)
    changed = provenance.changed_sources(metadata["sources"], provenance.sources(provenance.LEARNING))
    if changed and group.rank == 0:
        print(f"WARNING: the code has changed since this run was learned: {', '.join(changed)}")
    shape = learned[metadata["method"]].shape
    ours = classes, shape[1], metadata["identity"]["clip"]
    others = {row: elsewhere.read(file, *ours, load_clip, settings.cache) for row, file in settings.rows.items()}
    losses = metadata["learning"].get("learned", {}).get(metadata["method"], {}).get("losses", [])
    wanted = settings.evaluate.epochs
    epochs = checkpoint.read_epochs(Path(settings.output), metadata["method"], shape, losses) if wanted else {}
    embeddings, own = learned | others, {name: functions.load(function) for name, function in settings.scorers.items()}
    sets = scoring.scored_sets(settings.evaluate, embeddings, epochs, own, (rows.BASELINE, metadata["method"]))
    return Run(settings, metadata, embeddings, epochs, sets)


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


def _require_same(runs, images, labels, group):
    """ValueError unless all processes, perhaps on other machines, have the same class embeddings, images and labels."""
    ours = digest([[digests(run.sets) for run in runs], [path.name for path in images.paths], labels])
    if len(set(group.everyone(ours))) > 1:
        raise ValueError("the machines differ in their copies of the run, in the images that they find, or in the labels")


def _identity(settings, metadata, images, on):
    """What the scores of any set of class embeddings depend on."""
    own = {name: functions.load(function).sha256 for name, function in settings.scorers.items()}
    files = ((path, path.stat()) for path in images.paths)
    return {
        "images": digest([f"{path} {now.st_size} {now.st_mtime_ns}" for path, now in files]),
        "clip": metadata["identity"]["clip"],
        "device": on,
        **config.shaping(settings, "scores", "digits"),
        **({"own": own} if own else {}),  # a function that was changed is another one
    }


def _made_from(run, labels, common):
    settings, images = run.settings, common.images
    return digest([
        {"sets": digests(run.sets), **common.identity},
        labels, images.left_out, list(map(str, images.missing)),
        settings.seed, settings.evaluate.tagclip and common.background, config.shaping(settings, "metrics", "intervals"),
    ])  # fmt: skip


def _finished(run, common):
    """The result of a run if there is one of these very settings, which is then shown; else None."""
    result = finished(run.path, run.made_from)
    if not result or (run.settings.evaluate.keep_scores and not kept.holds(run.kept, run.made_from)):
        return None
    if common.group.rank == 0:
        print(f"{table.render(result)}\n\n{run.path} is of these very settings; --again measures anew")
        if changed := provenance.changed_sources(result.sources, common.sources):
            print(f"WARNING: the code has changed since: {', '.join(changed)}; --again measures anew")
    return result


def finished(path: Path, made_from: str) -> Result | None:
    """The result in `path` if it was made from the same."""
    with contextlib.suppress(OSError, ValueError):
        result = Result.load(path)
        return result if result.made_from == made_from else None


def _measure(runs, common, began):
    """{path: Result} of runs, at the first process, which writes them; the others find nothing."""
    first, images, classes, group = runs[0].settings, common.images, common.classes, common.group
    for run in runs if group.rank == 0 else ():
        _require_room(run, images, classes)
    of_tower = tower_pass(runs, common)
    clock, broken = of_tower.run(common)
    files, clocks = [of_tower.file], [clock]
    if first.evaluate.tagclip and (first.dataset.allow_missing or not broken):  # else unreadable images end it below
        with group.first_of_machine_before_others():  # sentences are encoded once
            of_tags = tagclip(runs[0], common)
        clock, more = of_tags.run(common)
        files, clocks, broken = [*files, of_tags.file], [*clocks, clock], broken | more
    good = _readable(first, images, files, broken, group)
    if good is None:
        return {}
    used = images_in_use(images.labels, classes, good, first.dataset.keep_unlabelled)
    if group.rank == 0 and clocks[0].waiting > 0.1 * (clocks[0].encoding + clocks[0].scoring):
        cores = views.available_cores()
        more = f"; evaluate.workers={cores} may help" if first.evaluate.workers < cores else ""
        print(f"waited {clocks[0].waiting:.0f} s for images to be decoded{more}")
    results = {}
    for run in runs:
        settings, own = run.settings, files[0].renamed(run.names)
        of = _units(run, classes, own, *files[1:], group=group)
        measured = measure_all(of, images.labels, used, classes, settings.evaluate, settings.seed, group, common.as_absent)
        if group.rank == 0:
            found = summarise(settings, run.metadata, classes, images, run.embeddings, measured, used, len(broken))
            took = _seconds(*clocks) | {"total": time.perf_counter() - began}
            results[run.path] = Result(**found, made_from=run.made_from, sources=common.sources, seconds=took)
        if settings.evaluate.keep_scores:
            _keep(run, images, classes, of, broken, group)
        if group.rank == 0:
            results[run.path].save(run.path)
            print(f"{table.render(results[run.path])}\n\nresult file: {run.path}")
    group.barrier()
    for file in files:
        file.delete()
    return results


def _units(run, classes, file, tags=None, *, group):
    """All that is measured of a run."""
    last, tasks = rows.method_scorer(run.settings.evaluate), list(classes.tasks)
    out = units(file, run.embeddings, tasks, standardised(run), group)
    for task, row in itertools.product(tasks, rows.TAGCLIP if tags else ()):
        plane = tagclip_pass.plane(row, task)
        of = Unit((row, "plain"), lambda owner, plane=plane: tags.tables(plane, "plain", owner, group), [task])
        out.append(of)
    for n in run.epochs:
        out.append(Unit(n, lambda owner, name=f"epoch/{n}": file.tables(name, last, owner, group), tasks))
    return out


def _readable(settings, images, files, broken, group):
    """(B,) bool whether an image could be read; ValueError, or None at the other processes, where that is not allowed."""
    if broken and (not settings.dataset.allow_missing or len(broken) == len(images.paths)):
        for file in files:
            file.forget({i // file.batch_size for i in broken})  # the others need not be scored again
        if group.rank:
            return None
        listed = "\n  ".join(f"{images.paths[i]}: {why}" for i, why in sorted(broken.items())[:10])
        raise ValueError(
            f"{len(broken)} of {len(images.paths)} images cannot be read:\n  {listed}\n"
            "dataset.allow_missing=true goes on without them, and every table will say so"
        )
    good = torch.ones(len(images.paths), dtype=torch.bool)
    good[list(broken)] = False
    return good


def _require_room(run, images, classes):
    """ValueError if the disk has no room for the scores of a run that are to be kept."""
    if run.settings.evaluate.keep_scores:
        sets = [run.sets[row] for row in run.embeddings]
        tables = sum(1 + len(PARTS) * (s.parts(scorer) == PARTS) for s in sets for scorer in s.scorers)
        tables += len(rows.TAGCLIP) * len(classes.tasks) * run.settings.evaluate.tagclip
        kept.require_room(run.kept, (4 * tables + 1) * images.labels.numel())


def _keep(run, images, classes, of, broken, group):
    """Write the scores that the rows of a result were measured from; all processes send theirs to the first."""

    def tables():
        for unit in of:
            if isinstance(unit.key, int):  # an epoch
                continue
            found = unit.read(0)
            task = unit.tasks[0] if unit.key[0] in rows.TAGCLIP else None
            for part, scores in (found or {}).items():
                named = None if part == "total" else part
                yield kept.Table(scores, *unit.key, rows.label(*unit.key), task, named)

    facts = {
        "images": [lossless(str(path)) for path in images.paths], "unreadable": sorted(broken),
        "class_names": list(classes.names), "first_column": classes.tasks,
    }  # fmt: skip
    if group.rank == 0:
        kept.write(run.kept, tables(), images.labels, run.made_from, facts)
    else:
        list(tables())


def _seconds(clock, tags=None):
    """Where the time of this process's last passes went."""
    of_tags = {"tagclip": tags.encoding, "tagclip_images": tags.images} if tags else {}
    return {
        "waiting_for_images": clock.waiting, "image_tower": clock.encoding, "scores": clock.scoring, "images": clock.images,
    } | of_tags  # fmt: skip
