"""Images to batches of views, decoded by worker processes. An image that cannot be read is reported, not raised.

An image is seen whole and in n × n snippets for every n in `grids` (paper 3.5). Views are ordered: the full image, then the
snippets of grids[0] row by row, then those of grids[1], … In all, V = 1 + Σ n².
"""

import contextlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

with contextlib.suppress(ImportError):  # an optional package; here, so that worker processes read HEIC as well
    from pillow_heif import register_heif_opener

    register_heif_opener()

AnyImage = str | Path | Image.Image | np.ndarray  # a file, a PIL image of any mode, or an array (H, W, 3) of uint8


def views(image: Image.Image | np.ndarray, size: int, grids: Sequence[int] = ()) -> torch.Tensor:
    """The full image and its snippets, as the authors cut them: (V, S, S, 3) uint8.

    The image is squashed, not cropped, to `size` S, the side of the encoder's input in pixels; `grids` are snippets on a side,
    such as (2, 3) for 4 + 9 snippets.
    """
    image = to_rgb(open_image(image))
    out = [image.resize((size, size), Image.Resampling.BILINEAR)]
    square = image.resize((size, size), Image.Resampling.BICUBIC) if grids else None
    for n in grids:
        side = size // n  # n = 3 leaves 2 of 224 pixels at the right and bottom
        for row in range(n):
            for column in range(n):
                left, top = column * side, row * side
                snippet = square.crop((left, top, left + side, top + side))
                out.append(snippet.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(np.stack([np.asarray(view) for view in out]))


def open_image(image: AnyImage) -> Image.Image:
    """The image as a PIL image; a ValueError says what is wrong with an array."""
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
            raise ValueError(f"expected an array (height, width, 3) of uint8, got {image.shape} of {image.dtype}")
        return Image.fromarray(image)
    return image if isinstance(image, Image.Image) else Image.open(image)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB: transparency is dropped, 16-bit greys keep their upper 8 bits, EXIF rotation is ignored."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


class ViewBatch(NamedTuple):
    """The views of the images of one batch that could be read, and why the others could not."""

    indices: list[int]  # of the B images that could be read
    pixels: torch.Tensor | None  # (B, V, S, S, 3) uint8; None when B = 0
    broken: dict[int, str]  # index -> why


class _Views(Dataset):
    def __init__(self, images: Sequence[AnyImage], size: int, grids: Sequence[int], upright: bool):
        self.images, self.size, self.grids, self.upright = images, size, grids, upright

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor | str]:
        given = self.images[index]
        try:
            opened = open_image(given)
            # a file is closed even if it is damaged; an image that was given stays open
            with opened if isinstance(given, str | Path) else contextlib.nullcontext():
                image = ImageOps.exif_transpose(opened) if self.upright else opened
                return index, views(image, self.size, self.grids)
        except Exception as error:  # Pillow's decoders raise nearly every kind for a bad file
            return index, str(error) or type(error).__name__


def _collate(items: list[tuple[int, torch.Tensor | str]]) -> ViewBatch:
    good = [(i, v) for i, v in items if torch.is_tensor(v)]
    pixels = torch.stack([v for _, v in good]) if good else None
    return ViewBatch([i for i, _ in good], pixels, {i: why for i, why in items if not torch.is_tensor(why)})


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def batches(
    images: Sequence[AnyImage], size: int, grids: Sequence[int], batch_size: int, workers: int = 0, upright: bool = False
) -> Iterable[ViewBatch]:
    """Batches of `views`, in order; the iterable has a length.

    Args:
        workers: processes; 0 decodes in this one.
        upright: turn photographs as their EXIF data say; the benchmarks, like the authors' code, do not.
    """
    # no more processes than cores, and none for a handful of images
    workers = min(workers, available_cores(), len(images) // batch_size)
    return DataLoader(_Views(images, size, grids, upright), batch_size, num_workers=workers, collate_fn=_collate)
