"""Scores to tags: which classes of an image count as present."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

TOP = 5  # tags of an image where no cut-offs are known and nothing else is asked for


class Tag(NamedTuple):
    """A class of an image."""

    name: str
    score: float  # a cosine: it ranks the classes of one image, and is no probability
    threshold: float | None  # the class's cut-off; None where there is none
    present: bool | None  # whether the score reaches it


def ranked(scores: np.ndarray, thresholds: np.ndarray | None = None, top: int | None = None) -> list[int]:
    """Columns of the best `top` of (C,) scores that reach their (C,) thresholds; equal ones in the order of the class list."""
    columns = np.arange(len(scores)) if thresholds is None else (scores >= thresholds).nonzero()[0]
    return columns[(-scores[columns]).argsort(kind="stable")][:top].tolist()


def must_fit(top: int | None, class_names: Sequence[str]) -> None:
    """ValueError for a number of tags that no image can have."""
    if top is not None and not 1 <= top <= len(class_names):
        raise ValueError(f"top: expected 1 to {len(class_names)} (the number of classes), got {top}")
