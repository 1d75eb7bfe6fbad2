"""What an input of the campaign is, and what no command may do with it."""

import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

COLUMNS = ("tried", "refused", "accepted", "traceback", "hang", "wrong")
FAILURES = COLUMNS[3:]
CPU, WALL, MEMORY = 10, 30, 2 << 30  # seconds of CPU, seconds, bytes that one command may take
MOST_TEXT = 16_000  # characters on stderr
KEY = "sk-qZ7Rw2Lx9Vb4Tn6Jm8Kd3Hs5"  # of the service; the first eight characters of it are enough of a leak
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # acted upon by a terminal


@dataclass
class Setting:
    """The world of one input; harms change it."""

    root: Path
    arguments: list[str] = field(default_factory=list)  # of the first command, beside its own
    inside: list[tuple[int, Callable[[], Any]]] = field(default_factory=list)  # (step, called in its process, first of all)
    service: list[Callable[[Any], None]] = field(default_factory=list)  # what the service does to its replies, at first
    after: list[Callable[[], Any]] = field(default_factory=list)  # to clean up
    done: list[str] = field(default_factory=list)  # what the harms say

    def path(self, pattern: str, seed: int = 0) -> Path:
        """A file of the world; of those that a pattern fits, one by its number."""
        found = sorted(self.root.glob(pattern)) or [self.root / pattern]
        return found[seed % len(found)]


Harm = Callable[[Setting], str]  # does it, and says what it did


class Step(NamedTuple):
    """A command; `killed` if it may die of the harms."""

    command: list[str]
    killed: bool = False
    encoding: str = "utf-8:strict"  # PYTHONIOENCODING


class Outcome(NamedTuple):
    """What came of one step."""

    command: list[str]
    code: int  # negative: the signal it died of
    out: str
    err: str
    exceeded: str = ""  # the bound


Judge = Callable[[Setting, Outcome], str | None]  # what is wrong


class Trial(NamedTuple):
    """One input: harms that are done one after the other, then commands, and what must be true of the last one's outcome."""

    harms: list[Harm]
    steps: list[Step]
    judge: Judge


class Verdict(NamedTuple):
    """The column of an input, and why."""

    column: str
    why: str = ""
    harms: Sequence[str] = ()  # what was done
    step: int = 0


def failed(outcome: Outcome, killed: bool) -> tuple[str, str] | None:
    """(column, why) of what no command may do, whatever the input."""
    code, err, skipping = outcome.code, outcome.err, outcome.command[0] in ("predict", "describe", "data")
    if outcome.exceeded:
        return "hang", f"more than {outcome.exceeded}"
    if "Traceback" in err:
        return "traceback", err.strip().splitlines()[-1]
    if code < 0:
        return None if killed else ("traceback", f"died of {signal.Signals(-code).name}")
    raw = RAW.search((outcome.out + err).replace("\r\n", "\n"))
    reasons = {
        f"exit code {code}": code > 2 or (code == 1 and not skipping),
        f"{len(err):,} characters on stderr": len(err) > MOST_TEXT,
        f"prints {raw and raw[0]!r}": raw,
        "exit code 2 without a word": code == 2 and not err.strip(),
    }
    return next((("traceback", why) for why, true in reasons.items() if true), None)


def leaked(root: Path, outcome: Outcome) -> str | None:
    """Where the key is, or enough of it, in whatever escapes."""
    texts = {path.name: path.read_text("utf-8", "replace") for path in root.glob("*.json*") if path.is_file()}
    for name, text in {"the output": outcome.out + outcome.err, **texts}.items():
        plain = re.sub(r"\\+u00([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)
        if KEY[:8].lower() in plain.lower():
            return f"the key is in {name}"
    return None
