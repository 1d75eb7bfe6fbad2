#!/usr/bin/env python
"""Get MS-COCO's val2014 images and their annotations, from the official addresses or from a folder that has them.

    python scripts/prepare_coco.py                       download (6.9 GB; 14 GB of disk on the way, 7 GB in the end)
    python scripts/prepare_coco.py --folder /data/coco   use val2014/ and annotations/instances_val2014.json from there

Interrupted, the same command goes on. Afterwards: bash coco.sh
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from download import Archive, fetch, unpack

from rcnn import cli

SERVER = "http://images.cocodataset.org"
ANNOTATIONS = Path("annotations") / "instances_val2014.json"
ARCHIVES = (  # sizes and MD5 as the server and many users of the files report them
    Archive(
        f"{SERVER}/annotations/annotations_trainval2014.zip",
        252_872_794,
        "0a379cfc70b0e71301e0f377548639bd",
        ANNOTATIONS.as_posix(),
    ),
    Archive(f"{SERVER}/zips/val2014.zip", 6_645_013_297, "a3d79f5ed8d289b7a7554ce06a5782b3", "val2014/"),
)


def link(folder: str | Path, root: Path) -> None:
    """Make `root` show the images and annotations of `folder`, by symbolic links."""
    sources = {name: Path(os.path.realpath(Path(folder) / name)) for name in ("val2014", "annotations")}
    for name, source in sources.items():
        if not source.is_dir():
            raise FileNotFoundError(f"there is no folder {source}; expected val2014/ and {ANNOTATIONS} in {folder}")
        if (root / name).exists() and not (root / name).is_symlink() and os.path.realpath(root / name) != str(source):
            raise ValueError(f"{root / name} exists already and is not a link; move it away first")
    if not (Path(folder) / ANNOTATIONS).is_file():
        raise FileNotFoundError(f"there is no {Path(folder) / ANNOTATIONS}")
    root.mkdir(parents=True, exist_ok=True)
    for name, source in sources.items():
        if os.path.realpath(root / name) != str(source):
            (root / name).unlink(missing_ok=True)
            (root / name).symlink_to(source, target_is_directory=True)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--root", type=Path, default=ROOT / "downloads" / "coco", help="where to put it (default: downloads/coco)"
    )
    parser.add_argument("--folder", help="a folder with val2014/ and annotations/ to link to, instead of downloading")
    parser.add_argument(
        "--keep", action="store_true", help="keep the zip files after unpacking; they are checked anew each time"
    )
    args = parser.parse_args(argv)
    if args.folder:
        link(args.folder, args.root)
    else:
        download(ARCHIVES, args.root, args.keep)
    print(f"MS-COCO is in {args.root}; next: bash coco.sh")


def download(archives: Sequence[Archive], root: Path, keep: bool = False) -> None:
    """Fetch and unpack what is not there yet.

    An archive is removed when all of it is unpacked, so files without their archive beside them are complete.
    """
    for archive in archives:
        begun = any((root / name).exists() for name in (archive.name, f"{archive.name}.part"))
        if (root / archive.wanted).exists() and not begun:
            continue
        path = fetch(archive, root)
        unpack(path, archive.wanted, root)
        if not keep:
            path.unlink()


if __name__ == "__main__":
    cli.run(main)
