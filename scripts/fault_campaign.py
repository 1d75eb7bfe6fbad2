#!/usr/bin/env python
"""Give the commands thousands of bad inputs, and count what comes of it.

    python scripts/fault_campaign.py [--minutes 5] [--seed N] [--family NAME …] [--keep FOLDER]

Every input is a small world (a tiny CLIP, class lists, a corpus, images with labels, a finished and an interrupted run) that
one or a few harms were done to. The commands' own code then runs on it in a process of its own, in a temporary folder, without
a network. The families:

    images         damaged, huge and odd image files, names and links, decoders that are killed: tagging
    configuration  YAML files, key=value pairs of every option, devices
    texts          class lists and corpora
    annotations    COCO's JSON, NUS-WIDE's text files: the labels are those of the unharmed files, or refused
    own            files of runs, caches, notes, answers: the results are those of the unharmed files, or refused
    weights        safetensors, state dicts, TorchScript
    service        a language-model service that misbehaves, and echoes the key
    divergence     learning that leads nowhere: nothing that is not finite is left behind as good
    kills          a command killed one or more times, then run again: the result of an unharmed run; killed decoders
    disk           a full disk, then room again: the result of an unharmed run

Each input ends in one column: refused (exit code 2, or 1 where a command names what it skipped, with few and printable lines),
accepted (0), traceback (also: another exit code, death by a signal, unprintable or endless text), hang (over 10 s of CPU, half
a minute, or 2 GB), wrong (accepted with another result than the unharmed input has, something lost unsaid, a leaked key). The
last three are failures: the first of a kind is reduced to the harms that it takes, its input is kept, and the exit code is 1.

The inputs are a function of seed, family and number: the same on every machine, as far as the time goes. --number tries one
of them again.
"""

import argparse
import gc
import os
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from random import Random

if __name__ == "__main__" and "GLIBC_TUNABLES" not in os.environ:  # huge pages: a process that holds torch forks twice as fast
    faster = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "PYTHONMALLOC": "malloc", "OMP_NUM_THREADS": "1"}
    os.execve(sys.executable, sys.orig_argv, os.environ | faster)
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ["HF_HUB_OFFLINE"] = "1"  # read when it is imported

from faults.images import images
from faults.labels import annotations
from faults.own import own, weights
from faults.results import copy, remove
from faults.running import disk, divergence, kills
from faults.service import service
from faults.texts import configuration, texts
from faults.trial import COLUMNS, FAILURES, Trial, Verdict
from faults.world import World

from rcnn import cli
from rcnn.clip.tokens import tokenizer
from rcnn.printing import message, short
from rcnn.progress import progress

FAMILIES: dict[str, Callable[[Random, World], Trial]] = {
    "images": images, "configuration": configuration, "texts": texts, "annotations": annotations, "own": own,
    "weights": weights, "service": service, "divergence": divergence, "kills": kills, "disk": disk,
}  # fmt: skip
REDUCING = 30  # seconds for reducing one failure


def kind_of(verdict: Verdict) -> tuple[str, str]:
    """Failures that differ in numbers, names and paths alone are of one kind."""
    return verdict.column, re.sub(r"[\d,.]+|'.*'|\".*\"|\S*/\S*", "…", verdict.why)[:60]


