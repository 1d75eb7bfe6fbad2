#!/usr/bin/env python
"""Get Open Images v4's test set, its verified labels and its images, from the official addresses or from a folder that has it.

    python scripts/prepare_openimages.py                        download (38.9 GB; 78 GB of disk on the way, 39 GB in the end)
    python scripts/prepare_openimages.py --folder /data/oi      use the images in that folder, or in test/ below it, and the
                                                                label files that are there; those that are not are downloaded

Interrupted, the same command goes on. What is missing is listed in the end. Afterwards: bash scripts/openimages.sh
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from download import Archive, fetch, room, untar

from rcnn import cli
from rcnn.config import DatasetConfig
from rcnn.datasets import openimages
from rcnn.datasets.images import read_images
from rcnn.text.classes import ClassList

SERVER = "https://storage.googleapis.com/openimages/2018_04"
FILES = (  # sizes and SHA-256 as TensorFlow Datasets lists them; nobody states those of the list of images
    Archive(
        f"{SERVER}/test/{openimages.LABELS}",
        69_570_530,
        sha256="c8ff669500fc6f290d385f21abccbfbb8a69c49d1de8fe285e1c1d84ba2797fa",
    ),
    Archive(
        f"{SERVER}/{openimages.DESCRIPTIONS}",
        475_854,
        sha256="6301d51a91632a2199060d3a0c8cd70904c95863f6867a5a7c4d24a031ee4062",
    ),
    Archive(f"{SERVER}/test/{openimages.IMAGES}", None),
)
IMAGES = Archive(
    "https://open-images-dataset.s3.amazonaws.com/tar/test.tar.gz",
    38_750_827_781,
    sha256="346814b1820eae6543f862cf1d8f48c16ee81202eceb79ed4d484a1520e96695",
)


def link(folder: Path, root: Path) -> None:
    """Make `root` show the images of `folder` and the label files that it has, by symbolic links."""
    places = [folder / openimages.BELOW, folder]
    images = next((place for place in places if place.is_dir() and any(place.glob("*.jpg"))), None)
    if not images:
        raise FileNotFoundError(f"there are no images (*.jpg) in {folder} or its folder {openimages.BELOW}")
    sources = {archive.name: place / archive.name for archive in FILES for place in places if (place / archive.name).exists()}
    for name, path in (sources | {openimages.BELOW: images}).items():
        target, source = root / name, os.path.realpath(path)
        if os.path.realpath(target) == source:
            continue
        if target.exists() and not target.is_symlink():
            raise ValueError(f"{target} exists already and is not a link; move it away first")
        root.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        target.symlink_to(source)


def download(root: Path, keep: bool = False) -> None:
    """Say what is to come, then fetch and unpack what is not there yet.

    The archive is removed when all of it is unpacked, so a folder of images without the archive beside it is left as it is.
    """
    folder = root / openimages.BELOW
    begun = any((root / name).exists() for name in (IMAGES.name, f"{IMAGES.name}.part"))
    wanted = [*FILES, *[IMAGES] * (not folder.is_symlink() and (begun or not folder.exists()))]  # nothing into a linked folder
    needed = 0
    for archive in wanted:
        there = [path.stat().st_size for name in (archive.name, f"{archive.name}.part") if (path := root / name).is_file()]
        known = "its size and checksum are not known" if archive.size is None else f"{archive.size / 1e9:.4f} GB"
        print(f"{archive.name}: {known}{', to be checked' if archive.sha256 else ''}; {sum(there) / 1e9:.4f} GB are there")
        needed += max((archive.size or 0) - sum(there), 0)
    if IMAGES in wanted:
        print(f"{openimages.BELOW}/: unpacked, the images take about {IMAGES.size / 1e9:.0f} GB once more")
        needed += max(IMAGES.size - sum(path.stat().st_size for path in folder.glob("*.jpg")), 0)  # JPEGs do not shrink
    root.mkdir(parents=True, exist_ok=True)
    room(root, needed, "Open Images needs another")
    for archive in FILES:
        fetch(archive, root)
    if IMAGES in wanted:
        path = fetch(IMAGES, root)
        untar(path, folder, ".jpg")
        if not keep:
            path.unlink()


def report(root: Path) -> int:
    """Print which images are missing of those that are used; the exit code."""
    lists = ROOT / "data" / "openimages"
    settings = DatasetConfig(kind="openimages", images=root / openimages.BELOW, annotations=root, allow_missing=True)
    images = read_images(settings, ClassList.read(lists / "seen.txt", lists / "unseen.txt"))
    print(f"{len(images.paths):,} images are in {root}; {images.left_out:,} without a verified positive label are not needed")
    if images.missing:
        print(f"{len(images.missing):,} are missing:", *images.missing[:10], sep="\n  ")
        print(f"to download all of them anew, move {root / openimages.BELOW} away and run again")
        return 1
    print("next: bash scripts/openimages.sh")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=ROOT / "downloads" / "openimages", help="where to put it (default: downloads/openimages)"
    )
    parser.add_argument("--folder", type=Path, help="a folder with the images to link to, instead of downloading them")
    parser.add_argument("--keep", action="store_true", help="keep test.tar.gz after unpacking; it is checked anew each time")
    args = parser.parse_args(argv)
    if args.folder:
        link(args.folder, args.root)
    download(args.root, args.keep)
    return report(args.root)


if __name__ == "__main__":
    cli.run(main)
