"""Scores of photos, kept in SQLite files, so that what was scored once is not scored again while the photo stays as it is.

A file holds scores of one identity: of one CLIP, one list of class embeddings, one way to score. Each process of a run by
torchrun writes a file of its own; all of them are read.
"""

import contextlib
import os
import sqlite3
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rcnn.files import must_be_regular
from rcnn.printing import cut

COLUMNS = "path, stamp, scores, problem, checksum"
PATIENCE = 60  # seconds to wait for another process that writes

Answer = np.ndarray | str  # (C,) float32 scores of a photo, or why it cannot be read


class Photo(NamedTuple):
    """A photo as it is now: another size or time of change makes it another one."""

    path: bytes  # absolute
    stamp: str  # size in bytes and time of the last change in nanoseconds

    @classmethod
    def at(cls, path: str | Path) -> "Photo":
        """The photo at a path; without a stamp if there is none, as when it was there a moment ago."""
        place = os.path.abspath(path)
        with contextlib.suppress(OSError):
            status = os.stat(place)
            return cls(os.fsencode(place), f"{status.st_size} {status.st_mtime_ns}")
        return cls(os.fsencode(place), "")


class Store:
    """The scores that are kept of one identity."""

    def __init__(self, folder: str | Path, identity: str, num_classes: int, process: str = "") -> None:
        """Open the store in a folder, or begin it.

        Args:
            identity: hexadecimal digest of all that scores depend on but the photo.
            process: what tells the file of this process from those of others that share the photos.

        Raises:
            ValueError, OSError: a file of the store is damaged, of another kind, or cannot be written.
        """
        self._folder, self._identity, self._bytes, self._files = Path(folder), identity, 4 * num_classes, {}
        self._folder.mkdir(parents=True, exist_ok=True)
        self._own = self._folder / f"{identity[:16]}{process}.sqlite"
        for path in (self._own, *sorted(self._folder.glob(f"{identity[:16]}*.sqlite"))):
            if path not in self._files:
                self._files[path] = _connect(path, identity)

    def close(self) -> None:
        """Close the files."""
        for connection in self._files.values():
            connection.close()

    def get(self, photos: Sequence[Photo]) -> list[Answer | None]:
        """What is kept of some hundred photos; None of one that is not kept, or of which the file is damaged there."""
        found, wanted = {}, ", ".join("?" * len(photos))
        command, paths = f"SELECT {COLUMNS} FROM photos WHERE path IN ({wanted})", [photo.path for photo in photos]
        for path, connection in reversed(self._files.items()):  # what this process kept wins
            found |= (self._read(row) for row in _rows(path, connection, command, paths))
        return [found.get(photo) for photo in photos]

    def put(self, answers: Mapping[Photo, Answer]) -> None:
        """Keep these, all or none, in place of what was kept of their paths."""
        rows = []
        for photo, answer in answers.items():
            found = (None, answer) if isinstance(answer, str) else (np.asarray(answer, np.float32).tobytes(), None)
            rows.append((*photo, *found, _checksum(photo, *found)))
        with _errors_name(self._own), self._files[self._own] as own:
            own.executemany("DELETE FROM photos WHERE path = ?", [(photo.path,) for photo in answers])
            own.executemany("INSERT INTO photos VALUES (?, ?, ?, ?, ?)", rows)

    def merge(self, path: str | Path) -> None:
        """Take over what another store of this identity keeps, such as that of another machine."""
        must_be_regular(path)
        with (
            contextlib.closing(_connect(path, self._identity)) as other,
            _errors_name(self._own),
            self._files[self._own] as own,
        ):
            whole = (row for row in _rows(path, other, f"SELECT {COLUMNS} FROM photos") if self._read(row)[0])
            own.executemany("INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?)", whole)

    def _read(self, row: tuple) -> tuple[Photo | None, Answer | None]:
        """A photo and what is kept of it; None if the row is damaged."""
        path, stamp, scores, problem, checksum = row
        with contextlib.suppress(TypeError, AttributeError):  # values of other types
            photo = Photo(path, stamp)
            if (scores is None or len(scores) == self._bytes) and checksum == _checksum(photo, scores, problem):
                return photo, problem if scores is None else np.frombuffer(scores, np.float32)
        return None, None


def _connect(path: str | Path, identity: str) -> sqlite3.Connection:
    """A connection to a file of this identity, begun if there is none; a context in which all is written, or nothing."""
    if os.path.lexists(path):
        must_be_regular(path)
    with _errors_name(path), contextlib.ExitStack() as stack:
        connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level="IMMEDIATE")
        stack.callback(connection.close)  # if any of this fails
        connection.execute("PRAGMA trusted_schema=OFF")
        with connection:
            connection.execute("BEGIN IMMEDIATE")  # of two processes that begin at once, one waits
            if not connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                connection.execute(f"CREATE TABLE photos ({COLUMNS}, PRIMARY KEY (path, stamp))")
                connection.execute(f"CREATE TABLE about AS SELECT '{identity}' AS identity")
            found = connection.execute("SELECT identity FROM about").fetchone()
        if found != (identity,):
            raise ValueError(f"{path} has scores by another model, by other class embeddings or other grids")
        with contextlib.suppress(sqlite3.OperationalError):  # another process is just setting it
            connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may take the last batches, and no more
        stack.pop_all()
        return connection


def _rows(path: str | Path, connection: sqlite3.Connection, command: str, values: Sequence[bytes] = ()) -> Iterator[tuple]:
    """Rows that a command finds, one after the other."""
    with _errors_name(path):
        yield from connection.execute(command, values)


@contextlib.contextmanager
def _errors_name(path: str | Path) -> Iterator[None]:
    """SQLite's errors as those of this file: its content is wrong, or (OSError) the disk, its permissions, another process."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
        if isinstance(error, sqlite3.OperationalError) and code != sqlite3.SQLITE_ERROR:
            raise OSError(f"{path}: {error}; what was kept stays, and the same command goes on") from None
        why = f"{path} is damaged, or no file of scores ({cut(str(error))})"
        raise ValueError(f"{why}; delete it, and its photos are scored again") from None


def _checksum(photo: Photo, scores: bytes | None, problem: str | None) -> int:
    what = (problem or "").encode() if scores is None else scores
    return zlib.crc32(what, zlib.crc32(photo.stamp.encode(), zlib.crc32(photo.path)))
