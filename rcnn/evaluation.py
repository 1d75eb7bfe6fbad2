"""An evaluation from end to end: the rows of a run and others, one pass over the images, and the result."""

import time
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch

from rcnn import checkpoint, config, datasets, progress, provenance, rows, runtime
from rcnn.config import Config, EvaluateConfig
from rcnn.datasets.images import ImageSet
from rcnn.files import digest
from rcnn.learn import elsewhere
from rcnn.learn.class_embeddings import coinciding_names
from rcnn.results import table
from rcnn.results.measure import best_on_test, compare, curve, measure, measure_all, task_images
from rcnn.results.result import Images, Result, TaskImages
from rcnn.score import one_pass, processes, views
from rcnn.score.score_file import ScoredSet, ScoreFile
from rcnn.text.classes import ClassList

PARTS = ("global_part", "local_part")
BACKBONE = ("ViT-B-16-quickgelu", "openai")  # clip.model and clip.pretrained of the paper


def evaluate(settings: Config, images: ImageSet, classes: ClassList, again: bool = False) -> Result | None:
    """Evaluate the run in settings.output on images; write its result.json, print the table.

    Started by torchrun, every process scores its share, and the first one measures and writes.

    Args:
        settings: its dataset, evaluate and rows sections say what is measured.
        images: the images and their labels.
        classes: those of the run.
        again: forget the scores and the result that there may be of these very settings.

    Returns:
        the result; None in the other processes, if it was measured now.
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
        learned, metadata = checkpoint.read_run(output)
        changed = provenance.changed_sources(metadata["sources"], provenance.sources(provenance.LEARNING))
        if changed and rank == 0:
            print(f"WARNING: the code has changed since this run was learned: {', '.join(changed)}")
        load_clip = cache(partial(runtime.load_clip, settings, metadata, settings.evaluate.precision))
        if rank:
            barrier()  # sentences from elsewhere are encoded once, by the first process
        embeddings = learned | _from_elsewhere(settings, learned, classes, load_clip)
        if rank == 0:
            barrier()
        epochs = checkpoint.read_epochs(output, metadata["method"]) if settings.evaluate.epochs else {}
        sets = scored_sets(settings.evaluate, embeddings, epochs)
        scored = {
            "sets": {name: digest(s.class_embeddings.numpy().tobytes()) for name, s in sets.items()},
            "images": digest([_stamp(path) for path in images.paths]),
            "clip": metadata["identity"]["clip"],
            "device": on,
            **config.shaping(settings, "scores", "digits"),
        }
        made_from = digest([
            scored, digest(images.labels.contiguous().numpy().tobytes()), images.left_out, list(map(str, images.missing)),
            settings.seed, config.shaping(settings, "metrics", "intervals"),
        ])  # fmt: skip
        path, sources = output / "result.json", provenance.sources(provenance.MEASURING)
        # scores of other code are not continued
        file = ScoreFile(output / "scores", sets, len(images.paths), len(classes), [scored, sources])
        if again and rank == 0:
            path.unlink(missing_ok=True)
            file.delete()
        barrier()
        if result := finished(path, made_from):
            if rank == 0:
                print(f"{table.render(result)}\n\n{path} is of these very settings; --again measures anew")
                if changed := provenance.changed_sources(result.sources, sources):
                    print(f"WARNING: the code has changed since: {', '.join(changed)}; --again measures anew")
            return result
        model = load_clip()
        if settings.evaluate.compile:
            model.image.compile()
        if rank == 0:
            print(f"{len(sets)} sets of class embeddings in one pass; scores: {file.bytes / 1e9:.2f} GB in {file.folder}")
            file.open()
        barrier()
        clock = one_pass.fill(file.open(), model, images.paths, sets, settings.evaluate, rank, world)
        barrier()
        if rank:
            return None
        found = summarise(settings, metadata, classes, images, embeddings, epochs, file)
        took = _seconds(clock, began, settings.evaluate.workers)
        result = Result(**found, made_from=made_from, sources=sources, seconds=took)
        result.save(path)
        file.delete()
        print(f"{table.render(result)}\n\nresult file: {path}")
        return result


def check(settings: Config, images: ImageSet, classes: ClassList) -> None:
    """ValueError or FileNotFoundError for what would stop an evaluation later on, after long work."""
    for task, first in classes.tasks.items():
        if not (images.labels[:, first:] == 1).any():
            raise ValueError(f"{task}: no image shows any of the {len(classes) - first} classes that it scores")
    for row, path in settings.rows.items():
        if row in rows.ROWS or "/" in row:
            raise ValueError(f"rows.{row}: expected a name of your own, without '/'; the comparison has a row {row}")
        if not Path(path).is_file():
            raise FileNotFoundError(f"rows.{row}: there is no file {path}")


def _from_elsewhere(settings, learned, classes, load_clip):
    """{row: class embeddings} that the configuration names files for."""
    width = learned[rows.BASELINE].shape[1]
    return {row: elsewhere.read(path, classes, width, load_clip, settings.cache) for row, path in settings.rows.items()}


def scored_sets(
    settings: EvaluateConfig, embeddings: dict[str, torch.Tensor], epochs: dict[int, torch.Tensor]
) -> dict[str, ScoredSet]:
    """Rows by all their scorers, in parts if these are measured too; epochs by the last scorer, which is the method's."""
    scorers = {key: partial(scorer.score, settings=settings) for key, scorer in rows.SCORERS.items()}
    in_parts = tuple(key for key, scorer in rows.SCORERS.items() if scorer.has_parts and settings.diagnostics)
    sets = {}
    for row, z in embeddings.items():
        sets[row] = ScoredSet(z, {key: scorers[key] for key in rows.scorers(row, settings)}, in_parts)
    last = rows.scorers(rows.BASELINE, settings)[-1]
    return sets | {f"epoch/{epoch}": ScoredSet(z, {last: scorers[last]}) for epoch, z in epochs.items()}


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
            if e.diagnostics and rows.SCORERS[scorer].has_parts:
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
        "coinciding": {row: groups for row, z in embeddings.items() if (groups := coinciding_names(z, classes.names))},
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
        "labels": {row: {key: rows.label(row, key) for key in rows.scorers(row, e)} for row in embeddings},
        "clip_fingerprint": metadata["identity"]["clip"],
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
    elif (settings.clip.model, settings.clip.pretrained) != BACKBONE:
        doubts.append(f"the backbone is {settings.clip.model} ({settings.clip.pretrained}), the paper's is OpenAI's ViT-B/16")
    if paper.class_names_sha256 not in (None, classes.fingerprint):
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


def _stamp(path):
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


def _seconds(clock, began, workers):
    """Where the time of this process's last pass went; says so when the decoding of images held up the tower."""
    if clock.waiting > 0.1 * (clock.encoding + clock.scoring) and workers < views.available_cores():
        print(f"waited {clock.waiting:.0f} s for images to be decoded; evaluate.workers={views.available_cores()} may help")
    return {
        "total": time.perf_counter() - began, "waiting_for_images": clock.waiting, "image_tower": clock.encoding,
        "scores": clock.scoring, "images": clock.images,
    }  # fmt: skip
