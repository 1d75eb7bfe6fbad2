"""TagCLIP over all images: a pass of its own, since it sees each at its own size, and classes compete within a task."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from rcnn.clip import Clip
from rcnn.clip.image_tower import normalise
from rcnn.config import EvaluateConfig
from rcnn.learn import class_embeddings
from rcnn.score import one_pass, tagclip
from rcnn.score.decoding import Batches
from rcnn.score.reading import read_rgb
from rcnn.score.score_file import ScoredSet, ScoreFile
from rcnn.score.views import processes
from rcnn.text import corpus
from rcnn.text.classes import ClassList


class Texts(NamedTuple):
    """Unit vectors of names in the shared space."""

    classes: torch.Tensor  # (C, D)
    background: torch.Tensor  # (K, D)


def encode(model: Clip, classes: ClassList, background: tuple[str, ...], cache: str | None) -> Texts:
    """The mean of 85 templates for every class, and for every name of the background that is not a class."""
    listed = {name.lower() for name in classes.names}
    others = tuple(name for name in background if name.lower() not in listed)

    def means(names: ClassList) -> torch.Tensor:
        return class_embeddings.mean(corpus.encode(model, tagclip.templates(names), cache))

    z = means(classes)
    return Texts(z, means(ClassList(others, 0)) if others else z[:0])


def plane(row: str, task: str) -> str:
    """Name of a set in the score file: a row's scores differ by task."""
    return f"{row}/{task}"


def sets(texts: Texts, rows: dict[str, str], tasks: dict[str, int]) -> dict[str, ScoredSet]:
    """The sets of a ScoreFile, in the order of `fill`; their scores are computed together, by no scorer of their own."""
    return {plane(row, task): ScoredSet(texts.classes, {"plain": tagclip.score}) for task in tasks for row in rows}


@torch.inference_mode()
def fill(
    file: ScoreFile,
    todo: list[int],
    model: Clip,
    paths: list[Path],
    texts: Texts,
    tasks: dict[str, int],
    settings: EvaluateConfig,
) -> one_pass.Clock:
    """Score the images of the batches `todo`, one at a time, as `one_pass.fill` does; the image tower in float32.

    The softmax of a task runs over the classes that it scores and the background; its other columns stay 0.
    """
    side = model.image.conv1.kernel_size[0]
    z, background = (t.to(model.device) for t in texts)

    def load(wanted: list[Path]) -> Batches:
        decode, size = packed(wanted, side, settings.max_pixels)
        workers = processes(settings.workers, len(wanted), file.batch_size)
        return Batches(decode, len(wanted), (size,), file.batch_size, workers)

    def of_image(pixels: torch.Tensor) -> Iterator[torch.Tensor]:
        image = normalise(unpacked(pixels).to(model.device), model.mean, model.std)
        seen = tagclip.look(model.image, image)
        for first in tasks.values():
            for step in tagclip.score(model.image, image, seen, z[first:], background, model.scale):
                yield torch.cat([step.new_zeros(first), step])

    def score(batch: torch.Tensor, clock: one_pass.Clock) -> np.ndarray:
        with one_pass.adding_to(clock, "encoding", model.device):
            scores = torch.stack([torch.stack(list(of_image(pixels))) for pixels in batch], 1).cpu().numpy()
        if not np.isfinite(scores).all():
            raise ValueError("TagCLIP's scores are not finite numbers; the weights of the image tower may be damaged")
        return scores

    return one_pass.over(file, todo, paths, load, score, settings)


def packed(paths: list[Path], side: int, max_pixels: int) -> tuple[Callable[[int], np.ndarray], int]:
    """(decode, its length): an image of any size as bytes of one length, for `Batches`: height, width, pixels."""
    size = 8 + tagclip.MOST_PATCHES * side * side * 3

    def decode(index: int) -> np.ndarray:
        pixels = tagclip.resized(read_rgb(paths[index], side, max_pixels=max_pixels), side).numpy()
        out = np.zeros(size, np.uint8)
        out[:8] = np.array(pixels.shape[:2], np.uint32).view(np.uint8)
        out[8 : 8 + pixels.size] = pixels.ravel()
        return out

    return decode, size


def unpacked(pixels: torch.Tensor) -> torch.Tensor:
    """(H, W, 3) uint8 of what `packed` decodes."""
    height, width = pixels[:8].numpy().view(np.uint32).tolist()
    return pixels[8 : 8 + height * width * 3].unflatten(0, (height, width, 3))
