"""Harms inside the process of a command: it is killed, or its disk is full, at a moment that is a number of its own acts."""

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable

from PIL import Image


def changes_files(event: str, details: tuple) -> str | None:
    """The name of the file that an audit event is about to create or change."""
    if event == "open" and isinstance(details[0], str | bytes) and (details[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        return os.fsdecode(details[0])
    at = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0}.get(event)
    return None if at is None else os.fsdecode(details[at])


def at_change(number: int, do: Callable[[], None], fits: Callable[[str], bool] = lambda name: True) -> Callable[[], None]:
    """A fault: `do` is called when the process is about to change a file whose name fits for the `number`-th time."""

    def begin():
        left, own = [number], os.getpid()  # its workers are not counted

        def hook(event, details):
            if (
                left[0]
                and os.getpid() == own
                and (name := changes_files(event, details))
                and "/dev/" not in name
                and fits(name)
            ):
                left[0] -= 1
                if not left[0]:
                    do()

        sys.addaudithook(hook)

    return begin


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed_decoder(name: str) -> None:
    """Kill the process that decodes an image, unless it is the command's own."""
    opened, own = Image.open, os.getpid()

    def open_image(file, *rest, **more):
        if name in str(getattr(file, "name", file)) and os.getpid() != own:
            die()
        return opened(file, *rest, **more)

    Image.open = open_image


def only_room_for(size: int) -> None:
    """Let no file of this process, other than those of its workers, grow over a size."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, most))
    os.register_at_fork(after_in_child=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most)))


def failing_calls(number: int) -> None:
    """The `number`-th of the calls that find a full disk does so, and all that follow."""
    left = [number]

    def failing(call):
        def instead(*arguments, **more):
            left[0] -= 1
            if left[0] <= 0:
                no_space()
            return call(*arguments, **more)

        return instead

    for name in ("fsync", "pwrite", "posix_fallocate", "ftruncate", "truncate", "makedirs", "mkdir", "sendfile"):
        setattr(os, name, failing(getattr(os, name)))
