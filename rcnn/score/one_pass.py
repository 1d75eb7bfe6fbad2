"""One pass of the image encoder over all images, scoring any number of sets of class embeddings (paper 3.5).

The tower is frozen and the images never change, so one pass serves all rows of all tables and every epoch. Scores go to a
memory-mapped file: memory stays bounded whatever the number of images and classes, and a killed pass goes on where it was.
"""

import contextlib
import hashlib
import json
import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from rcnn.files import write_json
from rcnn.score import mssa
from rcnn.score.views import batches

CLASSES_AT_A_TIME = 2048  # columns scored together: bounds the score maps in memory


@dataclass(frozen=True)
class Plane:
    """One (B, C) table of scores.

    Attributes:
        name: of the set of class embeddings.
        variant: "plain" or "mssa".
        part: "score", the mean of both parts and what counts; or "global" or "local" alone.
    """

    name: str
    variant: str
    part: str = "score"


class Scores:
    """Scores of all images in a memory-mapped file, with what is done and which images could not be read.

    Args:
        folder: of the file; made if absent. An unfinished pass of the same identity in it is continued.
        planes: list of Plane.
        images: B.
        classes: C.
        identity: JSON-able facts that the scores depend on.
    """

    def __init__(self, folder, planes, images, classes, identity):
        self.planes, self.shape = list(planes), (len(planes), images, classes)
        facts = json.dumps([identity, [[p.name, p.variant, p.part] for p in planes], images, classes])
        self.folder = Path(folder) / hashlib.sha256(facts.encode()).hexdigest()[:16]
        self._index = {plane: i for i, plane in enumerate(self.planes)}

    @property
    def bytes(self):
        """Size of the score file."""
        return 4 * int(np.prod(self.shape, dtype=np.int64))

    def open(self):
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

    def __getitem__(self, plane):
        """(B, C) float32 memory map."""
        return self.table[self._index[plane]]

    def done(self):
        """(numbers of the batches that are done, {image: why it cannot be read}), of all processes so far."""
        batches_done, broken = set(), {}
        for path in sorted(self.folder.glob("done.*.json")):
            with contextlib.suppress(ValueError, OSError):
                record = json.loads(path.read_text())
                batches_done |= set(record["batches"])
                broken |= {int(i): why for i, why in record["broken"].items()}
        return batches_done, broken

    def save(self, process, batches_done, broken):
        """Remember what `process` (a name) has done; the scores are on the disk before."""
        self.table.flush()
        write_json(self.folder / f"done.{process}.json", {"batches": sorted(batches_done), "broken": broken})

    def forget(self, batches):
        """Have these scored again by the next pass."""
        for path in self.folder.glob("done.*.json"):
            record = json.loads(path.read_text())
            record["batches"] = [b for b in record["batches"] if b not in batches]
            write_json(path, record | {"broken": {}})

    def delete(self):
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


@torch.inference_mode()
def fill(scores, model, paths, sets, counts, temperature, batch_size, workers, rank=0, world=1, save_every=120.0):
    """Score this process's share of the images.

    Args:
        scores: open Scores; batches that are done in it are left alone.
        model: Clip.
        paths: B image files.
        sets: {name of a set: (C, D) class embeddings}.
        counts: MSSA's snippets on a side.
        temperature: τ_s.
        batch_size: images at a time. Batches are the same whatever the number of processes, so results are, too.
        workers: decoding processes.
        rank, world: number of this process, and of all.
        save_every: seconds between notes of what is done.

    Returns:
        Clock
    """
    finished, _ = scores.done()
    # whatever the others have done meanwhile, every batch is of one process alone
    todo = [b for b in range(-(-len(paths) // batch_size))[rank::world] if b not in finished]
    numbers = [list(range(b * batch_size, min((b + 1) * batch_size, len(paths)))) for b in todo]
    process = f"{rank}-of-{world}-{uuid.uuid4().hex[:8]}"  # another run, another file: nothing noted is ever lost
    stacks = {}  # variant -> (names of its sets, the sets one after the other)
    for variant in {plane.variant: None for plane in scores.planes}:
        names = [name for name in sets if any((p.name, p.variant) == (name, variant) for p in scores.planes)]
        stacks[variant] = names, torch.cat([sets[name] for name in names]).to(model.device)
    done, broken, clock, saved = [], {}, Clock(), time.monotonic()
    loader = batches([paths[i] for n in numbers for i in n], model.image.image_size, counts, batch_size, workers)
    bar = tqdm(total=sum(map(len, numbers)), desc="evaluate", unit="image", delay=2, disable=rank > 0)
    source = iter(loader)
    for b, images in zip(todo, numbers, strict=True):
        with _adding_to(clock, "waiting"):
            batch = next(source)
        broken |= {images[i % batch_size]: why for i, why in batch.broken.items()}
        if batch.indices:
            with _adding_to(clock, "encoding", model.device):
                features = model.encode_views(batch.pixels)
            with _adding_to(clock, "scoring"):
                read = [images[i % batch_size] for i in batch.indices]
                _score(scores, features, stacks, read, counts, temperature)
        done.append(b)
        clock.images += len(images)
        bar.update(len(images))
        if time.monotonic() - saved > save_every:
            scores.save(process, done, broken)
            saved = time.monotonic()
    bar.close()
    scores.save(process, done, broken)
    return clock


def _score(scores, features, stacks, images, counts, temperature):
    """Write the scores of `images` (numbers); `stacks`: variant -> (names of its sets, the sets one after the other)."""
    classes = scores.shape[2]
    for variant, (names, columns) in stacks.items():
        planes = [plane for plane in scores.planes if plane.variant == variant]
        for first in range(0, len(columns), CLASSES_AT_A_TIME):
            chunk = columns[first : first + CLASSES_AT_A_TIME]
            parts = mssa.score(features, chunk, () if variant == "plain" else counts, temperature)
            parts = {"global": parts[0], "local": parts[1], "score": (parts[0] + parts[1]) / 2}
            parts = {part: parts[part].cpu().numpy() for part in {plane.part for plane in planes}}
            if not all(np.isfinite(values).all() for values in parts.values()):
                raise ValueError("the scores are not finite numbers; use evaluate.precision=float32")
            for plane in planes:
                start = names.index(plane.name) * classes - first  # of the set, within the chunk
                left, right = max(start, 0), min(start + classes, len(chunk))
                if left < right:
                    scores[plane][images, left - start : right - start] = parts[plane.part][:, left:right]


@contextlib.contextmanager
def _adding_to(clock, what, device=None):
    began = time.perf_counter()
    yield
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)  # else the time of the tower would be counted where its result is first used
    setattr(clock, what, getattr(clock, what) + time.perf_counter() - began)
