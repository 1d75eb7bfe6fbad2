"""Files that are written whole or not at all, and the one digest by which things are told apart."""

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO


def digest(value: Any) -> str:
    """SHA-256 of bytes or of a JSON-able value, in hexadecimal; the order of dictionary keys does not matter."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def replace_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary binary file that becomes `path` when the block ends well, and vanishes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON; key order is kept."""
    with replace_file(path) as file:
        file.write((json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())
