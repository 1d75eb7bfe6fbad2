"""From scores to a result: what is measured, and what a reader must know of it."""

import itertools
import math
from typing import Any

import torch

from rcnn import config, provenance, rows
from rcnn.datasets import DATASETS
from rcnn.datasets.images import ImageSet
from rcnn.learn.class_embeddings import coinciding_names
from rcnn.results.measure import (
    best_on_test,
    compare,
    count_classes,
    curve,
    measure,
    measure_all,
    positives,
    task_images,
)
from rcnn.results.result import STANDARDISED, Images, TaskImages
from rcnn.score import tagclip_pass
from rcnn.score.score_file import PARTS, ScoreFile
from rcnn.text.classes import ClassList

BACKBONE = ("ViT-B-16-quickgelu", "openai")  # clip.model and clip.pretrained of the paper


def summarise(
    settings: config.Config,
    metadata: dict[str, Any],
    classes: ClassList,
    images: ImageSet,
    embeddings: dict[str, torch.Tensor],
    epochs: dict[int, torch.Tensor],
    file: ScoreFile,
    tags: ScoreFile | None = None,
) -> dict[str, Any]:
    """The fields of the result, from a finished ScoreFile, and that of TagCLIP if it was asked for."""
    e = settings.evaluate
    good, broken = _readable(settings, images, [file, tags] if tags else [file])
    used = {task: task_images(images.labels, f, settings.dataset.keep_unlabelled) & good for task, f in classes.tasks.items()}
    of_classes = {task: count_classes(images.labels, classes.tasks[task], mask) for task, mask in used.items()}
    if empty := [task for task, found in of_classes.items() if not found.positive]:
        raise ValueError(f"{empty[0]}: none of the images that show its classes can be read")
    shared = file.totals(embeddings)
    tables = {task: dict(shared) for task in classes.tasks}
    for task, row in itertools.product(classes.tasks, rows.TAGCLIP if tags else ()):
        tables[task][row, "plain"] = tags.total(tagclip_pass.plane(row, task), "plain")
    last = rows.method_scorer(e)
    again = [(row, last) for row in dict.fromkeys((rows.BASELINE, metadata["method"])) if e.standardised]
    measured = measure_all(tables, images.labels, used, classes, e, settings.seed, again)
    out = {key: {} for key in ("rows", "class_ap", "decided_by_ties", "diagnostics")}
    for task, first in classes.tasks.items():
        for (row, scorer), found in measured[task].items():
            values = {
                "rows": compare(measured[task], (row, scorer), rows.BASELINE),
                "class_ap": [None if math.isnan(ap) else round(100 * ap, 4) for ap in found.class_ap.tolist()],
                "decided_by_ties": {str(k): n for k, n in found.decided_by_ties.items()},
            }
            if row in embeddings and file.has_parts(row, scorer):
                alone = {part: measure(file[row, scorer, part], images.labels, first, used[task], settings=e) for part in PARTS}
                values["diagnostics"] = {part.removesuffix("_part"): found.values["mAP"] for part, found in alone.items()}
            for key, value in values.items():
                out[key].setdefault(row, {}).setdefault(scorer, {})[task] = value
    points = curve({n: file.total(f"epoch/{n}", last) for n in epochs}, images.labels, used, classes, e)
    labels = {row: {key: rows.label(row, key) for key in scorers} for row, scorers in out["rows"].items()}
    labels |= {row + STANDARDISED: {last: f"{labels[row][last]}, standardised (transductive)"} for row, _ in again}
    counted = Images(
        used=int(good.sum()), left_out_without_labels=images.left_out, missing=len(images.missing), unreadable=len(broken),
        unverified=images.unverified,
        tasks={task: _count(positives(images.labels, classes.tasks[task])[mask]) for task, mask in used.items()},
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
        "classes": of_classes,
        "comparable": not doubts,
        "doubts": doubts,
        "learning": metadata["learning"],
        "class_fingerprint": classes.fingerprint,
        "corpus_fingerprint": metadata["identity"]["corpus"],
        "weights_sha256": metadata["weights_sha256"],
        "seed": settings.seed,
        "versions": provenance.versions(),
        "git_commit": provenance.git_commit(),
        "labels": labels,
        "clip_fingerprint": metadata["identity"]["clip"],
        "config": config.to_dict(settings),
    }


def _readable(settings, images, files):
    """((B,) bool whether an image could be read, {image: why not}), by all files; ValueError where that is not allowed."""
    broken = {}
    for file in files:
        done, unread = file.done()
        if len(done) < len(file.batches):
            raise ValueError(f"{len(done)} of {len(file.batches)} batches of images are scored; run the same command again")
        broken |= unread
    if broken and (not settings.dataset.allow_missing or len(broken) == len(images.paths)):
        listed = "\n  ".join(f"{images.paths[i]}: {why}" for i, why in sorted(broken.items())[:10])
        for file in files:
            file.forget({i // file.batch_size for i in broken})  # the others need not be scored again
        raise ValueError(
            f"{len(broken)} of {len(images.paths)} images cannot be read:\n  {listed}\n"
            "dataset.allow_missing=true goes on without them, and every table will say so"
        )
    good = torch.ones(len(images.paths), dtype=torch.bool)
    good[list(broken)] = False
    return good, broken


def _count(found):
    return TaskImages(images=len(found), positives_per_image=found.sum().item() / len(found))


def _doubts(settings, classes, images, counted):
    """Why the result is not one on the paper's classes and test set; empty if it is."""
    paper, doubts = DATASETS[settings.dataset.kind], []
    if paper.positives_per_image is None:
        doubts.append("the paper does not measure this data set")
    elif (settings.clip.model, settings.clip.pretrained) != BACKBONE:
        doubts.append(f"the backbone is {settings.clip.model} ({settings.clip.pretrained}), the paper's is OpenAI's ViT-B/16")
    if paper.class_names_sha256 not in (None, classes.fingerprint):
        doubts.append("the class list is not the paper's")
    for what, expected in paper.counts.items():
        if (found := images.counts.get(what, expected)) != expected:
            doubts.append(f"{found:,} {what}, {expected:,} were expected")
    for task, first in classes.tasks.items():
        found, expected = int(task_images(images.labels, first).sum()), settings.dataset.expected_images.get(task)
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
