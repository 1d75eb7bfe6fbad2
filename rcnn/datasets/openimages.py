"""Open Images v4 from its official CSV files (Kuznetsova et al., IJCV 2020): the test images, and what people said of them.

A label is 1 where people verified that the class is there, -1 where they verified that it is not, and 0 = unknown where nobody
was asked, which is most of the table. Labels that machines made are not used, nor is anything concluded from the hierarchy of
the classes. Classes are told apart by identifier, since names occur twice.
"""

import csv
import io
import os
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rcnn.files import open_regular
from rcnn.printing import cut, short
from rcnn.text.classes import ClassList

LABELS = "test-annotations-human-imagelabels.csv"
IMAGES = "test-images-with-rotation.csv"  # all test images; the labels are checked by it where it is there
DESCRIPTIONS = "class-descriptions.csv"  # identifier and name of all 19,995 classes, without a header
HEADER = ["ImageID", "Source", "LabelName", "Confidence"]
BELOW = "test"  # the folder of the test images, and on the server of their files
IMAGE, IDENTIFIER = re.compile(r"[0-9a-f]{16}"), re.compile(r"/[a-z]{1,9}/[\w-]{1,99}", re.ASCII)
SIGNS = {"1": 1, "0": -1}
MOST = 1 << 28  # bytes of a file; the official labels have 70 MB


def find(annotations: str | Path, images: str | Path | None, classes: ClassList) -> dict[str, Path]:
    """{name: path} of the official files that are there, in `annotations` or its folder test/; LABELS always.

    "test" is among them if the images lie in such a folder of `images`, and not in `images` itself.
    """
    places = Path(annotations), Path(annotations, BELOW)
    found = {name: place / name for name in (DESCRIPTIONS, IMAGES, LABELS) for place in places[::-1] if (place / name).exists()}
    if LABELS not in found:
        raise FileNotFoundError(f"there is no {LABELS} in {annotations} or its folder {BELOW} (dataset.annotations)")
    for path in found.values():
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MOST:
                raise ValueError(f"{path} has more than {MOST:,} bytes, which is no file of this kind")
    if images and Path(images, BELOW).is_dir() and not any(Path(images).glob("*.jpg")):
        found[BELOW] = Path(images, BELOW)
    return found


def counts(files: Mapping[str, Path]) -> dict[str, int]:
    """How many labels there are, of all classes: a file that was cut between two lines has fewer."""
    return {"labels": sum(1 for _ in _lines(files[LABELS], HEADER))}


def unverified(files: Mapping[str, Path], classes: ClassList) -> str:
    """What the files that were found cannot prove, in words."""
    proofs = {IMAGES: "that these are the images of the test set", DESCRIPTIONS: "the identifiers of the classes"}
    return "; ".join(f"{what}, as {name} is not there" for name, what in proofs.items() if name not in files)


def labels(files: Mapping[str, Path], classes: ClassList) -> tuple[list[str], np.ndarray]:
    """The verified labels of the test images; those of identifiers that are no class of the list are counted and not used.

    Returns:
        (file names of the B images in the order of IMAGES, or without it in that of their labels, (B, C) int8 in {1, -1, 0}):
        0.95 GB for the 125,436 images and 7,586 classes.

    Raises:
        ValueError: a file is not what it should be, a class is unknown, or a label is of an unknown image or contradicts
            another.
    """
    path, column = files[LABELS], {identifier: i for i, identifier in enumerate(identifiers(files, classes))}
    row = {name: i for i, name in enumerate(_listed(files[IMAGES]))} if IMAGES in files else {}
    rows, columns, signs, others = array("i"), array("i"), array("b"), Counter()
    for number, (image, _, identifier, confidence) in _lines(path, HEADER, width=4):
        if (sign := SIGNS.get(confidence)) is None:
            raise ValueError(f"{path}: line {number}: expected the Confidence 0 or 1 of people, got {short(confidence)}")
        if (i := row.get(image)) is None:
            if IMAGES in files:
                raise ValueError(f"{path}: line {number}: image {short(image)} is not in {files[IMAGES]}")
            i = row[_formed(IMAGE, image, f"{path}: line {number}: ImageID")] = len(row)
        if (j := column.get(identifier)) is not None:
            rows.append(i)
            columns.append(j)
            signs.append(sign)
        else:
            if identifier not in others:
                _formed(IDENTIFIER, identifier, f"{path}: line {number}: LabelName")
            others[identifier] += 1
    found, at = np.zeros((len(row), len(classes)), np.int8), (np.array(rows), np.array(columns))
    found[at] = signs
    if (wrong := np.flatnonzero(found[at] != np.array(signs))).size:
        image, identifier = list(row)[rows[wrong[0]]], list(column)[columns[wrong[0]]]
        raise ValueError(f"{path}: image {image} has the label {identifier} both as 1 and as 0; take one of the lines away")
    print(
        f"{path.name}: {len(signs):,} labels of {len(row):,} images are used, {len(signs) - np.count_nonzero(found):,} of them "
        f"said twice; {others.total():,} are of {len(others):,} identifiers that are no class of the list"
    )
    return [f"{BELOW}/{image}.jpg" if BELOW in files else f"{image}.jpg" for image in row], found


