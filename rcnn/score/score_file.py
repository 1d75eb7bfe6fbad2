"""Scores of all images for any number of sets of class embeddings, in one memory-mapped file, with what is done of it.

Memory stays bounded whatever the number of images and classes, and a pass that was killed is continued.
"""

import contextlib
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rcnn.clip.image_tower import ImageFeatures
from rcnn.files import digest, write_json
from rcnn.score.mssa import Scores

PARTS = ("global_part", "local_part")  # of Scores


@dataclass(frozen=True)
class ScoredSet:
    """Class embeddings, and what scores images with them."""

    class_embeddings: torch.Tensor  # (C, D) unit vectors
    scorers: dict[str, Callable[[ImageFeatures, torch.Tensor], Scores]]
    in_parts: tuple[str, ...] = ()  # scorers of which both parts are kept, whose mean the total is

    def parts(self, scorer: str) -> tuple[str, ...]:
        """The fields of Scores that are kept."""
        return PARTS if scorer in self.in_parts else ("total",)


class Plane(NamedTuple):
    """One (B, C) table of scores."""

    name: str  # of the set
    scorer: str
    part: str


class Mean(NamedTuple):
    """The mean of two (B, C) tables, computed where it is looked at."""

    one: np.ndarray
    other: np.ndarray

    def __getitem__(self, index):
        return (self.one[index] + self.other[index]) / 2


class ScoreFile:
    """Scores of all images in a memory-mapped file, with what is done and which images could not be read.

    An unfinished pass of the same identity in the folder is continued; `identity`: JSON-able values that scores depend on.
    """

    def __init__(self, folder: Path, sets: dict[str, ScoredSet], num_images: int, num_classes: int, identity: Any):
        kept = ((name, scorer, s.parts(scorer)) for name, s in sets.items() for scorer in s.scorers)
        self.planes = [Plane(name, scorer, part) for name, scorer, parts in kept for part in parts]
        self.shape = (len(self.planes), num_images, num_classes)
        self.folder = Path(folder) / digest([identity, self.planes, self.shape])[:16]
        self.table: np.ndarray | None = None  # while it is open
        self._index = {plane: i for i, plane in enumerate(self.planes)}

    @property
    def bytes(self) -> int:
        """Size of the score file."""
        return 4 * int(np.prod(self.shape, dtype=np.int64))

    def open(self) -> "ScoreFile":
        """Map the file; ValueError if the disk has no room for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "scores.f32"
        there = path.stat().st_size if path.exists() else 0
        # the file has holes until it is filled: only its blocks are taken from the disk
        free = shutil.disk_usage(self.folder).free + (512 * path.stat().st_blocks if there else 0)
        if free < self.bytes:
            raise ValueError(
                f"the scores need {self.bytes / 1e9:.1f} GB in {self.folder}, {free / 1e9:.1f} GB are free; fewer sets of "
                "class embeddings need less (evaluate.epochs=false, evaluate.diagnostics=false)"
            )
        if there != self.bytes:  # then the notes are of a file that is gone
            for note in self.folder.glob("done.*.json"):
                note.unlink()
            with open(path, "ab") as file:
                file.truncate(self.bytes)
        self.table = np.memmap(path, np.float32, "r+", shape=self.shape)
        return self

    def __getitem__(self, plane: Plane) -> np.ndarray:
        """(B, C) float32 memory map."""
        return self.table[self._index[plane]]

    def total(self, name: str, scorer: str) -> np.ndarray | Mean:
        """The (B, C) scores that count, float32; to be sliced."""
        if (plane := Plane(name, scorer, "total")) in self._index:
            return self[plane]
        return Mean(self[Plane(name, scorer, "global_part")], self[Plane(name, scorer, "local_part")])

    def done(self) -> tuple[set[int], dict[int, str]]:
        """(numbers of the batches that are done, {image: why it cannot be read}), of all processes so far."""
        batches_done, broken = set(), {}
        for path in sorted(self.folder.glob("done.*.json")):
            with contextlib.suppress(ValueError, OSError):
                record = json.loads(path.read_text())
                batches_done |= set(record["batches"])
                broken |= {int(i): why for i, why in record["broken"].items()}
        return batches_done, broken

    def save(self, process: str, batches_done: Iterable[int], broken: dict[int, str]) -> None:
        """Remember what `process` (a name) has done; the scores are on the disk before."""
        self.table.flush()
        write_json(self.folder / f"done.{process}.json", {"batches": sorted(batches_done), "broken": broken})

    def forget(self, batches: set[int]) -> None:
        """Have these scored again by the next pass."""
        for path in self.folder.glob("done.*.json"):
            record = json.loads(path.read_text())
            record["batches"] = [b for b in record["batches"] if b not in batches]
            write_json(path, record | {"broken": {}})

    def delete(self) -> None:
        """Free the disk."""
        self.table = None
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()
