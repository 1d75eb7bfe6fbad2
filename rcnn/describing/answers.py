"""Raw answers of the language model, kept in an append-only file, so that nothing is ever paid for twice."""

import contextlib
import json
import lzma
import os
import threading
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO

from pydantic import Field
from pydantic.dataclasses import dataclass

from rcnn.files import must_be_regular, read_bytes, sealed, unseal
from rcnn.printing import cut, printable

MOST_TEXT = 100_000  # characters of an answer; what was asked for has some 5,000
MOST_UNPACKED = 1 << 28  # bytes; Open Images' 7,586 classes have a twentieth
MOST_WORDS = 1_000  # characters of everything else in a reply

Tokens = Annotated[int, Field(strict=True, ge=0, le=1_000_000_000)]
Words = Annotated[str, Field(max_length=MOST_WORDS)]


def beside(corpus: str | Path, suffix: str) -> Path:
    """Path of a file that belongs to a corpus: corpus.json -> corpus<suffix>."""
    return Path(str(corpus).removesuffix(".json") + suffix)


@dataclass(frozen=True)
class Reply:
    """What a service answered to one request; ValueError where a field has another type, or an absurd size."""

    model: Words  # that served it, as the service reports
    finish: Words | None  # "stop", "length", "content_filter", …
    text: Annotated[str, Field(max_length=MOST_TEXT)] | None
    refusal: Words | None = None
    usage: tuple[Tokens, Tokens] | None = None  # tokens (in, out)
    batched: bool = False  # half the price

    @classmethod
    def from_completion(cls, raw: Any, batched: bool = False) -> "Reply":
        """From the decoded JSON body of a chat completion; ValueError if it is not one."""
        try:
            choice, model = raw["choices"][0], printable(cut(str(raw.get("model"))))
            finish, message = choice.get("finish_reason"), choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
            # of what is too long, as much as tells that it cannot be used
            reply = cls(model, finish and cut(finish), text and text[:MOST_TEXT], refusal and cut(refusal), None, batched)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError):
            raise ValueError("the reply is not a chat completion") from None
        try:
            return replace(reply, usage=(raw["usage"]["prompt_tokens"], raw["usage"]["completion_tokens"]))
        except (ValueError, KeyError, TypeError):
            return reply  # which is usable without


class Answers:
    """The answers in a JSONL file; new ones are on the disk before `put` returns.

    Those of a compressed file beside it, with .xz after its name, are there as well; an answer in the file itself comes first.
    An incomplete line, left where a process was killed or a disk was full, is skipped, and its request is made again. Several
    threads may share one object; a second process that writes is refused by a ValueError: both would pay for the same requests.
    """

    def __init__(self, path: str | Path, writing: bool = False) -> None:
        self.path, self.skipped = Path(path), []  # numbers of the lines that cannot be read
        self.paid = [0, 0]  # tokens (in, out) of the replies that this object was given by `put`
        self.unmetered = 0  # how many of those came without token counts
        self._replies, self._lock = {}, threading.Lock()
        self._file = _open(self.path) if writing else None
        packed = self.path.with_name(f"{self.path.name}.xz")
        if packed.exists():
            self._read(_unpacked(packed))
        if self.path.exists():
            self._read(read_bytes(self.path))

    def _read(self, data: bytes) -> None:
        for number, line in enumerate(data.splitlines(), 1):
            try:
                record = json.loads(line)
                if "sha256" in record:  # one that was edited by hand has none any more
                    record = unseal(self.path, record)
                self._replies[record["key"]] = Reply(**record)  # which leaves the metadata aside
            except (ValueError, KeyError, TypeError, RecursionError):
                self.skipped += [number] if line.strip() else []

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def get(self, key: str) -> Reply | None:
        """The reply to the request of this key (`Exchange.key`), or None."""
        return self._replies.get(key)

    def put(self, key: str, reply: Reply, metadata: dict[str, Any]) -> None:
        """Keep a reply, the last one of a key; `metadata` (class, question, round) is for people who read the file."""
        record = json.dumps(sealed({"key": key, **metadata, **asdict(reply)}), ensure_ascii=False) + "\n"
        with self._lock:
            self._file.write(record.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._replies[key] = reply
            self.unmetered += reply.usage is None
            self.paid = [paid + new for paid, new in zip(self.paid, reply.usage or (0, 0), strict=True)]


def _unpacked(path: Path) -> bytes:
    """What a file packed by xz holds; ValueError if it is damaged, or holds more than answers could be."""
    unpacker = lzma.LZMADecompressor(lzma.FORMAT_XZ)
    try:
        data = unpacker.decompress(read_bytes(path), MOST_UNPACKED)
    except lzma.LZMAError as error:
        raise ValueError(f"{path} is no file that xz packed, or damaged: {error}") from None
    if not unpacker.eof:
        raise ValueError(f"{path} is cut, or holds more than {MOST_UNPACKED:,} bytes")
    return data


def _open(path: Path) -> BinaryIO:
    """The file, locked for this process, at the beginning of a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        must_be_regular(path)
    file = open(path, "ab+")  # noqa: SIM115 - it stays open as long as the run
    try:
        with contextlib.suppress(ImportError):  # not on Windows
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise ValueError(f"another run is writing {path}; wait for it, or choose another output=") from None
    if file.tell() and file.seek(-1, os.SEEK_END) and file.read(1) != b"\n":
        file.write(b"\n")  # end an incomplete line, so that the next record is whole
        file.flush()
    return file
