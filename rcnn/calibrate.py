"""Fit cut-offs to some 50 checked photos: `python -m rcnn.calibrate photos/labels.csv --classes names.txt`.

LABELS is a CSV file with the header image,class and a line for each class on each photo; an empty class says that none of the
classes is there. Or it is a COCO file (instances_*.json). All photos of the folder are scored, and those in LABELS tell from
which scores on a class is there; what is reported is measured on photos that the cut-offs were not fitted to. rcnn.predict
uses what this writes: names.cutoffs.json beside the class list, or RUN/cutoffs.json.

    python -m rcnn.calibrate --suggest 50 photos/

writes photos/labels.csv with 50 photos drawn by chance and ? as their class: put one in its place, add a line for each further
one, and leave it empty where there is none.
"""

import contextlib
import csv
import io
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from rcnn import cli
from rcnn.collection import Collection
from rcnn.files import replace_file
from rcnn.photos import find_images
from rcnn.printing import cut, lossless, message, printable, short
from rcnn.progress import progress
from rcnn.source import VOCABULARIES, Source
from rcnn.tagging.cutoffs import Cutoffs, Statistics, fitted, must_suffice
from rcnn.tagging.labels import HEADER, UNCHECKED, full_names, presence, read_labels
from rcnn.text.classes import ClassList


class Photos:
    """The photos of a folder, by their names in it."""

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {lossless(str(folder))}; expected one of photos")
        self.folder = folder
        self.paths, self.skipped, _ = find_images([folder])  # skipped: {path: why}
        self.names = [lossless(path.relative_to(folder).as_posix()) for path in self.paths]

    def find(self, names: Iterable[str]) -> list[int]:
        """Which photos these are, by their names in the folder, or after it, as rcnn.predict prints them."""
        numbers = {lossless(str(path)): i for i, path in enumerate(self.paths)}
        numbers |= {name: i for i, name in enumerate(self.names)}
        if missing := [name for name in names if name not in numbers]:
            shown = cut(", ".join(map(short, missing)))
            raise FileNotFoundError(
                f"{self.folder} does not have these photos, which have labels, or they cannot be read (see --images): {shown}"
            )
        return [numbers[name] for name in names]

    def score(self, source: Source, wanted: Sequence[int]) -> tuple[np.ndarray, Statistics]:
        """(N, C) scores of the N `wanted` photos, and the statistics of all that can be read."""
        rows, statistics = dict.fromkeys(wanted), Statistics(len(source.tagger.class_names))
        with contextlib.closing(Collection(self.paths, source)) as scored:
            for i, answer in progress(scored.answers(score=True), "score", total=len(self.paths), unit="image"):
                if isinstance(answer, str):
                    self.skipped[self.paths[i]] = answer
                    continue
                statistics.add(answer[None])
                if i in rows:
                    rows[i] = answer
        if lost := [f"{self.names[i]} ({self.skipped[self.paths[i]]})" for i, row in rows.items() if row is None]:
            raise ValueError(f"these photos have labels and cannot be read: {cut(', '.join(lost))}")
        return np.array([rows[i] for i in wanted]), statistics


def calibrate(source: Source, labels: str, photos: Photos, precision: float | None) -> Cutoffs:
    """Cut-offs from a file of labels; ValueError names labels that cannot be used."""
    tagger = source.tagger
    checked = read_labels(labels, ClassList(tuple(tagger.class_names), 0, tuple(tagger.notes)))
    present = presence(full_names(tagger.class_names, tagger.notes), checked.values())
    must_suffice(present, precision)
    scores, statistics = photos.score(source, photos.find(checked))
    return fitted(tagger.class_names, tagger.identity, scores, present, statistics, precision, **tagger.described)


def report(cutoffs: Cutoffs) -> list[str]:
    """What cut-offs were fitted to, and how well they do."""
    facts, lines = cutoffs.facts, []
    lines.append(
        f"{facts['photos']} checked photos of {facts['collection']}, with {facts['labels']} labels; on those held out:"
    )
    for average in ("micro", "macro"):
        values = {key: facts["held_out"][f"{average} {key}"] for key in ("precision", "recall", "F1")}
        shown = (f"{key} {v:.1%} [{low:.1%}, {high:.1%}]" for key, (v, low, high) in values.items())
        lines.append(f"{average}-averaged  {'  '.join(shown)}")
    if without := facts["without_labels"]:
        lines.append(f"{len(without)} classes have no label, and the cut-off of all together: {cut(', '.join(without))}")
    return lines


def draw(photos: Photos, count: int, path: Path) -> None:
    """Write a file of `count` photos to be filled in; of a larger number the first are the same."""
    if count < 1:
        raise ValueError(f"--suggest: expected 1 or more photos, got {count}")
    if os.path.lexists(path):
        raise ValueError(f"{path} is there, perhaps with labels in it; name another file to write (--output)")
    drawn = sorted(np.random.default_rng(0).permutation(len(photos.names))[:count])
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEADER, *([photos.names[i], UNCHECKED] for i in drawn)])
    with replace_file(path) as file:
        file.write(text.getvalue().encode())


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser("calibrate", __doc__, but=("learning", "rows"))
    parser.add_argument("source", metavar="LABELS", help="CSV or COCO file; with --suggest the folder of photos")
    parser.add_argument("pairs", nargs="*", metavar="key=value", help="configuration keys to set")
    classes = parser.add_mutually_exclusive_group()
    classes.add_argument("--run", metavar="RUN", help="folder of a finished run of rcnn.train")
    classes.add_argument(
        "--classes", metavar="FILE", help=f"text file with one class name a line, or {', '.join(VOCABULARIES)}"
    )
    parser.add_argument("--images", metavar="FOLDER", help="of all photos, checked or not (default: that of LABELS)")
    parser.add_argument("--precision", type=float, metavar="P", help="wanted share of right tags, as 0.9 (default: best F1)")
    parser.add_argument(
        "--suggest", type=int, metavar="N", help="name N photos to check, drawn by chance, as a file to fill in"
    )
    parser.add_argument(
        "--output", metavar="FILE", help="what to write (default: beside the classes; labels.csv in the folder)"
    )
    args = parser.parse_intermixed_args(argv)
    if args.suggest is not None:
        if args.run or args.classes or args.images or args.precision is not None:
            parser.error("--suggest: expected a folder of photos, and at most --output")
        photos, path = Photos(Path(args.source)), Path(args.output or f"{args.source}/labels.csv")
        draw(photos, args.suggest, path)
        print(printable(f"photos to check: {path}"))
    elif not (args.run or args.classes):
        parser.error("expected one of --run and --classes")
    else:
        source = Source(args.run, args.classes, args.pairs)
        photos, path = Photos(Path(args.images or Path(args.source).parent)), args.output or source.cutoffs
        cutoffs = calibrate(source, args.source, photos, args.precision)
        cutoffs.save(path)
        print("\n".join(map(printable, [*report(cutoffs), f"cut-offs of {len(cutoffs.class_names)} classes: {path}"])))
    for path, problem in sorted(photos.skipped.items()):
        print(message(f"skipped {lossless(str(path))}: {problem}"), file=sys.stderr)
    return 1 if photos.skipped else 0


if __name__ == "__main__":
    cli.run(main)
