"""Large files from the internet: resumed where they broke off, checked, and unpacked only where something is missing."""

import gzip
import hashlib
import http.client
import os
import shutil
import stat
import tarfile
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from rcnn.files import must_be_regular, open_regular, replace_file
from rcnn.printing import cut, short
from rcnn.progress import progress

CHUNK = 1 << 20
TRIES = 5  # in a row without a single byte
COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@dataclass(frozen=True)
class Archive:
    """A file at an official address, a zip file for the most part."""

    url: str
    size: int | None  # bytes; None where nobody states it: the server is asked
    md5: str | None = None  # as published, or computed by many users of the file
    wanted: str = ""  # prefix of the members that are needed
    sha256: str | None = None  # instead of the MD5

    @property
    def name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


def fetch(archive: Archive, folder: str | Path) -> Path:
    """Download an archive, or go on with a part of it; return its path.

    Raises:
        ValueError: wrong checksum (the file is kept as NAME.wrong), or no room.
        ConnectionError: no network, with what to do by hand.
    """
    path, part = Path(folder) / archive.name, Path(folder) / f"{archive.name}.part"
    if path.exists():
        check(path, archive)
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    if part.exists():
        must_be_regular(part)
    if archive.size is None:
        archive = replace(archive, size=_offered(archive, folder))
    have = part.stat().st_size if part.exists() else 0
    room(folder, archive.size - have, f"{archive.name} needs")
    failures = 0
    with progress(title=archive.name, total=archive.size, unit="B", initial=have) as bar:
        while have < archive.size:
            reason = "the connection broke off"
            try:
                _append(archive, part, have, bar)
            except (OSError, http.client.HTTPException) as error:
                reason = getattr(error, "reason", error)
                if isinstance(error, urllib.error.HTTPError) and error.code < 500 and error.code not in (408, 429):
                    failures = TRIES  # another try would get the same answer
            before, have = have, part.stat().st_size if part.exists() else 0
            failures = 0 if have > before else failures + 1
            if failures >= TRIES:
                raise ConnectionError(
                    f"{archive.url} could not be downloaded ({reason}), {have:,} of {archive.size:,} bytes are there; "
                    f"run again to go on, or fetch it by hand, put it into {folder} and run again"
                )
            if failures:
                time.sleep(min(8, 0.1 * 2**failures))  # back-off
    check(part, archive)
    os.replace(part, path)
    return path


def _offered(archive: Archive, folder: str | Path) -> int:
    """The size that the server states."""
    try:
        with urllib.request.urlopen(archive.url, timeout=60) as response:
            return int(response.headers["Content-Length"])
    except (OSError, http.client.HTTPException, TypeError, ValueError) as error:
        raise ConnectionError(
            f"{archive.url} could not be downloaded ({getattr(error, 'reason', error)}); run again, or fetch it by hand, "
            f"put it into {folder} and run again"
        ) from None


def _append(archive: Archive, part: Path, have: int, bar: progress) -> None:
    """Append to `part` what follows its first `have` bytes."""
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={have}-"} if have else {})
    with urllib.request.urlopen(request, timeout=60) as response:
        start = have if response.status == 206 else 0  # a server that cannot resume sends the whole file
        length = response.headers.get("Content-Length") or str(archive.size - start)
        if length != str(archive.size - start):  # such as the page of a login, with status 200
            raise ConnectionError(f"the server offers {cut(length)} bytes, {archive.size - start} were expected")
        bar.update(start - have)
        with open(part, "ab" if start else "wb") as file:
            # read() would lose what it has when the connection breaks; more than was expected is not taken
            while start < archive.size and (chunk := response.read1(min(CHUNK, archive.size - start))):
                file.write(chunk)
                start += len(chunk)
                bar.update(len(chunk))


