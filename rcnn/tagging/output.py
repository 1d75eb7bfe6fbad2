"""The tags of images as a table for people, CSV, JSON, or JSON lines: one image after the other, as they come."""

import contextlib
import csv
import json
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TextIO

from rcnn.printing import UNPRINTABLE, lossless, printable

FORMATS = ("table", "csv", "json", "jsonl")

Scored = list[tuple[int, float]]  # (column of the class, score), best first


@contextlib.contextmanager
def writer(
    file: TextIO, form: str, class_names: Sequence[str], paths: Iterable[Path]
) -> Iterator[Callable[[Path, Scored], None]]:
    """A function that writes the tags of one of `paths` in one of FORMATS; JSON is closed at the end, if all went well.

    In CSV an image without tags has one line, with an empty class.
    """
    width = max((len(lossless(str(path))) for path in paths), default=0) if form == "table" else 0
    before, rows, shown = "[", csv.writer(file), [printable(name) for name in class_names]
    if form == "csv":
        rows.writerow(["image", "rank", "class", "score"])

    def write(path: Path, tags: Scored) -> None:
        nonlocal before
        if form.startswith("json"):
            entry = {
                "image": str(path),
                "tags": [{"class": class_names[column], "score": round(score, 6)} for column, score in tags],
            }
            if form == "jsonl":
                file.write(_json(entry, file.encoding, None) + "\n")
            else:
                file.write(f"{before}\n{textwrap.indent(_json(entry, file.encoding, 1), ' ')}")
            before = ","
        elif form == "csv":
            image = lossless(str(path))
            lines = [(image, rank, shown[column], f"{score:.6f}") for rank, (column, score) in enumerate(tags, 1)]
            rows.writerows(lines or [(image, "", "", "")])
        else:
            columns = "  ".join(f"{shown[column]} {score:.3f}" for column, score in tags)
            file.write(f"{lossless(str(path)).ljust(width)}  {columns}".rstrip() + "\n")

    yield write
    if form == "json":
        file.write("[]\n" if before == "[" else "\n]\n")


def _json(value: object, encoding: str | None, indent: int | None) -> str:
    """JSON with escapes where an encoding lacks a character, or a terminal would act upon it."""
    text, encoding = json.dumps(value, indent=indent, ensure_ascii=False), encoding or "utf-8"
    if text.encode(encoding, "replace").decode(encoding) != text:
        text = json.dumps(value, indent=indent)
    return UNPRINTABLE.sub(lambda found: found[0] if found[0] == "\n" else f"\\u{ord(found[0]):04x}", text)
