"""Raw answers of the language model, kept in an append-only file, so that nothing is ever paid for twice."""

import contextlib
import json
import os
import threading
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reply:
    """What a service answered to one request."""

    model: str  # that served it, as the service reports
    finish: str | None  # "stop", "length", "content_filter", …
    text: str | None
    refusal: str | None = None
    usage: tuple[int, int] | None = None  # tokens (in, out)
    batched: bool = False  # half the price

    @classmethod
    def from_completion(cls, raw: Any) -> "Reply":
        """From the decoded JSON body of a chat completion; ValueError if it is not one."""
        try:
            choice = raw["choices"][0]
            message = choice["message"]
            text, refusal = message.get("content"), message.get("refusal")
            if not all(isinstance(part, str | None) for part in (text, refusal, choice.get("finish_reason"))):
                raise TypeError
            model, finish = str(raw.get("model")), choice.get("finish_reason")
        except (KeyError, IndexError, TypeError, AttributeError):
            raise ValueError("the reply is not a chat completion") from None
        try:
            tokens = (int(raw["usage"]["prompt_tokens"]), int(raw["usage"]["completion_tokens"]))
        except (KeyError, TypeError, ValueError):
            tokens = None  # the answer is usable without
        return cls(model, finish, text, refusal, tokens)


class Answers:
    """The answers in a JSONL file; new ones are on the disk before `put` returns.

    An incomplete line, left where a process was killed or a disk was full, is skipped, and its request is made again. Several
    threads may share one object; a second process is refused, since two runs would pay for the same requests.

    Attributes:
        skipped: numbers of the lines that cannot be read.
        paid: tokens (in, out) of the replies that this object was given by `put`.
        unmetered: how many of those came without token counts.
    """

    def __init__(self, path: str | Path) -> None:
        self.path, self.skipped = Path(path), []
        self.paid, self.unmetered = [0, 0], 0
        self._replies, self._lock, self._file = {}, threading.Lock(), None
        self._load()

    def _load(self) -> None:
        self._replies, self.skipped = {}, []
        for number, line in enumerate(self.path.read_bytes().splitlines() if self.path.exists() else (), 1):
            try:
                record = json.loads(line)
                usage, batched = record["usage"] and tuple(record["usage"]), record.get("batched", False)
                reply = Reply(record["model"], record["finish"], record["text"], record["refusal"], usage, batched)
                self._replies[record["key"]] = reply
            except (ValueError, KeyError, TypeError):
                self.skipped += [number] if line.strip() else []

    def __enter__(self) -> "Answers":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def get(self, key: str) -> Reply | None:
        """The reply to the request of this key (`Exchange.key`), or None."""
        return self._replies.get(key)

    def forget(self, keys: Iterable[str]) -> None:
        """Ask these anew; the old answers stay in the file, the last one of a key counts."""
        for key in keys:
            self._replies.pop(key, None)

    def put(self, key: str, reply: Reply, metadata: dict[str, Any]) -> None:
        """Keep a reply, after `open`; `metadata` (class, question, round) is for people who read the file."""
        record = json.dumps({"key": key, **metadata, **asdict(reply)}, ensure_ascii=False) + "\n"
        with self._lock:
            self._file.write(record.encode())
            self._file.flush()
            os.fsync(self._file.fileno())
            self._replies[key] = reply
            self.unmetered += reply.usage is None
            self.paid = [paid + new for paid, new in zip(self.paid, reply.usage or (0, 0), strict=True)]

    def close(self) -> None:
        """Close the file; another process may write it again."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def open(self) -> None:
        """Get ready for `put`; ValueError if another process is writing the same file."""
        if self._file is not None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        file = open(self.path, "ab+")  # noqa: SIM115 - it stays open as long as the run
        try:
            _lock(file)
        except BlockingIOError:
            file.close()
            raise ValueError(f"another run is writing {self.path}; wait for it, or choose another output=") from None
        self._load()  # another run may have ended since
        if file.tell() and file.seek(-1, os.SEEK_END) and file.read(1) != b"\n":
            file.write(b"\n")  # end an incomplete line, so that the next record is whole
        self._file = file


def _lock(file):
    with contextlib.suppress(ImportError):  # not on Windows
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
