#!/usr/bin/env python
"""The pointing game on the mini benchmark: how often the maximum of a score map lies on an object of its class.

    python scripts/pointing.py

draws the benchmark (unless it is there) and prints a table: a row for each last block of the image tower, the whole image
alone and with MSSA, from class names alone. A map points to the centre of its best patch, and it is a hit if that lies in the
box of an object of the class; of an animal, say, in that of a dog or of a cat. Scenes, and what a scene shows by itself, have
no box and do not count. Controls: a patch by chance, the centre of the image, and the map of a class that is not there, which
says how much is due to finding any object at all. Intervals hold 95 % of 500 resamples of the images; differences are paired.
Exit code 1 if the paper's maps (ClearCLIP's last block, MSSA) are not above all controls.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from draw_mini import draw_benchmark
from drawing import DRAWINGS, World

from rcnn import cli, config
from rcnn.clip.image_tower import CLEARCLIP, PATCHES, RESIDUAL
from rcnn.files import read_json
from rcnn.progress import progress
from rcnn.score import mssa
from rcnn.score.views import batches
from rcnn.tagger import Tagger
from rcnn.text.classes import ClassList

BLOCKS = [key + rest for rest in ("", RESIDUAL) for key in PATCHES]
PARTS = {"whole image": False, "with MSSA": True}
CHANCE, CENTRE, OTHER = "chance: share of the image in boxes", "centre of the image", "map of a class that is not there"
RESAMPLES = 500


def objects(annotations: Path) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """Of every picture its file, and {class: (n, 4) boxes of its objects}: left, top, right, bottom as shares of the sides."""
    world, content = World.load(DRAWINGS), read_json(annotations)
    names = {category["id"]: category["name"] for category in content["categories"]}
    labels = defaultdict(dict)
    for found in content["annotations"]:
        labels[found["image_id"]][names[found["category_id"]]] = np.array(found["bbox"])
    for image in content["images"]:
        boxes, there, sides = defaultdict(list), labels[image["id"]], np.array([image["width"], image["height"]])
        shown = {name for scene in there.keys() & world.scenes for name in (scene, *world.scenes[scene].parents)}
        for thing in sorted(there.keys() & world.objects):
            corner, size = there[thing].reshape(2, 2) / sides
            for name in (thing, *world.objects[thing].parents):
                boxes[name].append([*corner, *corner + size])
        yield image["file_name"], {name: np.array(box) for name, box in sorted(boxes.items()) if name not in shown}


def inside(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Which of (P, 2) points, x and y, lie in one of (n, 4) boxes."""
    x, y = points[:, None].transpose(2, 0, 1)
    return ((boxes[:, 0] <= x) & (x <= boxes[:, 2]) & (boxes[:, 1] <= y) & (y <= boxes[:, 3])).any(1)


def play(folder: Path, num_images: int) -> dict[tuple[str, str], np.ndarray]:
    """{(row, part): (N, 2): hits of every picture, and maps}."""
    draw_benchmark(folder, num_images)
    settings = config.load(ROOT / "configs/mini.yaml", ["device=cpu"])
    classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
    tagger = Tagger.for_classes(classes, settings, cache=settings.cache)
    column = {name.lower(): c for c, name in enumerate(classes.names)}
    pictures, e = list(objects(folder / "instances.json")), settings.evaluate
    size, grid = tagger.model.image.image_size, tagger.model.image.grid
    centres = (np.arange(grid) + 0.5) / grid
    centres = np.stack(np.meshgrid(centres, centres), -1).reshape(-1, 2)  # of patches, row by row
    found, rng = defaultdict(list), np.random.default_rng(0)

    def count(row: str, part: str, values: np.ndarray) -> None:
        found[row, part].append((values.sum(), len(values)))

    loaded = batches([folder / "images" / name for name, _ in pictures], size, e.grids, batch_size=1)
    for (_, boxes), batch in zip(pictures, progress(loaded, "point", unit="image"), strict=True):
        there = [column[name] for name in boxes]
        absent = [c for c in range(len(classes)) if c not in there]
        others = rng.choice(absent, len(there)).tolist()
        with torch.inference_mode():
            features = tagger.model.encode_views_by(batch.pixels, BLOCKS)
        for part, with_mssa in PARTS.items():
            count(CHANCE, part, np.array([inside(centres, box).mean() for box in boxes.values()]))
            count(CENTRE, part, np.array([inside(np.array([[0.5, 0.5]]), box)[0] for box in boxes.values()]))
            for block in BLOCKS:
                z = tagger.class_embeddings[there + others]
                maps = mssa.score(features[block], z, e.grids if with_mssa else (), e.temperature, maps=True).maps
                best = centres[maps[0].flatten(1).argmax(1)][:, None] if there else ()  # (2·classes, 1, 2)
                hits = [inside(point, box)[0] for point, box in zip(best, [*boxes.values()] * 2, strict=True)]
                count(block, part, np.array(hits[: len(there)]))
                if block == CLEARCLIP:
                    count(OTHER, part, np.array(hits[len(there) :]))
    return {key: np.array(values, float) for key, values in found.items()}


def rates(values: np.ndarray) -> np.ndarray:
    """Percent of hits of (N, 2) hits and maps: of all pictures, then of each resample of them."""
    drawn = np.random.default_rng(0).multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)
    hits, maps = np.concatenate([np.ones((1, len(values))), drawn]).dot(values).T
    return 100 * hits / maps


def shown(value: np.ndarray, sign: str = "") -> str:
    low, high = np.quantile(value[1:], [0.025, 0.975])
    return f"{value[0]:{sign}.1f} [{low:{sign}.1f}, {high:{sign}.1f}]"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=ROOT / "outputs/mini_benchmark", help="default: outputs/mini_benchmark")
    parser.add_argument("--images", type=int, default=1000, help="pictures of the benchmark (default: 1000)")
    args = parser.parse_args(argv)
    found = play(args.folder, args.images)
    total = {key: rates(values) for key, values in found.items()}
    ours = CLEARCLIP, "with MSSA"
    print(f"{int(found[ours][:, 1].sum()):,} maps of {len(found[ours]):,} pictures; percent of hits\n")
    print(f"| last block | {' | '.join(PARTS)} | difference | with MSSA, against {CLEARCLIP} |\n|---|---|---|---|---|")
    for row in (*BLOCKS, OTHER, CENTRE, CHANCE):
        whole, pooled = (total[row, part] for part in PARTS)
        print(
            f"| {row} | {shown(whole)} | {shown(pooled)} | {shown(pooled - whole, '+')} | {shown(pooled - total[ours], '+')} |"
        )
    return 0 if all(total[ours][0] > total[control, ours[1]][0] for control in (CHANCE, CENTRE, OTHER)) else 1


if __name__ == "__main__":
    cli.run(main)
