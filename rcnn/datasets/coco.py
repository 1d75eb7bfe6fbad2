"""MS-COCO, or any annotation file in its format (`instances_*.json`)."""

import contextlib
import io
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from rcnn.text.classes import ClassList


def find(annotations: str | Path, images: str | Path | None, classes: ClassList) -> dict[str, Path]:
    """The annotation file, `instances_*.json`, as {"annotations": path}."""
    path = Path(annotations)
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotation file {path} (dataset.annotations)")
    return {"annotations": path}


def labels(files: Mapping[str, Path], classes: ClassList) -> tuple[list[str], np.ndarray]:
    """Which classes are in which image.

    Classes are found by category name; other categories are not used. A group of objects (`iscrowd`) makes its class positive
    as a single object does, as in the authors' file of labels.

    Returns:
        (file names of all B images in order of id, (B, C) int8: 1 where there is an object of the class, else -1).

    Raises:
        ValueError: no JSON, not in COCO's format, or a class without a category.
    """
    path = files["annotations"]
    coco = _open(path)
    try:
        categories = {c["name"].lower(): c["id"] for c in coco.loadCats(coco.getCatIds())}
        ids = sorted(coco.getImgIds())
        names = [image["file_name"] for image in coco.loadImgs(ids)]
    except KeyError as missing:
        raise ValueError(f"{path} is not a COCO annotation file: an image or a category has no {missing}") from None
    if unknown := [name for name in classes.names if name.lower() not in categories]:
        raise ValueError(f"{path}: there is no category for {len(unknown)} classes: {', '.join(unknown[:10])}")
    known, columns = set(coco.getCatIds()), {}
    for i, name in enumerate(classes.names):
        columns.setdefault(categories[name.lower()], []).append(i)  # homonyms share a category
    row = {image: i for i, image in enumerate(ids)}
    found = np.full((len(ids), len(classes)), -1, np.int8)
    for annotation in coco.dataset["annotations"]:
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in row:
            raise ValueError(f"{path}: annotation {annotation.get('id')} is of unknown image {image}")
        if category not in known:
            raise ValueError(f"{path}: annotation {annotation.get('id')} is of unknown category {category}")
        found[row[image], columns.get(category, [])] = 1
    return names, found


def _open(path: Path) -> COCO:
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports to stdout
            coco = COCO(str(path))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not JSON, perhaps only half downloaded: {error}") from None
    except (AssertionError, KeyError, TypeError) as error:  # such as an annotation without image_id
        raise ValueError(f"{path} is not a COCO annotation file: {error!r}") from None
    if missing := {"images", "annotations", "categories"} - set(coco.dataset):
        raise ValueError(f"{path} is not a COCO annotation file: it has no {', '.join(sorted(missing))}")
    return coco
