"""The ordered list of classes, seen first, then unseen: everything indexed by class uses its order."""

import hashlib
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rcnn.files import read_text
from rcnn.printing import cut, printable, short

MOST = 1 << 22  # bytes of a list; ImageNet's 21,841 classes with their meanings have half of it
LONGEST_NAME, LONGEST_NOTE = 200, 1000  # characters; a line of many more is no class but a file of another kind


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
        for name, note in zip(self.names, notes, strict=True):
            _must_be_class(name, note)
        listed = Counter((_folded(name), note) for name, note in zip(self.names, notes, strict=True))
        if twice := [name for (name, _), n in listed.items() if n > 1]:
            raise ValueError(
                f"these classes are listed twice: {cut(', '.join(twice))}; 'crane [a wading bird]' tells homonyms apart"
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
    path, found = Path(path), []
    if not path.exists():
        raise FileNotFoundError(f"there is no class list {path}; expected a text file with one class name a line")
    # not splitlines, which also splits at control characters, where they are part of a name
    for number, line in enumerate(re.split(r"\r\n?|\n", read_text(path, MOST)), 1):
        if line.strip() and not line.strip().startswith("#"):
            try:
                found.append(parse_name(line))
            except ValueError as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    return found


def parse_name(line: str) -> tuple[str, str]:
    """(name, note) of one line of a class list: "crane [a wading bird]" is "crane" with a note, "" for most.

    ValueError for a line that is no class name: an empty or a very long one, or one with control characters.
    """
    if not isinstance(line, str):
        raise ValueError(f"expected a class name, got {short(line)}")
    name, note = line.strip(), ""
    bracket = name.find("[", 1)
    if bracket > 0 and name.endswith("]"):
        name, note = name[:bracket], name[bracket + 1 : -1].strip()
    name = name.replace("_", " ").strip()  # "_" stands for a space, as in the lists of NUS-WIDE's tools
    if not name:
        raise ValueError(f"expected a class name, got {short(line)}")
    _must_be_class(name, note)
    return name, note


def _must_be_class(name, note):
    """ValueError for what is no name, or no note, of a class."""
    for text, most in ((name, LONGEST_NAME), (note, LONGEST_NOTE)):
        if not isinstance(text, str):
            raise ValueError(f"expected a class name, got {short(text)}")
        if len(text) > most:
            raise ValueError(f"expected a class name, got {len(text):,} characters (at most {most:,} are taken): {short(text)}")
        if printable(text) != text:
            raise ValueError(f"a class name has characters that cannot be printed: {short(text)}")
    if not name.strip():
        raise ValueError(f"expected a class name, got {short(name)}")


def _folded(name):
    """What is equal of names that differ in case, or in how accents are encoded: CLIP reads them alike."""
    return unicodedata.normalize("NFC", name.lower())


def in_words(groups: list[list[str]], most: int = 8) -> str:
    """Groups of class names, the first `most` names of them."""
    text, left = [], most
    for group in groups:
        text.append(", ".join(group[:left]))
        left -= len(group)
        if left <= 0:
            break
    return "; ".join(text) + (", …" if left < 0 or len(text) < len(groups) else "")
