"""Image files to batches of views, decoded by worker processes. An image that cannot be read is reported, not raised."""

import os
from typing import NamedTuple

import torch
from PIL import Image, ImageOps
from torch.utils.data import DataLoader, Dataset

from rcnn import mssa


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
            return index, mssa.views(image, self.size, self.counts)
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
        counts: snippets on a side (`mssa.views`).
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
