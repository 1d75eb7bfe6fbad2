"""Scores of photos, kept in SQLite files, so that what was scored once is not scored again while the photo stays as it is.

A file holds scores of one identity: of one CLIP, one list of class embeddings, one way to score. Each process of a run by
torchrun writes a file of its own; all of them are read.
"""

import contextlib
import os
import sqlite3
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rcnn.files import must_be_regular
from rcnn.printing import cut

SCHEMA = [
    "CREATE TABLE photos (path BLOB, stamp TEXT, scores BLOB, problem TEXT, checksum INTEGER, PRIMARY KEY (path, stamp))",
    "CREATE TABLE about (identity TEXT)",
]
COLUMNS = "path, stamp, scores, problem, checksum"
PATIENCE = 60  # seconds to wait for another process that writes
OF_THE_SYSTEM = {  # what is wrong is not the file's content
    sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_PERM, sqlite3.SQLITE_NOMEM,
}  # fmt: skip

Answer = np.ndarray | str  # (C,) float32 scores of a photo, or why it cannot be read


class Photo(NamedTuple):
    """A photo as it is now: another size or time of change makes it another one."""

    path: bytes  # absolute
    stamp: str  # size in bytes and time of the last change in nanoseconds

    @classmethod
    def at(cls, path: str | Path) -> "Photo":
        """The photo at a path; OSError if there is none."""
        place = os.path.abspath(path)
        status = os.stat(place)
        return cls(os.fsencode(place), f"{status.st_size} {status.st_mtime_ns}")


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
        self.folder, self.identity, self._bytes = Path(folder), identity, 4 * num_classes
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{identity[:16]}{process}.sqlite"
        others = sorted(p for p in self.folder.glob(f"{identity[:16]}*.sqlite") if p != path)
        self._files = [_File(file, identity) for file in (path, *others)]

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            file.connection.close()

    def get(self, photos: Sequence[Photo]) -> list[Answer | None]:
        """What is kept of some hundred photos; None of one that is not kept, or of which the file is damaged there."""
        found, wanted = {}, ", ".join("?" * len(photos))
        for file in reversed(self._files):  # what this process kept wins
            for row in file.rows(f"SELECT {COLUMNS} FROM photos WHERE path IN ({wanted})", [photo.path for photo in photos]):
                photo, answer = self._read(row)
                found[photo] = answer
        return [found.get(photo) for photo in photos]

    def put(self, answers: Mapping[Photo, Answer]) -> None:
        """Keep these, all or none, in place of what was kept of their paths."""
        rows = []
        for photo, answer in answers.items():
            found = (None, answer) if isinstance(answer, str) else (np.asarray(answer, np.float32).tobytes(), None)
            rows.append((*photo, *found, _checksum(photo, *found)))
        with self._files[0].writing() as own:
            own.executemany("DELETE FROM photos WHERE path = ?", [(photo.path,) for photo in answers])
            own.executemany("INSERT INTO photos VALUES (?, ?, ?, ?, ?)", rows)

    def merge(self, path: str | Path) -> None:
        """Take over what another store of this identity keeps, such as that of another machine."""
        must_be_regular(path)
        file = _File(Path(path), self.identity)
        with contextlib.closing(file.connection), self._files[0].writing() as own:
            whole = (row for row in file.rows(f"SELECT {COLUMNS} FROM photos") if self._read(row)[0])
            own.executemany("INSERT OR REPLACE INTO photos VALUES (?, ?, ?, ?, ?)", whole)

    def _read(self, row: tuple) -> tuple[Photo | None, Answer | None]:
        """A photo and what is kept of it; None if the row is damaged."""
        path, stamp, scores, problem, checksum = row
        with contextlib.suppress(TypeError, AttributeError):  # values of other types
            photo = Photo(path, stamp)
            if (scores is None or len(scores) == self._bytes) and checksum == _checksum(photo, scores, problem):
                return photo, problem if scores is None else np.frombuffer(scores, np.float32)
        return None, None


class _File:
    """A connection to one file; a context in which all or nothing is written. Errors name the file."""

    def __init__(self, path: Path, identity: str) -> None:
        self.path = path
        if os.path.lexists(path):
            must_be_regular(path)
        with self._named(), contextlib.ExitStack() as stack:
            self.connection = sqlite3.connect(path, timeout=PATIENCE, isolation_level=None)
            stack.callback(self.connection.close)  # if any of this fails
            self.connection.execute("PRAGMA trusted_schema=OFF")
            if self._is_empty():
                with self.writing():  # of two processes that begin at once, one waits
                    self._begin(identity)
            found = self.connection.execute("SELECT identity FROM about").fetchone()
            if found != (identity,):
                raise ValueError(f"{path} has scores by another model, by other class embeddings or other grids")
            self._write_ahead()
            self.connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may take the last batches, and no more
            stack.pop_all()

    def _write_ahead(self) -> None:
        """Write-ahead logging, so that nobody who reads waits; SQLite does not wait for others who are just setting it."""
        until = time.monotonic() + PATIENCE
        while True:
            try:
                self.connection.execute("PRAGMA journal_mode=WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def _is_empty(self) -> bool:
        return not self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]

    def _begin(self, identity: str) -> None:
        if self._is_empty():
            for table in SCHEMA:
                self.connection.execute(table)
            self.connection.execute("INSERT INTO about VALUES (?)", (identity,))

    @contextlib.contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """All or nothing of what is written in the block stays."""
        with self._named():
            self.connection.execute("BEGIN IMMEDIATE")
            try:
                yield self.connection
                self.connection.execute("COMMIT")
            except BaseException:
                if self.connection.in_transaction:  # else SQLite has rolled it back
                    self.connection.execute("ROLLBACK")
                raise

    def rows(self, command: str, values: Sequence[bytes] = ()) -> Iterator[tuple]:
        """Rows that a command finds, one after the other."""
        with self._named():
            yield from self.connection.execute(command, values)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in OF_THE_SYSTEM:
                raise OSError(f"{self.path}: {error}; what was kept stays, and the same command goes on") from None
            why = f"{self.path} is damaged, or no file of scores ({cut(str(error))})"
            raise ValueError(f"{why}; delete it, and its photos are scored again") from None


def _checksum(photo: Photo, scores: bytes | None, problem: str | None) -> int:
    what = (problem or "").encode() if scores is None else scores
    return zlib.crc32(what, zlib.crc32(photo.stamp.encode(), zlib.crc32(photo.path)))
