"""Faults inside the process of a command: it is killed, or its disk is full, at a moment that is a number of its own acts."""

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable

from PIL import Image


def at_change(number: int, do: Callable[[], None], only: str = "") -> Callable[[], None]:
    """`do` is called when the process is about to change a file, with `only` in its name, for the `number`-th time."""

    def begin():
        left, own = number, os.getpid()  # its workers are not counted

        def hook(event, details):
            nonlocal left
            writing = event == "open" and isinstance(details[0], str | bytes) and (details[2] or 0) & os.O_ACCMODE
            at = 0 if writing else {"os.rename": 1, "os.remove": 0, "os.mkdir": 0}.get(event)
            if at is None or not left or os.getpid() != own:
                return
            name = os.fsdecode(details[at])
            if only in name and "/dev/" not in name:
                left -= 1
                if not left:
                    do()

        sys.addaudithook(hook)

    return begin


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed_by(name: str) -> None:
    """Kill the process that decodes an image, unless it is the command's own."""
    opened, own = Image.open, os.getpid()

    def open_image(file, *rest, **more):
        if name in str(getattr(file, "name", file)) and os.getpid() != own:
            die()
        return opened(file, *rest, **more)

    Image.open = open_image


def children_die(count: int, seconds: float) -> None:
    """Let the first processes that this one starts be killed some time after they began."""

    def before():
        nonlocal count
        count -= 1

    def after():
        if count >= 0:
            signal.setitimer(signal.ITIMER_REAL, seconds)  # its signal kills

    os.register_at_fork(before=before, after_in_child=after)


def only_room_for(size: int) -> None:
    """Let no file of this process, other than those of its workers, grow over a size."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    os.register_at_fork(after_in_child=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))
