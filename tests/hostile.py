"""Files that tests of bad input share."""

import contextlib
import os
import signal
import warnings

import pytest
import torch
from torch import nn


@contextlib.contextmanager
def at_once(seconds=10):
    """Fail, and do not wait for ever, if the block reads of a pipe or a device that never ends."""

    def fail(*_):
        pytest.fail(f"no end within {seconds} seconds")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def irregular(folder, name):
    """Paths of a pipe, a folder and a device that never ends."""
    os.mkfifo(folder / f"pipe_{name}")
    (folder / f"folder_{name}").mkdir()
    return [folder / f"pipe_{name}", folder / f"folder_{name}", "/dev/zero"]


def torchscript(path, state):
    """An archive such as OpenAI's: nested modules that hold the tensors under their dotted names."""
    root = nn.Module()
    for name, tensor in state.items():
        *parents, last = name.split(".")
        place = root
        for parent in parents:
            if parent not in place._modules:
                place.add_module(parent, nn.Module())
            place = place._modules[parent]
        place.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    with warnings.catch_warnings():  # deprecated, but what OpenAI's files are
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(root), path)
