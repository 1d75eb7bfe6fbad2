"""The frame of all commands: arguments, devices, and errors as one clean line with exit code 2."""

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import torch

from rcnn import clip, config, interrupt, progress

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class _Quiet(argparse.Action):
    def __call__(self, *_: object) -> None:
        progress.quiet()


def parser(name: str, description: str, keys: type | None = config.Config) -> argparse.ArgumentParser:
    """An argument parser of the command `name`, with the flags that all commands have.

    Args:
        name: of the command: `rcnn NAME`, or `python -m rcnn.NAME`.
        description: what --help says first.
        keys: class of the configuration whose keys --help lists, if any.
    """
    installed = Path(sys.argv[0]).stem == "rcnn"
    lines = config.describe(keys) if keys else []
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


def device(name: str) -> torch.device:
    """torch.device for "auto" or an explicit name.

    Raises:
        ValueError: no such device here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise ValueError(f"device: expected auto, cpu or cuda, got {name!r}") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError("device: cuda was asked for, but torch finds no CUDA GPU; use device=cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device: there is no {name}; torch finds {torch.cuda.device_count()} CUDA GPUs")
    return chosen


def load_clip(settings: config.Config, metadata: dict[str, Any] | None = None, precision: str = "float32") -> clip.Clip:
    """The CLIP that `settings` names.

    Args:
        settings: Config.
        metadata: of a run (`checkpoint.read_run`); the CLIP must then be the one that the run was learned with.
        precision: of the image tower: one of PRECISIONS, or "auto" for fp16 on CUDA and float32 elsewhere.

    Raises:
        FileNotFoundError, ValueError: no weights, or not those of the run.
    """
    model = clip.load(**vars(settings.clip), device=device(settings.device))
    if metadata and metadata["identity"]["clip"] != model.fingerprint:
        raise ValueError("clip: this run was learned with other weights, heads or another activation")
    if precision == "auto":
        precision = "fp16" if model.device.type == "cuda" else "float32"
    model.image.set_precision(PRECISIONS[precision])
    return model


def run(main: Callable[[], int | None]) -> NoReturn:
    """Call `main` and end the process; bad input ends in one line on stderr and exit code 2, not in a traceback."""
    interrupt.as_exception()
    try:
        code = main() or 0
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output has gone, such as `head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        code = 130
    sys.exit(code)
