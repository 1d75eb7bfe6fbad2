"""Metrics of all rows, with intervals and paired differences, from tables of scores that need not fit into memory."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from rcnn.config import EvaluateConfig
from rcnn.results import metrics
from rcnn.results.result import Metric, Number, TaskClasses
from rcnn.score.score_file import Known, Mean, SparseScores
from rcnn.score.standardised import Standardised

COLUMNS, IMAGES = 64, 1024  # classes, images whose scores are in memory at a time

# (B, C) scores, which are sliced and not changed, or those of them that metrics need
ByImage = np.ndarray | Mean | Standardised | SparseScores

DEFAULTS = EvaluateConfig()


def task_images(labels: torch.Tensor, first: int, keep_unlabelled: bool = False) -> torch.Tensor:
    """(B,) whether a task is measured on an image: it has a positive label in the columns from `first`, or all are kept."""
    return torch.full((len(labels),), keep_unlabelled) | (positives(labels, first) > 0)


def positives(labels: torch.Tensor, first: int) -> torch.Tensor:
    """(B,) positive labels of every image in the columns from `first`."""
    out = torch.empty(len(labels), dtype=torch.int64)  # at once: what is kept between large blocks makes the heap grow
    for part, of_images in zip(labels[:, first:].split(IMAGES), out.split(IMAGES), strict=True):
        of_images[:] = (part == 1).sum(1)
    return out


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


def positive_or_unknown(labels: torch.Tensor, first: int, used: torch.Tensor) -> torch.Tensor:
    """(C,) bool, the classes from the column `first` with a positive and no absent label among the images `used`, (B,) bool."""
    found = torch.zeros(2, labels.shape[1], dtype=torch.bool)
    for part, mask in zip(labels.split(IMAGES), used.split(IMAGES), strict=True):
        found |= torch.stack([(part[mask] == value).any(0) for value in (1, -1)])
    positive, absent = found
    return positive & ~absent & (torch.arange(labels.shape[1]) >= first)


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
    as_absent: torch.Tensor | None = None,
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
        settings: of these `classes_without_positives`.
        as_absent: (C,) bool, classes whose unknown labels count as absent in average precision; None for none.
    """
    if as_absent is None:
        as_absent = torch.zeros(labels.shape[1], dtype=torch.bool)
    precision, resampled_precision, meant = [], [], []
    weights = None if weights is None else weights.float()
    for ranked, in_mean in _ranked(by_image, labels, first, used, settings, as_absent):
        meant.append(in_mean)
        precision.append(metrics.ranked_precision(ranked))
        if weights is not None:
            resampled_precision.append(metrics.ranked_precision(ranked, weights))
    class_ap, meant = torch.cat(precision), torch.cat(meant)
    values = {"mAP": 100 * class_ap[meant].mean().item()}
    resampled = {} if weights is None else {"mAP": 100 * torch.cat(resampled_precision, 1)[:, meant].mean(1).double()}
    counted = _counted(by_image, labels, first, used, [k for k in top_k if k <= labels.shape[1] - first])
    decided = {}
    for k, (hits, shown, tied) in counted.items():
        decided[k] = int(tied.sum())
        names = [f"{letter}@{k}" for letter in ("P", "R", "F1")]
        values |= zip(names, (100 * metrics.precision_recall_f1(hits, shown, k)).tolist(), strict=True)
        if weights is not None:
            resampled |= zip(names, (100 * metrics.precision_recall_f1(hits, shown, k, weights)).T, strict=True)
    return Measured(values, resampled, class_ap.where(meant, torch.nan), decided)


def _ranked(by_image, labels, first, used, settings, as_absent):
    """(Rankings, (c,) bool whether they are in the mean) of the classes from `first`, a part of them at a time."""
    least = 1 if settings.classes_without_positives == "excluded" else -1
    if isinstance(by_image, SparseScores):
        yield _ranked_at_known_labels(by_image, labels, first, used, least, as_absent)
        return
    for columns, y in _blocks(labels, first, used):
        s = torch.from_numpy(np.ascontiguousarray(by_image[:, columns]))[used]
        in_mean = ((y != 0) & (y >= least)).any(0)
        yield metrics.rankings(s, y.where((y != 0) | ~as_absent[columns], -1)), in_mean


def _ranked_at_known_labels(scores, labels, first, used, least, as_absent):
    known, ranked, in_mean = scores.known, [], []
    number = used.cumsum(0) - 1  # of an image among those in use
    for column in range(first, labels.shape[1]):
        places = known.by_class[column] if column < len(known.by_class) else np.zeros(0, np.int64)
        images = torch.from_numpy(known.images[places])
        y = labels[images, column]
        in_mean.append(bool((used[images] & (y != 0) & (y >= least)).any()))
        if as_absent[column]:
            y = y.where(y != 0, -1)
        wanted = used[images] & (y != 0)
        s = torch.from_numpy(scores.values[places])[wanted]
        ranked.append(metrics.ranking(s, y[wanted], number[images[wanted]]))
    return ranked, torch.tensor(in_mean)


def _counted(by_image, labels, first, used, top_k):
    """{k: (hits, positives, whether ties decide)} of the images in use, see `metrics.top_k_hits`."""
    if isinstance(by_image, SparseScores):
        counts = torch.from_numpy(by_image.counts)[used]
        shown, places = positives(labels, first)[used].double(), by_image.known.places
        return {k: (counts[:, (place := places[first, k])], shown, counts[:, place + 1].bool()) for k in top_k}
    parts = {k: [] for k in top_k}
    for start in range(0, len(labels) if top_k else 0, IMAGES):
        part = slice(start, start + IMAGES)
        s, y = torch.from_numpy(by_image[part, first:])[used[part]], labels[part, first:][used[part]]
        for k in top_k:
            parts[k].append(metrics.top_k_hits(s, y, k))
    return {k: tuple(torch.cat(p) for p in zip(*found, strict=True)) for k, found in parts.items()}


def known_labels(
    labels: torch.Tensor, tasks: Mapping[str, int], top_k: Sequence[int], as_absent: Mapping[str, torch.Tensor]
) -> Known:
    """What is to be kept of scores so that `measure` finds everything for the tasks, {name: first column}."""
    pairs = [(first, k) for first in tasks.values() for k in top_k if k <= labels.shape[1] - first]

    def count(scores: torch.Tensor, images: range) -> torch.Tensor:
        out = []
        for first, k in pairs:
            hits, _, tied = metrics.top_k_hits(scores[:, first:], labels[images.start : images.stop, first:], k)
            out += [hits, tied.double()]
        return torch.stack(out, 1) if out else scores.new_zeros(len(images), 0).double()

    whole = torch.stack([*as_absent.values(), torch.zeros(labels.shape[1], dtype=torch.bool)]).any(0)
    return Known(labels, whole, count, {pair: 2 * i for i, pair in enumerate(pairs)}, 2 * len(pairs))


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


def best_on_test(epochs: list[dict], top_k: Sequence[int]) -> dict[str, dict]:
    """The epoch with the best F1 on the test images for every task: how the authors' code chooses, and not our result."""
    metric = f"F1@{min(top_k)}" if top_k else "mAP"
    tasks = [task for task in epochs[0] if task != "epoch"] if epochs else []
    best = {task: max(epochs, key=lambda e: e[task].get(metric, e[task]["mAP"])) for task in tasks}
    return {task: {"epoch": e["epoch"], **e[task]} for task, e in best.items()}
