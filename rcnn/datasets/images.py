"""Images with multi-label ground truth, whatever data set they come from, and a cache for labels that are slow to parse."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from rcnn import checkpoint

PARSER = 1  # raise it when labels are parsed differently: it makes every kept entry an old one


@dataclass(frozen=True)
class ImageSet:
    """Images to evaluate on.

    Attributes:
        paths: B image files.
        labels: (B, C) int8 in {1, -1, 0 = unknown}, columns in the order of the class list.
        left_out: images of the data set without a positive label among the classes, which are not in `paths`.
        missing: paths of image files that are not there, where that is allowed.
    """

    paths: list
    labels: torch.Tensor
    left_out: int = 0
    missing: tuple = ()


def select(names, positive, root, keep_unlabelled=False, allow_missing=False):
    """The images to use.

    Args:
        names: B file names under `root`.
        positive: (B, C) bool.
        root: folder of the images.
        keep_unlabelled: keep images without a positive label among the classes.
        allow_missing: leave out images that are not there, instead of stopping.

    Returns:
        ImageSet

    Raises:
        FileNotFoundError, ValueError: images are missing (with their count and the first ten names), a name leads out of the
            folder, or no image has a positive label.
    """
    root = Path(root)
    labelled = positive.any(1)
    if not labelled.any():
        raise ValueError("no image has a positive label of these classes")
    used = np.ones_like(labelled) if keep_unlabelled else labelled
    paths = [inside(root, name) for name, use in zip(names, used, strict=True) if use]
    there = np.array([path.is_file() for path in paths])
    if not there.all():
        absent = [str(path) for path, here in zip(paths, there, strict=True) if not here]
        listed = "\n  ".join(absent[:10])
        if not allow_missing:
            raise FileNotFoundError(
                f"{len(absent)} of {len(paths)} images are missing under {root} (dataset.images):\n  {listed}\n"
                "dataset.allow_missing=true goes on without them, and every table will say so"
            )
        if not there.any():
            raise FileNotFoundError(f"none of the {len(paths)} images is under {root} (dataset.images)")
        paths = [path for path, here in zip(paths, there, strict=True) if here]
    missing = tuple(str(inside(root, n)) for n, h in zip(np.array(names)[used], there, strict=True) if not h)
    labels = torch.from_numpy(np.where(positive[used][there], np.int8(1), np.int8(-1)))
    return ImageSet(paths, labels, int((~used).sum()), missing)


def inside(root, name):
    """The path of `name` under `root`; a name that leads out of it is refused."""
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or ":" in "".join(parts[:1]) or not parts:
        raise ValueError(f"file name {name!r} leads out of the image folder {root}")
    return root / name


def remember(folder, sources, facts, parse):
    """(names, positive) that `parse()` returns, parsed once and kept as one small file.

    Args:
        folder: of the cache, or None to parse each time.
        sources: files that were parsed; another size or time of change makes a new entry.
        facts: what else the labels depend on, JSON-able.
        parse: () -> (list of B names, (B, C) bool).
    """
    if not folder:
        return parse()
    stamps = [(str(Path(s).resolve()), Path(s).stat().st_size, Path(s).stat().st_mtime_ns) for s in sources]
    key = hashlib.sha256(json.dumps([PARSER, stamps, facts]).encode()).hexdigest()[:32]
    path = Path(folder) / f"labels_{key}.safetensors"
    try:
        tensors, kept = checkpoint.read(path)
        names = kept["names"]
        bits = np.unpackbits(tensors["positive"].numpy())[: len(names) * kept["classes"]]
        return names, bits.reshape(len(names), kept["classes"]).astype(bool)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        names, positive = parse()
        packed = torch.from_numpy(np.packbits(positive))
        checkpoint.write(path, {"positive": packed}, names=names, classes=positive.shape[1])
        return names, positive
