"""MS-COCO, or any annotation file in its format (`instances_*.json`)."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
from pycocotools.coco import COCO

from rcnn.datasets import images


def read(annotations, folder, classes, cache=None, **selection):
    """The images of a COCO annotation file.

    Args:
        annotations: `instances_*.json`; classes are found by category name, other categories are not used.
        folder: of the image files.
        classes: ClassList.
        cache: folder to keep the parsed labels in, or None.
        selection: keep_unlabelled, allow_missing, as for `images.select`.

    Returns:
        ImageSet, in order of image id.

    Raises:
        FileNotFoundError, ValueError: files that are missing (with their count and the first ten names), no JSON, or an
            annotation file that does not know a class.
    """
    path = Path(annotations)
    if not path.is_file():
        raise FileNotFoundError(f"there is no annotation file {path} (dataset.annotations)")
    names, positive = images.remember(cache, [path], classes.names, lambda: labels(path, classes))
    try:
        return images.select(names, positive, folder, **selection)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def labels(path, classes):
    """(file names of all B images in order of id, (B, C) bool whether a class is in it)."""
    coco = _open(path)
    try:
        categories = {c["name"].lower(): c["id"] for c in coco.loadCats(coco.getCatIds())}
        ids = sorted(coco.getImgIds())
        files = [image["file_name"] for image in coco.loadImgs(ids)]
    except KeyError as missing:
        raise ValueError(f"{path} is not a COCO annotation file: an image or a category has no {missing}") from None
    if unknown := [name for name in classes.names if name.lower() not in categories]:
        raise ValueError(f"{path}: there is no category for {len(unknown)} classes: {', '.join(unknown[:10])}")
    known, columns = set(coco.getCatIds()), {}
    for i, name in enumerate(classes.names):
        columns.setdefault(categories[name.lower()], []).append(i)  # homonyms share a category
    row = {image: i for i, image in enumerate(ids)}
    positive = np.zeros((len(ids), len(classes)), bool)
    for annotation in coco.dataset["annotations"]:
        image, category = annotation["image_id"], annotation["category_id"]
        if image not in row:
            raise ValueError(f"{path}: annotation {annotation.get('id')} is of unknown image {image}")
        if category not in known:
            raise ValueError(f"{path}: annotation {annotation.get('id')} is of unknown category {category}")
        positive[row[image], columns.get(category, [])] = True
    return files, positive


def _open(path):
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
