"""MS-COCO, or any annotation file in its format (`instances_*.json`)."""

import codecs
import contextlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pycocotools.coco import COCO
from pydantic import ConfigDict, FailFast, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import TypedDict  # pydantic asks for this one before Python 3.12

from rcnn.files import must_be_regular, read_bytes
from rcnn.printing import explain, short
from rcnn.text.classes import ClassList

MOST = 2 << 30  # bytes; the largest official file has some 450 MB
ID = Annotated[int, Field(ge=-(2**63), lt=2**63)]
STRICT = with_config(ConfigDict(strict=True))  # true is no id, "1" neither


@STRICT
class Image(TypedDict):
    id: ID
    file_name: str


@STRICT
class Category(TypedDict):
    id: ID
    name: str


@STRICT
class Annotation(TypedDict):
    id: ID
    image_id: ID
    category_id: ID


class Instances(TypedDict, total=False):  # since an error about the whole would make Python objects of all of it
    """What is used of an annotation file; the rest, such as segmentations, is not kept."""

    images: Annotated[list[Image], FailFast()]
    categories: Annotated[list[Category], FailFast()]
    annotations: Annotated[list[Annotation], FailFast()]


SCHEMA = TypeAdapter(Instances)


def find(annotations: str | Path, images: str | Path | None, classes: ClassList) -> dict[str, Path]:
    """The annotation file, `instances_*.json`, as {"annotations": path}."""
    path = Path(annotations)
    if not path.exists():
        raise FileNotFoundError(f"there is no annotation file {path} (dataset.annotations)")
    must_be_regular(path)
    return {"annotations": path}


def counts(files: Mapping[str, Path]) -> dict[str, int]:
    """Nothing more than the labels say."""
    return {}


def unverified(files: Mapping[str, Path], classes: ClassList) -> str:
    """Nothing: every label names its image."""
    return ""


def labels(files: Mapping[str, Path], classes: ClassList) -> tuple[list[str], np.ndarray]:
    """Which classes are in which image.

    Classes are found by category name; other categories are not used. A group of objects (`iscrowd`) makes its class positive
    as a single object does, as in the authors' file of labels.

    Returns:
        (file names of all B images in order of id, (B, C) int8: 1 where there is an object of the class, else -1).

    Raises:
        ValueError: no JSON, not in COCO's format, something twice, or a class without a category.
    """
    path = files["annotations"]
    coco = _open(path)
    categories = {_folded(c["name"]): c["id"] for c in coco.loadCats(coco.getCatIds())}
    ids = sorted(coco.getImgIds())
    names = [image["file_name"] for image in coco.loadImgs(ids)]
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
            raise ValueError(f"{path}: annotation {annotation['id']} is of unknown image {image}")
        if category not in known:
            raise ValueError(f"{path}: annotation {annotation['id']} is of unknown category {category}")
        found[row[image], columns.get(category, [])] = 1
    return names, found


def _open(path: Path) -> COCO:
    data = read_bytes(path, MOST).removeprefix(codecs.BOM_UTF8)
    if data.lstrip().startswith(b"["):
        raise ValueError(f"{path} is not a COCO annotation file: it is a list, as files of results are")
    try:
        content = SCHEMA.validate_json(data)
    except ValidationError as error:
        invalid = error.errors(include_input=False)[0]["type"] == "json_invalid"
        what = "JSON, perhaps only half downloaded" if invalid else "a COCO annotation file"
        raise ValueError(f"{path} is not {what}: {explain(error)}") from None
    if missing := [key for key in Instances.__annotations__ if key not in content]:
        raise ValueError(f"{path} is not a COCO annotation file: it has no {', '.join(missing)}")
    images, categories = content["images"], content["categories"]
    _once(path, "images", "id", ((image["id"], image) for image in images))
    _once(path, "images", "file name", ((image["file_name"], image) for image in images))
    _once(path, "categories", "id", ((category["id"], category) for category in categories))
    _once(path, "categories", "name", ((_folded(category["name"]), category) for category in categories))
    coco = COCO()
    coco.dataset = content
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports to stdout
        coco.createIndex()
    return coco


def _folded(name: str) -> str:
    return name.strip().lower()


def _once(path: Path, what: str, key: str, entries: Iterable[tuple[Any, Any]]) -> None:
    """ValueError if two entries have the same key, since the labels of one would be lost."""
    first = {}
    for value, entry in entries:
        if (other := first.setdefault(value, entry)) is not entry:
            raise ValueError(f"{path}: two {what} have the same {key}: {short(other)} and {short(entry)}")
