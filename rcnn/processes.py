"""One process or many: `torchrun --nproc-per-node=N -m rcnn.evaluate …` shares the images among N processes."""

import contextlib
import os

import torch
from torch import distributed


@contextlib.contextmanager
def group(on_cuda):
    """Yield (rank, world, barrier): (0, 1, a function that does nothing) unless torchrun started this process.

    With `on_cuda` each process takes the GPU of its local number. Machines must share the run's folder.
    """
    world = int(os.environ.get("WORLD_SIZE", 1))
    if world == 1:
        yield 0, 1, lambda: None
        return
    if on_cuda:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    distributed.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield distributed.get_rank(), world, distributed.barrier
    finally:
        distributed.destroy_process_group()
