"""The ordered list of classes, seen first, then unseen: everything indexed by class uses its order."""

import hashlib
from collections import Counter
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ClassList:
    """Class names and how many of them, from the front, are "seen".

    Nothing here is trained on images, so both groups are new to the method; the split is that of the benchmarks.
    """

    names: tuple
    seen: int

    def __post_init__(self):
        if not self.names:
            raise ValueError("the class list is empty")
        if twice := [name for name, n in Counter(name.lower() for name in self.names).items() if n > 1]:
            raise ValueError(f"these classes are listed twice: {', '.join(twice)}")

    @classmethod
    def read(cls, seen=None, unseen=None):
        """From text files with one name a line; blank lines and lines that start with # are skipped.

        Args:
            seen, unseen: paths; one may be None.
        """
        groups = [_read_names(path) if path else [] for path in (seen, unseen)]
        return cls(tuple(groups[0] + groups[1]), len(groups[0]))

    def __len__(self):
        return len(self.names)

    @property
    def tasks(self):
        """Task -> first column it scores: "zsl" the unseen classes alone, "gzsl" all."""
        return {"zsl": self.seen, "gzsl": 0} if 0 < self.seen < len(self) else {"gzsl": 0}

    @property
    def fingerprint(self):
        """SHA-256 of names, order and split."""
        return hashlib.sha256("\n".join([str(self.seen), *self.names]).encode()).hexdigest()


def _read_names(path):
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no class list {path}; expected a text file with one class name a line")
    # "_" in a name stands for a space, as in the lists of NUS-WIDE's tools
    lines = (line.strip().replace("_", " ") for line in path.read_text(encoding="utf-8-sig").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