def identifiers(files: Mapping[str, Path], classes: ClassList) -> list[str]:
    """The identifier of every class, such as /m/0108_09c: its note, or else that of the one class that has its name.

    Raises:
        ValueError: some classes have none, or one that Open Images does not know, or two of them the same.
    """
    path, named, found, unclear = files.get(DESCRIPTIONS), defaultdict(list), [], []
    for number, (identifier, name) in _lines(path, width=2) if path else ():
        named[_folded(name)].append(_formed(IDENTIFIER, identifier, f"{path}: line {number}"))
    known = {identifier for same in named.values() for identifier in same}
    for name, note in zip(classes.names, classes.notes or [""] * len(classes), strict=True):
        fitting = named.get(_folded(name), [])
        if note:
            fitting = [note] if note in known or (not path and IDENTIFIER.fullmatch(note)) else []
        found += fitting
        if len(fitting) != 1:
            unclear.append(f"{name} [{note}]" if note else f"{name} ({' or '.join(fitting)})" if fitting else name)
    if unclear:
        source = f"that {path} knows" if path else f"and there is no {DESCRIPTIONS} in which to look them up"
        raise ValueError(
            f"{len(unclear)} of {len(classes)} classes have no identifier, or not one alone, {source}: "
            f"{cut(', '.join(unclear[:10]))}; expected lines such as 'Tortoise [/m/011k07]' in the class lists"
        )
    if twice := [identifier for identifier, count in Counter(found).items() if count > 1]:
        raise ValueError(f"{len(twice)} identifiers stand for two classes of the list each: {cut(', '.join(twice[:10]))}")
    return found


def _listed(path):
    """The identifiers in the list of images."""
    listed = [_formed(IMAGE, fields[0], f"{path}: line {number}: ImageID") for number, fields in _lines(path, HEADER[:1])]
    if len(set(listed)) < len(listed):
        raise ValueError(f"{path} names {Counter(listed).most_common(1)[0][0]} more than once")
    return listed


def _formed(form, text, where):
    """`text`, if it has this form."""
    if not form.fullmatch(text):
        expected = "16 hexadecimal digits" if form is IMAGE else "an identifier such as /m/011k07"
        raise ValueError(f"{where}: expected {expected}, got {short(text)}")
    return text


def _folded(name):
    return name.replace("_", " ").lower()


def _lines(path: Path, header: Sequence[str] = (), width: int | None = None) -> Iterator[tuple[int, list[str]]]:
    """(number, fields) of every line of a CSV file after its header, blank ones aside.

    ValueError unless the header begins like this and every line has `width` fields.
    """
    with open_regular(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        lines = csv.reader(text, strict=True)
        try:
            if header and (first := next(lines, []))[: len(header)] != header:
                raise csv.Error(f"expected the header {','.join(header)}, got {short(','.join(first))}")
            for fields in lines:
                if width and fields and len(fields) != width:
                    raise csv.Error(f"expected {width} fields, got {len(fields)}; perhaps the file was cut")
                if fields:
                    yield lines.line_num, fields
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}: line {lines.line_num}: {error}") from None
