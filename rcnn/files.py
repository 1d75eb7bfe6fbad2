"""Files, in and out: only regular files are opened, errors name them, and what is written is written whole or not at all."""

import contextlib
import hashlib
import json
import os
import re
import stat
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from rcnn.printing import short

DAY = 24 * 60 * 60  # seconds; temporary files that are older, and of no living process, are removed
MOST_TEXT = 1 << 20  # bytes of a text file that people write: configurations, lists
MOST_JSON = 1 << 30


def digest(value: Any) -> str:
    """SHA-256 of bytes or of a JSON-able value, in hexadecimal; the order of dictionary keys does not matter."""
    data = value if isinstance(value, bytes) else json.dumps(value, sort_keys=True).encode()
    return hashlib.sha256(data).hexdigest()


def file_sha256(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_regular(path: str | Path) -> BinaryIO:
    """A file, opened for reading bytes; ValueError for a folder, a pipe or a device, of which reading might never end."""
    # without O_NONBLOCK, opening a pipe waits for somebody to write into it
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    if stat.S_ISREG(os.fstat(file).st_mode):
        return os.fdopen(file, "rb")
    os.close(file)
    raise ValueError(f"{path} is not a regular file")


def must_be_regular(path: str | Path) -> None:
    """The error that `open_regular` would raise, for libraries that open files by themselves."""
    open_regular(path).close()


def read_bytes(path: str | Path, most: int = MOST_JSON) -> bytes:
    """The bytes of a regular file; ValueError if it has more than `most`."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise ValueError(f"{path} has more than {most:,} bytes, which is no file of this kind")
        return file.read(most)


def read_text(path: str | Path, most: int = MOST_TEXT) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; ValueError names a file that is not."""
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error.reason} at byte {error.start}") from None


def read_json(path: str | Path, most: int = MOST_JSON) -> Any:
    """The value in a JSON file; ValueError names a file that is none."""
    text = read_text(path, most)
    try:
        return json.loads(text, object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError(f"{path} is not JSON that can be read: it is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON, perhaps only half written: {error}") from None
    except ValueError as error:  # a key that is there twice, or a number of more than 4,300 digits
        raise ValueError(f"{path} cannot be read: {error}") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):  # the first value would be lost
        ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"{short(key)} is there twice")
    return found


@contextlib.contextmanager
def replace_file(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary binary file that becomes `path` when the block ends well, and vanishes when it does not."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.rcnn")
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


def sealed(value: dict[str, Any]) -> dict[str, Any]:
    """A JSON-able dictionary with its own checksum, which `unseal` checks."""
    return {**value, "sha256": digest(value)}


def unseal(path: str | Path, value: Any) -> dict[str, Any]:
    """The dictionary that `sealed` was given, as it was read from `path`; ValueError if it is another now."""
    if not isinstance(value, dict) or value.get("sha256") != digest(rest := {k: v for k, v in value.items() if k != "sha256"}):
        raise ValueError(f"{path} is damaged, or was changed: its contents do not have its checksum")
    return rest


def sweep(*folders: str | Path) -> None:
    """Remove temporary files that killed processes left in these folders: older than a day, and of no living process."""
    for folder in folders:
        with contextlib.suppress(OSError):  # there may be no such folder; another process may sweep it, too
            for path in Path(folder).iterdir():
                process = re.fullmatch(r"\..+\.(\d+)\.rcnn", path.name)  # as `replace_file` names them
                if process and time.time() - path.lstat().st_mtime > DAY and not _lives(int(process[1])):
                    path.unlink(missing_ok=True)


def _lives(process: int) -> bool:
    if os.name == "nt":  # there, os.kill would send Ctrl-C or end the process, and a file that is open cannot be removed
        return False
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        pass
    return True
