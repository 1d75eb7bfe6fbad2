"""NUS-WIDE from its official text files and Flickr's images (Chua et al., CIVR 2009).

Labels of the seen classes are the tags that photographers gave, those of the unseen ones were checked by people. The test
images are used. Lines may end in CRLF or LF; file names may have Windows separators.
"""

import filecmp
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from rcnn.files import digest, must_be_regular, open_regular, read_text
from rcnn.printing import short
from rcnn.progress import progress
from rcnn.text.classes import ClassList

LISTS = ("taglist1k.txt", "imagelist.txt", "testimagelist.txt", "alltags1k.txt")  # found in any subfolder, in any case
TEST_TAGS = "test_tags1k.dat"  # the lines of AllTags1k.txt that are of test images, in the order of TestImagelist.txt
TAGS = "a21ab61b16ebef24f092a54d9ac8b5b29e6d393270282817d193b903f0f051e5"  # digest of the official TagList1k.txt, as read
FOLDERS = 10_000  # searched at most; the official data set has a dozen, and some 700 of images
MOST_LIST = 1 << 26  # bytes; the official Imagelist.txt has 10 MB
BLOCK = 1 << 20  # bytes parsed at a time, at least a line
LINE = 1 << 20  # bytes; an official one has 2,000


def find(annotations: str | Path, images: str | Path | None, classes: ClassList) -> dict[str, Path]:
    """{lower-case name: path} of the text files needed, in the official subfolders or flat; the images are not searched.

    Files that repeat the labels of the test images are among them where they are there, as `labels` checks the order by them.

    Raises:
        FileNotFoundError: some are not there, with their count and the first ten names.
        ValueError: one is no regular file, or two of the same name differ.
    """
    wanted = [*LISTS, *map(_label_file, classes.names[classes.seen :])]
    found = _search(annotations, images, {*wanted, *_repeated(classes)})
    if missing := [name for name in wanted if name not in found]:
        raise FileNotFoundError(
            f"{len(missing)} of the {len(wanted)} text files of NUS-WIDE are not under {annotations} (dataset.annotations): "
            f"{', '.join(missing[:10])}; get NUS_WID_Tags, ImageList and Groundtruth from its site"
        )
    return {name: found[name] for name in (*wanted, *_repeated(classes)) if name in found}


def _search(root, images, wanted):
    """{lower-case name: path} of the files wanted; a folder is searched once, however many links lead to it."""
    found, searched = {}, {_identity(images)} if images and Path(images).is_dir() else set()
    for number, (place, folders, names) in enumerate(os.walk(root, followlinks=True)):
        if number == FOLDERS:
            raise ValueError(f"{root} has more than {FOLDERS:,} folders (dataset.annotations); name one with NUS-WIDE alone")
        if number and _identity(place) in searched:
            folders.clear()
            continue
        searched.add(_identity(place))
        folders.sort()
        for name in sorted(names):
            if (key := name.lower()) in wanted:
                must_be_regular(path := Path(place, name))
                first = found.setdefault(key, path)
                if first != path and not filecmp.cmp(first, path, shallow=False):
                    raise ValueError(f"{first} and {path} differ; keep the one that belongs to the other files")
    return found


def _identity(folder):
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def counts(files: Mapping[str, Path]) -> dict[str, int]:
    """How many images there are with those for training, and tags: a list in another order gives other labels, unseen."""
    tags = _lines(files["taglist1k.txt"], str.lower)
    every = _lines(files["imagelist.txt"], _image)
    return {"images in all": len(every), "tags in the official order": len(tags) * (digest(tags) == TAGS)}


def unverified(files: Mapping[str, Path], classes: ClassList) -> str:
    """What the files that were found cannot prove, in words."""
    absent = [name for name in _repeated(classes) if name not in files]
    named = ", ".join(absent[:3]) + (", …" if len(absent) > 3 else "")
    return f"that labels and images are in the same order, as {len(absent)} files are not there: {named}" if absent else ""


