#!/usr/bin/env python
"""Put NUS-WIDE where the configuration expects it, from a folder that has it, and say what is missing.

NUS-WIDE cannot be downloaded by a script: its site hands out the text files, and the images on request.

    https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html

Get "Tags" (NUS_WID_Tags.zip), "Image List" (ImageList.zip), "Groundtruth" (Groundtruth.zip) and the images, unpack them into
one folder, so that it holds NUS_WID_Tags/, ImageList/, Groundtruth/AllLabels/ and Flickr/actor/ to Flickr/zoos/, then

    python scripts/prepare_nuswide.py --folder /data/nuswide

Its labels name no images but are lines in the order of an image list. Groundtruth/TrainTestLabels/ and Test_Tags1k.dat, of
the same zip files, repeat those of the test images: where they are there, too, the order is verified by them.

The text files take 0.7 GB, the 269,648 images some 20 GB or more, depending on their source. Afterwards: bash nuswide.sh
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rcnn import cli
from rcnn.datasets import nuswide
from rcnn.text.classes import ClassList


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the text files and the folder Flickr are")
    parser.add_argument(
        "--root", type=Path, default=ROOT / "downloads" / "nuswide", help="where links go (default: downloads/nuswide)"
    )
    args = parser.parse_args(argv)
    lists = ROOT / "data" / "nuswide"
    classes = ClassList.read(lists / "seen.txt", lists / "unseen.txt")
    images = args.folder / "Flickr"
    if not images.is_dir():
        raise FileNotFoundError(f"there is no folder {images}; python scripts/prepare_nuswide.py --help says what to get")
    files = nuswide.find(args.folder, images, classes)
    args.root.mkdir(parents=True, exist_ok=True)
    for place in (images, *files.values()):
        target, source = args.root / place.name, os.path.realpath(place)
        if os.path.realpath(target) == source:
            continue
        if target.exists() and not target.is_symlink():
            raise ValueError(f"{target} exists already and is not a link; move it away first")
        target.unlink(missing_ok=True)
        target.symlink_to(source)
    print(f"{len(files)} text files and the images of NUS-WIDE are linked in {args.root}; next: bash nuswide.sh")


if __name__ == "__main__":
    cli.run(main)
