"""Image files to batches of views, decoded by worker processes. An image that cannot be read is reported, not raised.

An image is seen whole and in n × n snippets for every n in `counts` (paper 3.5). Views are ordered: the full image, then the
snippets of counts[0] row by row, then those of counts[1], … In all, V = 1 + Σ n².
"""

import os
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset


def views(image, size, counts=()):
    """The full image and its snippets, as the authors cut them.

    Args:
        image: PIL image, any mode; seen as RGB.
        size: S, side of the encoder's input in pixels. Images are squashed, not cropped.
        counts: snippets on a side, such as (2, 3) for 4 + 9 snippets.

    Returns:
        (V, S, S, 3) uint8 tensor.
    """
    image = to_rgb(image)
    out = [image.resize((size, size), Image.Resampling.BILINEAR)]
    if counts:
        square = image.resize((size, size), Image.Resampling.BICUBIC)
    for n in counts:
        side = size // n  # n = 3 leaves 2 of 224 pixels at the right and bottom
        for row in range(n):
            for column in range(n):
                left, top = column * side, row * side
                snippet = square.crop((left, top, left + side, top + side))
                out.append(snippet.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(np.stack([np.asarray(view) for view in out]))


def to_rgb(image):
    """The image as RGB: transparency is dropped, 16-bit greys keep their upper 8 bits, EXIF rotation is ignored."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


class ViewBatch(NamedTuple):
    indices: list  # of the B images that could be read
    pixels: torch.Tensor | None  # (B, V, S, S, 3) uint8; None when B = 0
    broken: dict  # index -> why


class _Views(Dataset):
    def __init__(self, images, size, counts, upright):
        self.images, self.size, self.counts, self.upright = images, size, counts, upright

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        try:
            if not isinstance(image, Image.Image):
                image = Image.open(image)
            if self.upright:
                image = ImageOps.exif_transpose(image)
            return index, views(image, self.size, self.counts)
        except Exception as error:  # Pillow's decoders raise nearly every kind for a bad file
            return index, str(error) or type(error).__name__


def _collate(items):
    good = [(i, v) for i, v in items if torch.is_tensor(v)]
    pixels = torch.stack([v for _, v in good]) if good else None
    return ViewBatch([i for i, _ in good], pixels, {i: why for i, why in items if not torch.is_tensor(why)})


def batches(images, size, counts, batch_size, workers=0, upright=False):
    """Batches of views, in order.

    Args:
        images: paths or PIL images.
        size: side of the encoder's input in pixels.
        counts: snippets on a side (`views`).
        batch_size: images a batch.
        workers: processes; 0 decodes in this one.
        upright: turn photographs as their EXIF data say; the benchmarks, like the authors' code, do not.

    Returns:
        A sized iterable of ViewBatch.
    """
    # no more processes than cores, and none for a handful of images
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    workers = min(workers, cores, len(images) // batch_size)
    return DataLoader(_Views(images, size, counts, upright), batch_size, num_workers=workers, collate_fn=_collate)
