"""Image files among files and folders that a user names. What is not read is named, never passed over."""

import os
import stat
from collections.abc import Container, Sequence
from pathlib import Path

from PIL import Image

from rcnn.printing import lossless
from rcnn.score import reading  # noqa: F401, which registers HEIC where its package is installed

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}
RAW = (".cr2", ".cr3", ".nef", ".nrw", ".arw", ".dng", ".orf", ".rw2", ".rwl", ".raf", ".pef", ".srw", ".iiq", ".3fr")
# formats that people's folders hold, and what to do where Pillow reads them only with more, or not at all
OTHERS = {
    **dict.fromkeys([".heic", ".heif", ".avif"], "this format needs another package; run pip install pillow-heif"),
    **dict.fromkeys([".jxl", ".jp2", ".psd"], "this format is not read; convert it to JPEG first"),
    **dict.fromkeys(RAW, "a camera's raw format, which is not read; convert it to JPEG first"),
}
KNOWN = SUFFIXES | OTHERS.keys()


def find_images(places: Sequence[str | Path]) -> tuple[list[Path], dict[Path, str], int]:
    """Image files among `places`, which are files and folders to search; each file once.

    Returns (images, {what is not read: why}, number of hidden images that are left alone). Folders below `places` that cannot
    be searched, or are links, are not read either.
    """
    found, hidden, unread, named = [], [], {}, {os.path.abspath(place) for place in places}
    for place in map(Path, places):
        if place.is_dir():
            files, left, problems = _search(place, named)
            found += sorted(files, key=lambda path: path.parts)  # as paths themselves are sorted, more slowly
            hidden += left
            unread |= problems
        elif os.path.lexists(place):
            found.append(place)
            unread |= _problem(place)
        else:
            raise FileNotFoundError(f"there is no image or folder {lossless(str(place))}")
    found, hidden = ({os.path.abspath(path): path for path in paths} for paths in (found, hidden))
    left_alone = len(hidden.keys() - found.keys())
    readable = Image.registered_extensions()
    for path in found.values():
        kind = path.suffix.lower()
        if kind in OTHERS and kind not in readable:
            unread.setdefault(path, OTHERS[kind])
    if not found and not unread:
        where, left = ", ".join(map(str, places)), f"; hidden files left alone: {left_alone}" if hidden else ""
        raise FileNotFoundError(f"no images in {where}; looked for {' '.join(sorted(SUFFIXES))}{left}")
    return [path for path in found.values() if path not in unread], unread, left_alone


def _search(place: Path, named: Container[str]) -> tuple[list[Path], list[Path], dict[Path, str]]:
    """All that is named like an image below a folder, the same that is hidden, and {what of the former is not read: why}."""
    files, hidden, unread, folders = [], [], {}, [(place, False)]
    for folder, is_hidden in folders:  # grows meanwhile
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    path, hides = folder / entry.name, is_hidden or entry.name.startswith(".")
                    if entry.is_dir(follow_symlinks=False):
                        folders.append((path, hides))
                    elif entry.is_symlink() and path.is_dir():
                        if os.path.abspath(path) not in named and not hides:
                            unread[path] = "a linked folder, which is not searched; name it as an argument"
                    elif os.path.splitext(entry.name)[1].lower() in KNOWN:
                        (hidden if hides else files).append(path)
                        if not hides and not entry.is_file(follow_symlinks=False):  # which the folder says of most
                            unread |= _problem(path)
        except OSError as error:
            if not is_hidden:
                unread[folder] = f"the folder cannot be searched: {error.strerror}"
    return files, hidden, unread


def _problem(path: Path) -> dict[Path, str]:
    """{path: why}, if something that is named like an image is no file to read."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        return {path: f"{'a link that leads to no file' if path.is_symlink() else 'cannot be read'}: {error.strerror}"}
    return {} if stat.S_ISREG(mode) else {path: "not a regular file"}
