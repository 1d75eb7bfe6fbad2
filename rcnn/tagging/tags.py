"""Scores to tags: which classes of an image count as present; and tags as a table for people, CSV, or JSON."""

import contextlib
import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

import numpy as np

from rcnn.printing import lossless, printable

FORMATS = ("table", "csv", "json", "jsonl")
Scored = list[tuple[int, float]]  # (column of the class, score), best first

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


@contextlib.contextmanager
def writer(
    file: TextIO, form: str, class_names: Sequence[str], paths: Iterable[Path]
) -> Iterator[Callable[[Path, Scored], None]]:
    """A function that writes the tags of one of `paths` in one of FORMATS.

    In CSV an image without tags has one line, with an empty class. JSON is closed at the end, if all went well.
    """
    width = max((len(lossless(str(path))) for path in paths), default=0) if form == "table" else 0
    separator, rows, shown = "[\n", csv.writer(file), [printable(name) for name in class_names]
    if form == "csv":
        rows.writerow(["image", "rank", "class", "score"])

    def write(path: Path, tags: Scored) -> None:
        nonlocal separator
        image = lossless(str(path))
        if form == "table":
            text = "  ".join(f"{shown[column]} {score:.3f}" for column, score in tags)
            file.write(f"{image.ljust(width)}  {text}".rstrip() + "\n")
        elif form == "csv":
            lines = [(image, rank, shown[column], f"{score:.6f}") for rank, (column, score) in enumerate(tags, 1)]
            rows.writerows(lines or [(image, "", "", "")])
        else:  # with escapes for all but ASCII, so that any encoding has it, and any name
            found = [{"class": class_names[column], "score": round(score, 6)} for column, score in tags]
            entry = json.dumps({"image": str(path), "tags": found})
            file.write(f"{entry}\n" if form == "jsonl" else separator + entry)
            separator = ",\n"

    yield write
    if form == "json":
        file.write("[]\n" if separator == "[\n" else "\n]\n")
