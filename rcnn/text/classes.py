"""The ordered list of classes, seen first, then unseen: everything indexed by class uses its order."""

import hashlib
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ClassList:
    """Class names and how many of them, from the front, are "seen".

    Nothing here is trained on images, so both groups are new to the method; the split is that of the benchmarks.
    """

    names: tuple[str, ...]
    seen: int
    notes: tuple[str, ...] = ()  # what tells homonyms apart, a meaning or an identifier, "" for most; or none at all

    def __post_init__(self) -> None:
        if not self.names:
            raise ValueError("the class list is empty")
        notes = self.notes or [""] * len(self.names)
        listed = Counter((name.lower(), note) for name, note in zip(self.names, notes, strict=True))
        if twice := [name for (name, _), n in listed.items() if n > 1]:
            raise ValueError(
                f"these classes are listed twice: {', '.join(twice)}; 'crane [a wading bird]' tells homonyms apart"
            )

    @classmethod
    def read(cls, seen: str | Path | None = None, unseen: str | Path | None = None) -> "ClassList":
        """From text files with one name a line; blank lines and lines that start with # are skipped.

        "crane [a wading bird]" is the class "crane" with a note that tells it from another "crane".
        """
        groups = [_read_names(path) if path else [] for path in (seen, unseen)]
        both = groups[0] + groups[1]
        notes = tuple(note for _, note in both)
        return cls(tuple(name for name, _ in both), len(groups[0]), notes if any(notes) else ())

    def __len__(self) -> int:
        return len(self.names)

    @property
    def tasks(self) -> dict[str, int]:
        """Task -> first column it scores: "zsl" the unseen classes alone, "gzsl" all."""
        return {"zsl": self.seen, "gzsl": 0} if 0 < self.seen < len(self) else {"gzsl": 0}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, order and split."""
        return hashlib.sha256("\n".join([str(self.seen), *self.names]).encode()).hexdigest()


def _read_names(path):
    """(name, note) of every class in a list."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no class list {path}; expected a text file with one class name a line")
    lines = (line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [parse_name(line) for line in lines if line and not line.startswith("#")]


def parse_name(line: str) -> tuple[str, str]:
    """(name, note) of one line of a class list: "crane [a wading bird]" is "crane" with a note, "" for most."""
    part = re.fullmatch(r"(.+?)(?:\s*\[(.*)\])?", line.strip())
    if part is None:
        raise ValueError(f"expected a class name, got {line!r}")
    # "_" in a name stands for a space, as in the lists of NUS-WIDE's tools
    return part[1].replace("_", " ").strip(), (part[2] or "").strip()


def in_words(groups: list[list[str]], most: int = 8) -> str:
    """Groups of class names, the first `most` names of them."""
    text, left = [], most
    for group in groups:
        text.append(", ".join(group[:left]))
        left -= len(group)
        if left <= 0:
            break
    return "; ".join(text) + (", …" if left < 0 or len(text) < len(groups) else "")