def labels(files: Mapping[str, Path], classes: ClassList) -> tuple[list[str], np.ndarray]:
    """The labels of the test images: seen classes are tags of TagList1k.txt, unseen ones have a Labels_<class>.txt.

    Returns:
        (file names of the B images in the order of TestImagelist.txt, such as actor/0001_2124494179.jpg, (B, C) int8 in
        {1, -1}).

    Raises:
        ValueError: a file is not what it should be, or does not know a class.
    """
    listed = _lines(files["taglist1k.txt"], str.lower)
    tags = {name: i for i, name in enumerate(listed)}
    seen = [name.lower() for name in classes.names[: classes.seen]]
    if unknown := [name for name in seen if name not in tags]:
        raise ValueError(f"{files['taglist1k.txt']}: there is no tag for {len(unknown)} classes: {', '.join(unknown[:10])}")
    every, names = (_lines(files[name], _image) for name in ("imagelist.txt", "testimagelist.txt"))
    row = {name: i for i, name in enumerate(every)}
    if not names:
        raise ValueError(f"{files['testimagelist.txt']} names no image")
    if strange := [name for name in names if name not in row]:
        where = files["testimagelist.txt"]
        raise ValueError(f"{len(strange)} images of {where} are not in Imagelist.txt, such as {short(strange[0])}")
    rows, columns = np.array([row[name] for name in names]), [tags[name] for name in seen]
    found = [read_table(files["alltags1k.txt"], len(listed), rows, columns, len(every))]
    if TEST_TAGS in files:
        _verify(files[TEST_TAGS], found[0], len(listed), columns)
    for name in progress(classes.names[classes.seen :], "read labels", unit="file"):
        found.append(read_table(files[_label_file(name)], 1, rows, [0], len(every)))
        if (again := _label_file(name, "_test")) in files:
            _verify(files[again], found[-1], 1, [0])
    found = np.hstack(found).view(np.int8)
    found *= 2  # in place: the table of all test images takes 108 MB
    found -= 1
    return names, found


def _verify(path, found, width, columns):
    """ValueError unless the table of the test images alone has what was found by way of both image lists."""
    again = read_table(path, width, np.arange(len(found)), columns, len(found), "TestImagelist.txt")
    if differ := int((again != found).any(1).sum()):
        raise ValueError(
            f"{path}: {differ:,} of {len(found):,} test images have other labels than Imagelist.txt gives them: the image "
            "lists and the labels are not in the same order, or of different origin; get all of NUS-WIDE's text files anew, "
            f"or take {path.name} away to go on unverified"
        )


def read_table(
    path: Path, width: int, rows: np.ndarray, columns: Sequence[int], lines: int, listed: str = "Imagelist.txt"
) -> np.ndarray:
    """Some rows and columns of a text file of zeros and ones, apart by blanks or tabs, with `width` of them a line.

    Args:
        lines: as many as the file must have; `listed`, the list of images that says so.

    Returns:
        (len(rows), len(columns)) bool.

    Raises:
        ValueError: another character, a line of another length, or another number of lines: a cut or foreign file.
    """
    wanted = np.zeros(lines, bool)
    wanted[rows] = True
    parts, line = [np.zeros((0, len(columns)), bool)], 0
    with open_regular(path) as file, progress(title=path.name, total=path.stat().st_size, unit="B") as bar:
        while block := file.read(BLOCK) + (rest := file.readline(LINE)):  # whole lines
            if len(rest) == LINE and not rest.endswith(b"\n"):
                raise ValueError(f"{path} has a line of more than {LINE:,} bytes, expected {width} times 0 or 1 a line")
            bar.update(len(block))
            entries = block.translate(None, b" \t\r\v\f").split()  # by line; a blank line, as at the end, is none
            digits = b"".join(entries)
            if other := digits.translate(None, b"01"):
                raise ValueError(f"{path}: expected only 0 and 1, got {chr(other[0])!r}")
            for number, found in enumerate(map(len, entries), line + 1):
                if found != width:
                    raise ValueError(f"{path}: line {number} has {found} entries, expected {width}; perhaps it was cut")
            if line + len(entries) > lines:
                raise ValueError(f"{path} has more than {lines:,} lines, as many as {listed} names images")
            table = np.frombuffer(digits, np.uint8).reshape(-1, width)
            parts.append(table[wanted[line : line + len(table)]][:, columns] == ord("1"))
            line += len(table)
    if line != lines:
        raise ValueError(f"{path} has {line:,} lines, {listed} names {lines:,} images; perhaps it was cut")
    order = np.cumsum(wanted) - 1  # the parts are in the order of the file
    return np.concatenate(parts)[order[rows]]


def _label_file(name, part=""):
    return f"labels_{name.lower()}{part}.txt"


def _repeated(classes):
    """The files with labels of the test images alone, which are not needed, since the others have them, too."""
    return [*[TEST_TAGS] * (classes.seen > 0), *(_label_file(name, "_test") for name in classes.names[classes.seen :])]


def _image(name):
    return name.replace("\\", "/")


def _lines(path: Path, form: Callable[[str], str]) -> list[str]:
    """What a list names, in one form; ValueError if it names something twice, since the labels of one would be lost."""
    lines = [form(line.strip()) for line in read_text(path, MOST_LIST).splitlines() if line.strip()]
    if len(set(lines)) < len(lines):
        raise ValueError(f"{path} names {short(Counter(lines).most_common(1)[0][0])} more than once")
    return lines
