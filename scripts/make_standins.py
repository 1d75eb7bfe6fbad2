#!/usr/bin/env python
"""Draw small stand-ins for MS-COCO, NUS-WIDE and Open Images, in the exact layout of the official downloads.

    python scripts/make_standins.py FOLDER [--images 60]

makes FOLDER/coco (val2014/, annotations/instances_val2014.json with COCO's 80 categories), FOLDER/nuswide (NUS_WID_Tags/,
ImageList/, Groundtruth/AllLabels/ and TrainTestLabels/ with Windows separators and CRLF, Flickr/) and FOLDER/openimages (test/
with images and labels, class-descriptions.csv). The pictures are those of the mini benchmark, so only classes that it can draw
ever occur, but for Open Images, whose labels are drawn by chance: enough to run coco.sh, nuswide.sh and openimages.sh from end
to end, not to measure anything.
"""

import argparse
import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from draw_mini import STYLE
from drawing import DRAWINGS, World, draw

from rcnn import cli
from rcnn.datasets.openimages import DESCRIPTIONS, HEADER, IMAGES, LABELS
from rcnn.files import replace_file, write_json
from rcnn.text.classes import ClassList


def pictures(count: int, seed: int) -> Iterator[tuple[int, Image.Image, list[str]]]:
    """(number, image, names of what it shows) of each picture."""
    world = World.load(DRAWINGS)
    for i in range(count):
        picture = draw(world, np.random.default_rng([seed, i]), STYLE, 160, 120)
        yield i, picture.image, sorted(picture.labels())


def save(image: Image.Image, path: Path) -> None:
    """Write a JPEG file."""
    with replace_file(path) as file:
        image.save(file, "JPEG", quality=90)


def coco(folder: Path, count: int, names: Sequence[str], seed: int = 1) -> None:
    """Write a tree in MS-COCO's layout; `names`: the categories, numbered with gaps as in COCO."""
    number = {name: i + 1 + i // 10 for i, name in enumerate(names)}
    images, annotations = [], []
    for i, image, shown in pictures(count, seed):
        identity = 42 + 37 * i
        name = f"COCO_val2014_{identity:012}.jpg"
        save(image, folder / "val2014" / name)
        images.append({"id": identity, "file_name": name, "width": image.width, "height": image.height})
        for label in shown:
            if label in number:
                annotations.append(
                    {"id": len(annotations) + 1, "image_id": identity, "category_id": number[label], "bbox": [0, 0, 9, 9],
                     "area": 81, "iscrowd": 0, "segmentation": [[0, 0, 9, 0, 9, 9]]}
                )  # fmt: skip
    categories = [{"id": i, "name": name, "supercategory": "stand-in"} for name, i in number.items()]
    content = {"info": {"description": "stand-in"}, "licenses": [], "images": images, "annotations": annotations}
    write_json(folder / "annotations" / "instances_val2014.json", {**content, "categories": categories})


def nuswide(folder: Path, count: int, tags: Sequence[str], concepts: Sequence[str], seed: int = 2) -> None:
    """Write a tree in NUS-WIDE's layout; a third of the images is for training, the rest for testing."""
    names, shown = [], []
    for i, image, labels in pictures(count, seed):
        place = (labels[0] if labels else "none").replace(" ", "")
        names.append(f"{place}\\{i + 1:04}_{2124494179 + i}.jpg")
        save(image, folder / "Flickr" / place / names[-1].split("\\")[1])
        shown.append({form for label in labels for form in (label, f"{label}s")})

    def write(path: str, lines: Iterable[str | int]) -> None:
        with replace_file(folder / path) as file:
            file.write("".join(f"{line}\r\n" for line in lines).encode())

    write("NUS_WID_Tags/TagList1k.txt", tags)
    table = ["\t".join(str(int(tag in s)) for tag in tags) + "\t" for s in shown]
    write("NUS_WID_Tags/AllTags1k.txt", table)
    write("ImageList/Imagelist.txt", names)
    write("Groundtruth/Concepts81.txt", concepts)
    labels = {concept: [int(concept in s) for s in shown] for concept in concepts}
    for concept, column in labels.items():
        write(f"Groundtruth/AllLabels/Labels_{concept}.txt", column)
    for part, chosen in {"Train": range(0, count, 3), "Test": [i for i in range(count) if i % 3]}.items():
        write(f"NUS_WID_Tags/{part}_Tags1k.dat", [table[i] for i in chosen])
        write(f"ImageList/{part}Imagelist.txt", [names[i] for i in chosen])
        for concept, column in labels.items():
            write(f"Groundtruth/TrainTestLabels/Labels_{concept}_{part}.txt", [column[i] for i in chosen])


def openimages(folder: Path, count: int, classes: ClassList, seed: int = 3) -> None:
    """Write a tree in the layout of Open Images' test set: some 8.7 verified positives an image and half as many negatives.

    What an image shows is among them if there is a class of its name. One label in twenty is of a class that is not listed.
    """
    rng, others = np.random.default_rng(seed), [f"/m/0stand{i:02}" for i in range(50)]
    known, labels, images = {name.lower(): i for i, name in enumerate(classes.names)}, [], []
    for i, image, shown in pictures(count, seed):
        identity = f"{(i + 1) * 0x9E3779B97F4A7C15 % 2**64:016x}"
        save(image, folder / "test" / f"{identity}.jpg")
        true = {known[name] for name in shown if name in known} | set(
            rng.integers(len(classes), size=rng.poisson(2.8)).tolist()
        )
        false = set(rng.integers(len(classes), size=rng.poisson(4.4)).tolist()) - true
        verified = [(classes.notes[j], int(j in true)) for j in sorted(true | false)] + [(str(rng.choice(others)), 1)]
        labels += [[identity, str(rng.choice(["verification", "crowdsource-verification"])), *pair] for pair in verified]
        images.append([identity, "test", f"https://example.org/{identity}.jpg", f'drawing {i}, "stand-in"', "0.0"])

    def write(path: str, lines: Iterable[Sequence[str | int]]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows(lines)
        with replace_file(folder / path) as file:
            file.write(text.getvalue().encode())

    write(f"test/{LABELS}", [HEADER, *labels])
    write(f"test/{IMAGES}", [["ImageID", "Subset", "OriginalURL", "Title", "Rotation"], *images])
    write(DESCRIPTIONS, [*zip(classes.notes, classes.names, strict=True), *((name, "stand-in, other") for name in others)])


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=60, help="pictures in each (default: 60)")
    args = parser.parse_args(argv)
    coco(args.folder / "coco", args.images, ClassList.read(ROOT / "data" / "coco" / "all.txt").names)
    lists = [ClassList.read(ROOT / "data" / "nuswide" / f"{part}.txt").names for part in ("seen", "unseen")]
    # TagList1k also has 75 of the 81 concepts, which are no seen classes; they come after the others here
    nuswide(args.folder / "nuswide", args.images, [*lists[0], *lists[1][:75]], list(lists[1]))
    lists = [ROOT / "data" / "openimages" / f"{part}.txt" for part in ("seen", "unseen")]
    openimages(args.folder / "openimages", args.images, ClassList.read(*lists))
    print(f"stand-ins are in {args.folder}/coco, {args.folder}/nuswide and {args.folder}/openimages")


if __name__ == "__main__":
    cli.run(main)
