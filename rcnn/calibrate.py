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
from rcnn.collection import Collection, Source, source_arguments
from rcnn.files import replace_file
from rcnn.photos import find_images
from rcnn.printing import cut, lossless, message, printable, short
from rcnn.progress import progress
from rcnn.tagging.cutoffs import Cutoffs, fitted, must_suffice
from rcnn.tagging.labels import HEADER, UNCHECKED, full_names, presence, read_labels
from rcnn.text.classes import ClassList


def calibrate(
    source: Source, labels: str, folder: Path, paths: Sequence[Path], precision: float | None
) -> tuple[Cutoffs, dict[Path, str]]:
    """Cut-offs from a file of labels, and {photo of the folder that cannot be read: why}.

    ValueError names labels that cannot be used, and photos that have labels and cannot be read.
    """
    tagger = source.tagger
    checked = read_labels(labels, ClassList(tuple(tagger.class_names), 0, tuple(tagger.notes)))
    present = presence(full_names(tagger.class_names, tagger.notes), checked.values())
    must_suffice(present, precision)
    wanted = find(checked, folder, paths)
    with contextlib.closing(Collection(paths, source)) as collection:
        for _ in progress(collection.score(), "score", total=len(collection.missing), unit="image"):
            pass
        collection.open()  # its statistics are of all photos then
        answers = {i: answer for i, answer in collection.answers() if i in wanted or isinstance(answer, str)}
    problems = {paths[i]: answer for i, answer in answers.items() if isinstance(answer, str)}
    if lost := [f"{_name(folder, paths[i])} ({problems[paths[i]]})" for i in wanted if paths[i] in problems]:
        raise ValueError(f"these photos have labels and cannot be read: {cut(', '.join(lost))}")
    scores, known = np.array([answers[i] for i in wanted]), collection.statistics
    return fitted(tagger.class_names, tagger.identity, scores, present, known, precision, **tagger.described), problems


def find(names: Iterable[str], folder: Path, paths: Sequence[Path]) -> list[int]:
    """Which photos these are, by their names in the folder, or after it, as rcnn.predict prints them."""
    numbers = {lossless(str(path)): i for i, path in enumerate(paths)}
    numbers |= {_name(folder, path): i for i, path in enumerate(paths)}
    if missing := [name for name in names if name not in numbers]:
        shown = cut(", ".join(map(short, missing)))
        raise FileNotFoundError(
            f"{folder} does not have these photos, which have labels, or they cannot be read (see --images): {shown}"
        )
    return [numbers[name] for name in names]


def _name(folder: Path, path: Path) -> str:
    return lossless(path.relative_to(folder).as_posix())


def report(cutoffs: Cutoffs) -> list[str]:
    """What cut-offs were fitted to, and how well they do."""
    facts = cutoffs.facts
    lines = [f"{facts['photos']} checked photos of {facts['collection']}, with {facts['labels']} labels; on those held out:"]
    for average in ("micro", "macro"):
        values = {key: facts["held_out"][f"{average} {key}"] for key in ("precision", "recall", "F1")}
        shown = (f"{key} {v:.1%} [{low:.1%}, {high:.1%}]" for key, (v, low, high) in values.items())
        lines.append(f"{average}-averaged  {'  '.join(shown)}")
    if without := facts["without_labels"]:
        lines.append(f"{len(without)} classes have no label, and the cut-off of all together: {cut(', '.join(without))}")
    return lines


def draw(folder: Path, paths: Sequence[Path], count: int, output: Path) -> None:
    """Write a file of `count` photos to be filled in; of a larger number the first are the same."""
    if count < 1:
        raise ValueError(f"--suggest: expected 1 or more photos, got {count}")
    if os.path.lexists(output):
        raise ValueError(f"{output} is there, perhaps with labels in it; name another file to write (--output)")
    drawn = sorted(np.random.default_rng(0).permutation(len(paths))[:count])
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([HEADER, *([_name(folder, paths[i]), UNCHECKED] for i in drawn)])
    with replace_file(output) as file:
        file.write(text.getvalue().encode())


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser("calibrate", __doc__, but=("learning", "rows"))
    parser.add_argument("source", metavar="LABELS", help="CSV or COCO file; with --suggest the folder of photos")
    parser.add_argument("pairs", nargs="*", metavar="key=value", help="configuration keys to set")
    suggests = "name N photos to check, drawn by chance, as a file to fill in"
    source_arguments(parser, "--suggest", type=int, metavar="N", help=suggests)
    parser.add_argument("--images", metavar="FOLDER", help="of all photos, checked or not (default: that of LABELS)")
    parser.add_argument("--precision", type=float, metavar="P", help="wanted share of right tags, as 0.9 (default: best F1)")
    written = "what to write (default: beside the classes; labels.csv in the folder)"
    parser.add_argument("--output", metavar="FILE", help=written)
    args = parser.parse_intermixed_args(argv)
    if args.suggest is not None and (args.images or args.precision is not None):
        parser.error("--suggest: expected a folder of photos, and at most --output")
    source = Source(args.run, args.classes, args.pairs) if args.suggest is None else None
    folder = Path(args.images or Path(args.source).parent) if source else Path(args.source)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {lossless(str(folder))}; expected one of photos")
    paths, skipped, _ = find_images([folder])
    if source:
        cutoffs, problems = calibrate(source, args.source, folder, paths, args.precision)
        skipped |= problems
        output = args.output or source.cutoffs
        cutoffs.save(output)
        lines = [*report(cutoffs), f"cut-offs of {len(cutoffs.class_names)} classes: {output}"]
    else:
        output = Path(args.output or folder / "labels.csv")
        draw(folder, paths, args.suggest, output)
        lines = [f"photos to check: {output}"]
    print("\n".join(map(printable, lines)))
    for path, problem in sorted(skipped.items()):
        print(message(f"skipped {lossless(str(path))}: {problem}"), file=sys.stderr)
    return 1 if skipped else 0


if __name__ == "__main__":
    cli.run(main)
