"""Labels of checked photos: a CSV file image,class with a line for each class on each photo, or a COCO file."""

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from rcnn.datasets import coco
from rcnn.files import MOST_JSON, read_text
from rcnn.printing import cut, short
from rcnn.text.classes import ClassList, parse_name


def read_labels(path: str | Path, classes: ClassList) -> dict[str, set[str]]:
    """{name of a checked photo: names of the classes on it}, sorted by name.

    Raises:
        FileNotFoundError, ValueError: no such file, or not one of labels; the line is named.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"there is no file of labels {path}; expected a CSV file image,class, or COCO's instances_*.json"
        )
    if path.suffix.lower() == ".json":
        written = np.array(full_names(classes.names, classes.notes), object)
        names, labels = coco.labels({"annotations": path}, classes)
        return dict(sorted((name, set(written[row == 1])) for name, row in zip(names, labels, strict=True)))
    found, text = defaultdict(set), read_text(path, MOST_JSON)
    delimiter = ";" if text.lower().startswith("image;") else ","  # as spreadsheets of many countries save it
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        header = next(lines, [])
        if [cell.strip().lower() for cell in header] != ["image", "class"]:
            raise ValueError(f"expected the header image,class, got {short(','.join(header))}")
        for line in filter(None, lines):
            image, name = (cell.strip() for cell in line) if len(line) == 2 else ("", "")
            if not image:
                raise ValueError(f"expected an image and one class, got {short(','.join(line))}")
            found[image].add(name)
            if "" in found[image] and len(found[image]) > 1:
                raise ValueError(f"{short(image)} has classes, and a line that says it has none")
    except (csv.Error, ValueError) as error:
        raise ValueError(f"{path}, line {max(1, lines.line_num)}: {error}") from None
    if not found:
        raise ValueError(f"{path} has no labels of checked photos")
    return {image: names - {""} for image, names in sorted(found.items())}


def full_names(names: Sequence[str], notes: Sequence[str] = ()) -> list[str]:
    """Class names with their notes, as in a class list: "crane [a wading bird]"."""
    return [f"{name} [{note}]" if note else name for name, note in zip(names, notes or [""] * len(names), strict=True)]


def presence(class_names: Sequence[str], labels: Iterable[Iterable[str]]) -> np.ndarray:
    """(N, C) bool: which of the classes each of N photos shows.

    Args:
        class_names: "crane [a wading bird]" is also meant by "crane" if there is no other "crane".
        labels: names of the classes on each photo, in any case.

    Raises:
        ValueError: names that no class has, or more than one.
    """
    columns, rows, wrong = defaultdict(set), [list(names) for names in labels], {}
    for column, (name, note) in enumerate(map(parse_name, class_names)):
        columns[name.lower(), note].add(column)
        columns[name.lower(), ""].add(column)
    found = np.zeros((len(rows), len(class_names)), bool)
    for present, row in zip(found, rows, strict=True):
        for label in row:
            name, note = parse_name(label)
            if len(meant := columns.get((name.lower(), note), set())) == 1:
                present[list(meant)] = True
            else:
                wrong[label] = "several classes" if meant else "no class"
    if wrong:
        each = ", ".join(f"{short(label)} ({why})" for label, why in sorted(wrong.items()))
        raise ValueError(f"labels that are not one class of the list each: {cut(each)}")
    return found
