"""Ctrl-C while a command still imports torch: one line and exit code 130, as `cli.run` gives later on."""

import os
import signal
from typing import NoReturn


def _end(*_: object) -> NoReturn:
    os.write(2, b"interrupted\n")
    os._exit(130)  # an exception could be swallowed by what is being imported; nothing is being written yet


def one_line() -> None:
    """Let Ctrl-C end this process in one line; left alone where signals are ignored or handled otherwise."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _end)


def as_exception() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)
