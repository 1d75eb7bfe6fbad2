"""From scores to a result: what is measured, and what a reader must know of it."""

import math
from typing import Any

import torch

from rcnn import config, provenance, rows
from rcnn.datasets import DATASETS
from rcnn.datasets.images import ImageSet
from rcnn.learn.class_embeddings import coinciding_names
from rcnn.results.measure import best_on_test, compare, count_classes, positives, task_images
from rcnn.results.measuring import Measurements
from rcnn.results.result import STANDARDISED, Images, TaskImages
from rcnn.text.classes import ClassList

BACKBONE = ("ViT-B-16-quickgelu", "openai")  # clip.model and clip.pretrained of the paper


def summarise(
    settings: config.Config,
    metadata: dict[str, Any],
    classes: ClassList,
    images: ImageSet,
    embeddings: dict[str, torch.Tensor],
    measured: Measurements,
    used: dict[str, torch.Tensor],
    unreadable: int,
) -> dict[str, Any]:
    """The fields of the result.

    Args:
        used: (B,) bool by task, the images that it was measured on.
        unreadable: how many images could not be read.
    """
    of_classes = {task: count_classes(images.labels, classes.tasks[task], mask) for task, mask in used.items()}
    last = rows.method_scorer(settings.evaluate)
    out = {key: {} for key in ("rows", "class_ap", "decided_by_ties", "diagnostics")}
    for task, by_key in measured.rows.items():
        for (row, scorer), found in by_key.items():
            values = {
                "rows": compare(by_key, (row, scorer), rows.BASELINE),
                "class_ap": [None if math.isnan(ap) else round(100 * ap, 4) for ap in found.class_ap.tolist()],
                "decided_by_ties": {str(k): n for k, n in found.decided_by_ties.items()},
            }
            if (row, scorer) in measured.parts:
                values["diagnostics"] = measured.parts[row, scorer][task]
            for key, value in values.items():
                out[key].setdefault(row, {}).setdefault(scorer, {})[task] = value
    points = [{"epoch": epoch, **by_task} for epoch, by_task in measured.epochs.items()]
    labels = {}
    for row, scorers in out["rows"].items():
        known = row.removesuffix(STANDARDISED)
        labels[row] = {key: rows.label(known, key) for key in scorers}
        if row != known:
            labels[row][last] += ", standardised (transductive)"
    shown = {task: positives(images.labels, classes.tasks[task])[mask] for task, mask in used.items()}
    counted = Images(
        used=len(images.paths) - unreadable,
        left_out_without_labels=images.left_out,
        missing=len(images.missing),
        unreadable=unreadable,
        unverified=images.unverified,
        tasks={task: TaskImages(images=len(n), positives_per_image=n.sum().item() / len(n)) for task, n in shown.items()},
    )
    doubts = _doubts(settings, classes, images, counted)
    return out | {
        "method": metadata["method"],
        "class_names": list(classes.names),
        "seen": classes.seen,
        "coinciding": {row: groups for row, z in embeddings.items() if (groups := coinciding_names(z, classes.names))},
        "epochs": points,
        "best_on_test": best_on_test(points, settings.evaluate.top_k),
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
