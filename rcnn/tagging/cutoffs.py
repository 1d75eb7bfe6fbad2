"""Cut-offs: from which score on a class counts as being on a photo.

Scores of different classes cannot be compared: one class's cosines lie higher and wider than another's on all photos. So
every score is first measured in deviations z from its class's mean over the whole collection, which needs no labels.
Without labels all classes get the same z. With some checked photos, z is fitted, and moved for each class as far as its
own labels are to be trusted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from rcnn.files import read_json, sealed, unseal, write_json
from rcnn.printing import cut
from rcnn.tagging.tags import TOP

CUTOFFS = "cutoffs.json"  # in the folder of a run or a vocabulary

FEWEST = 30  # photos of a collection that has means and deviations: a mean then errs by less than a fifth of a deviation
COMMON = 0.16  # at most so many of all photos get a class without labels: z is 1 or more, which short lists need
STEPS = 40
PRICES = np.arange(1, STEPS)  # of a tag, in STEPS-ths of a hit
PRIOR = 4  # positives that weigh as much as all classes together; chosen of 1, 2, 4, 8, 16 on drawings of another seed
FOLDS = 10  # parts of the checked photos, each judged by cut-offs that are fitted to the others
RESAMPLES = 500  # of the photos, for intervals; as evaluate.bootstrap
KIND = "cut-offs of rcnn, 1"  # of a file, with the version of its contents


class Statistics:
    """Mean and deviation of each class's scores over a collection, from one pass over it."""

    def __init__(self, num_classes: int) -> None:
        self.count = 0
        self.mean = np.zeros(num_classes)
        self._squares = np.zeros(num_classes)  # sum of squared differences from the mean

    def add(self, scores: np.ndarray) -> None:
        """Count (b, C) scores of b more photos (Chan et al.'s update, which keeps the digits that sums of squares lose)."""
        if not len(scores):
            return
        mean, before = scores.mean(0, dtype=np.float64), self.count
        self.count += len(scores)
        step = mean - self.mean
        self._squares += ((scores - mean) ** 2).sum(0) + step**2 * before * len(scores) / self.count
        self.mean = self.mean + step * len(scores) / self.count

    def of(self, columns: Sequence[int]) -> "Statistics":
        """Those of some classes."""
        part = Statistics(len(columns))
        part.count, part.mean, part._squares = self.count, self.mean[columns], self._squares[columns]
        return part

    @property
    def std(self) -> np.ndarray:
        """(C,) standard deviations; 1 where the scores differ by rounding alone, so that no photo stands out there."""
        std = np.sqrt(self._squares / max(self.count, 1))
        return np.where(std > 1e-6, std, 1.0)

    def standardise(self, scores: np.ndarray) -> np.ndarray:
        """(N, C) scores in deviations from their class's mean."""
        return (scores - self.mean) / self.std


@dataclass(frozen=True, eq=False)
class Cutoffs:
    """A photo has a class if its score is at or above the class's threshold."""

    class_names: Sequence[str]  # C
    thresholds: np.ndarray  # (C,) float64
    identity: str  # digest of all that shapes scores: weights, class embeddings, grids, …
    facts: Mapping[str, Any]  # JSON-able: what they were fitted to, how good they are

    def save(self, path: str | Path) -> None:
        """Write them as JSON with a checksum."""
        plain = {"class_names": list(self.class_names), "thresholds": self.thresholds.tolist()}
        write_json(path, sealed({"kind": KIND, **asdict(self), **plain}))

    @classmethod
    def load(cls, path: str | Path, identity: str, class_names: Sequence[str]) -> "Cutoffs":
        """Read cut-offs for the scores of `identity`; ValueError if the file is damaged or its cut-offs are of other scores."""
        found, wrong = unseal(path, read_json(path)), None
        if found.pop("kind", None) != KIND:
            wrong = "no cut-offs of this version of the code"
        elif found["class_names"] != list(class_names):
            wrong = f"the cut-offs of another class list ({len(found['class_names'])} names, here {len(class_names)})"
        elif found["identity"] != identity:
            made_with = cut(str(found["facts"].get("made_with")))
            wrong = f"the cut-offs of another model, other class embeddings or other grids (fitted with {made_with})"
        if wrong:
            raise ValueError(f"{path} has {wrong}; run rcnn calibrate again, or move the file away")
        return cls(**{**found, "thresholds": np.array(found["thresholds"])})


