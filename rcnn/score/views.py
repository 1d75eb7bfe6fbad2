"""Images to batches of views. An image that cannot be read is reported, not raised.

An image is seen whole and in n × n snippets for every n in `grids` (paper 3.5). Views are ordered: the full image, then the
snippets of grids[0] row by row, then those of grids[1], … In all, V = 1 + Σ n².
"""

import math
import os
import sys
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from PIL import Image

from rcnn.score.decoding import Batches, ViewBatch
from rcnn.score.reading import MAX_PIXELS, AnyImage, from_array, read_rgb, to_rgb


def views(image: Image.Image | np.ndarray, size: int, grids: Sequence[int] = ()) -> torch.Tensor:
    """The full image and its snippets, as the authors cut them: (V, S, S, 3) uint8.

    The image is squashed, not cropped, to `size` S, the side of the encoder's input in pixels; `grids` are snippets on a side,
    such as (2, 3) for 4 + 9 snippets.
    """
    image = from_array(image) if isinstance(image, np.ndarray) else image
    return torch.from_numpy(_cut(to_rgb(image), size, grids))


def _cut(image: Image.Image, size: int, grids: Sequence[int]) -> np.ndarray:
    out = [image.resize((size, size), Image.Resampling.BILINEAR)]
    square = image.resize((size, size), Image.Resampling.BICUBIC) if grids else None
    for n in grids:
        side = size // n  # n = 3 leaves 2 of 224 pixels at the right and bottom
        for row in range(n):
            for column in range(n):
                left, top = column * side, row * side
                snippet = square.crop((left, top, left + side, top + side))
                out.append(snippet.resize((size, size), Image.Resampling.BILINEAR))
    return np.stack([np.asarray(view) for view in out])


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(
    images: Sequence[AnyImage],
    size: int,
    grids: Sequence[int],
    batch_size: int,
    workers: int = 0,
    upright: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> Iterable[ViewBatch]:
    """Batches of `views`, in order; the iterable has a length.

    Args:
        workers: processes; 0 decodes in this one. They are forked, so on anything but Linux this process does their work.
        upright: turn photographs as their EXIF data say; the benchmarks, like the authors' code, do not.
        max_pixels: a file with more is decoded at a half, quarter or eighth if it is a JPEG, and reported otherwise.
    """

    def decode(index: int) -> np.ndarray:
        return _cut(read_rgb(images[index], size, upright, max_pixels), size, grids)

    return Batches(
        decode,
        len(images),
        (1 + sum(n * n for n in grids), size, size, 3),
        batch_size,
        processes(workers, len(images), batch_size),
    )


def processes(workers: int, count: int, batch_size: int) -> int:
    """How many of `workers` decode `count` images: no more than there are cores or batches."""
    return min(workers, available_cores(), math.ceil(count / batch_size)) if sys.platform == "linux" else 0
