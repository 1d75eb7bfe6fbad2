"""Images with multi-label ground truth from a COCO annotation file."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from pycocotools.coco import COCO


@dataclass(frozen=True)
class ImageSet:
    """Images to evaluate on.

    Attributes:
        paths: B image files.
        labels: (B, C) int8 in {1, -1, 0 = unknown}, columns in the order of the class list.
        left_out: images of the annotation file without a positive label among the classes.
    """

    paths: list
    labels: torch.Tensor
    left_out: int = 0


def read(annotations, images, classes):
    """Read a COCO annotation file.

    Args:
        annotations: `instances_*.json`; classes are found by category name, other categories are not used.
        images: folder of the image files.
        classes: ClassList.

    Returns:
        ImageSet of the images with at least one positive label, in order of image id.

    Raises:
        FileNotFoundError, ValueError: files that are missing (with their count and the first ten names), no JSON, or an
            annotation file that does not know a class.
    """
    coco = _open(Path(annotations))
    categories = {c["name"].lower(): c["id"] for c in coco.loadCats(coco.getCatIds())}
    if unknown := [name for name in classes.names if name.lower() not in categories]:
        raise ValueError(f"{annotations}: there is no category for {len(unknown)} classes: {', '.join(unknown[:10])}")
    column = {categories[name.lower()]: i for i, name in enumerate(classes.names)}
    ids = sorted(coco.getImgIds())
    row = {image: i for i, image in enumerate(ids)}
    labels = torch.full((len(ids), len(classes)), -1, dtype=torch.int8)
    for annotation in coco.dataset["annotations"]:
        if not {"image_id", "category_id"} <= set(annotation):
            raise ValueError(f"{annotations}: annotation {annotation.get('id')} has no image_id or no category_id")
        if annotation["image_id"] not in row:
            raise ValueError(f"{annotations}: annotation {annotation.get('id')} is of unknown image {annotation['image_id']}")
        if annotation["category_id"] in column:
            labels[row[annotation["image_id"]], column[annotation["category_id"]]] = 1
    used = (labels == 1).any(1)
    if not used.any():
        raise ValueError(f"{annotations}: no image has a positive label of these classes")
    root = Path(images)
    paths = [inside(root, image["file_name"]) for image, use in zip(coco.loadImgs(ids), used, strict=True) if use]
    if missing := [p for p in paths if not p.is_file()]:
        names = "\n  ".join(str(p) for p in missing[:10])
        raise FileNotFoundError(f"{len(missing)} of {len(paths)} images are missing under {root} (dataset.images):\n  {names}")
    return ImageSet(paths, labels[used], int((~used).sum()))


def inside(root, name):
    """The path of `name` under `root`; a name that leads out of it is refused."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"file name {name!r} leads out of the image folder {root}")
    return root / name


def _open(path):
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotation file {path} (dataset.annotations)")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports to stdout
            coco = COCO(str(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON, perhaps only half downloaded: {error}") from None
    except (AssertionError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is not a COCO annotation file: {error!r}") from None
    if missing := {"images", "annotations", "categories"} - set(coco.dataset):
        raise ValueError(f"{path} is not a COCO annotation file: it has no {', '.join(sorted(missing))}")
    return coco