def label_free(statistics: Statistics) -> np.ndarray:
    """(C,) thresholds without labels: z deviations above the class's mean, by which a photo gets TOP classes on average.

    That is where scores are normally distributed; it takes the place of a share of positives that nobody knows.
    """
    z = NormalDist().inv_cdf(1 - min(TOP / len(statistics.mean), COMMON))
    return statistics.mean + z * statistics.std


def must_suffice(present: np.ndarray, precision: float | None) -> None:
    """ValueError unless cut-offs can be fitted to labels like these (N, C), which is known before any photo is scored."""
    if len(present) < FOLDS:
        raise ValueError(f"expected at least {FOLDS} checked photos, better 50, got {len(present)}")
    if not present.any():
        raise ValueError("no checked photo shows any of the classes")
    if precision is not None and not 0 < precision <= 1:
        raise ValueError(f"precision: expected a share above 0 and at most 1, such as 0.9, got {precision}")


def fit(
    scores: np.ndarray,
    present: np.ndarray,
    statistics: Statistics,
    precision: float | None = None,
    known: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds from checked photos, for the best micro-F1, or for a precision with as many tags as it allows.

    At each of the PRICES, the chance of being right from which on a tag is worth giving, there is a best z for all labels
    together, and one for each class alone; a class with n positives gets the mean of the two, its own weighed by
    n / (n + PRIOR). The price is half the F1 that can be had, where F1 is highest, or the least that has the precision.

    Args:
        scores: (N, C) of the checked photos, which should be in an order that leaves similar ones together.
        present: (N, C) bool.
        statistics: of the collection.
        precision: wanted share of tags that are right, above 0 and at most 1.
        known: (N, C) bool, where only some labels of a photo are known; of the others nothing is read.

    Returns:
        ((C,) thresholds, (N, C) bool: what thresholds say of each photo that were fitted to other photos).

    Raises:
        ValueError: as `must_suffice`, or no thresholds have such a precision.
    """
    known = np.ones(present.shape, bool) if known is None else known
    present = present & known
    must_suffice(present, precision)
    z, part = statistics.standardise(scores), np.arange(len(scores)) * FOLDS // len(scores)
    # neighbours, which may show the same scene, are held out together
    rest = [part != i for i in range(FOLDS)]
    of_parts = np.stack([_shrunk(z[others], present[others], known[others]) for others in rest])  # (FOLDS, prices, C)

    def held_out(price: int) -> np.ndarray:
        return (z >= of_parts[part, price]) & known

    counts = [((tags := held_out(price)).sum(), (tags & present).sum()) for price in range(len(PRICES))]
    tags, hits = np.array(counts).T
    if precision is None:
        best_f1 = (2 * hits / (tags + present.sum())).max()
        chosen = np.abs(PRICES / STEPS - best_f1 / 2).argmin()
    else:
        found = hits / np.maximum(tags, 1)
        if found.max() < precision:
            raise ValueError(
                f"no cut-offs reach a precision of {precision} on held-out photos; the highest is {found.max():.2f}"
            )
        chosen = (found >= precision).argmax()
    return statistics.mean + _shrunk(z, present, known)[chosen] * statistics.std, held_out(chosen)


def _shrunk(z: np.ndarray, present: np.ndarray, known: np.ndarray) -> np.ndarray:
    """(prices, C) values of z from which on a class is given."""
    of_all = best(z[known][:, None], present[known][:, None])
    weight = (positives := present.sum(0)) / (positives + PRIOR)
    # what is unknown lies below all that is known, where one tag more is never worth its price
    lowest = np.where(known, z, np.inf).min(0)
    z = np.where(known, z, np.where(known.any(0), lowest, 0) - 1)
    return weight * best(z, present) + (1 - weight) * of_all


def best(z: np.ndarray, present: np.ndarray) -> np.ndarray:
    """(prices, C) values, each between two neighbouring z of a class, at which hits - price * tags is highest."""
    order = np.argsort(-z, axis=0, kind="stable")
    z, hits = np.take_along_axis(z, order, 0), np.take_along_axis(present, order, 0).cumsum(0)
    # one deviation above the highest, so that no photo has the class, or below the lowest
    upper, lower = np.concatenate([z[:1] + 1, z]), np.concatenate([z, z[-1:] - 1])
    hits, tags = np.concatenate([0 * hits[:1], hits]), np.arange(len(z) + 1)[:, None]
    found = []
    for price in PRICES:
        gain = np.where(upper > lower, STEPS * hits - price * tags, -STEPS * len(z))  # whole numbers; equal z stay together
        at = gain.argmax(0)[None]
        found.append((np.take_along_axis(upper, at, 0) + np.take_along_axis(lower, at, 0))[0] / 2)
    return np.array(found)


def assess(predicted: np.ndarray, present: np.ndarray, resamples: int = RESAMPLES) -> dict[str, list[float]]:
    """How well (N, C) predictions agree with what is present.

    Returns:
        {"micro F1": [value, low, high], …} of precision, recall and F1, micro over all labels and macro over the classes that
        are present, with 95 % intervals from resamples of the photos.
    """
    counts = np.hstack([predicted & present, predicted, present]).astype(np.float32)
    rng, n = np.random.default_rng(0), len(present)
    draws = (np.bincount(rng.integers(n, size=n), minlength=n).astype(np.float32) for _ in range(resamples))
    values = np.array([_measures(weights @ counts) for weights in (np.ones(n, np.float32), *draws)])
    low, high = np.quantile(values, [0.025, 0.975], axis=0)
    names = [f"{kind} {what}" for kind in ("micro", "macro") for what in ("precision", "recall", "F1")]
    return {name: [float(v) for v in three] for name, *three in zip(names, values[0], low, high, strict=True)}


def _measures(counts: np.ndarray) -> list[float]:
    """Micro, then macro precision, recall and F1 from numbers of hits, tags and labels by class."""
    by_class = counts.reshape(3, -1)
    found = []
    for hits, tags, labels in (by_class.sum(1, keepdims=True), by_class[:, by_class[2] > 0]):
        shares = hits / np.maximum(tags, 1), hits / np.maximum(labels, 1), 2 * hits / np.maximum(tags + labels, 1)
        found += [float(share.mean()) if len(share) else 0.0 for share in shares]
    return found


def fitted(
    class_names: Sequence[str],
    identity: str,
    scores: np.ndarray,
    present: np.ndarray,
    statistics: Statistics,
    precision: float | None = None,
    made_with: Mapping[str, Any] | None = None,
    known: np.ndarray | None = None,
) -> Cutoffs:
    """Cut-offs by `fit`, with what they were made of and how well they do on photos that they were not fitted to.

    `made_with` is JSON-able and says in words what `identity` is of, such as {"grids": [2, 3]}.
    """
    thresholds, predicted = fit(scores, present, statistics, precision, known)
    facts = {
        "photos": len(scores), "collection": statistics.count, "labels": int(present.sum()), "precision": precision,
        "without_labels": [name for name, any_ in zip(class_names, present.any(0), strict=True) if not any_],
        "held_out": assess(predicted, present), "made_with": made_with,
    }  # fmt: skip
    return Cutoffs(class_names, thresholds, identity, facts)
