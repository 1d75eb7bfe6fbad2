"""The frame of all commands: arguments, devices, and errors as one clean line with exit code 2."""

import argparse
import dataclasses
import os
import sys

import torch

from rcnn import clip, config

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def parser(name, description, keys=config.Config):
    """An argument parser of `python -m rcnn.<name>`; its help lists every configuration key of the class `keys`, if any."""
    lines = config.describe(keys) if keys else []
    epilog = "\n".join(["configuration keys (key=value on the command line wins over the file):", *lines])
    return argparse.ArgumentParser(
        prog=f"python -m rcnn.{name}",
        description=description,
        epilog=epilog if keys else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def device(name):
    """torch.device for "auto" or an explicit name."""
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


def load_clip(settings, facts=None, precision="float32"):
    """The CLIP that `settings` (Config) names, its image tower in `precision`.

    With the `facts` of a run it must be the one the run was learned with.
    """
    model = clip.load(**dataclasses.asdict(settings.clip), device=device(settings.device))
    if facts and facts["identity"]["clip"] != model.fingerprint:
        raise ValueError("clip: this run was learned with other weights, heads or another activation")
    if precision == "auto":
        precision = "fp16" if model.device.type == "cuda" else "float32"
    model.image.set_precision(PRECISIONS[precision])
    return model


def run(main):
    """Call `main` and end the process; bad input ends in one line on stderr and exit code 2, not in a traceback."""
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
