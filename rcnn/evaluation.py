"""An evaluation from end to end: the rows of a run and others, one pass over the images, and the result."""

import os
import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from rcnn import checkpoint, config, datasets, progress, provenance, rows, runtime
from rcnn.config import Config
from rcnn.datasets.images import ImageSet
from rcnn.files import digest
from rcnn.results import table
from rcnn.results.measure import best_on_test, compare, curve, measure, measure_all, task_images
from rcnn.results.result import Images, Result, TaskImages
from rcnn.score import one_pass, processes
from rcnn.score.one_pass import Clock
from rcnn.score.score_file import ScoredSet, ScoreFile
from rcnn.text.classes import ClassList

PARTS = ("global_part", "local_part")


def evaluate(settings: Config, images: ImageSet, again: bool = False) -> Result | None:
    """Evaluate the run in settings.output on images; write its result.json, print the table.

    Started by torchrun, every process scores its share, and the first one writes.

    Args:
        settings: Config; its dataset, evaluate and rows sections say what is measured.
        images: ImageSet.
        again: measure although there is a result of these very settings.

    Returns:
        the result; None in the other processes.
    """
    on = runtime.device(settings.device).type
    with processes.group(on == "cuda") as (rank, world, barrier):
        began = time.perf_counter()
        if rank:
            progress.quiet()
        learned, metadata = checkpoint.read_run(settings.output)
        classes = ClassList(tuple(metadata["class_names"]), metadata["seen"])
        load_clip = cache(partial(runtime.load_clip, settings, metadata, settings.evaluate.precision))
        for task, first in classes.tasks.items():
            if not (images.labels[:, first:] == 1).any():
                raise ValueError(f"{task}: no image shows any of the {len(classes) - first} classes that it scores")
        embeddings = learned | _from_elsewhere(settings, learned, classes, load_clip)
        epochs = checkpoint.read_epochs(Path(settings.output), metadata["method"]) if settings.evaluate.epochs else {}
        sets = scored_sets(settings.evaluate, embeddings, epochs)
        identity = {
            "sets": {name: digest(s.class_embeddings.numpy().tobytes()) for name, s in sets.items()},
            "images": digest(list(map(stamp, images.paths))),
            "clip": metadata["identity"]["clip"],
            "device": on,
            **config.shaping(settings, "scores", "digits"),
        }
        labels = digest(images.labels.contiguous().numpy().tobytes())
        made_from = digest([
            identity, labels, images.left_out, list(map(str, images.missing)), settings.seed,
            config.shaping(settings, "metrics", "intervals"),
        ])  # fmt: skip
        path = Path(settings.output) / "result.json"
        if not again and (result := finished(path, made_from)):
            if rank == 0:
                print(f"{table.render(result)}\n\n{path} is of these very settings; --again measures anew")
                _warn_of_changed_sources(result)
            return result
        model = load_clip()
        if settings.evaluate.compile:
            model.image.compile()
        file = ScoreFile(Path(settings.output) / "scores", sets, len(images.paths), len(classes), identity)
        if rank == 0:
            print(f"{len(sets)} sets of class embeddings in one pass; scores: {file.bytes / 1e9:.2f} GB in {file.folder}")
            file.open()
        barrier()
        clock = one_pass.fill(file.open(), model, images.paths, sets, settings.evaluate, rank, world)
        barrier()
        if rank:
            return None
        found = summarise(settings, metadata, classes, images, embeddings, epochs, file)
        result = Result(**found, made_from=made_from, seconds=seconds(clock, began))
        result.save(path)
        file.delete()
        print(f"{table.render(result)}\n\nresult file: {path}")
        return result


def _from_elsewhere(settings, learned, classes, load_clip):
    """{row: class embeddings} that the configuration names files for."""
    width = next(iter(learned.values())).shape[1]
    found = {}
    for row, path in settings.rows.items():
        if row in learned:
            raise ValueError(f"rows.{row}: the run has a row of this name; choose another")
        found[row] = rows.read(path, classes, load_clip, settings.cache)
        if found[row].shape[1] != width:
            raise ValueError(f"rows.{row}: expected class embeddings of {width} dimensions, got {found[row].shape[1]}")
    return found


