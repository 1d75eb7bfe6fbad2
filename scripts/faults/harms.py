"""Harms to files, whatever is in them."""

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from faults.junk import JUNK, dump, places
from faults.results import remove
from faults.trial import Harm

from rcnn.printing import short


def in_file(pattern: str, change: Callable[[Random, bytes], tuple[str, bytes]], seed: int) -> Harm:
    """Replace what is in a file by what `change` makes of it, which also says what it did."""

    def harm(setting):
        path = setting.path(pattern, seed)
        name = path.relative_to(setting.root)
        if not path.is_file() or not path.stat().st_size:
            return f"{name}: nothing to change"
        try:
            text, data = change(Random(seed), path.read_bytes())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, struct.error):
            return f"{name}: left as the harms before have made it"
        path.unlink()
        path.write_bytes(data)
        return f"{name}: {text}"

    return harm


def bytes_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """Some bytes of a file are others, more or fewer."""
    at, kind = rng.randrange(len(data)), rng.choice(["flip", "flip", "flip", "cut", "zero", "insert", "repeat", "remove"])
    if kind == "flip":
        bit = rng.randrange(8)
        return f"bit {bit} of byte {at} is flipped", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    length = rng.choice([1, 8, 100])
    rest = {
        "cut": b"", "zero": bytes(length) + data[at + length :], "insert": rng.randbytes(length) + data[at:],
        "repeat": data[at : at + length] + data[at:], "remove": data[at + length :],
    }[kind]  # fmt: skip
    return f"{kind}, {length} at byte {at}", data[:at] + rest


def value_changed(rng: Random, tree: Any) -> tuple[str, Any]:
    """One value of JSON is another, of any type, or absent."""
    found = list(places(tree)) if isinstance(tree, dict | list) else []
    if not found or rng.random() < 0.05:
        return "the whole is replaced", rng.choice(JUNK)
    container, key, path = rng.choice(found)
    name = ".".join(map(str, path))
    if rng.random() < 0.2:
        del container[key]
        return f"{name} is removed", tree
    container[key] = rng.choice(JUNK)
    return f"{name} = {short(container[key])}", tree


def json_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """One value of a JSON file, of a line of a JSONL file, or of the header of a safetensors file."""
    if not data.startswith((b"{", b"[")):
        return header_changed(rng, data)
    lines = data.splitlines()
    if data.startswith(b'{"key"'):
        number = rng.randrange(len(lines))
        text, tree = value_changed(rng, json.loads(lines[number]))
        lines[number] = dump(tree)
        return f"line {number + 1}: {text}", b"\n".join(lines) + b"\n"
    text, tree = value_changed(rng, json.loads(data))
    return text, dump(tree)


def header_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """One value of the header of a safetensors file, or of the JSON in its metadata."""
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


def replaced(
    pattern: str, seed: int, by: Sequence[bytes] = (b"", b"5", b"{}", b"[]", b"null", b"\xff\xfe{", b"\0" * 100)
) -> Harm:
    """A file has other contents."""
    return in_file(pattern, lambda rng, data: (f"is {(new := rng.choice(by))[:20]!r}", new), seed)


def swapped(pattern: str, others: Sequence[str], seed: int) -> Harm:
    """A file is a copy of another one."""

    def harm(setting):
        path, other = setting.path(pattern, seed), setting.path(others[seed % len(others)], seed // 7)
        if other.is_file() and path.is_file():
            data = other.read_bytes()
            path.unlink()
            path.write_bytes(data)
        return f"{path.relative_to(setting.root)} is a copy of {other.relative_to(setting.root)}"

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
            remove(path) if path.is_dir() else path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(setting.root):  # the names of sockets are short
            kinds[kind](path)
        return f"{path.relative_to(setting.root)} is {kind}"

    return harm


def argument(*texts: str) -> Harm:
    """More arguments of the command."""

    def harm(setting):
        setting.arguments += texts
        return "argument " + " ".join(map(short, texts))

    return harm


def absent(pattern: str) -> Harm:
    """Files are not there."""

    def harm(setting):
        for path in setting.root.glob(pattern):
            remove(path) if path.is_dir() else path.unlink()
        return f"without {pattern}"

    return harm
