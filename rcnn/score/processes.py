"""One process or many: `torchrun --nproc-per-node=N -m rcnn.evaluate …` shares the images among N processes."""

import contextlib
import datetime
import os
from collections.abc import Callable, Iterator

import torch
from torch import distributed

from rcnn.printing import short


@contextlib.contextmanager
def group(on_cuda: bool, one_machine: bool = True) -> Iterator[tuple[int, int, Callable[[], None]]]:
    """Yield (rank, world, barrier): (0, 1, a function that does nothing) unless torchrun started this process.

    With `on_cuda` each process takes the GPU of its local number. Where all processes write one file, which the first one reads
    through a memory map, they must be on `one_machine`.
    """
    world = world_size()
    if world == 1:
        yield 0, 1, lambda: None
        return
    if not distributed.is_torchelastic_launched():  # others that nobody started would be waited for
        raise ValueError(f"WORLD_SIZE={world}, and torchrun did not start this process; unset WORLD_SIZE, or use torchrun")
    if one_machine and int(os.environ.get("LOCAL_WORLD_SIZE", world)) != world:
        raise ValueError("the processes must be on one machine, since they write one file")
    if on_cuda and int(os.environ["LOCAL_RANK"]) >= torch.cuda.device_count():
        raise ValueError(f"{world} processes want a GPU each; torch finds {torch.cuda.device_count()}")
    if on_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    # the first process measures while the others wait at a barrier, which may take hours
    distributed.init_process_group("nccl" if on_cuda else "gloo", timeout=datetime.timedelta(days=7))
    try:
        yield distributed.get_rank(), world, distributed.barrier
    finally:
        distributed.destroy_process_group()


def world_size() -> int:
    """How many processes torchrun has started, of which this is one; 1 without torchrun."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not (text.isdecimal() and len(text) < 10 and int(text)):
        raise ValueError(f"environment variable WORLD_SIZE: expected a whole number from 1, got {short(text)}; unset it")
    return int(text)