def scored_sets(
    settings: config.EvaluateConfig, embeddings: dict[str, torch.Tensor], epochs: dict[int, torch.Tensor]
) -> dict[str, ScoredSet]:
    """Rows by all their scorers, in parts if these are measured too; epochs by the last scorer, which is the method's."""

    def scorers(row):
        return {key: partial(_score, key, settings) for key in rows.scorers(row, settings)}

    parts = PARTS if settings.diagnostics else ("total",)
    sets = {row: ScoredSet(z, scorers(row), parts) for row, z in embeddings.items()}
    method = dict([list(scorers(rows.BASELINE).items())[-1]])
    return sets | {f"epoch/{epoch}": ScoredSet(z, method) for epoch, z in epochs.items()}


def _score(key, settings, features, class_embeddings):
    return rows.SCORERS[key].score(features, class_embeddings, settings)


def summarise(
    settings: Config,
    metadata: dict[str, Any],
    classes: ClassList,
    images: ImageSet,
    embeddings: dict[str, torch.Tensor],
    epochs: dict[int, torch.Tensor],
    file: ScoreFile,
) -> dict[str, Any]:
    """The fields of the result, from a finished ScoreFile."""
    e = settings.evaluate
    good, broken = _readable(settings, images, file)
    used = {task: task_images(images.labels, f, settings.dataset.keep_unlabelled) & good for task, f in classes.tasks.items()}
    if empty := [task for task, mask in used.items() if not mask.any()]:
        raise ValueError(f"{empty[0]}: none of its images can be read")
    tables = {(row, scorer): file.total(row, scorer) for row in embeddings for scorer in rows.scorers(row, e)}
    measured = measure_all(tables, images.labels, used, classes, e.top_k, e.bootstrap, settings.seed)
    out = {key: {} for key in ("rows", "class_ap", "decided_by_ties", "diagnostics")}
    for task, first in classes.tasks.items():
        for (row, scorer), found in measured[task].items():
            values = {
                "rows": compare(measured[task], (row, scorer), rows.BASELINE),
                "class_ap": [round(100 * ap, 4) for ap in found.class_ap.tolist()],
                "decided_by_ties": {str(k): n for k, n in found.decided_by_ties.items()},
            }
            if e.diagnostics:
                values["diagnostics"] = {
                    part.removesuffix("_part"): measure(file[row, scorer, part], images.labels, first, used[task]).values["mAP"]
                    for part in PARTS
                }
            for key, value in values.items():
                out[key].setdefault(row, {}).setdefault(scorer, {})[task] = value
    last = rows.scorers(rows.BASELINE, e)[-1]
    points = curve({n: file.total(f"epoch/{n}", last) for n in epochs}, images.labels, used, classes, e.top_k)
    counted = Images(
        used=int(good.sum()), left_out_without_labels=images.left_out, missing=len(images.missing), unreadable=len(broken),
        tasks={task: _count(images.labels[mask][:, classes.tasks[task] :]) for task, mask in used.items()},
    )  # fmt: skip
    doubts = _doubts(settings, classes, images, counted)
    return out | {
        "method": metadata["method"],
        "class_names": list(classes.names),
        "seen": classes.seen,
        "coinciding": {row: groups for row, z in embeddings.items() if (groups := coinciding_classes(z, classes))},
        "epochs": points,
        "best_on_test": best_on_test(points, e.top_k),
        "images": counted,
        "comparable": not doubts,
        "doubts": doubts,
        "learning": metadata["learning"],
        "class_fingerprint": classes.fingerprint,
        "corpus_fingerprint": metadata["identity"]["corpus"],
        "weights_sha256": metadata["weights_sha256"],
        "seed": settings.seed,
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "sources": provenance.sources(provenance.MEASURING),
        "config": config.to_dict(settings),
    }


