"""Scores of all images for any number of sets of class embeddings, in one file, with what is done of it.

Memory stays bounded whatever the number of images and classes, and a pass that was killed is continued. All blocks of the file
are taken from the disk before the first score, and scores are written, not stored through a memory map: a disk that another
program fills is an error with a name, where a map would end the process by a signal.
"""

import contextlib
import copy
import errno
import os
import shutil
import time
import weakref
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel

from rcnn.clip.image_tower import ImageFeatures
from rcnn.files import DAY, digest, open_regular, read_json, sealed, unseal, write_json
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


class _Note(BaseModel):
    """What one process has done."""

    batches: dict[int, int]  # batch -> checksum of its scores
    broken: dict[int, str]  # image -> why it cannot be read


class ScoreFile:
    """Scores of all images in a file, with what is done and which images could not be read.

    An unfinished pass of the same identity in the folder is continued; `identity`: JSON-able values that scores depend on, the
    batch size aside.
    """

    def __init__(
        self, folder: Path, sets: dict[str, ScoredSet], num_images: int, num_classes: int, batch_size: int, identity: Any
    ) -> None:
        kept = ((name, scorer, s.parts(scorer)) for name, s in sets.items() for scorer in s.scorers)
        self.planes = [Plane(name, scorer, part) for name, scorer, parts in kept for part in parts]
        self.shape = (len(self.planes), num_images, num_classes)
        self.batch_size = batch_size
        self.batches = range(-(-num_images // batch_size))
        self.folder = Path(folder) / digest([identity, self.planes, self.shape, batch_size])[:16]
        self.table: np.ndarray | None = None  # while it is open; to be read
        self._index = {plane: i for i, plane in enumerate(self.planes)}

    @property
    def bytes(self) -> int:
        """Size of the score file."""
        return 4 * int(np.prod(self.shape, dtype=np.int64))

    def open(self) -> "ScoreFile":
        """Open the file, or make it, unless it is open; OSError or ValueError if the disk has no room for it."""
        if self.table is not None:
            return self
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        path = self.folder / "scores.f32"
        there = path.stat().st_size if path.is_file() else 0
        if there != self.bytes:
            free = shutil.disk_usage(self.folder).free + there
            if free < self.bytes:
                raise ValueError(
                    f"the scores need {self.bytes / 1e9:.1f} GB in {self.folder}, {free / 1e9:.1f} GB are free; fewer sets of "
                    "class embeddings need less (evaluate.epochs=false, evaluate.diagnostics=false)"
                )
            for note in self.folder.glob("done.*.json"):  # of a file that is gone
                note.unlink()
            _make(path, self.bytes)
        self._file = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self._close = weakref.finalize(self, os.close, self._file)
        _lock(self._file)
        self.table = np.memmap(path, np.float32, "r+", shape=self.shape)  # writable, as torch wants it; nothing is written
        return self

    def __getitem__(self, plane: Plane) -> np.ndarray:
        """(B, C) float32 memory map, to be read."""
        return self.table[self._index[plane]]

    def total(self, name: str, scorer: str) -> np.ndarray | Mean:
        """The (B, C) scores that count, float32; to be sliced."""
        if (plane := Plane(name, scorer, "total")) in self._index:
            return self[plane]
        return Mean(self[Plane(name, scorer, "global_part")], self[Plane(name, scorer, "local_part")])

    def totals(self, names: Iterable[str]) -> dict[tuple[str, str], np.ndarray | Mean]:
        """{(set, scorer): scores that count} of these sets, by all their scorers."""
        return {(name, p.scorer): self.total(name, p.scorer) for name in names for p in self._index if p.name == name}

    def has_parts(self, name: str, scorer: str) -> bool:
        """Whether both parts of the scores are kept."""
        return Plane(name, scorer, PARTS[0]) in self._index

    def renamed(self, names: Mapping[str, str]) -> "ScoreFile":
        """This open file, to be read, with the sets that `names` has, {a set's other name: its name here}."""
        other = copy.copy(self)
        other._index = {
            p._replace(name=new): i for new, name in names.items() for p, i in self._index.items() if p.name == name
        }
        return other

    def images(self, batch: int) -> range:
        """Numbers of the images of a batch."""
        start = batch * self.batch_size
        return range(start, min(start + self.batch_size, self.shape[1]))

    def put(self, batch: int, scores: np.ndarray) -> int:
        """Write the scores of a batch, (planes, images, C) float32; returns their checksum, for `save`."""
        first, (_, images, classes) = batch * self.batch_size, self.shape
        for plane, block in enumerate(scores):
            os.lseek(self._file, 4 * (plane * images + first) * classes, os.SEEK_SET)
            rest = memoryview(np.ascontiguousarray(block)).cast("B")
            try:
                while rest:
                    rest = rest[os.write(self._file, rest) :]
            except OSError as error:  # which says neither where, nor how to go on
                raise OSError(error.errno, f"{error.strerror}; the same command goes on", str(self.folder)) from None
        return zlib.crc32(np.ascontiguousarray(scores))

    def holds(self, batch: int, checksums: set[int]) -> bool:
        """Whether the scores of a batch are those of one of the checksums."""
        rows = self.images(batch)
        return zlib.crc32(np.ascontiguousarray(self.table[:, rows.start : rows.stop])) in checksums

    def lost(self) -> list[int]:
        """Batches that are not, or not any more, as a process wrote them."""
        if os.fstat(self._file).st_size != self.bytes:  # reading what was cut off would end the process by a signal
            return list(self.batches)
        noted, _ = self.done()
        return [batch for batch in self.batches if batch not in noted or not self.holds(batch, noted[batch])]

    def done(self) -> tuple[dict[int, set[int]], dict[int, str]]:
        """({batch that is done: its checksums}, {image: why it cannot be read}), of all processes so far."""
        batches_done, broken = {}, {}
        for path in self._notes():
            with contextlib.suppress(ValueError, OSError):  # a damaged note is none
                note = _Note.model_validate(unseal(path, read_json(path)))
                for batch in note.batches.keys() & set(self.batches):
                    batches_done.setdefault(batch, set()).add(note.batches[batch])
                broken |= {i: why for i, why in note.broken.items() if i in range(self.shape[1])}
        return batches_done, broken

    def save(self, process: str, batches_done: dict[int, int], broken: dict[int, str]) -> None:
        """Remember what `process` (a name) has done, {batch: checksum}; the scores are on the disk before."""
        os.fsync(self._file)
        write_json(
            self.folder / f"done.{process}.json", sealed(_Note(batches=batches_done, broken=broken).model_dump(mode="json"))
        )

    def forget(self, batches: set[int]) -> None:
        """Have these scored again by the next pass."""
        done, _ = self.done()
        for path in self._notes():
            path.unlink()
        self.save("kept", {b: min(checksums) for b, checksums in done.items() if b not in batches}, {})

    def delete(self) -> None:
        """Free the disk."""
        if self.table is not None:
            self.table = None
            self._close()
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    def _notes(self) -> list[Path]:
        return sorted(self.folder.glob("done.*.json"))

    def _remove_abandoned(self) -> None:
        """Free the disk of scores of other settings that are older than a day and of no living process."""
        for path in self.folder.parent.glob("*/scores.f32"):
            with contextlib.suppress(OSError):
                found = path.stat()
                if path.parent == self.folder or time.time() - found.st_mtime < DAY or not _is_free(path):
                    continue
                shutil.rmtree(path.parent)
                print(f"removed unfinished scores of other settings, {found.st_size / 1e9:.2f} GB: {path.parent}")


def _make(path: Path, size: int) -> None:
    """A file of `size` bytes with all its blocks reserved, where the file system can."""
    path.unlink(missing_ok=True)  # whatever it was
    try:
        with open(path, "wb") as file:
            if not _reserve(file.fileno(), size):
                file.truncate(size)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OSError(error.errno, f"the scores need {size / 1e9:.1f} GB, {error.strerror}", str(path)) from None


def _reserve(file: int, size: int) -> bool:
    if not hasattr(os, "posix_fallocate"):  # as on macOS and Windows
        return False
    try:
        os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            raise
        return False
    return True


def _lock(file: int) -> None:
    """Mark a file, by its descriptor, as in use as long as it is open."""
    with contextlib.suppress(ImportError, OSError):  # not on Windows, nor on every network's file system
        import fcntl

        fcntl.flock(file, fcntl.LOCK_SH)


def _is_free(path: Path) -> bool:
    """Whether no process has the file open with `_lock`; False where that cannot be known."""
    with contextlib.suppress(ImportError, OSError, ValueError), open_regular(path) as file:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False
