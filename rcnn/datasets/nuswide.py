"""NUS-WIDE from its official text files and Flickr's images (Chua et al., CIVR 2009).

Labels of the seen classes are the tags that photographers gave, those of the unseen ones were checked by people. The test
images are used. Lines may end in CRLF or LF; file names may have Windows separators.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from rcnn.progress import progress
from rcnn.text.classes import ClassList

LISTS = ("taglist1k.txt", "imagelist.txt", "testimagelist.txt", "alltags1k.txt")  # found in any subfolder, in any case
BLOCK = 1 << 20  # bytes parsed at a time, at least a line


def find(annotations: str | Path, images: str | Path | None, classes: ClassList) -> dict[str, Path]:
    """{lower-case name: path} of the text files needed, in the official subfolders or flat; the images are not searched.

    Raises:
        FileNotFoundError: some are not there, with their count and the first ten names.
    """
    wanted = [*LISTS, *(_label_file(name) for name in classes.names[classes.seen :])]
    found, image_folder = {}, Path(images).resolve() if images else None
    for place, folders, names in os.walk(annotations, followlinks=True):
        folders[:] = sorted(f for f in folders if Path(place, f).resolve() != image_folder)  # not through all images
        for name in names:
            found.setdefault(name.lower(), Path(place, name))
    if missing := [name for name in wanted if name not in found]:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(wanted)} text files of NUS-WIDE are not under {annotations} (dataset.annotations): "
            f"{', '.join(missing[:10])}; get NUS_WID_Tags, ImageList and Groundtruth from its site"
        )
    return {name: found[name] for name in wanted}


def labels(files: Mapping[str, Path], classes: ClassList) -> tuple[list[str], np.ndarray]:
    """The labels of the test images: seen classes are tags of TagList1k.txt, unseen ones have a Labels_<class>.txt.

    Returns:
        (file names of the B images in the order of TestImagelist.txt, such as actor/0001_2124494179.jpg, (B, C) int8 in
        {1, -1}).

    Raises:
        ValueError: a file is not what it should be, or does not know a class.
    """
    listed = _lines(files["taglist1k.txt"])
    tags = {name.lower(): i for i, name in enumerate(listed)}
    seen = [name.lower() for name in classes.names[: classes.seen]]
    if unknown := [name for name in seen if name not in tags]:
        raise ValueError(f"{files['taglist1k.txt']}: there is no tag for {len(unknown)} classes: {', '.join(unknown[:10])}")
    every = [name.replace("\\", "/") for name in _lines(files["imagelist.txt"])]
    names = [name.replace("\\", "/") for name in _lines(files["testimagelist.txt"])]
    row = {name: i for i, name in enumerate(every)}
    if not names:
        raise ValueError(f"{files['testimagelist.txt']} names no image")
    if strange := [name for name in names if name not in row]:
        where = files["testimagelist.txt"]
        raise ValueError(f"{len(strange)} images of {where} are not in Imagelist.txt, such as {strange[0]}")
    rows = np.array([row[name] for name in names])
    by_tag = read_table(files["alltags1k.txt"], len(listed), rows, [tags[name] for name in seen], len(every))
    checked = [
        read_table(files[_label_file(name)], 1, rows, [0], len(every))
        for name in progress(classes.names[classes.seen :], "read labels", unit="file")
    ]
    found = np.hstack([by_tag, *checked]).view(np.int8)
    found *= 2  # in place: the table of all test images takes 108 MB
    found -= 1
    return names, found


def read_table(path: Path, width: int, rows: np.ndarray, columns: Sequence[int], lines: int) -> np.ndarray:
    """Some rows and columns of a text file of zeros and ones, apart by blanks or tabs, with `width` of them a line.

    Returns:
        (len(rows), len(columns)) bool.

    Raises:
        ValueError: another character, a line of another length, or another number of lines: a cut or foreign file.
    """
    wanted = np.zeros(lines, bool)
    wanted[rows] = True
    parts, line = [np.zeros((0, len(columns)), bool)], 0
    with open(path, "rb") as file, progress(title=path.name, total=os.path.getsize(path), unit="B") as bar:
        while block := file.read(BLOCK) + file.readline():  # whole lines
            bar.update(len(block))
            entries = block.translate(None, b" \t\r\v\f").split()  # by line; a blank line, as at the end, is none
            digits = b"".join(entries)
            if other := digits.translate(None, b"01"):
                raise ValueError(f"{path}: expected only 0 and 1, got {chr(other[0])!r}")
            for number, found in enumerate(map(len, entries), line + 1):
                if found != width:
                    raise ValueError(f"{path}: line {number} has {found} entries, expected {width}; perhaps it was cut")
            if line + len(entries) > lines:
                raise ValueError(f"{path} has more than {lines:,} lines, as many as Imagelist.txt names images")
            table = np.frombuffer(digits, np.uint8).reshape(-1, width)
            parts.append(table[wanted[line : line + len(table)]][:, columns] == ord("1"))
            line += len(table)
    if line != lines:
        raise ValueError(f"{path} has {line:,} lines, Imagelist.txt names {lines:,} images; perhaps it was cut")
    order = np.cumsum(wanted) - 1  # the parts are in the order of the file
    return np.concatenate(parts)[order[rows]]


def _label_file(name: str) -> str:
    return f"labels_{name.lower()}.txt"


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None
