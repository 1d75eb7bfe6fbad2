"""An image as RGB, from a file, a PIL image or an array: what is opened, how large it may be, and that Pillow stays silent.

Memory at its peak per megapixel of a file, measured: 4 MB for JPEG (8 if it is turned or progressive), 7 MB for a 16-bit grey
PNG, 8 MB for a PNG with transparency, 17 MB for WebP, 20 MB for JPEG 2000.
"""

import contextlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from rcnn.files import open_regular
from rcnn.printing import cut, printable

with contextlib.suppress(ImportError):  # an optional package
    from pillow_heif import register_heif_opener

    register_heif_opener()

logging.getLogger("PIL").addHandler(logging.NullHandler())  # without a handler, its errors would be printed

AnyImage = str | Path | Image.Image | np.ndarray  # a file, a PIL image of any mode, or an array (H, W, 3) of uint8

MAX_PIXELS = 89_478_485  # of a file; above it Pillow itself warns of images made to exhaust the memory

PROGRAMS = ("EPS",)  # PostScript is one: Pillow gives it to Ghostscript, which runs it for as long as it likes

_Turn = Image.Transpose
TURNS = {  # by the value of EXIF's orientation
    2: _Turn.FLIP_LEFT_RIGHT, 3: _Turn.ROTATE_180, 4: _Turn.FLIP_TOP_BOTTOM, 5: _Turn.TRANSPOSE,
    6: _Turn.ROTATE_270, 7: _Turn.TRANSVERSE, 8: _Turn.ROTATE_90,
}  # fmt: skip

# Pillow's limit, Python's filters of warnings and stderr are of the process, not of a thread
_one_at_a_time = threading.RLock()
if hasattr(os, "register_at_fork"):  # no process is forked off while they are changed
    _release = _one_at_a_time.release
    os.register_at_fork(before=_one_at_a_time.acquire, after_in_parent=_release, after_in_child=_release)


def read_rgb(image: AnyImage, side: int, upright: bool = False, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The image as RGB; an image that was given is left as it is.

    Args:
        side: in pixels, of the square that the image will be resized to; a narrow strip needs memory for it.
        upright: turn it as its EXIF data say.
        max_pixels: a file with more is decoded at a half, quarter or eighth if it is a JPEG, and refused otherwise.

    Raises:
        ValueError, OSError and nearly every other kind, for a bad file.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(_silence())
        if isinstance(image, str | Path):
            file = stack.enter_context(open_regular(image))
            image = stack.enter_context(_open(file, side, max_pixels))
        elif isinstance(image, np.ndarray):
            image = from_array(image)
        elif not isinstance(image, Image.Image):
            raise ValueError(f"expected a path, a PIL image or an array, got {type(image).__name__}")
        if image.format == "TIFF":
            stack.enter_context(_silent_libtiff())
        image.load()
        return to_rgb(_turned_upright(image) if upright else image)


def from_array(array: np.ndarray) -> Image.Image:
    """The image of an array (H, W, 3) of uint8; a ValueError says what is wrong with it."""
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"expected an array (height, width, 3) of uint8, got {array.shape} of {array.dtype}")
    return Image.fromarray(array)


def to_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB: transparency is dropped, 16-bit greys keep their upper 8 bits, EXIF rotation is ignored."""
    if 0 in image.size:
        raise ValueError("it has no pixels")
    if image.mode.startswith("I"):
        # "I" has 32 bits a pixel; of those with 16, Pillow calculates with "I;16" alone
        image = image if image.mode in ("I", "I;16") else image.convert("I")
        image = image.point(lambda value: value * (1 / 256)).convert("L")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image if image.mode == "RGB" else image.convert("RGB")


def reason(error: Exception) -> str:
    """Why an image cannot be read, as one line."""
    if isinstance(error, UnidentifiedImageError):
        return "cannot identify image: it is damaged, or of no known format"
    return printable(cut(str(error) or type(error).__name__))


def _open(file, side: int, max_pixels: int) -> Image.Image:
    """An image with its pixels still to be decoded, of which there are not too many."""
    Image.MAX_IMAGE_PIXELS = None
    Image.init()
    image = Image.open(file, formats=[known for known in Image.ID if known not in PROGRAMS])
    Image.MAX_IMAGE_PIXELS = max_pixels  # for images within images, which are found while decoding
    width, height = image.size
    if _needed(image.size, side) > max_pixels and not image.info.get("progressive"):  # which is kept whole while decoding
        fits = (part for part in (2, 4) if _needed((-(-width // part), -(-height // part)), side) <= max_pixels)
        part = next(fits, 8)
        image.draft(None, (max(width // part, 1), max(height // part, 1)))  # does nothing in other formats
    if _needed(image.size, side) > max_pixels:
        what = f"{width:,} by {height:,} pixels"
        raise ValueError(f"{what} are more than the {max_pixels:,} that evaluate.max_pixels allows")
    return image


def _needed(size: tuple[int, int], side: int) -> int:
    """Pixels in memory at most: Pillow resizes one side after the other, so a strip becomes `side` wide at its full length."""
    return max(size) * max(min(size), side)


def _turned_upright(image: Image.Image) -> Image.Image:
    try:
        turn = TURNS.get(image.getexif().get(ExifTags.Base.Orientation))
    except Exception:  # damaged EXIF data turn nothing
        turn = None
    return image if turn is None else image.transpose(turn)


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """Keep Pillow's warnings to ourselves, also where warnings are errors; afterwards its limit is as it was."""
    with _one_at_a_time, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        limit = Image.MAX_IMAGE_PIXELS
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextlib.contextmanager
def _silent_libtiff() -> Iterator[None]:
    """Drop what libtiff writes to stderr by itself; what makes an image unreadable is raised as well."""
    if sys.stderr is None:  # it is closed, and its number may be another file's
        yield
        return
    stderr, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
        os.close(nowhere)
