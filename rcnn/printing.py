"""Text from elsewhere, such as names of files and classes and answers of services, made fit for a terminal and for one line."""

import os
import re
import reprlib
from typing import Any

from pydantic import ValidationError

MOST = 200  # characters of a foreign value in a message
LINES, LINE = 20, 600  # of a whole message, and characters of one
# what a terminal acts upon, or shows in another order than it stands there; and what no encoding can write
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

_short = reprlib.Repr()
_short.maxlevel, _short.maxstring, _short.maxother, _short.maxlong = 3, MOST, MOST, 60


def printable(text: str) -> str:
    """`text` with backslash escapes for control characters, changes of direction and lone surrogates."""
    return UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape", "surrogatepass").decode(), text)


def lossless(name: str) -> str:
    r"""A name, printable such that it can be had back: "caf\udce9.jpg" has another byte than "caf\\udce9.jpg"."""
    return printable(name if os.sep == "\\" else name.replace("\\", "\\\\"))


def short(value: Any) -> str:
    """How a foreign value is shown in a message: its repr, cut to some 200 characters, whatever its size."""
    try:
        return cut(_short.repr(value))
    except ValueError:  # Python writes no whole number of more than 4,300 digits
        return f"a value that cannot be shown ({type(value).__name__})"


def cut(text: str, most: int = MOST) -> str:
    """`text`, or its beginning and its end, if it is longer than `most` characters."""
    return text if len(text) <= most else f"{text[: most - most // 4]} … {text[-most // 4 :]}"


def explain(error: Exception) -> str:
    """What is wrong, in some words and without foreign values at length; of pydantic's errors the first, with its place."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False, include_input=False)[0]
        return cut(": ".join(filter(None, [".".join(map(str, first["loc"])), first["msg"]])))
    return cut(str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}")


def message(text: str) -> str:
    """A whole message, ready to be printed: its lines printable and cut, and not too many of them."""
    lines = text.split("\n")
    lines = lines if len(lines) <= LINES else [*lines[:LINES], "…"]
    return "\n".join(printable(cut(line, LINE)) for line in lines)
