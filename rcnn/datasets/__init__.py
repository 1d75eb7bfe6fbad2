"""The data sets: one entry each, from which everything else that lists data sets takes it.

A new one is an entry here and the module rcnn/datasets/<key>.py, imported when it is used. The module has

    find(annotations, images, classes)   {name: path} of the files with its labels, or FileNotFoundError
    labels(files, classes)               (B file names of images, (B, C) int8 labels in {1, -1, 0 = unknown})

and, where the images are made and not downloaded, `is_prepared(annotations, num_images)` and
`prepare(images, annotations, num_images)`.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rcnn.datasets.images import ImageSet
    from rcnn.text.classes import ClassList


@dataclass(frozen=True)
class Dataset:
    """What is known of a data set before its files are opened.

    Attributes:
        title: its name in tables and messages.
        missing: what to do where its files are not there.
        class_names_sha256: `ClassList.fingerprint` of the paper's classes, which ship as data/<key>/seen.txt and unseen.txt;
            None for a data set that the paper does not use.
        positives_per_image: task -> positive labels of an image, on average: 3P/R of the paper's rows, or None.
    """

    title: str
    missing: str
    class_names_sha256: str | None = None
    positives_per_image: Mapping[str, float] | None = None


DATASETS = {
    "coco": Dataset(
        title="MS-COCO",
        missing="python scripts/prepare_coco.py downloads MS-COCO, or links a copy (--folder)",
        class_names_sha256="ecbc24512f24f1eeb0a8b5a490f6e4d172c744d35430babfd34702d30de36761",
        positives_per_image={"zsl": 1.208, "gzsl": 2.571},
    ),
    "nuswide": Dataset(
        title="NUS-WIDE",
        missing="python scripts/prepare_nuswide.py --help says what to get; with --folder it links a copy",
        class_names_sha256="a9e9cc595a3748e34f7d9afece0bee1cd552842ade62b558ba6af53a47343d3d",
        positives_per_image={"zsl": 2.414, "gzsl": 6.9},
    ),
    "mini": Dataset(
        title="mini benchmark",
        missing="python -m rcnn.train --config configs/mini.yaml draws it, once its annotation file is not there",
    ),
}


class Settings(Protocol):
    """The section `dataset` of a configuration, as far as it is used here; rcnn.config imports this module."""

    kind: str
    images: str | None
    annotations: str | None
    allow_missing: bool
    keep_unlabelled: bool
    num_images: int


def is_prepared(settings: Settings) -> bool:
    """Whether `prepare` has nothing to do."""
    module = _module(settings)
    return not hasattr(module, "is_prepared") or module.is_prepared(settings.annotations, settings.num_images)


def prepare(settings: Settings) -> None:
    """Make the images of a data set that is made and not downloaded, unless they are there already."""
    if not is_prepared(settings):
        _module(settings).prepare(settings.images, settings.annotations, settings.num_images)


def read(settings: Settings, classes: "ClassList", cache: str | None = None) -> "ImageSet":
    """The images of a data set and their labels.

    Args:
        settings: section `dataset` of the configuration.
        classes: in the order of the labels' columns.
        cache: folder to keep parsed labels in, or None.

    Returns:
        ImageSet, in the data set's own order.

    Raises:
        FileNotFoundError, ValueError: files are missing (with their count and the first ten names), are not what they should
            be, or do not know a class.
    """
    from rcnn.datasets import images  # torch, which a look at DATASETS does without

    module = _module(settings)
    files = module.find(settings.annotations, settings.images, classes)
    metadata = [settings.kind, classes.seen, classes.names, classes.notes]
    names, labels = images.remember(cache, files.values(), metadata, lambda: module.labels(files, classes))
    try:
        return images.select(names, labels, settings.images, settings.keep_unlabelled, settings.allow_missing)
    except ValueError as error:
        raise ValueError(f"{settings.annotations}: {error}") from None


def _module(settings: Settings) -> ModuleType:
    if not settings.annotations or not settings.images:
        raise ValueError("dataset.images and dataset.annotations: expected the images and their labels, got null")
    return importlib.import_module(f"rcnn.datasets.{settings.kind}")
