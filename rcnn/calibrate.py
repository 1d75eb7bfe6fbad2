"""Fit cut-offs to some 50 checked photos: `python -m rcnn.calibrate photos/labels.csv --classes names.txt`.

LABELS is a CSV file with the header image,class and a line for each class on each photo; an empty class says that none of the
classes is there. Or it is a COCO file (instances_*.json). All photos of the folder are scored, and those in LABELS tell from
which scores on a class is there; what is reported is measured on photos that the cut-offs were not fitted to. rcnn.predict
uses what this writes: names.cutoffs.json beside the class list, or RUN/cutoffs.json.
"""

import contextlib
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from rcnn import cli, hub
from rcnn.collection import Collection, Source, source_arguments
from rcnn.photos import find_images
from rcnn.printing import cut, lossless, message, printable, short
from rcnn.progress import progress
from rcnn.tagging.cutoffs import Cutoffs, must_suffice
from rcnn.tagging.labels import read_labels
from rcnn.text.classes import ClassList


def calibrate(source: Source, labels: str, folder: Path, precision: float | None) -> tuple[Cutoffs, dict[Path, str]]:
    """Cut-offs from a file of labels and a folder of photos, and {photo that cannot be read: why}.

    ValueError names labels that cannot be used, and photos that have labels and cannot be read.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder {lossless(str(folder))}; expected one of photos")
    tagger = source.tagger
    checked = read_labels(labels, ClassList(tuple(tagger.class_names), 0, tuple(tagger.notes)))
    present = tagger.presence(checked.values())
    must_suffice(present, precision)
    paths, problems, _ = find_images([folder])
    wanted = find(checked, folder, paths)
    with contextlib.closing(Collection(paths, source)) as collection:
        for _ in progress(collection.score(), "score", total=len(collection.missing), unit="image"):
            pass
        collection.open()  # its statistics are of all photos then
        answers = {i: answer for i, answer in collection.answers() if i in wanted or isinstance(answer, str)}
    if lost := [f"{name} ({answers[i]})" for name, i in zip(checked, wanted, strict=True) if isinstance(answers[i], str)]:
        raise ValueError(f"these photos have labels and cannot be read: {cut(', '.join(lost))}")
    problems |= {paths[i]: answer for i, answer in answers.items() if isinstance(answer, str)}
    scores = np.array([answers[i] for i in wanted])
    return tagger.fit(scores, present, collection.statistics, precision), problems


def find(names: Iterable[str], folder: Path, paths: Sequence[Path]) -> list[int]:
    """Which photos these are, by their names in the folder, or after it, as rcnn.predict prints them."""
    numbers = {lossless(str(path)): i for i, path in enumerate(paths)}
    numbers |= {lossless(path.relative_to(folder).as_posix()): i for i, path in enumerate(paths)}
    if missing := [name for name in names if name not in numbers]:
        shown = cut(", ".join(map(short, missing)))
        raise FileNotFoundError(
            f"{folder} does not have these photos, which have labels, or they cannot be read (see --images): {shown}"
        )
    return [numbers[name] for name in names]


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


def main(argv: list[str] | None = None) -> int:
    parser = cli.parser("calibrate", __doc__, but=("learning", "rows"))
    parser.add_argument("labels", metavar="LABELS", help="CSV or COCO file")
    parser.add_argument("pairs", nargs="*", metavar="key=value", help="configuration keys to set")
    source_arguments(parser)
    parser.add_argument("--images", metavar="FOLDER", help="of all photos, checked or not (default: that of LABELS)")
    parser.add_argument("--precision", type=float, metavar="P", help="wanted share of right tags, as 0.9 (default: best F1)")
    parser.add_argument("--output", metavar="FILE", help="what to write (default: beside the classes)")
    args = parser.parse_intermixed_args(argv)
    if args.run and args.run.startswith(hub.PREFIX):
        parser.error("--run: expected a folder, in which the cut-offs are kept; download it first")
    source, folder = Source(args.run, args.classes, args.pairs), Path(args.images or Path(args.labels).parent)
    output = args.output or source.cutoffs
    cutoffs, skipped = calibrate(source, args.labels, folder, args.precision)
    cutoffs.save(output)
    print("\n".join(map(printable, [*report(cutoffs), f"cut-offs of {len(cutoffs.class_names)} classes: {output}"])))
    for path, problem in sorted(skipped.items()):
        print(message(f"skipped {lossless(str(path))}: {problem}"), file=sys.stderr)
    return 1 if skipped else 0


if __name__ == "__main__":
    cli.run(main)
