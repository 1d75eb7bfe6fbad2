"""The mini benchmark: pictures drawn from seeds, kept as image files with a COCO annotation file."""

import json
from pathlib import Path

import numpy as np

from rcnn.datasets import coco
from rcnn.datasets.drawing import World, draw
from rcnn.files import file_sha256, replace_file, write_json
from rcnn.progress import progress

DRAWINGS = Path(__file__).resolve().parents[2] / "data" / "mini" / "drawings.yaml"
STYLE = "crayon"  # the style that the mini CLIP has never seen
SEED = 2025  # not one of the seeds of the mini CLIP's training pictures
SIDES = (96, 192)  # pixels
MARK = "mini benchmark of rcnn"  # begins the description in an annotation file of ours


find, labels = coco.find, coco.labels  # it is kept in COCO's format


def is_prepared(annotations: str | Path, num_images: int) -> bool:
    """Whether the benchmark is there, as `prepare` would draw it.

    Raises:
        FileNotFoundError: the drawings are not there, as in an installed package.
        ValueError: the annotation file is there and is not one of ours.
    """
    annotations = Path(annotations)
    if not DRAWINGS.is_file():
        raise FileNotFoundError(f"the mini benchmark is part of a checkout of the project: there is no {DRAWINGS}")
    if not annotations.exists():
        return False
    try:
        found = str(json.loads(annotations.read_text())["info"]["description"])
    except (ValueError, KeyError, TypeError):
        found = ""
    if not found.startswith(MARK):
        raise ValueError(
            f"{annotations} is not of the mini benchmark and is left alone; for other images set dataset.kind=coco"
        )
    return found == _made_from(num_images)


def _made_from(num_images: int) -> str:
    return f"{MARK}: {num_images} pictures, style {STYLE}, seed {SEED}, drawings {file_sha256(DRAWINGS)}"


def prepare(images: str | Path, annotations: str | Path, num_images: int) -> None:
    """Draw the benchmark unless it is there already.

    Args:
        images: folder for JPEG files.
        annotations: path of the COCO annotation file. It is written last, so its presence means that all is there.
        num_images: pictures.

    Raises:
        FileNotFoundError, ValueError: as `is_prepared`.
    """
    if is_prepared(annotations, num_images):
        return
    images = Path(images)
    world = World.load(DRAWINGS)
    kinds = {parent for thing in world.objects.values() for parent in thing.parents}
    names = [*world.objects, *sorted(kinds), *world.scenes]
    number = {name: i + 1 for i, name in enumerate(names)}
    entries, boxes = [], []
    for i in progress(range(num_images), "draw the mini benchmark", unit="picture"):
        rng = np.random.default_rng([SEED, i])
        width, height = (int(v) for v in rng.integers(*SIDES, size=2, endpoint=True))
        picture = draw(world, rng, STYLE, width, height)
        name = f"{i:05}.jpg"
        with replace_file(images / name) as file:
            picture.image.save(file, "JPEG", quality=90)
        entries.append({"id": i + 1, "file_name": name, "width": width, "height": height})
        canvas, found = [0, 0, width, height], {}
        for placed in picture.placed:
            box = [round(v * side, 1) for v, side in zip(placed.box, (width, height) * 2, strict=True)]
            for label in (placed.thing.name, *placed.thing.parents):
                found.setdefault(label, box)
        for label in (picture.scene.name, *picture.scene.parents):
            found.setdefault(label, canvas)
        boxes += [{"image_id": i + 1, "category_id": number[label], "bbox": box} for label, box in found.items()]
    write_json(
        annotations,
        {
            "info": {"description": _made_from(num_images)},
            "images": entries,
            "annotations": [{"id": i + 1} | box for i, box in enumerate(boxes)],
            "categories": [{"id": i, "name": name} for name, i in number.items()],
        },
    )