def check(path: Path, archive: Archive) -> None:
    """ValueError unless the file has the archive's checksum, if it is known; it is then kept under another name."""
    kind, expected = ("SHA-256", archive.sha256) if archive.sha256 else ("MD5", archive.md5)
    if not expected:
        return must_be_regular(path)
    digest = hashlib.new(kind.replace("-", ""), usedforsecurity=False)
    size = path.stat().st_size
    with open_regular(path) as file, progress(title=f"check {archive.name}", total=size, unit="B") as bar:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            bar.update(len(chunk))
    if digest.hexdigest() != expected:
        wrong = path.with_name(f"{archive.name}.wrong")
        os.replace(path, wrong)
        raise ValueError(
            f"{archive.name} has {kind} {digest.hexdigest()} and {size:,} bytes, expected {expected} and {archive.size:,}; "
            f"it is kept as {wrong}; run again to download it anew"
        )


def room(folder: str | Path, needed: int, what: str) -> None:
    """ValueError unless the disk of `folder` has `needed` bytes free."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise ValueError(f"{what} {needed / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free")


def unpack(path: str | Path, wanted: str, folder: str | Path) -> None:
    """Unpack the members whose name begins with `wanted`, unless they are there with their full size.

    Every file is written whole or not at all, so an interrupted call is continued by the next one.

    Raises:
        ValueError: no zip file, or a member that would leave the folder.
    """
    folder = Path(folder)
    must_be_regular(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = [m for m in archive.infolist() if m.filename.startswith(wanted) and not m.is_dir()]
            if not members:
                raise ValueError(f"{path} has no {wanted}")
            for member in members:
                if ".." in Path(member.filename).parts or Path(member.filename).is_absolute():
                    raise ValueError(f"{path}: member {short(member.filename)} leads out of {folder}")
                plain = member.compress_type in COMPRESSION and not stat.S_ISLNK(member.external_attr >> 16)
                if not plain or member.header_offset < 0:
                    raise zipfile.BadZipFile(f"member {short(member.filename)} is no plain file, or damaged")
            there = {file: file.stat().st_size for m in members if (file := folder / m.filename).is_file()}
            missing = [m for m in members if there.get(folder / m.filename) != m.file_size]
            folder.mkdir(parents=True, exist_ok=True)
            room(folder, sum(m.file_size for m in missing), f"unpacking {Path(path).name} needs")
            for member in progress(missing, f"unpack {Path(path).name}", unit="file"):
                with archive.open(member) as source, replace_file(folder / member.filename) as target:
                    shutil.copyfileobj(source, target, CHUNK)
    except (zipfile.BadZipFile, zlib.error, EOFError, UnicodeDecodeError, RuntimeError) as error:
        raise ValueError(f"{path} is no whole zip file ({error}); delete it and run again") from None


def untar(path: str | Path, folder: str | Path, ending: str) -> None:
    """Unpack the files of a tar.gz archive whose name has this ending into one folder, unless they are there in full size.

    Of a name only the last part is used. Every file is written whole or not at all, so an interrupted call is continued by the
    next one, which reads the archive from its start and writes what is missing.

    Raises:
        ValueError: no tar.gz file, no such file in it, or a member that is no plain file or would leave the folder.
    """
    folder, found = Path(folder), 0
    try:
        with (
            open_regular(path) as file,
            progress(title=f"unpack {Path(path).name}", total=os.fstat(file.fileno()).st_size, unit="B") as bar,
            tarfile.open(fileobj=file, mode="r:gz") as archive,
        ):
            for member in archive:
                bar.update(file.tell() - bar.done)
                name = PurePosixPath(member.name)
                if ".." in name.parts or name.is_absolute():
                    raise ValueError(f"{path}: member {short(member.name)} leads out of {folder}")
                if member.isdir() or (member.isreg() and not member.name.endswith(ending)):
                    continue
                if not member.isreg() or member.issparse():
                    raise tarfile.TarError(f"member {short(member.name)} is no plain file")
                found, target = found + 1, folder / name.name
                if not target.is_file() or target.stat().st_size != member.size:
                    with archive.extractfile(member) as source, replace_file(target) as copy:
                        shutil.copyfileobj(source, copy, CHUNK)
    except (tarfile.TarError, gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ValueError(f"{path} is no whole tar.gz file ({error}); delete it and run again") from None
    if not found:
        raise ValueError(f"{path} has no {ending}")
