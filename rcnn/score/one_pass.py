"""One pass of the image encoder over all images, scoring any number of sets of class embeddings (paper 3.5).

The tower is frozen and the images never change, so one pass serves all rows of all tables and every epoch. Scores go to a
memory-mapped file: memory stays bounded whatever the number of images and classes, and a killed pass goes on where it was.
"""

import contextlib
import json
import shutil
import time
import uuid
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from rcnn.clip import Clip
from rcnn.clip.image_tower import ImageFeatures
from rcnn.config import EvaluateConfig
from rcnn.files import digest, write_json
from rcnn.progress import progress
from rcnn.score.mssa import Scores
from rcnn.score.views import batches

SAME = 1e-5  # class embeddings that are nearer than this (Euclidean) differ by rounding alone


@dataclass(frozen=True)
class ScoredSet:
    """Class embeddings, and what becomes of the images with them.

    Attributes:
        class_embeddings: (C, D) unit vectors.
        scorers: {key: (ImageFeatures, class embeddings) -> Scores}.
        parts: which fields of Scores are kept: "total"; or "global_part" and "local_part", whose mean the total is.
    """

    class_embeddings: torch.Tensor
    scorers: dict[str, Callable[[ImageFeatures, torch.Tensor], Scores]]
    parts: tuple[str, ...] = ("total",)


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

    Args:
        folder: of the file; made if absent. An unfinished pass of the same identity in it is continued.
        sets: {name: ScoredSet}.
        num_images, num_classes: B and C.
        identity: JSON-able values that the scores depend on.
    """

    def __init__(self, folder: Path, sets: dict[str, ScoredSet], num_images: int, num_classes: int, identity: Any):
        self.planes = [Plane(name, scorer, part) for name, s in sets.items() for scorer in s.scorers for part in s.parts]
        self.shape = (len(self.planes), num_images, num_classes)
        self.folder = Path(folder) / digest([identity, self.planes, self.shape])[:16]
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


@dataclass
class Clock:
    """Where the time of a pass went, in seconds."""

    waiting: float = 0.0  # for images to be decoded
    encoding: float = 0.0  # in the image tower
    scoring: float = 0.0  # class embeddings against features
    images: int = 0


def coinciding(class_embeddings: torch.Tensor) -> list[int]:
    """For every class the number of the first class with the same embedding, mostly its own.

    Args:
        class_embeddings: (C, D) unit vectors.
    """
    z = F.normalize(class_embeddings.double(), dim=1)
    first = []
    for start in range(0, len(z), 1024):
        squares = 2 - 2 * z[start : start + 1024] @ z.T  # ‖z_i − z_j‖² of unit vectors
        first += (squares < SAME**2).int().argmax(1).tolist()
    return first


@torch.inference_mode()
def fill(
    file: ScoreFile,
    model: Clip,
    paths: list[Path],
    sets: dict[str, ScoredSet],
    settings: EvaluateConfig,
    rank: int = 0,
    world: int = 1,
) -> Clock:
    """Score this process's share of the images.

    Args:
        file: open ScoreFile; batches that are done in it are left alone.
        model: Clip.
        paths: B image files.
        sets: those of the file.
        settings: grids, batch size, workers, seconds between notes. Batches are the same whatever the number of processes, so
            results are, too.
        rank, world: number of this process, and of all.
    """
    finished, _ = file.done()
    size = settings.batch_size
    # whatever the others have done meanwhile, every batch is of one process alone
    todo = [b for b in range(-(-len(paths) // size))[rank::world] if b not in finished]
    numbers = [list(range(b * size, min((b + 1) * size, len(paths)))) for b in todo]
    process = f"{rank}-of-{world}-{uuid.uuid4().hex[:8]}"  # another run, another file: nothing noted is ever lost
    columns = {name: _distinct(s.class_embeddings, model.device) for name, s in sets.items()}
    done, broken, clock, saved = [], {}, Clock(), time.monotonic()
    loader = batches([paths[i] for n in numbers for i in n], model.image.image_size, settings.grids, size, settings.workers)
    source = iter(loader)
    with progress(title="evaluate", total=sum(map(len, numbers)), unit="image") as bar:
        for b, images in zip(todo, numbers, strict=True):
            with _adding_to(clock, "waiting"):
                batch = next(source)
            broken |= {images[i % size]: why for i, why in batch.broken.items()}
            if batch.indices:
                with _adding_to(clock, "encoding", model.device):
                    features = model.encode_views(batch.pixels)
                read = [images[i % size] for i in batch.indices]
                with _adding_to(clock, "scoring"):
                    for name, scored in sets.items():
                        z, classes = columns[name]
                        for scorer, score in scored.scorers.items():
                            scores = score(features, z)
                            for part in scored.parts:
                                values = getattr(scores, part)[:, classes].cpu().numpy()
                                file[Plane(name, scorer, part)][read] = _finite(values)
            done.append(b)
            clock.images += len(images)
            bar.update(len(images))
            if time.monotonic() - saved > settings.save_every:
                file.save(process, done, broken)
                saved = time.monotonic()
    file.save(process, done, broken)
    return clock


def _distinct(class_embeddings, device):
    """(distinct class embeddings, number of each class among them), on the device.

    Classes whose embeddings coincide are scored once, so that they tie exactly and not up to the rounding of a product.
    """
    first = torch.tensor(coinciding(class_embeddings))
    kept, place = first.unique(return_inverse=True)
    # without coinciding classes the index copies nothing
    classes = slice(None) if len(kept) == len(first) else place.to(device)
    return class_embeddings[kept].to(device), classes


def _finite(values):
    if not np.isfinite(values).all():
        raise ValueError("the scores are not finite numbers; use evaluate.precision=float32")
    return values


@contextlib.contextmanager
def _adding_to(clock, what, device=None):
    began = time.perf_counter()
    yield
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)  # else the time of the tower would be counted where its result is first used
    setattr(clock, what, getattr(clock, what) + time.perf_counter() - began)
