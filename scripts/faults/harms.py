"""Harms to files, whatever is in them, and to the arguments of a command."""

import contextlib
import json
import math
import os
import socket
import struct
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from faults.results import remove
from faults.trial import Harm

from rcnn.printing import short

DEEP = "nested 100,000 deep"  # stands for such a list
JUNK = [
    None, True, 5, -1, 0.5, 10**400, math.inf, math.nan, "", "x", "😀", "\x1b[2J", "\u202ex", "\ud800", [], {}, [[]], ["x"],
    {"x": 1}, "a" * 100_000, DEEP,
]  # fmt: skip
Change = Callable[[Random, bytes], tuple[str, bytes]]  # contents of a file -> (what was done to them, others)


def dump(value: Any) -> bytes:
    """JSON, also of what is none."""
    return json.dumps(value).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000).encode()


def places(tree: Any, path: tuple = ()) -> Iterator[tuple[Any, Any, str]]:
    """(container, key, name) of every value in JSON."""
    for key in tree if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key, ".".join(map(str, (*path, key)))
        yield from places(tree[key], (*path, key))


def in_file(pattern: str, change: Change, seed: int) -> Harm:
    """Change what is in a file."""

    def harm(setting):
        path = setting.path(pattern, seed)
        name = path.relative_to(setting.root)
        try:
            text, data = change(Random(seed), path.read_bytes())
        except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error):
            return f"{name}: left as the harms before have made it"
        path.unlink()
        path.write_bytes(data)
        return f"{name}: {text}"

    return harm


def bytes_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """Some bytes are others, more or fewer."""
    at, length, bit = rng.randrange(len(data)), rng.choice([1, 8, 100]), rng.randrange(8)
    kinds = {
        f"bit {bit} is flipped": bytes([data[at] ^ 1 << bit]) + data[at + 1 :],
        "cut": b"",
        f"{length} are zero": bytes(length) + data[at + length :],
        f"{length} more": rng.randbytes(length) + data[at:],
        f"{length} again": data[at : at + length] + data[at:],
        f"{length} fewer": data[at + length :],
    }
    kind = rng.choice([*kinds, *[next(iter(kinds))] * 2])
    return f"at byte {at:,}: {kind}", data[:at] + kinds[kind]


def value_changed(rng: Random, tree: Any) -> tuple[str, Any]:
    """One value of JSON is another, of any type, or absent."""
    found = list(places(tree))
    if not found or rng.random() < 0.05:
        return "the whole is replaced", rng.choice(JUNK)
    container, key, name = rng.choice(found)
    if rng.random() < 0.2:
        del container[key]
        return f"{name} is removed", tree
    value = container[key]
    near = [value + 1] * 10 if isinstance(value, int | float) else []  # of the right type, so that no schema refuses it
    container[key] = rng.choice([*JUNK, *near])
    return f"{name} = {short(container[key])}", tree


def json_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """One value of a JSON file, of a line of a JSONL file, or of the header of a safetensors file or the JSON in it."""
    if data.startswith((b"{", b"[")):
        lines = data.splitlines() if data.startswith(b'{"key"') else [data]
        number = rng.randrange(len(lines))
        text, tree = value_changed(rng, json.loads(lines[number]))
        lines[number] = dump(tree)
        return f"line {number + 1}: {text}", b"\n".join(lines) + b"\n" * data.endswith(b"\n")
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    inner = header.get("__metadata__", {})
    if "metadata" in inner and rng.random() < 0.6:
        text, tree = value_changed(rng, json.loads(inner["metadata"]))
        inner["metadata"] = dump(tree).decode()
    else:
        text, header = value_changed(rng, header)
    new = dump(header)
    return f"header: {text}", struct.pack("<Q", len(new)) + new + data[8 + length :]


def replaced(rng: Random, data: bytes) -> tuple[str, bytes]:
    """The contents are quite others."""
    new = rng.choice([b"", b"5", b"{}", b"[]", b"null", b"\xff\xfe{", b"\0" * 100])
    return f"is {new[:20]!r}", new


def swapped(pattern: str, others: Sequence[str], seed: int) -> Harm:
    """A file is a copy of another one."""

    def harm(setting):
        other = setting.path(others[seed % len(others)], seed // 7)
        return in_file(pattern, lambda rng, data: (f"is a copy of {other.name}", other.read_bytes()), seed)(setting)

    return harm


def no_file(pattern: str, seed: int) -> Harm:
    """In place of a file there is something else."""
    kinds = {
        "a pipe": os.mkfifo, "a folder": os.mkdir, "a link that leads nowhere": lambda p: os.symlink("nowhere", p),
        "a link to itself": lambda p: os.symlink(p.name, p), "endless": lambda p: os.symlink("/dev/zero", p),
        "a socket": lambda p: socket.socket(socket.AF_UNIX).bind(os.path.relpath(p)),
    }  # fmt: skip
    kind = sorted(kinds)[seed % len(kinds)]

    def harm(setting):
        path = setting.path(pattern, seed)
        if path.exists():
            remove(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(setting.root):  # the names of sockets are short
            kinds[kind](path)
        return f"{path.relative_to(setting.root)} is {kind}"

    return harm


def argument(*texts: str) -> Harm:
    """More arguments of the command."""
    return lambda setting: setting.arguments.extend(texts) or "argument " + " ".join(map(short, texts))


def absent(pattern: str) -> Harm:
    """Files are not there."""

    def harm(setting):
        for path in setting.root.glob(pattern):
            remove(path)
        return f"without {pattern}"

    return harm


def in_process(step: int, fault: Callable[[], Any], text: str) -> Harm:
    """Something happens in the process of a command."""
    return lambda setting: setting.inside.append((step, fault)) or f"step {step + 1}: {text}"
