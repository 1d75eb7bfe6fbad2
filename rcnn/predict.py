"""Tag images with the classes of a run, or with a list of names: `python -m rcnn.predict photos/ --classes names.txt`.

Scores rank the classes of one image; they are cosines, not probabilities. Without a run the class embeddings are the mean
of CLIP's 80 templates. Images that cannot be read are named, and the exit code is then 1. In Python: `rcnn.Tagger`.
"""

import contextlib
import csv
import json
import os
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from rcnn import cli, config
from rcnn.learn.class_embeddings import coinciding_names
from rcnn.photos import find_images
from rcnn.printing import UNPRINTABLE, lossless, message, printable
from rcnn.progress import progress
from rcnn.tagger import TOP, Tagger, Tags
from rcnn.text.classes import ClassList, in_words

FORMATS = ("table", "csv", "json")
# keys that only learning reads; the seed, which shapes other things too, may be given
SETTLED = [known.key for known in config.options() if known.shapes in ("learning", "rows") and known.key != "seed"]


@contextlib.contextmanager
def printer(form: str, paths: Iterable[Path]) -> Iterator[Callable[[Path, Tags], None]]:
    """A function that prints the tags of one of `paths` as one of FORMATS; JSON is closed at the end, if all went well."""
    width, before, writer = max((len(lossless(str(path))) for path in paths), default=0), "[", csv.writer(sys.stdout)
    if form == "csv":
        writer.writerow(["image", "rank", "class", "score"])

    def show(path: Path, tags: Tags) -> None:
        nonlocal before
        image = lossless(str(path))
        if form == "json":
            entry = {"image": str(path), "tags": [{"class": name, "score": round(score, 6)} for name, score in tags]}
            print(before, textwrap.indent(_json(entry), " "), sep="\n", end="")
            before = ","
        elif form == "csv":
            writer.writerows([image, rank, printable(name), f"{score:.6f}"] for rank, (name, score) in enumerate(tags, 1))
        else:
            print(image.ljust(width), "  ".join(f"{printable(name)} {score:.3f}" for name, score in tags), sep="  ")

    yield show
    if form == "json":
        print("[]" if before == "[" else "\n]")


def _json(value: object) -> str:
    """JSON with escapes where stdout's encoding lacks a character, or a terminal would act upon it."""
    text, encoding = json.dumps(value, indent=1, ensure_ascii=False), sys.stdout.encoding or "utf-8"
    if text.encode(encoding, "replace").decode(encoding) != text:
        text = json.dumps(value, indent=1)
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)


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
    pairs = [text for text in args.images if "=" in text and not os.path.exists(text)]
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
        equal = f"these classes share their class embedding, so their scores are equal: {in_words(same)}"
        print(message(equal), file=sys.stderr)
    with progress(title="tag", total=len(paths), unit="image") as bar, printer(args.format, paths) as show:
        for indices, scores, broken in tagger.stream(paths, workers=2):
            for i, row in zip(indices, scores, strict=True):
                show(paths[i], tagger.best(row, args.top))
            sys.stdout.flush()
            skipped |= {paths[i]: problem for i, problem in broken.items()}
            if not sys.stdout.isatty():  # else the rows show how far it is, and a bar would be drawn between them
                bar.update(len(indices) + len(broken))
    for path, problem in sorted(skipped.items()):
        print(f"skipped {lossless(str(path))}: {problem}", file=sys.stderr)
    if hidden:
        print(f"{hidden} hidden file{'s' if hidden > 1 else ''} left alone", file=sys.stderr)
    return 1 if skipped else 0


if __name__ == "__main__":
    cli.run(main)
