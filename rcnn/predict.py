"""Tag images with the classes of a run, or with a list of names: `python -m rcnn.predict photos/ --classes names.txt`.

Scores rank the classes of one image; they are cosines, not probabilities. Without a run the class embeddings are the mean
of CLIP's 80 templates. Images that cannot be read are named, and the exit code is then 1. In Python: `rcnn.Tagger`.
"""

import csv
import json
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from PIL import Image

from rcnn import cli, config
from rcnn.learn.class_embeddings import coinciding_names
from rcnn.progress import progress
from rcnn.tagger import TOP, Tagger, Tags
from rcnn.text.classes import ClassList, in_words

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
RAW = (".cr2", ".cr3", ".nef", ".nrw", ".arw", ".dng", ".orf", ".rw2", ".rwl", ".raf", ".pef", ".srw", ".iiq", ".3fr")
# formats that people's folders hold, and what to do where Pillow reads them only with more, or not at all
OTHERS = {
    **dict.fromkeys([".heic", ".heif", ".avif"], "this format needs another package; run pip install pillow-heif"),
    **dict.fromkeys([".jxl", ".jp2", ".psd"], "this format is not read; convert it to JPEG first"),
    **dict.fromkeys(RAW, "a camera's raw format, which is not read; convert it to JPEG first"),
}

FORMATS = ("table", "csv", "json")
# keys that only learning reads; the seed, which shapes other things too, may be given
SETTLED = [known.key for known in config.options() if known.shapes in ("learning", "rows") and known.key != "seed"]


def find_images(places: Iterable[str | Path]) -> tuple[list[Path], dict[Path, str], int]:
    """Image files among `places`, which are files and folders to search; each file once.

    Returns (images, {file of a format that is not read: why}, number of hidden images that are left alone).
    """
    found, hidden = [], []
    for place in map(Path, places):
        if place.is_dir():
            files = sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES | set(OTHERS) and p.is_file())
            for path in files:
                (hidden if any(part.startswith(".") for part in path.relative_to(place).parts) else found).append(path)
        elif place.is_file():
            found.append(place)
        else:
            raise FileNotFoundError(f"there is no image or folder {place}")
    found, hidden = ({os.path.abspath(path): path for path in paths} for paths in (found, hidden))
    left_alone = len(hidden.keys() - found.keys())
    if not found:
        named, left = ", ".join(map(str, places)), f"; hidden files left alone: {left_alone}" if hidden else ""
        raise FileNotFoundError(f"no images in {named}; looked for {' '.join(sorted(SUFFIXES))}{left}")
    readable = Image.registered_extensions()
    unread = {p: OTHERS[kind] for p in found.values() if (kind := p.suffix.lower()) in OTHERS and kind not in readable}
    return [p for p in found.values() if p not in unread], unread, left_alone


def show(results: list[tuple[Path, Tags]], form: str) -> None:
    """Print the tags of all images as one of FORMATS."""
    if form == "json":
        entries = [
            {"image": str(path), "tags": [{"class": name, "score": round(score, 6)} for name, score in tags]}
            for path, tags in results
        ]
        print(json.dumps(entries, indent=1, ensure_ascii=False))
    elif form == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow(["image", "rank", "class", "score"])
        for path, tags in results:
            writer.writerows([path, rank, name, f"{score:.6f}"] for rank, (name, score) in enumerate(tags, 1))
    else:
        width = max((len(str(path)) for path, _ in results), default=0)
        for path, tags in results:
            print(str(path).ljust(width), "  ".join(f"{name} {score:.3f}" for name, score in tags), sep="  ")


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser("predict", __doc__, but=("learning", "rows"))
    parser.add_argument("images", nargs="+", metavar="IMAGES", help="image files, folders, and key=value pairs")
    classes = parser.add_mutually_exclusive_group(required=True)
    classes.add_argument("--run", metavar="RUN", help="folder of a finished run of rcnn.train")
    classes.add_argument("--classes", metavar="FILE", help="text file with one class name a line")
    parser.add_argument("--top", type=int, metavar="K", help=f"classes per image (default {TOP})")
    parser.add_argument("--format", choices=FORMATS, default="table", help="what to print (default table)")
    parser.add_argument("--no-mssa", action="store_true", help="score the full image alone: several times faster")
    args = parser.parse_intermixed_args(argv)
    pairs = [text for text in args.images if "=" in text and not Path(text).exists()]
    places = [text for text in args.images if text not in pairs]
    for key in (pair.partition("=")[0] for pair in pairs):
        if any(f"{settled}.".startswith(f"{key}.") for settled in SETTLED):
            raise ValueError(f"{key}: tagging does not read this; python -m rcnn.train does")
    if args.no_mssa:
        pairs.append("evaluate.grids=[]")
    settings = config.override({}, pairs)
    paths, skipped, hidden = find_images(places)
    if args.run:
        tagger = Tagger.load(args.run, *pairs)
    else:
        tagger = Tagger.for_classes(ClassList.read(unseen=args.classes), settings, cache=settings.cache)
    if same := coinciding_names(tagger.class_embeddings, tagger.class_names):
        print(f"these classes share their class embedding, so their scores are equal: {in_words(same)}", file=sys.stderr)
    results = []
    with progress(title="tag", total=len(paths), unit="image") as bar:
        for indices, scores, broken in tagger.stream(paths, workers=2):
            results += [(paths[i], tagger.best(row, args.top)) for i, row in zip(indices, scores, strict=True)]
            skipped |= {paths[i]: problem for i, problem in broken.items()}
            bar.update(len(indices) + len(broken))
    show(results, args.format)
    for path, problem in sorted(skipped.items()):
        print(f"skipped {path}: {problem}", file=sys.stderr)
    if hidden:
        print(f"{hidden} hidden file{'s' if hidden > 1 else ''} left alone", file=sys.stderr)
    return 1 if skipped else 0


if __name__ == "__main__":
    cli.run(main)
