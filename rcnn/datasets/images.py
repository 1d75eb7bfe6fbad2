"""Images with multi-label ground truth, whatever data set they come from, and a cache for labels that are slow to parse."""

import importlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, NonNegativeInt

from rcnn import checkpoint, provenance
from rcnn.config import DatasetConfig
from rcnn.datasets import DATASETS
from rcnn.files import digest, sweep
from rcnn.printing import UNPRINTABLE, short
from rcnn.text.classes import ClassList


@dataclass(frozen=True)
class ImageSet:
    """Images to evaluate on."""

    paths: list[Path]  # B image files
    labels: torch.Tensor  # (B, C) int8 in {1, -1, 0 = unknown}, columns in the order of the class list
    left_out: int = 0  # images of the data set without a positive label among the classes, which are not in `paths`
    missing: tuple[str, ...] = ()  # paths of image files that are not there, where that is allowed
    counts: Mapping[str, int] = field(default_factory=dict)  # what the data set's files name, such as {"test images": 107859}
    unverified: str = ""  # what of the labels could not be verified, in words


def read_images(settings: DatasetConfig, classes: ClassList, cache: str | None = None) -> ImageSet:
    """The images of a data set and their labels, in the data set's own order.

    Args:
        classes: in the order of the labels' columns.
        cache: folder to keep parsed labels in, or None.

    Raises:
        FileNotFoundError, ValueError: files are missing (with their count, the first ten names and where to get them), are
            not what they should be, or do not know a class.
    """
    if not settings.annotations or not settings.images:
        raise ValueError("dataset.images and dataset.annotations: expected the images and their labels, got null")
    dataset = DATASETS[settings.kind]
    reader = importlib.import_module(f"rcnn.datasets.{dataset.reader}")
    try:
        files = reader.find(settings.annotations, settings.images, classes)
        metadata = [settings.kind, classes.seen, classes.names, classes.notes]
        names, labels = remember(cache, files.values(), metadata, lambda: reader.labels(files, classes))
        counts = {"test images": len(names), **reader.counts(files)}
        return replace(select(names, labels, settings), counts=counts, unverified=reader.unverified(files, classes))
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; {dataset.missing}") from None


def select(names: Sequence[str], labels: np.ndarray, settings: DatasetConfig) -> ImageSet:
    """The images to use, out of B with (B, C) labels in {1, -1, 0 = unknown}; `names` are relative to `settings.images`.

    Raises:
        FileNotFoundError, ValueError: images are missing (with their count and the first ten names), a name leads out of the
            folder, or no image has a positive label.
    """
    root, labelled = Path(settings.images), (labels == 1).any(1)
    if not labelled.any():
        raise ValueError(f"{settings.annotations}: no image has a positive label of these classes")
    used = np.flatnonzero(labelled | settings.keep_unlabelled)
    for name in (names[i] for i in used):
        parts = Path(name).parts
        if not parts or Path(name).is_absolute() or ".." in parts or ":" in parts[0]:
            raise ValueError(f"{settings.annotations}: file name {short(name)} leads out of the image folder {root}")
        if UNPRINTABLE.search(name):
            raise ValueError(f"{settings.annotations}: file name {short(name)} has characters that cannot be printed")
    paths = [root / names[i] for i in used]
    there = np.array([path.is_file() for path in paths])
    missing = tuple(str(path) for path, here in zip(paths, there, strict=True) if not here)
    if missing and not settings.allow_missing:
        listed = "\n  ".join(missing[:10])
        raise FileNotFoundError(
            f"{len(missing)} of {len(paths)} images are missing under {root} (dataset.images):\n  {listed}\n"
            "dataset.allow_missing=true goes on without them, and every table will say so"
        )
    if not there.any():
        raise FileNotFoundError(f"none of the {len(paths)} images is under {root} (dataset.images)")
    found = [path for path, here in zip(paths, there, strict=True) if here]
    return ImageSet(found, torch.from_numpy(labels[used[there]]), len(names) - len(used), missing)


def remember(
    folder: str | Path | None, sources: Iterable[Path], metadata: Any, parse: Callable[[], tuple[list[str], np.ndarray]]
) -> tuple[list[str], np.ndarray]:
    """What `parse()` returns, B names and (B, C) int8 labels in {1, -1, 0}: parsed once and kept as one small file.

    Args:
        folder: of the cache, or None to parse each time.
        sources: files that are parsed; another size or time of change, or other code in rcnn/datasets, makes a new entry.
        metadata: what else the labels depend on, JSON-able.
    """
    if not folder:
        return parse()
    stamps = [(str(s.resolve()), s.stat().st_size, s.stat().st_mtime_ns) for s in sources]
    key = digest([provenance.sources(("datasets",)), stamps, metadata])
    path = Path(folder) / f"labels_{key[:32]}.safetensors"
    sweep(folder)
    try:
        bits, kept = checkpoint.read(path, _Kept)
        shape = len(kept["names"]), kept["classes"]
        size = shape[0] * shape[1]
        checkpoint.require(path, bits, positive=(-(-size // 8),), negative=(-(-size // 8),))
        positive, negative = (
            np.unpackbits(bits[name].numpy(), count=size).view(np.int8).reshape(shape) for name in ("positive", "negative")
        )
        return kept["names"], np.subtract(positive, negative, out=positive)
    except (FileNotFoundError, ValueError, TypeError):  # none yet; a damaged one; bits of another type
        names, labels = parse()
        bits = {name: torch.from_numpy(np.packbits(labels == sign)) for name, sign in (("positive", 1), ("negative", -1))}
        checkpoint.write(path, bits, names=names, classes=labels.shape[1])
        return names, labels


class _Kept(BaseModel):
    model_config = ConfigDict(strict=True)
    names: list[str]
    classes: NonNegativeInt
