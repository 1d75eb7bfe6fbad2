"""Scores of all images for any number of sets of class embeddings, in files, with what is done of them.

Every process has a file of its own, one record for each batch of images, so processes may be on several machines. Memory stays
bounded whatever the number of images and classes, and a pass that was killed is continued, by as many processes as there are
then. All blocks of a file are taken from the disk before the first score.

Where most labels are unknown, few scores are ever looked at: those at known labels, and what top-k metrics count is counted at
once. All others are not kept, unless something asks for the whole table.
"""

import contextlib
import copy
import errno
import os
import shutil
import tempfile
import time
import uuid
import weakref
import zlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import BaseModel

from rcnn.clip.image_tower import ImageFeatures
from rcnn.files import DAY, digest, open_regular, read_json, sealed, unseal, write_json
from rcnn.score.mssa import Scores
from rcnn.score.processes import Group

PARTS = ("global_part", "local_part")  # of Scores
IMAGES = 4096  # whose labels are looked at at a time
ALONE = Group()
IN_MEMORY = 1 << 30  # bytes of a table; a larger one is a memory map of a temporary file


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


class Known:
    """Which scores are kept, image by image: of known labels among (B, C) in {1, -1, 0}, and of all images for some classes.

    Attributes:
        columns: (n,) the classes whose scores are kept.
        starts: (B + 1,) where each image's begin.
        count: of (b, C) float32 scores of images, a range, (b, K) float64 counts.
        places: of what is counted for a task from a column, and k: where it is among the counts.
        counts: K.
    """

    def __init__(
        self,
        labels: torch.Tensor,
        whole: torch.Tensor,
        count: Callable[[torch.Tensor, range], torch.Tensor],
        places: Mapping[tuple[int, int], int],
        counts: int,
    ) -> None:
        """`whole`: (C,) bool, the classes of which all scores are kept."""
        self.count, self.places, self.counts = count, places, counts
        # counted, then filled: what is kept between large blocks makes the heap grow
        starts = torch.zeros(len(labels) + 1, dtype=torch.int64)
        for part, count in zip(labels.split(IMAGES), starts[1:].split(IMAGES), strict=True):
            count[:] = ((part != 0) | whole).sum(1)
        self.starts = starts.cumsum(0).numpy()
        self.columns = np.empty(self.starts[-1], np.int32)
        for place, part in zip(range(0, len(labels), IMAGES), labels.split(IMAGES), strict=True):
            first, last = self.starts[[place, place + len(part)]]
            self.columns[first:last] = ((part != 0) | whole).nonzero()[:, 1]

    @cached_property
    def images(self) -> np.ndarray:
        """(n,) the images of the kept scores."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    @cached_property
    def by_class(self) -> list[np.ndarray]:
        """For every class up to the last that has any, the places of its scores among all that are kept, images increasing."""
        order = np.argsort(self.columns, kind="stable")
        return np.split(order, np.searchsorted(self.columns[order], np.arange(1, self.columns.max(initial=0) + 1)))


class SparseScores(NamedTuple):
    """Scores at the known labels, and what was counted of all others."""

    known: Known
    values: np.ndarray  # (n,) float32
    counts: np.ndarray  # (B, K) float64


class _Note(BaseModel):
    """What one process has done."""

    batches: dict[int, tuple[int, int]]  # batch -> place of its record in the file, and checksum
    broken: dict[int, str]  # image -> why it cannot be read


class _Record(NamedTuple):
    path: Path
    place: int
    checksum: int


class ScoreFile:
    """Scores of all images, with what is done and which images could not be read.

    An unfinished pass of the same identity in the folder is continued; `identity`: JSON-able values that scores depend on, the
    batch size aside.
    """

    def __init__(
        self,
        folder: Path,
        sets: dict[str, ScoredSet],
        num_images: int,
        num_classes: int,
        batch_size: int,
        identity: Any,
        known: Known | None = None,
        whole: Collection[tuple[str, str]] = (),
    ) -> None:
        """`known`: keep what it says alone, but for the (set, scorer) in `whole`."""
        self.known = known
        self.planes = []
        for key, parts in (((name, scorer), s.parts(scorer)) for name, s in sets.items() for scorer in s.scorers):
            if parts == PARTS and known is not None and key not in whole:
                parts = ("total", *PARTS)  # whose total is counted at once
            self.planes += [Plane(*key, part) for part in parts]
        self._index = {plane: i for i, plane in enumerate(self.planes)}
        self._whole = [known is None or plane[:2] in whole for plane in self.planes]
        self.shape = (len(self.planes), num_images, num_classes)
        self.batch_size = batch_size
        self.batches = range(-(-num_images // batch_size))
        self.folder = Path(folder) / digest([identity, self.planes, self._whole, self.shape, batch_size])[:16]
        self._held: dict[int, _Record] = {}  # a good record of each batch that this machine has one of
        self._holders: dict[int, int] = {}  # batch -> rank of the process that measures with its record
        self._file: int | None = None

    @property
    def bytes(self) -> int:
        """Size of all scores."""
        return sum(map(self._size, self.batches))

    def images(self, batch: int) -> range:
        """Numbers of the images of a batch."""
        start = batch * self.batch_size
        return range(start, min(start + self.batch_size, self.shape[1]))

    def parts(self, name: str, scorer: str) -> tuple[str, ...]:
        """The fields of Scores that are kept of a set."""
        return tuple(plane.part for plane in self._index if plane[:2] == (name, scorer))

    def scorers(self, names: Iterable[str]) -> list[tuple[str, str]]:
        """(set, scorer) of these sets and all their scorers."""
        return [key for name in names for key in dict.fromkeys(plane[:2] for plane in self._index) if key[0] == name]

    def renamed(self, names: Mapping[str, str]) -> "ScoreFile":
        """This file, to be read, with the sets that `names` has, {a set's other name: its name here}."""
        other, index = copy.copy(self), self._index.items()
        other._index = {p._replace(name=new): i for new, name in names.items() for p, i in index if p.name == name}
        return other

    # writing

    def todo(self, group: Group = ALONE) -> list[int]:
        """The batches that this process is to score: its share of those that no process has a good record of."""
        self._verify()
        there = set().union(*group.everyone(set(self._held)))
        return [batch for batch in self.batches if batch not in there][group.rank :: group.world]

    def open(self, batches: list[int]) -> None:
        """Make the file of this process for some batches; OSError or ValueError if the disk has no room for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()
        for path in self._files():
            self._shorten(path)
        size, free = sum(map(self._size, batches)), shutil.disk_usage(self.folder).free
        if free < size:
            raise ValueError(
                f"the scores need {size / 1e9:.1f} GB in {self.folder}, {free / 1e9:.1f} GB are free; fewer sets of "
                "class embeddings need less (evaluate.epochs=false, evaluate.diagnostics=false)"
            )
        self._path = self.folder / f"{uuid.uuid4().hex[:12]}.scores"  # another run, another file: nothing done is ever lost
        _make(self._path, size)
        self._file = os.open(self._path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        self._close = weakref.finalize(self, os.close, self._file)
        _lock(self._file)
        self._written = 0
        self.noted = _Note(batches={}, broken={})

    def put(self, batch: int, scores: np.ndarray, broken: Mapping[int, str]) -> None:
        """Write the scores of a batch, (planes, images, C) float32; `save` notes it.

        `broken`: why images of the batch cannot be read.
        """
        record = self._record(batch, scores)
        rest = memoryview(record).cast("B")
        os.lseek(self._file, self._written, os.SEEK_SET)
        try:
            while rest:
                rest = rest[os.write(self._file, rest) :]
        except OSError as error:  # which says neither where, nor how to go on
            raise OSError(error.errno, f"{error.strerror}; the same command goes on", str(self.folder)) from None
        self.noted.batches[batch] = self._written, zlib.crc32(record)
        self.noted.broken.update(broken)
        self._written += len(record)

    def save(self) -> None:
        """Remember what this process has done; the scores are on the disk before."""
        os.fsync(self._file)
        write_json(self._path.with_suffix(".json"), sealed(self.noted.model_dump(mode="json")))

    def forget(self, batches: set[int]) -> None:
        """Have these scored again by the next pass."""
        for path in self._files():
            if note := _read_note(path):
                kept = {batch: record for batch, record in note.batches.items() if batch not in batches}
                broken = {i: why for i, why in note.broken.items() if i // self.batch_size not in batches}
                write_json(path.with_suffix(".json"), sealed(_Note(batches=kept, broken=broken).model_dump(mode="json")))

    def delete(self) -> None:
        """Free the disk."""
        if self._file is not None:
            self._close()
            self._file = None
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            self.folder.parent.rmdir()

    # reading

    def done(self) -> tuple[dict[int, list[_Record]], dict[int, str]]:
        """({batch that is done: its records}, {image: why it cannot be read}), of all processes of this machine so far."""
        records, broken = {}, {}
        for path in self._files():
            if note := _read_note(path):
                for batch, (place, checksum) in note.batches.items():
                    if batch in self.batches:
                        records.setdefault(batch, []).append(_Record(path, place, checksum))
                broken |= {i: why for i, why in note.broken.items() if i in range(self.shape[1])}
        return records, broken

    def close(self, group: Group = ALONE) -> dict[int, str]:
        """End the pass: settle which process measures with which records; returns what no process could read.

        ValueError if a batch has no good record any more.
        """
        self._verify()
        held, self._holders = group.everyone(set(self._held)), {}
        for rank, batches in enumerate(held):
            self._holders |= {batch: rank for batch in batches if batch not in self._holders}
        if missing := len(self.batches) - len(self._holders):
            raise ValueError(
                f"{missing} of {len(self.batches)} batches of scores in {self.folder} are not there, or not as they were "
                "written; run the same command again"
            )
        broken = {}
        for one in group.everyone(self.done()[1]):
            broken |= one
        return broken

    def tables(
        self, name: str, scorer: str, owner: int = 0, group: Group = ALONE
    ) -> dict[str, np.ndarray | Mean | SparseScores] | None:
        """{"total": the scores that count, and each part that is kept} of a set, at the process `owner`.

        All processes must ask for it; the others get None.
        """
        found = {part: self.plane(Plane(name, scorer, part), owner, group) for part in self.parts(name, scorer)}
        if group.rank != owner:
            return None
        return found if "total" in found else {"total": Mean(*(found[part] for part in PARTS)), **found}

    def plane(self, plane: Plane, owner: int = 0, group: Group = ALONE) -> np.ndarray | SparseScores | None:
        """One plane, as `tables`: (B, C) float32 or SparseScores."""
        index = self._index[plane]
        if group.rank != owner:
            own = [b for b, rank in self._holders.items() if rank == group.rank]
            group.send(np.concatenate([np.zeros(0, np.uint8), *(self._read(b, index) for b in own)]), owner)
            return None
        out = self._empty(index)
        for rank in range(group.world):
            batches = [b for b, holder in self._holders.items() if holder == rank]
            if rank == owner:
                records = (self._read(b, index) for b in batches)
            else:
                ends = np.cumsum([self._sizes(b)[index] for b in batches], dtype=np.int64)
                records = np.split(group.receive(ends.max(initial=0), rank), ends[:-1])
            for b, record in zip(batches, records, strict=False):  # no batches are one empty record
                self._place(out, b, index, record)
        return out

    def _empty(self, index):
        _, images, classes = self.shape
        if not self._whole[index]:
            return SparseScores(
                self.known, np.empty(len(self.known.columns), np.float32), np.empty((images, self.known.counts))
            )
        if 4 * images * classes <= IN_MEMORY:
            return np.empty((images, classes), np.float32)
        return np.memmap(tempfile.TemporaryFile(dir=self.folder), np.float32, "w+", shape=(images, classes))

    def _place(self, out, batch, index, data):
        """Put the bytes of a plane of a batch where they belong in the table."""
        images = self.images(batch)
        if self._whole[index]:
            out[images.start : images.stop] = data.view(np.float32).reshape(len(images), -1)
            return
        first, last = self.known.starts[[images.start, images.stop]]
        split = 4 * (last - first)
        out.values[first:last] = data[:split].view(np.float32)
        if len(counts := data[split:]):
            out.counts[images.start : images.stop] = counts.view(np.float64).reshape(len(images), -1)

    # records

    def _record(self, batch, scores):
        """All that is kept of the scores of a batch, as bytes, plane by plane."""
        images, out = self.images(batch), []
        for plane, is_whole, values in zip(self.planes, self._whole, scores, strict=True):
            if is_whole:
                out.append(np.ascontiguousarray(values, np.float32).reshape(-1).view(np.uint8))
                continue
            first, last = self.known.starts[[images.start, images.stop]]
            rows = np.repeat(np.arange(len(images)), np.diff(self.known.starts[images.start : images.stop + 1]))
            out.append(np.ascontiguousarray(values[rows, self.known.columns[first:last]], np.float32).view(np.uint8))
            if plane.part == "total":
                counts = self.known.count(torch.from_numpy(values), images).numpy()
                out.append(np.ascontiguousarray(counts, np.float64).reshape(-1).view(np.uint8))
        return np.concatenate(out)

    def _sizes(self, batch):
        """Bytes of every plane of a batch, in the order of its record."""
        images = self.images(batch)
        size, values, counts = 4 * len(images) * self.shape[2], 0, 0
        if self.known is not None:
            values = 4 * int(self.known.starts[images.stop] - self.known.starts[images.start])
            counts = 8 * len(images) * self.known.counts
        of = zip(self.planes, self._whole, strict=True)
        return [size if is_whole else values + counts * (plane.part == "total") for plane, is_whole in of]

    def _size(self, batch):
        return sum(self._sizes(batch))

    def _read(self, batch, index):
        """(n,) uint8 of a plane of a batch."""
        record, sizes = self._held[batch], self._sizes(batch)
        data = _read(record.path, record.place + sum(sizes[:index]), sizes[index])
        if data is None:
            raise ValueError(f"{record.path} is shorter than it was; something else changed it; run the same command again")
        return data

    def _verify(self):
        """Find the good records of this machine."""
        self._held = {}
        for batch, records in self.done()[0].items():
            for record in records:
                data = _read(record.path, record.place, self._size(batch))
                if data is not None and zlib.crc32(data) == record.checksum:
                    self._held[batch] = record

    # files

    def _files(self):
        return sorted(self.folder.glob("*.scores"))

    def _shorten(self, path):
        """Free the disk of what a process that ended early had taken and not written."""
        with contextlib.suppress(OSError):
            if _is_free(path):
                note = _read_note(path)
                ends = [place + self._size(b) for b, (place, _) in note.batches.items() if b in self.batches] if note else []
                if path.stat().st_size > max(ends, default=0):
                    os.truncate(path, max(ends, default=0))

    def _remove_abandoned(self) -> None:
        """Free the disk of scores of other settings that are older than a day and of no living process."""
        for folder in self.folder.parent.iterdir():
            with contextlib.suppress(OSError):
                files = list(folder.glob("*.scores"))
                found = [path.stat() for path in files]
                newest = max((stat.st_mtime for stat in found), default=time.time())
                if folder == self.folder or time.time() - newest < DAY or not all(map(_is_free, files)):
                    continue
                shutil.rmtree(folder)
                size = sum(stat.st_size for stat in found)
                print(f"removed unfinished scores of other settings, {size / 1e9:.2f} GB: {folder}")


def _read_note(path: Path) -> _Note | None:
    """What is noted of a file; a damaged note is none."""
    note = path.with_suffix(".json")
    with contextlib.suppress(ValueError, OSError):
        return _Note.model_validate(unseal(note, read_json(note)))
    return None


def _read(path: Path, place: int, size: int) -> np.ndarray | None:
    """(size,) uint8 of a file; None if there are not so many."""
    out = np.empty(size, np.uint8)
    with contextlib.suppress(OSError, ValueError), open_regular(path) as file:
        file.seek(place)
        if file.readinto(memoryview(out)) == size:
            return out
    return None


def _make(path: Path, size: int) -> None:
    """A file of `size` bytes with all its blocks reserved, where the file system can."""
    try:
        with open(path, "xb") as file:
            file.truncate(size)
            if size and hasattr(os, "posix_fallocate"):  # not on macOS and Windows
                os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL):
            path.unlink(missing_ok=True)
            raise OSError(error.errno, f"the scores need {size / 1e9:.1f} GB, {error.strerror}", str(path)) from None


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
