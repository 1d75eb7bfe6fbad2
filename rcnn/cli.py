"""The frame of all commands: arguments, and errors as one clean line with exit code 2."""

import argparse
import contextlib
import io
import os
import select
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, TextIO

from rcnn import config, interrupt, progress
from rcnn.printing import cut, message


class _Quiet(argparse.Action):
    def __call__(self, *_: object) -> None:
        progress.quiet()


class _Parser(argparse.ArgumentParser):
    def parse_known_args(self, args=None, namespace=None):
        if "" in (sys.argv[1:] if args is None else args):  # as a path, it would be the current folder
            self.error("an argument is empty, perhaps a variable that is not set")
        return super().parse_known_args(args, namespace)


def parser(name: str, description: str, keys: type | None = config.Config, but: Iterable[str] = ()) -> argparse.ArgumentParser:
    """An argument parser of the command `name`; --help lists the keys of `keys`, without those that shape `but`."""
    installed = Path(sys.argv[0]).stem == "rcnn"
    lines = config.describe(keys, but) if keys else []
    epilog = "\n".join(["configuration keys (key=value on the command line wins over the file):", *lines])
    made = _Parser(
        prog=f"rcnn {name}" if installed else f"python -m rcnn.{name}",
        description=description,
        epilog=epilog if keys else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    progress.quiet(False)
    text = "show no progress; warnings and results are still printed"
    made.add_argument("--quiet", action=_Quiet, nargs=0, default=argparse.SUPPRESS, help=text)
    return made


def without_pairs(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """(paths, key=value pairs) of arguments that are either; what exists is a path."""
    pairs = [text for text in arguments if "=" in text and not os.path.exists(text)]
    return [text for text in arguments if text not in pairs], pairs


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and end the process; bad input ends in one line on stderr and exit code 2, not in a traceback."""
    interrupt.as_exception()
    is_closed = sys.stdout is None
    if None in (sys.stdin, sys.stdout, sys.stderr):
        _open_closed()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not the one that a test puts in its place
            stream.reconfigure(errors="backslashreplace")  # a name that its encoding lacks must not end a long run
    try:
        if is_closed:
            raise ValueError("stdout is closed, so no result could be seen; >/dev/null if none is wanted")
        try:
            code = main() or 0
        except SystemExit as end:  # of argparse, such as --help
            code = end.code or 0
        sys.stdout.flush()
    except (ValueError, OSError) as error:
        is_read = not isinstance(error, BrokenPipeError) or _has_reader(sys.stdout)  # until, say, `head` has enough
        code = _end(f"error: {message(str(error))}", 2) if is_read else 0
    except (MemoryError, RuntimeError) as error:
        if not (wanting := wants_memory(error)):
            raise
        code = _end(f"error: {wanting}", 2)
    except KeyboardInterrupt:
        code = _end("interrupted", 130)
    _flush(sys.stdout)
    _flush(sys.stderr)
    sys.exit(code)


def _open_closed() -> None:
    """Open stdin, stdout and stderr where they are closed: else a file of ours would get the number, and what is printed."""
    while (file := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    nowhere = os.fdopen(file, "w")
    sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere


def _end(text: str, code: int) -> int:
    """Print why a command ends; where stderr is full, or has no reader, the exit code says it alone."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr)
    return code


def _has_reader(stream: TextIO) -> bool:
    """False for a pipe that nobody reads any more."""
    if not hasattr(select, "poll"):  # as on Windows
        return False
    watched = select.poll()
    watched.register(stream.fileno(), 0)
    return not watched.poll(0)


def _flush(stream: TextIO) -> None:
    """Write what is in a stream, or drop it, which else Python would try to write once more, and say so."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def wants_memory(error: Exception) -> str | None:
    """What to do about an error that means too little memory, torch's or Python's own; None for any other error."""
    text = str(error)
    if "out of memory" in text:  # torch.OutOfMemoryError, of CUDA
        return f"the GPU has too little memory; lower evaluate.batch_size ({cut(text)})"
    # torch's own is a RuntimeError, worded by the platform
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text or "unable to mmap" in text:
        return f"too little memory; lower evaluate.batch_size or evaluate.workers ({cut(text) or 'out of memory'})"
    return None