def _readable(settings, images, file):
    """((B,) bool whether an image could be read, {image: why not}); ValueError where that is not allowed."""
    done, broken = file.done()
    size = settings.evaluate.batch_size
    if len(done) != -(-len(images.paths) // size):
        raise ValueError(f"{len(done)} batches of images are scored, not all; run the same command again")
    if broken and (not settings.dataset.allow_missing or len(broken) == len(images.paths)):
        listed = "\n  ".join(f"{images.paths[i]}: {why}" for i, why in sorted(broken.items())[:10])
        file.forget({i // size for i in broken})  # the others need not be scored again
        raise ValueError(
            f"{len(broken)} of {len(images.paths)} images cannot be read:\n  {listed}\n"
            "dataset.allow_missing=true goes on without them, and every table will say so"
        )
    good = torch.ones(len(images.paths), dtype=torch.bool)
    good[list(broken)] = False
    return good, broken


def _count(labels):
    return TaskImages(images=len(labels), positives_per_image=(labels == 1).sum().item() / len(labels))


def _doubts(settings, classes, images, counted):
    """Why the result is not one on the paper's classes and test set; empty if it is."""
    paper, doubts = datasets.DATASETS[settings.dataset.kind], []
    if paper.positives_per_image is None:
        doubts.append("the paper does not measure this data set")
    elif classes.fingerprint != paper.class_names_sha256:
        doubts.append("the class list is not the paper's")
    for task, first in classes.tasks.items():
        found, expected = int((images.labels[:, first:] == 1).any(1).sum()), settings.dataset.expected_images.get(task)
        if expected not in (None, found):
            doubts.append(f"{task.upper()}: {found:,} images have a positive label, {expected:,} were expected")
        if paper.positives_per_image:
            per_image, expected = counted.tasks[task].positives_per_image, paper.positives_per_image[task]
            off = abs(per_image / expected - 1)
            if off > 0.01:
                doubts.append(
                    f"{task.upper()}: {per_image:.3f} positives an image, the paper's own rows imply {expected}, "
                    f"{100 * off:.0f} % off: not its test set"
                )
    if counted.missing or counted.unreadable:
        doubts.append(f"{counted.missing} missing and {counted.unreadable} unreadable images were left out")
    if settings.dataset.keep_unlabelled:
        doubts.append("images without a positive label were kept")
    return doubts


def coinciding_classes(class_embeddings: torch.Tensor, classes: ClassList) -> list[list[str]]:
    """Groups of classes that have the same embedding, up to rounding: no score can tell them apart."""
    groups = {}
    for i, first in enumerate(one_pass.coinciding(class_embeddings)):
        groups.setdefault(first, []).append(classes.names[i])
    return [names for names in groups.values() if len(names) > 1]


def stamp(path: Path) -> str:
    """An image file as it is now: its path, size and time of change."""
    found = path.stat()
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def finished(path: Path, made_from: str) -> Result | None:
    """The result in `path` if it was made from the same."""
    try:
        result = Result.load(path)
    except (OSError, ValueError):
        return None
    return result if result.made_from == made_from else None


def _warn_of_changed_sources(result):
    if changed := provenance.changed_sources(result.sources, provenance.sources(provenance.MEASURING)):
        print(f"WARNING: the code has changed since: {', '.join(changed)}; --again measures anew")


def seconds(clock: Clock, began: float) -> dict[str, float]:
    """Where the time of this process's last pass went; says so when the decoding of images held up the tower."""
    total = time.perf_counter() - began
    if clock.waiting > 0.1 * (clock.encoding + clock.scoring):
        print(f"waited {clock.waiting:.0f} s for images to be decoded; evaluate.workers={2 * os.cpu_count()} may help")
    return {
        "total": total, "waiting_for_images": clock.waiting, "image_tower": clock.encoding, "scores": clock.scoring,
        "images": clock.images,
    }  # fmt: skip
