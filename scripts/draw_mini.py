#!/usr/bin/env python
"""Draw the mini benchmark: pictures from seeds, kept as JPEG files with a COCO annotation file, unless it is there.

    python scripts/draw_mini.py [--images 1000] [--folder outputs/mini_benchmark]

makes FOLDER/images and FOLDER/instances.json. Afterwards: python -m rcnn.train --config configs/mini.yaml
"""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from drawing import DRAWINGS, World, draw

from rcnn import cli
from rcnn.files import file_sha256, read_json, replace_file, sealed, unseal, write_json
from rcnn.progress import progress

STYLE = "crayon"  # the style that the mini CLIP has never seen
SEED = 2025  # not one of the seeds of the mini CLIP's training pictures
SIDES = (96, 192)  # pixels
MARK = "mini benchmark of rcnn"  # begins the description in an annotation file of ours


def is_drawn(folder: Path, description: str) -> bool:
    """Whether the folder holds every picture, drawn as `description` says.

    Raises:
        ValueError: its annotation file is not one of ours.
    """
    annotations = folder / "instances.json"
    if not annotations.exists():
        return False
    content = found = None
    with contextlib.suppress(ValueError, KeyError, TypeError):
        content = read_json(annotations)
        found = content["info"]["description"]
    if not str(found).startswith(MARK):
        raise ValueError(f"{annotations} is not of the mini benchmark and is left alone; choose another --folder")
    with contextlib.suppress(ValueError, KeyError, TypeError):  # damaged, or changed by hand
        names = [image["file_name"] for image in unseal(annotations, content)["images"]]
        return found == description and all((folder / "images" / name).is_file() for name in names)
    return False


def draw_benchmark(folder: Path, num_images: int) -> None:
    """Draw the benchmark unless it is there.

    Args:
        folder: gets images/ and, when all of them are drawn, instances.json.
        num_images: pictures.

    Raises:
        ValueError: the folder's annotation file is not one of ours.
    """
    description = f"{MARK}: {num_images} pictures, style {STYLE}, seed {SEED}, drawings {file_sha256(DRAWINGS)}"
    if is_drawn(folder, description):
        return
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
        with replace_file(folder / "images" / name) as file:
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
    content = {
        "info": {"description": description},
        "images": entries,
        "annotations": [{"id": i + 1} | box for i, box in enumerate(boxes)],
        "categories": [{"id": i, "name": name} for name, i in number.items()],
    }
    write_json(folder / "instances.json", sealed(content))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1000, help="pictures to draw (default: 1000)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "outputs" / "mini_benchmark", help="default: outputs/mini_benchmark"
    )
    args = parser.parse_args(argv)
    draw_benchmark(args.folder, args.images)
    print(f"the mini benchmark is in {args.folder}")


if __name__ == "__main__":
    cli.run(main)
