"""Images to batches of views. An image that cannot be read is reported, not raised.

An image is seen whole and in n × n snippets for every n in `grids` (paper 3.5). Views are ordered: the full image, then the
snippets of grids[0] row by row, then those of grids[1], … In all, V = 1 + Σ n².
"""

import math
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import distributed

from rcnn.score.decoding import Batches, ViewBatch
from rcnn.score.reading import MAX_PIXELS, AnyImage, from_array, read_rgb, to_rgb
from rcnn.score.resize import cut


def views(image: Image.Image | np.ndarray, size: int, grids: Sequence[int] = ()) -> torch.Tensor:
    """The full image and its snippets, as the authors cut them: (V, S, S, 3) uint8.

    The image is squashed, not cropped, to `size` S, the side of the encoder's input in pixels; `grids` are snippets on a side,
    such as (2, 3) for 4 + 9 snippets.
    """
    image = from_array(image) if isinstance(image, np.ndarray) else image
    return cut(torch.from_numpy(squash(to_rgb(image), size, grids))[None], grids)[0]


def squash(image: Image.Image, size: int, grids: Sequence[int]) -> np.ndarray:
    """What the views of an RGB image are cut from: its full view, (1, S, S, 3) uint8; with grids two, (2, S, S, 3)."""
    filters = [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC] if grids else [Image.Resampling.BILINEAR]
    return np.stack([np.asarray(image.resize((size, size), known)) for known in filters])


@dataclass
class Views(Iterable[ViewBatch]):
    """Batches of squashed images, moved to a device and cut into views there."""

    squashed: Batches
    grids: Sequence[int]
    device: torch.device

    def __len__(self) -> int:
        return len(self.squashed)

    def __iter__(self) -> Iterator[ViewBatch]:
        for batch in self.squashed:
            if batch.pixels is not None:
                batch = batch._replace(pixels=cut(batch.pixels.to(self.device, non_blocking=True), self.grids))
            yield batch


def batches(
    images: Sequence[AnyImage],
    size: int,
    grids: Sequence[int],
    batch_size: int,
    workers: int = 0,
    upright: bool = False,
    max_pixels: int = MAX_PIXELS,
    device: torch.device | str = "cpu",
) -> Views:
    """Batches of `views`, in order; the iterable has a length.

    Args:
        workers: processes; 0 decodes in this one. They are forked, so on anything but Linux this process does their work.
        upright: turn photographs as their EXIF data say; the benchmarks, like the authors' code, do not.
        max_pixels: a file with more is decoded at a half, quarter or eighth if it is a JPEG, and reported otherwise.
        device: where snippets are cut and views are; what goes there is two images of S × S pixels, whatever the grids.
    """

    def decode(index: int) -> np.ndarray:
        return squash(read_rgb(images[index], size, upright, max_pixels), size, grids)

    device = torch.device(device)
    shape, workers = (2 if grids else 1, size, size, 3), processes(workers, len(images), batch_size)
    return Views(Batches(decode, len(images), shape, batch_size, workers, pinned=device.type == "cuda"), grids, device)


def available_cores() -> int:
    """Cores that this process may use: its share, if torchrun has started others on this machine."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if distributed.is_torchelastic_launched() else 1
    return max(cores // sharing, 1)


def processes(workers: int, count: int, batch_size: int) -> int:
    """How many of `workers` decode `count` images: no more than there are cores or batches."""
    return min(workers, available_cores(), math.ceil(count / batch_size)) if sys.platform == "linux" else 0
