"""How far a long piece of work is, on stderr: a bar on a terminal, one line a minute elsewhere, nothing with --quiet."""

import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from time import monotonic
from typing import Generic, TypeVar

from tqdm import tqdm

Item = TypeVar("Item")

# seconds before anything is shown, and then between two looks at it: on a terminal, elsewhere
TERMINAL, ELSEWHERE = (2.0, 0.1), (60.0, 60.0)
_quiet = False


def quiet(on: bool = True) -> None:
    """Show no progress from here on in this process, or show it again."""
    global _quiet
    _quiet = on


class progress(AbstractContextManager, Generic[Item]):  # noqa: N801, called as a function, like tqdm
    """The progress of a piece of work: iterate over it, or use it as a context manager and call `update`.

    The time left follows from the pace after the first update, so that neither the start nor a slow first batch counts; it
    is shown from the second update on. tqdm's own would count both.

    Args:
        items: what is worked on, if it is iterated over.
        total: how many there are; default len(items), where they have a length.
        unit: what is counted, in the singular, such as "image"; "B" for bytes, shown as kB, MB, …
        initial: how many were done by an earlier run.
    """

    def __init__(
        self, items: Iterable[Item] | None = None, title: str = "", total: int | None = None, unit: str = "", initial: int = 0
    ) -> None:
        self.items, self.title, self.done = items, title, initial
        self.total = len(items) if total is None and hasattr(items, "__len__") else total
        self._unit = unit if unit in ("", "B") else f" {unit}s"
        self._note, self._shown, self._on_terminal = "", False, sys.stderr.isatty()
        wait, self._every = TERMINAL if self._on_terminal else ELSEWHERE
        self._due = monotonic() + wait
        self._first: tuple[float, int] | None = None  # when the first update came, and what was done by then

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self.items:
                yield item
                self.update()

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Count `n` more as done; once a batch, with its size."""
        self.done += n
        now = monotonic()
        if not _quiet and now >= self._due:
            self._due = now + self._every
            self._show()
        if self._first is None:
            self._first = now, self.done

    def note(self, text: str) -> None:
        """Words to show behind the numbers, such as the loss."""
        self._note = text

    def close(self) -> None:
        """Leave the bar as it is, if there is one."""
        if self._shown and self._on_terminal:
            self._show()
            print(file=sys.stderr)
        self._shown = False

    def _left(self) -> str:
        """The time left in words, "" while it is not known."""
        began, before = self._first or (0.0, self.done)
        if not self.total or not before < self.done < self.total:
            return ""
        return f"{duration((self.total - self.done) * (monotonic() - began) / (self.done - before))} left"

    def _show(self) -> None:
        shape = ("{n_fmt}/{total_fmt}" if self.total else "{n_fmt}") + self._unit + "{postfix}"
        if self._on_terminal and self.total:
            shape = "{percentage:3.0f}%|{bar}| " + shape
        line = tqdm.format_meter(
            self.done, self.total, prefix=self.title, unit_scale=self._unit == "B", bar_format="{desc}: " + shape, elapsed=0,
            postfix=", ".join(filter(None, [self._left(), self._note])),
            ncols=shutil.get_terminal_size().columns - 1 if self._on_terminal else None,
        )  # fmt: skip
        before, after = ("\r", "\x1b[K") if self._on_terminal else ("", "\n")  # the bar is drawn over the last one
        print(f"{before}{line}", end=after, file=sys.stderr, flush=True)
        self._shown = True


def duration(seconds: float) -> str:
    """A time in words, "40 s", "3 min" or "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
