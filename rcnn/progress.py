"""How far a long piece of work is, on stderr: a bar on a terminal, one line a minute elsewhere, nothing with --quiet."""

import sys
from collections.abc import Iterable, Iterator
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


class progress(Generic[Item]):  # noqa: N801, called as a function, like tqdm
    """The progress of a piece of work: iterate over it, or use it as a context manager and call `update`.

    The time left follows from the pace after the first update, so that neither the start nor a slow first batch counts; it
    is shown from the second update on.

    Args:
        items: what is worked on, if it is iterated over.
        title: of the work, such as "evaluate".
        total: how many there are; default len(items), where they have a length.
        unit: what is counted, in the singular, such as "image"; "B" for bytes, shown as kB, MB, …
        initial: how many were done by an earlier run.
    """

    def __init__(
        self,
        items: Iterable[Item] | None = None,
        title: str = "",
        total: int | None = None,
        unit: str = "",
        initial: int = 0,
    ) -> None:
        self.items, self.title = items, title
        self._bytes, self._unit = unit == "B", {"": "", "B": "B"}.get(unit, f" {unit}s")
        self.total = len(items) if total is None and hasattr(items, "__len__") else total
        self.done, self.postfix = initial, ""
        self._on_terminal = sys.stderr.isatty()
        self._wait, self._every = TERMINAL if self._on_terminal else ELSEWHERE
        self._due = monotonic() + self._wait
        self._first: tuple[float, int] | None = None  # when the first update came, and what was done by then
        self._bar: tqdm | None = None

    def __iter__(self) -> Iterator[Item]:
        with self:
            for item in self.items:
                yield item
                self.update()

    def __enter__(self) -> "progress[Item]":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def update(self, n: int = 1) -> None:
        """Count `n` more as done; once a batch, with its size."""
        self.done += n
        now = monotonic()
        if not _quiet and now >= self._due:
            self._due = now + self._every
            self._show(now)
        if self._first is None:
            self._first = now, self.done

    def note(self, text: str) -> None:
        """Words to show behind the numbers, such as the loss."""
        self.postfix = text

    def close(self) -> None:
        """Leave the bar as it is, if there is one."""
        if self._bar is not None:
            self._show(monotonic())
            self._bar.close()
            self._bar = None

    def _left(self, now: float) -> str:
        """The time left in words, "" while it is not known."""
        if self._first is None or self.total is None:
            return ""
        (began, before), rest = self._first, self.total - self.done
        if self.done <= before or rest <= 0:
            return ""
        return f"{duration(rest * (now - began) / (self.done - before))} left"

    def _show(self, now: float) -> None:
        behind = ", ".join(filter(None, [self._left(now), self.postfix]))
        if self._on_terminal:
            if self._bar is None:
                # tqdm's own time left would count the start
                shape = f"{{desc}}: {{percentage:3.0f}}%|{{bar}}| {{n_fmt}}/{{total_fmt}}{self._unit}{{postfix}}"
                self._bar = tqdm(
                    total=self.total, desc=self.title, unit=self._unit, unit_scale=self._bytes, initial=self.done,
                    bar_format=shape if self.total else None,
                )  # fmt: skip
            self._bar.n = self.done
            self._bar.set_postfix_str(behind, refresh=False)
            self._bar.refresh()
        else:
            print(f"{self.title}: {self._amount()}" + (f", {behind}" if behind else ""), file=sys.stderr, flush=True)

    def _amount(self) -> str:
        numbers = [self.done] if self.total is None else [self.done, self.total]
        return "/".join(tqdm.format_sizeof(n) if self._bytes else str(n) for n in numbers) + self._unit


def duration(seconds: float) -> str:
    """A time in words, "40 s", "3 min" or "2.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
