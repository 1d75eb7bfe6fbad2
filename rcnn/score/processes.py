"""One process or many: `torchrun --nproc-per-node=N -m rcnn.evaluate …` shares the images among N processes."""

import contextlib
import datetime
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from torch import distributed

from rcnn.printing import short

Value = TypeVar("Value")


@dataclass(frozen=True)
class Group:
    """This process among all that share the work, on one machine or several; alone, it waits for nobody."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0  # on its machine

    def barrier(self) -> None:
        """Wait until all have come here."""
        if self.world > 1:
            distributed.barrier()

    def everyone(self, value: Value) -> list[Value]:
        """The values of all processes, by rank."""
        if self.world == 1:
            return [value]
        values = [None] * self.world
        distributed.all_gather_object(values, value)
        return values

    def send(self, data: np.ndarray, rank: int) -> None:
        """Send bytes, (n,) uint8, to another process, which must `receive` them."""
        if len(data):
            distributed.send(torch.from_numpy(data), rank)

    def receive(self, size: int, rank: int) -> np.ndarray:
        """(size,) uint8 that another process sends."""
        data = torch.empty(size, dtype=torch.uint8)
        if size:
            distributed.recv(data, rank)
        return data.numpy()

    @contextlib.contextmanager
    def first_of_machine_before_others(self) -> Iterator[None]:
        """Have the first process of every machine do something alone, and the others after it."""
        if self.local_rank:
            self.barrier()
        yield
        if not self.local_rank:
            self.barrier()


@contextlib.contextmanager
def group(on_cuda: bool) -> Iterator[Group]:
    """The Group of this process: alone unless torchrun started it.

    With `on_cuda` it takes the GPU of its local number; where there are fewer GPUs than processes they share them.
    """
    world = world_size()
    if world == 1:
        yield Group()
        return
    if not distributed.is_torchelastic_launched():  # others that nobody started would be waited for
        raise ValueError(f"WORLD_SIZE={world}, and torchrun did not start this process; unset WORLD_SIZE, or use torchrun")
    local_rank = int(os.environ["LOCAL_RANK"])
    if on_cuda:
        torch.cuda.set_device(local_rank % torch.cuda.device_count())
    # what is exchanged lies in main memory; some wait at a barrier for what takes others hours
    distributed.init_process_group("gloo", timeout=datetime.timedelta(days=7))
    try:
        yield Group(distributed.get_rank(), world, local_rank)
    finally:
        distributed.destroy_process_group()


def world_size() -> int:
    """How many processes torchrun has started, of which this is one; 1 without torchrun."""
    text = os.environ.get("WORLD_SIZE", "1")
    if not (text.isdecimal() and len(text) < 10 and int(text)):
        raise ValueError(f"environment variable WORLD_SIZE: expected a whole number from 1, got {short(text)}; unset it")
    return int(text)
