"""One pass of the image encoder over all images, scoring any number of sets of class embeddings (paper 3.5).

The tower is frozen and the images never change, so one pass serves all rows of all tables and every epoch.
"""

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rcnn.clip import Clip
from rcnn.clip.image_tower import CLEARCLIP
from rcnn.config import EvaluateConfig
from rcnn.learn.class_embeddings import coinciding
from rcnn.progress import progress
from rcnn.score.decoding import ViewBatch
from rcnn.score.score_file import ScoredSet, ScoreFile
from rcnn.score.views import batches


@dataclass
class Clock:
    """Where the time of a pass went, in seconds."""

    waiting: float = 0.0  # for images to be decoded, and on a CPU to be cut into views
    encoding: float = 0.0  # in the image tower
    scoring: float = 0.0  # class embeddings against features
    images: int = 0


@torch.inference_mode()
def fill(
    file: ScoreFile,
    todo: list[int],
    model: Clip,
    paths: list[Path],
    sets: dict[str, ScoredSet],
    settings: EvaluateConfig,
) -> Clock:
    """Score the images of the batches `todo` by the sets of a file, which was opened for them.

    Batches are the same whatever the number of processes, so results are, too.
    """
    distinct = {name: _distinct(s.class_embeddings, model.device) for name, s in sets.items()}
    last_blocks = dict.fromkeys(last_block(scorer) for s in sets.values() for scorer in s.scorers)
    cut = model.image.image_size, settings.grids, file.batch_size, settings.workers

    def score(pixels: torch.Tensor, clock: Clock) -> Iterator[np.ndarray]:
        with adding_to(clock, "encoding", model.device):
            if list(last_blocks) == [CLEARCLIP]:
                features = {CLEARCLIP: model.encode_views(pixels)}
            else:
                features = model.encode_views_by(pixels, last_blocks)
        with adding_to(clock, "scoring"):
            yield from _score(file, sets, distinct, features)

    def load(wanted: list[Path]) -> Iterable[ViewBatch]:
        return batches(wanted, *cut, max_pixels=settings.max_pixels, device=model.device)

    return over(file, todo, paths, load, score, settings)


def over(
    file: ScoreFile,
    todo: list[int],
    paths: list[Path],
    load: Callable[[list[Path]], Iterable[ViewBatch]],
    score: Callable[[torch.Tensor, Clock], Iterable[np.ndarray]],
    settings: EvaluateConfig,
) -> Clock:
    """What `fill` does, with any `load` of images and any `score`: pixels of b images -> (b, C) for every plane, in order."""
    clock, saved = Clock(), time.monotonic()
    wanted = [paths[i] for b in todo for i in file.images(b)]
    source = iter(load(wanted))
    with progress(title="evaluate", total=len(wanted), unit="image") as bar:
        for b in todo:
            images = file.images(b)
            with adding_to(clock, "waiting"):
                batch = next(source)
            broken = {images[i % file.batch_size]: why for i, why in batch.broken.items()}
            scores = np.zeros((len(file.planes), len(images), file.shape[2]), np.float32)
            if batch.indices:
                read = [i % file.batch_size for i in batch.indices]
                for plane, values in zip(scores, score(batch.pixels, clock), strict=True):
                    plane[read] = values
            file.put(b, scores, broken)
            clock.images += len(images)
            bar.update(len(images))
            if time.monotonic() - saved > settings.save_every:
                file.save()
                saved = time.monotonic()
    file.save()
    return clock


def last_block(scorer: str) -> str:
    """The last block of the image tower for a scorer: what follows a slash in its key, else the paper's."""
    return scorer.partition("/")[2] or CLEARCLIP


def _distinct(class_embeddings, device):
    """(distinct class embeddings, the number among them of every class), on the device.

    Classes whose embeddings coincide are scored once, so that they tie exactly and not up to the rounding of a product.
    """
    kept, numbers = torch.tensor(coinciding(class_embeddings)).unique(return_inverse=True)
    if len(kept) == len(class_embeddings):
        numbers = slice(None)  # copies nothing
    return class_embeddings[kept].to(device), numbers


def _score(file, sets, distinct, features):
    """(b, C) scores of the images with {last block: features}, one table after the other in the order of `ScoreFile.planes`."""
    for name, scored in sets.items():
        class_embeddings, numbers = distinct[name]
        for scorer, score in scored.scorers.items():
            scores = score(features[last_block(scorer)], class_embeddings)
            for part in file.parts(name, scorer):
                values = getattr(scores, part)[:, numbers].cpu().numpy()
                if not np.isfinite(values).all():
                    raise ValueError("the scores are not finite numbers; use evaluate.precision=float32")
                yield values


@contextlib.contextmanager
def adding_to(clock: Clock, what: str, device: torch.device | None = None) -> Iterator[None]:
    """Add the time of a block to a field of the clock."""
    began = time.perf_counter()
    yield
    if device is not None and device.type == "cuda":
        torch.cuda.synchronize(device)  # else the time of the tower would be counted where its result is first used
    setattr(clock, what, getattr(clock, what) + time.perf_counter() - began)
