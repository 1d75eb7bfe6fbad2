"""Metrics of all rows, with intervals and paired differences, from tables of scores that need not fit into memory."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from rcnn.config import EvaluateConfig
from rcnn.progress import progress
from rcnn.results import metrics
from rcnn.results.result import STANDARDISED, Metric, Number, TaskClasses
from rcnn.score.score_file import Mean
from rcnn.score.standardised import Standardised
from rcnn.text.classes import ClassList

COLUMNS, IMAGES = 64, 1024  # classes, images whose scores are in memory at a time

ByImage = np.ndarray | Mean | Standardised  # (B, C) scores, which are sliced and not changed

DEFAULTS = EvaluateConfig()


def task_images(labels: torch.Tensor, first: int, keep_unlabelled: bool = False) -> torch.Tensor:
    """(B,) whether a task is measured on an image: it has a positive label in the columns from `first`, or all are kept."""
    return torch.full((len(labels),), keep_unlabelled) | (positives(labels, first) > 0)


def positives(labels: torch.Tensor, first: int) -> torch.Tensor:
    """(B,) positive labels of every image in the columns from `first`."""
    return torch.cat([(part == 1).sum(1) for part in labels[:, first:].split(IMAGES)])


def count_classes(labels: torch.Tensor, first: int, used: torch.Tensor) -> TaskClasses:
    """How many of the classes of a task have which labels on its images, (B,) bool `used`."""
    parts = [torch.stack([(y == value).any(0) for value in (1, -1, 0)]) for _, y in _blocks(labels, first, used)]
    positive, absent, unknown = torch.cat(parts, 1)
    return TaskClasses(
        scored=len(positive),
        known=int((positive | absent).sum()),
        positive=int(positive.sum()),
        positive_or_unknown=int((positive & ~absent & unknown).sum()),
    )


def _blocks(labels, first, used):
    """(slice, (B', up to COLUMNS) labels of the images in use) of the classes from `first`."""
    for start in range(first, labels.shape[1], COLUMNS):
        columns = slice(start, start + COLUMNS)
        yield columns, labels[used, columns]


class Measured(NamedTuple):
    """Metrics of one table of scores on one task."""

    values: dict[str, float]  # metric -> percent
    resampled: dict[str, torch.Tensor]  # metric -> (R,) percent; empty without weights
    class_ap: torch.Tensor  # (C',) average precision of the classes that the task scores, in [0, 1]; NaN: not in the mean
    decided_by_ties: dict[int, int]  # k -> images whose hits among the top k depend on the order of tied classes


def measure(
    by_image: ByImage,
    labels: torch.Tensor,
    first: int,
    used: torch.Tensor,
    top_k: Sequence[int] = (),
    weights: torch.Tensor | None = None,
    settings: EvaluateConfig = DEFAULTS,
) -> Measured:
    """Metrics in bounded memory: classes and images are taken a part at a time.

    A class without a known label among the images is in no mean. Which other classes are, and which images a class is ranked
    against, is decided by all images of the task, not by those that a resample draws.

    Args:
        labels: (B, C) in {1, -1, 0}.
        first: first column that the task scores.
        used: (B,) bool, the images of the task.
        top_k: k of precision, recall, F1; those above the number of classes are left out.
        weights: (R, B') bootstrap weights of the images in use, or None; fastest as `image_weights` makes them.
        settings: of these `unknown` and `classes_without_positives`.
    """
    precision, resampled_precision, meant = [], [], []
    weights = None if weights is None else weights.float()
    for columns, y in _blocks(labels, first, used):
        s = torch.from_numpy(np.ascontiguousarray(by_image[:, columns]))[used]
        meant.append((y == 1).any(0) if settings.classes_without_positives == "excluded" else (y != 0).any(0))
        if settings.unknown == "with_negatives":
            y = metrics.unknown_as_in_the_authors_code(y)
        ranked = metrics.rankings(s, y)
        precision.append(metrics.ranked_precision(ranked))
        if weights is not None:
            resampled_precision.append(metrics.ranked_precision(ranked, weights))
    class_ap, meant = torch.cat(precision), torch.cat(meant)
    values = {"mAP": 100 * class_ap[meant].mean().item()}
    resampled = {} if weights is None else {"mAP": 100 * torch.cat(resampled_precision, 1)[:, meant].mean(1).double()}
    counted = {k: [] for k in top_k if k <= labels.shape[1] - first}
    for start in range(0, len(labels) if counted else 0, IMAGES):
        part = slice(start, start + IMAGES)
        s, y = torch.from_numpy(by_image[part, first:])[used[part]], labels[part, first:][used[part]]
        for k, parts in counted.items():
            parts.append(metrics.top_k_hits(s, y, k))
    decided = {}
    for k, parts in counted.items():
        hits, positives, tied = (torch.cat(p) for p in zip(*parts, strict=True))
        decided[k] = int(tied.sum())
        names = [f"{letter}@{k}" for letter in ("P", "R", "F1")]
        values |= zip(names, (100 * metrics.precision_recall_f1(hits, positives, k)).tolist(), strict=True)
        if weights is not None:
            resampled |= zip(names, (100 * metrics.precision_recall_f1(hits, positives, k, weights)).T, strict=True)
    return Measured(values, resampled, class_ap.where(meant, torch.nan), decided)


def measure_all(
    tables: dict[str, dict[tuple[str, str], ByImage]],
    labels: torch.Tensor,
    used: dict[str, torch.Tensor],
    classes: ClassList,
    settings: EvaluateConfig,
    seed: int,
    standardised: Sequence[tuple[str, str]] = (),
) -> dict[str, dict[tuple[str, str], Measured]]:
    """{task: {(row, scorer): Measured}} of all `tables`, {task: {(row, scorer): (B, C) scores}}; see `measure`.

    `used` is {task: (B,) bool}. Images are resampled the same for all rows. The tables in `standardised` are measured in this
    form as well, under their row's key followed by STANDARDISED.
    """
    out = {}
    for task, first in classes.tasks.items():
        weights = image_weights(int(used[task].sum()), settings.bootstrap, [seed, first])
        also = {(row + STANDARDISED, scorer): (row, scorer) for row, scorer in standardised}
        out[task] = {}
        for row in progress([*tables[task], *also], f"metrics {task}", unit="row"):
            by_image = Standardised(tables[task][also[row]], first, used[task].numpy()) if row in also else tables[task][row]
            out[task][row] = measure(by_image, labels, first, used[task], settings.top_k, weights, settings)
    return out


def image_weights(images: int, resamples: int, seed: Sequence[int]) -> torch.Tensor | None:
    """(R, B) float32: how often each resample of as many images draws each of them; None for no resamples.

    Stored image by image, as average precision reads them, and drawn a few resamples at a time.
    """
    if not resamples:
        return None
    rng, by_image = np.random.default_rng(seed), torch.empty(images, resamples)
    for part in by_image.split(metrics.RESAMPLES, dim=1):
        part[:] = torch.from_numpy(rng.multinomial(images, np.full(images, 1 / images), part.shape[1])).T
    return by_image.T


def compare(measured: dict[tuple[str, str], Measured], row: tuple[str, str], baseline: str) -> dict[str, Metric]:
    """{metric: Metric} of one (row, scorer) among all that are measured on a task, with its differences.

    A row is compared with the row `baseline` by the same scorer; under another scorer than "plain" also with itself by "plain".
    """
    own, out = measured[row], {}
    others = {"versus_baseline": (baseline, row[1]), "versus_plain": (row[0], "plain")}
    others = {name: measured[other] for name, other in others.items() if other != row and other in measured}
    for name, value in own.values.items():
        sampled = own.resampled.get(name)
        differences = {
            key: with_interval(value - other.values[name], None if sampled is None else sampled - other.resampled[name])
            for key, other in others.items()
        }
        out[name] = Metric(**with_interval(value, sampled).model_dump(), **differences)
    return out


def with_interval(value: float, samples: torch.Tensor | None) -> Number:
    """A value and, if it was resampled, the interval of 95 % of the (R,) samples.

    The samples are shifted so that their mean is the value: average precision of a resample is a little too high, since an
    image drawn twice ranks beside itself, or too low, where a class has lost its positives.
    """
    if samples is None:
        return Number(value=value)
    shifted = samples - samples.mean() + value
    low, high = torch.quantile(shifted, samples.new_tensor([0.025, 0.975])).tolist()
    return Number(value=value, interval=(low, high))


def curve(
    tables: dict[int, ByImage],
    labels: torch.Tensor,
    used: dict[str, torch.Tensor],
    classes: ClassList,
    settings: EvaluateConfig,
) -> list[dict]:
    """Metrics of every epoch: [{"epoch", task: {metric: value}}], from {epoch: (B, C) scores}."""
    return [
        {"epoch": epoch}
        | {
            task: measure(by_image, labels, first, used[task], settings.top_k, settings=settings).values
            for task, first in classes.tasks.items()
        }
        for epoch, by_image in progress(tables.items(), "metrics of the epochs", unit="epoch")
    ]


def best_on_test(epochs: list[dict], top_k: Sequence[int]) -> dict[str, dict]:
    """The epoch with the best F1 on the test images for every task: how the authors' code chooses, and not our result."""
    metric = f"F1@{min(top_k)}" if top_k else "mAP"
    tasks = [task for task in epochs[0] if task != "epoch"] if epochs else []
    best = {task: max(epochs, key=lambda e: e[task].get(metric, e[task]["mAP"])) for task in tasks}
    return {task: {"epoch": e["epoch"], **e[task]} for task, e in best.items()}
