"""Batches of images, decoded in this process or in others, whose deaths lose no image that can be read.

Every process has a connection and shared memory of its own, so that one that is killed, at any moment, harms no other.
"""

import contextlib
import math
import mmap
import multiprocessing
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import NamedTuple

import numpy as np
import torch

from rcnn.score.reading import reason

AHEAD = 2  # batches that a process is given before the first of them is asked for
SECONDS = 10  # of CPU for one image, after which its process is killed
KILLED = f"the process that decoded it was killed: it took more than {SECONDS} s, or the memory ran short"

Decode = Callable[[int], np.ndarray]  # index of an image -> its pixels; any exception if it cannot be read


class ViewBatch(NamedTuple):
    """The pixels of the images of one batch that could be read, and why the others could not."""

    indices: list[int]  # of the B images that could be read
    pixels: torch.Tensor | None  # (B, …) uint8, of views (B, V, S, S, 3); None when B = 0
    broken: dict[int, str]  # index -> why


@dataclass
class Batches(Iterable[ViewBatch]):
    """The pixels of `count` images, in order."""

    decode: Decode
    count: int
    shape: tuple[int, ...]  # of what `decode` returns
    batch_size: int
    workers: int = 0  # processes; 0 decodes in this one
    pinned: bool = False  # pixels come in memory from which they can be copied to a GPU while this process goes on

    def __len__(self) -> int:
        return math.ceil(self.count / self.batch_size)

    def __iter__(self) -> Iterator[ViewBatch]:
        tasks = [range(start, min(start + self.batch_size, self.count)) for start in range(0, self.count, self.batch_size)]
        return self._elsewhere(tasks) if self.workers else map(self._here, tasks)

    def _here(self, indices: Sequence[int]) -> ViewBatch:
        pixels = self.empty(len(indices))
        return _batch(pixels, *_fill(pixels.numpy(), self.decode, indices))

    def empty(self, count: int) -> torch.Tensor:
        """Memory for the pixels of as many images."""
        return torch.empty((count, *self.shape), dtype=torch.uint8, pin_memory=self.pinned)

    def _elsewhere(self, tasks: Sequence[Sequence[int]]) -> Iterator[ViewBatch]:
        ahead = AHEAD * self.workers
        with contextlib.ExitStack() as stack:
            workers = [stack.enter_context(_Worker(self, self.batch_size)) for _ in range(self.workers)]
            for number, task in enumerate(tasks[:ahead]):
                workers[number % self.workers].give(task)
            for number, task in enumerate(tasks):
                worker = workers[number % self.workers]
                batch = worker.result()
                if batch is None:
                    worker.start_again()
                    batch = _joined([self._alone(index) for index in task])
                if number + ahead < len(tasks):
                    worker.give(tasks[number + ahead])
                yield batch

    def _alone(self, index: int) -> ViewBatch:
        with _Worker(self, 1) as worker:
            worker.give([index])
            return worker.result() or ViewBatch([], None, {index: KILLED})


class _Worker:
    """A process that decodes images into memory that it shares with this one."""

    def __init__(self, batches: Batches, most: int):
        self.batches, shape = batches, (AHEAD, most, *batches.shape)
        self.room = np.frombuffer(mmap.mmap(-1, math.prod(shape)), np.uint8).reshape(shape)
        self.tasks, self.given = deque(), 0  # (place in the room, indices) of those that have no result yet
        self._start()

    def __enter__(self) -> "_Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        given = self.connection, theirs, self.room, self.batches.decode
        self.process = context.Process(target=_work, args=given, daemon=True)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Ctrl-C is for this process, which ends the others
        try:
            self.process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        theirs.close()  # so that the connection ends when the process does

    def start_again(self) -> None:
        """Another process, with the tasks that have no result yet."""
        self.__exit__()
        self._start()
        for task in self.tasks:
            self._send(task)

    def give(self, indices: Sequence[int]) -> None:
        """A task to do after those before; AHEAD of them at most."""
        self.tasks.append((self.given % AHEAD, indices))
        self.given += 1
        self._send(self.tasks[-1])

    def _send(self, task: tuple[int, Sequence[int]]) -> None:
        with contextlib.suppress(OSError):  # that the process was killed is seen when the result is asked for
            self.connection.send(task)

    def result(self) -> ViewBatch | None:
        """The result of the oldest task; None if the process was killed."""
        place, _ = self.tasks.popleft()
        try:
            read, broken = self.connection.recv()
        except (EOFError, OSError):
            return None
        pixels = self.batches.empty(len(read)).copy_(torch.from_numpy(self.room[place, : len(read)]))
        return _batch(pixels, read, broken)


def _work(theirs: Connection, connection: Connection, room: np.ndarray, decode: Decode) -> None:
    """What a process does until the one that started it ends, in whatever way."""
    theirs.close()  # else the connection would never end, since this process holds its other end as well
    if sys.stderr is not None:  # else it is closed, and its number may be another file's
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libraries in C write there when they abort

    def decode_in_time(index: int) -> np.ndarray:
        signal.setitimer(signal.ITIMER_VIRTUAL, SECONDS)  # nothing handles its signal, which therefore kills
        return decode(index)

    with contextlib.suppress(EOFError, OSError):
        while True:
            place, indices = connection.recv()
            connection.send(_fill(room[place], decode_in_time, indices))


def _fill(room: np.ndarray, decode: Decode, indices: Sequence[int]) -> tuple[list[int], dict[int, str]]:
    """Decode images into the first places of `room`; return (those that could be read, {index: why} of the others)."""
    read, broken = [], {}
    for index in indices:
        try:
            room[len(read)] = decode(index)
            read.append(index)
        except Exception as error:  # Pillow's decoders raise nearly every kind for a bad file
            broken[index] = reason(error)
    return read, broken


def _batch(pixels: torch.Tensor, read: list[int], broken: dict[int, str]) -> ViewBatch:
    return ViewBatch(read, pixels[: len(read)] if read else None, broken)


def _joined(parts: Sequence[ViewBatch]) -> ViewBatch:
    pixels = [part.pixels for part in parts if part.indices]
    broken = {index: why for part in parts for index, why in part.broken.items()}
    return ViewBatch([i for part in parts for i in part.indices], torch.cat(pixels) if pixels else None, broken)
