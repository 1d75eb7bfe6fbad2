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
BLOCK = 1 << 25  # bytes parsed at a time


def find(annotations: str | Path, images: str | Path | None, classes: ClassList) -> dict[str, Path]:
    """The text files that are needed.

    Args:
        annotations: folder of the text files, in the official subfolders or flat.
        images: folder of the images, which is not searched.
        classes: seen classes are tags of TagList1k.txt, unseen ones have a Labels_<class>.txt.

    Returns:
        {lower-case name: path}

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
    """The labels of the test images.

    Returns:
        (file names of the B images in the order of TestImagelist.txt, `actor/0001_2124494179.jpg` and so on, (B, C) int8 in
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
    """Some rows and columns of a text file of zeros and ones.

    Args:
        path: the file; a line is `width` digits, apart by blanks or tabs.
        width: columns of the file.
        rows: numbers of the lines wanted, in any order.
        columns: numbers of the columns wanted.
        lines: how many lines the file should have.

    Returns:
        (len(rows), len(columns)) bool.

    Raises:
        ValueError: another character, a line of another length, or another number of lines: a cut or foreign file.
    """
    wanted = np.zeros(lines, bool)
    wanted[rows] = True
    parts, line, rest = [], 0, b""
    with open(path, "rb") as file, progress(title=path.name, total=os.path.getsize(path), unit="B") as bar:
        while block := file.read(BLOCK):
            bar.update(len(block))
            block = rest + block
            cut = block.rfind(b"\n") + 1
            rest = block[cut:]
            line += _take(block[:cut], path, width, line, wanted, columns, parts)
    line += _take(rest + b"\n", path, width, line, wanted, columns, parts)
    if line != lines:
        raise ValueError(f"{path} has {line:,} lines, Imagelist.txt names {lines:,} images; perhaps it was cut")
    table = np.concatenate(parts) if parts else np.zeros((0, len(columns)), bool)
    order = np.cumsum(wanted) - 1  # the table is in the order of the file
    return table[order[rows]]


def _take(
    text: bytes, path: Path, width: int, line: int, wanted: np.ndarray, columns: Sequence[int], parts: list[np.ndarray]
) -> int:
    """Parse whole lines, append their wanted rows and columns to `parts`, and return how many lines there were."""
    characters = np.frombuffer(text, np.uint8)
    digit = (characters & 0xFE) == ord("0")  # "0" and "1" differ in the last bit
    blank = (characters == 32) | ((characters >= 9) & (characters <= 13))
    if not (digit | blank).all():
        raise ValueError(f"{path}: expected only 0 and 1, got {chr(characters[~(digit | blank)][0])!r}")
    ends = np.flatnonzero(characters == 10)
    if not len(ends):
        return 0
    a_line = np.add.reduceat(digit, np.r_[0, ends[:-1] + 1], dtype=np.int32)
    full = a_line > 0  # a blank line, as at the end, is none
    if (bad := full & (a_line != width)).any():
        number = line + int(full[: bad.argmax()].sum()) + 1
        raise ValueError(f"{path}: line {number} has {a_line[bad.argmax()]} entries, expected {width}; perhaps it was cut")
    table = characters[digit].reshape(-1, width)
    if line + len(table) > len(wanted):
        raise ValueError(f"{path} has more than {len(wanted):,} lines, as many as Imagelist.txt names images")
    parts.append(table[wanted[line : line + len(table)]][:, columns] == ord("1"))
    return len(table)


def _label_file(name: str) -> str:
    return f"labels_{name.lower()}.txt"


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None