class Campaign:
    """Tries inputs, counts their columns, and keeps the first failure of each kind."""

    def __init__(self, world: World, seed: int, keep: Path) -> None:
        self.world, self.seed, self.keep = world, seed, keep
        self.counts = {name: Counter() for name in FAMILIES}
        self.failures: dict[tuple, list[str]] = {}  # kind -> the lines that tell of its first
        self.kinds: Counter = Counter()

    def trial(self, family: str, number: int) -> Trial:
        """An input, by its number."""
        return FAMILIES[family](Random(f"{self.seed} {family} {number}"), self.world)

    def attempt(self, family: str, number: int) -> None:
        """Try one input."""
        trial = self.trial(family, number)
        verdict = self.world.run(trial, trial.harms)
        self.counts[family].update(["tried", verdict.column])
        if verdict.column in FAILURES:
            kind = family, *kind_of(verdict)
            self.kinds[kind] += 1
            if kind not in self.failures:
                self.failures[kind] = self._reduced(family, number, trial, verdict)

    def _reduced(self, family: str, number: int, trial: Trial, verdict: Verdict) -> list[str]:
        """The failure with as few harms as it takes, in lines; its input is kept."""
        harms, until = list(trial.harms), time.monotonic() + REDUCING
        for harm in trial.harms:
            fewer = [h for h in harms if h is not harm]
            if fewer and time.monotonic() < until and kind_of(self.world.run(trial, fewer)) == kind_of(verdict):
                harms = fewer
        verdict = self.world.run(trial, harms)
        kept = self.keep / f"{family}-{self.seed}-{number}"
        if kept.exists():
            remove(kept)
        copy(self.world.root, kept)
        commands = [["rcnn", *(shown(a) for a in step.command)] for step in trial.steps[: verdict.step + 1]]
        return [
            f"{family} {number}: {verdict.column}: {message(verdict.why)}", *(f"  {message(harm)}" for harm in verdict.harms),
            f"  cd {kept}", *("  " + " ".join(command) for command in commands),
            f"  again: --seed {self.seed} --family {family} --number {number}",
        ]  # fmt: skip

    def table(self) -> str:
        """The counts of all families that were tried."""
        tried = {name: counts for name, counts in self.counts.items() if counts["tried"]}
        tried["all"] = sum(tried.values(), Counter())
        rows = [("", COLUMNS)] + [(name, [counts[column] for column in COLUMNS]) for name, counts in tried.items()]
        return "\n".join(f"{name:14}" + "".join(f"{value:>11}" for value in row) for name, row in rows)

    def report(self) -> Iterator[str]:
        """The failures, one of each kind."""
        for kind, (first, *lines) in self.failures.items():
            yield "\n".join(["", f"{first} ({self.kinds[kind]} like it)", *lines])


def shown(argument: str) -> str:
    """An argument of a command, printable and bounded."""
    return short(argument) if re.search(r"[^\w=./:-]", argument) else argument


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5, help="how long new inputs are tried (default 5)")
    parser.add_argument("--count", type=int, help="instead: so many inputs of each family")
    parser.add_argument("--number", type=int, help="instead: this one input of each family")
    parser.add_argument("--seed", type=int, default=0, help="another one, other inputs (default 0)")
    parser.add_argument("--family", choices=FAMILIES, nargs="+", default=list(FAMILIES), help="only these (default: all)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="for inputs that failed (default: a temporary one)")
    args = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that nothing is left behind
    tokenizer()  # before the first fork, so that no process has to read it
    gc.freeze()  # nor to copy what is here already
    with tempfile.TemporaryDirectory(prefix="rcnn-faults-") as folder:
        keep = args.keep or Path(tempfile.mkdtemp(prefix="rcnn-failures-"))
        keep.mkdir(parents=True, exist_ok=True)
        world = World(Path(folder))
        world.build()
        campaign = Campaign(world, args.seed, keep.resolve())
        for family, number in progress(inputs(args), "inputs", unit="input"):
            campaign.attempt(family, number)
    print(campaign.table(), *campaign.report(), sep="\n")
    if not campaign.failures and not args.keep:
        keep.rmdir()
    return 1 if campaign.failures else 0


def inputs(args: argparse.Namespace) -> Iterator[tuple[str, int]]:
    """(family, number) of what is tried next: by turns, and each family gets the same time."""
    if args.number is not None or args.count is not None:
        numbers = range(args.count or 0) if args.number is None else [args.number]
        yield from ((family, number) for number in numbers for family in args.family)
        return
    until, spent, tried = time.monotonic() + 60 * args.minutes, Counter(), Counter()
    while (began := time.monotonic()) < until:
        family = min(args.family, key=lambda name: spent[name])
        yield family, tried[family]
        tried[family] += 1
        spent[family] += time.monotonic() - began


if __name__ == "__main__":
    cli.run(main)
