"""NUS-WIDE from its official text files and Flickr's images (Chua et al., CIVR 2009).

Labels of the seen classes are the tags that photographers gave, those of the unseen ones were checked by people. The test
images are used. Lines may end in CRLF or LF; file names may have Windows separators.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from rcnn.progress import progress
from rcnn.text.classes import ClassList

LISTS = ("taglist1k.txt", "imagelist.txt", "testimagelist.txt", "alltags1k.txt")  # found in any subfolder, in any case
BLOCK = 1 << 25  # bytes parsed at a time


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
    parts, line = [], 0
    for block in _blocks(path, width):
        if line + len(block) > lines:
            raise ValueError(f"{path} has more than {lines:,} lines, as many as Imagelist.txt names images")
        parts.append(block[wanted[line : line + len(block)]][:, columns] == ord("1"))
        line += len(block)
    if line != lines:
        raise ValueError(f"{path} has {line:,} lines, Imagelist.txt names {lines:,} images; perhaps it was cut")
    order = np.cumsum(wanted) - 1  # the parts are in the order of the file
    return np.concatenate(parts)[order[rows]]


def _blocks(path: Path, width: int) -> Iterator[np.ndarray]:
    """(lines, width) characters "0" and "1" of each block of whole lines."""
    line, rest, block = 0, b"", b" "
    with open(path, "rb") as file, progress(title=path.name, total=os.path.getsize(path), unit="B") as bar:
        while block:
            block = file.read(BLOCK)
            bar.update(len(block))
            text = rest + (block or b"\n")  # the last line may have no end
            cut = text.rfind(b"\n") + 1
            text, rest = text[:cut], text[cut:]
            characters = np.frombuffer(text, np.uint8)
            digit = (characters & 0xFE) == ord("0")  # "0" and "1" differ in the last bit
            blank = (characters == 32) | ((characters >= 9) & (characters <= 13))
            if not (digit | blank).all():
                raise ValueError(f"{path}: expected only 0 and 1, got {chr(characters[~(digit | blank)][0])!r}")
            starts = np.r_[0, np.flatnonzero(characters == 10) + 1][:-1]
            entries = np.add.reduceat(digit, starts, dtype=np.int32)
            entries = entries[entries > 0]  # a blank line, as at the end, is none
            if (bad := entries != width).any():
                i = bad.argmax()
                raise ValueError(f"{path}: line {line + i + 1} has {entries[i]} entries, expected {width}; perhaps it was cut")
            line += len(entries)
            yield characters[digit].reshape(-1, width)


def _label_file(name: str) -> str:
    return f"labels_{name.lower()}.txt"


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None
