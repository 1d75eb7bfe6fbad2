"""The frame of all commands: arguments, and errors as one clean line with exit code 2."""

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn

from rcnn import config, interrupt, progress
from rcnn.printing import cut, message


class _Quiet(argparse.Action):
    def __call__(self, *_: object) -> None:
        progress.quiet()


def parser(name: str, description: str, keys: type | None = config.Config, but: Iterable[str] = ()) -> argparse.ArgumentParser:
    """An argument parser of the command `name`; --help lists the keys of `keys`, without those that shape `but`."""
    installed = Path(sys.argv[0]).stem == "rcnn"
    lines = config.describe(keys, but) if keys else []
    epilog = "\n".join(["configuration keys (key=value on the command line wins over the file):", *lines])
    made = argparse.ArgumentParser(
        prog=f"rcnn {name}" if installed else f"python -m rcnn.{name}",
        description=description,
        epilog=epilog if keys else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    progress.quiet(False)
    text = "show no progress; warnings and results are still printed"
    made.add_argument("--quiet", action=_Quiet, nargs=0, default=argparse.SUPPRESS, help=text)
    return made


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and end the process; bad input ends in one line on stderr and exit code 2, not in a traceback."""
    interrupt.as_exception()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # not the one that a test puts in its place
            stream.reconfigure(errors="backslashreplace")  # a name that its encoding lacks must not end a long run
    try:
        code = main() or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (ValueError, OSError) as error:
        print(f"error: {message(str(error))}", file=sys.stderr)
        code = 2
    except (MemoryError, RuntimeError) as error:
        if not (wanting := _wants_memory(error)):
            raise
        print(f"error: {wanting}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)


def _wants_memory(error: Exception) -> str | None:
    """What to do about an error that means too little memory, torch's or Python's own; None for any other error."""
    text = str(error)
    if "out of memory" in text:  # torch.OutOfMemoryError, of CUDA
        return f"the GPU has too little memory; lower evaluate.batch_size ({cut(text)})"
    if isinstance(error, MemoryError) or "DefaultCPUAllocator" in text:  # torch's RuntimeError, worded by the platform
        return f"too little memory; lower evaluate.batch_size or evaluate.workers ({cut(text) or 'out of memory'})"
    return None
