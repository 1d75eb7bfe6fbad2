"""The families of commands that run long: learning that leads nowhere, kills, full disks."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random

from faults.harms import absent, argument
from faults.inside import at_change, die, failing_calls, no_space, only_room_for
from faults.results import copy, embeddings, finite, numbers, remove
from faults.trial import Harm, Step, Trial
from faults.world import World


def divergence(rng: Random, world: World) -> Trial:
    """Extreme settings are refused, or the run ends finite; nothing that is not finite stays as a good result."""
    extremes = ["1e30", "1e38", "3.4e38", "1e300", "1.7e308", "1e10", "1000", "5", "0", "1e-300", "-1", "1e20"]
    keys = ["learning_rate", "warmup_rate", "momentum", "pair_weight", "weight_decay", "centring"]
    harms = [argument(f"train.{rng.choice(keys)}={rng.choice(extremes)}") for _ in range(rng.randint(1, 3))]
    if rng.random() < 0.2:
        harms.append(argument(f"train.tokens={rng.choice([1, 8, 60, 70, 72, 77, 1000, 10**9])}"))
    if rng.random() < 0.2:
        harms.append(argument("train.method=closed_form"))
    if rng.random() < 0.2:
        harms.append(argument(f"evaluate.temperature={rng.choice(['1e-300', '1e300', '1e-30', '1e-10'])}"))
    evaluated = [] if rng.random() < 0.2 else ["--no-evaluate"]

    def judge(setting, outcome):
        other = setting.root / "other"
        if other.is_dir() and (found := finite(other)):
            return f"exit code {outcome.code}, {found}"
        if outcome.code == 0 and re.search(r"\b(nan|inf)\b", outcome.out):
            return "prints numbers that are none"
        return None

    return Trial(harms, [Step(["train", "--config", "coco.yaml", "output=other", *evaluated])], judge)


def work(rng: Random, world: World) -> tuple[list[Harm], list[str], Callable[[Path], str | None]]:
    """A long command: harms before it, its arguments, and what must be true of its results in the end."""
    name = rng.choice(["train", "evaluate", "evaluate", "describe"])
    if name == "train":
        command = ["train", "--config", "coco.yaml", "--no-evaluate", "output=other"]
        same = lambda root: embeddings(root / "other") == world.good["embeddings"]  # noqa: E731
        return (
            ([absent("cache/*")] if rng.random() < 0.5 else []),
            command,
            lambda root: None if same(root) else "other vectors",
        )
    if name == "evaluate":
        harms = [absent("run/result.json")] + ([absent("run/scores")] if rng.random() < 0.6 else [])
        same = lambda root: numbers(root) == world.good["numbers"]  # noqa: E731
        return harms, ["evaluate", "run"], lambda root: None if same(root) else "other numbers"
    same = lambda root: (root / "names.corpus.json").read_bytes() == world.good["corpus"]  # noqa: E731
    harms = [absent("names.corpus.*")]
    return harms, ["describe", "names.txt", *world.describe], lambda root: None if same(root) else "another corpus"


def kills(rng: Random, world: World) -> Trial:
    """Killed at any moments, the same command ends with the result of an unharmed run."""
    harms, command, same = work(rng, world)

    def kill(step):
        if rng.random() < 0.6:
            number = rng.randrange(1, 30)
            fault, text = at_change(number, die), f"when it changes a file for the {number}. time"
        else:
            seconds = rng.uniform(0.01, 1.0)
            fault, text = lambda: signal.setitimer(signal.ITIMER_PROF, seconds), f"after {seconds:.3f} s of CPU"
        return lambda setting: setting.inside.append((step, fault)) or f"step {step + 1} is killed {text}"

    count = rng.randint(1, 3)
    harms += [kill(step) for step in range(count)]

    def judge(setting, outcome):
        return f"exit code {outcome.code}: {outcome.err[-200:]!r}" if outcome.code else same(setting.root)

    return Trial(harms, [*[Step(command, killed=True)] * count, Step(command)], judge)


def small_disk(rng: Random, places: Sequence[str]) -> Harm:
    """A folder is a disk of its own, which is small at first, or filled up by somebody else in the middle."""
    place, size, number = rng.choice(places), 4096 * rng.randrange(1, 60), rng.choice([0, rng.randrange(1, 12)])

    def harm(setting):
        path = setting.root / place
        path.mkdir(parents=True, exist_ok=True)
        saved = path.with_name(path.name + ".saved")
        copy(path, saved)
        options = f"size={64 << 20 if number else size}"
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], capture_output=True, check=False)
        if mounted.returncode:
            return "no disk: mounting is not allowed"
        setting.after.append(lambda: subprocess.run(["umount", "-l", path], check=True))
        for found in saved.iterdir():
            subprocess.run(["cp", "-a", found, path], stderr=subprocess.DEVNULL, check=False)
        remove(saved)
        if number:
            setting.inside.append((0, at_change(number, lambda: fill(path / "filler", size))))

        def room():
            (path / "filler").unlink(missing_ok=True)
            subprocess.run(["mount", "-o", "remount,size=64m", path], check=True)

        setting.inside.append((1, room))
        return f"{place} has {size:,} bytes" + (f" left when a file is changed for the {number}. time" if number else "")

    return harm


def fill(path: Path, left: int) -> None:
    """Take the room of a disk, all but some bytes."""
    free = shutil.disk_usage(path.parent).free
    with contextlib.suppress(OSError), open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, max(1, free - left))


def disk(rng: Random, world: World) -> Trial:
    """With too little room a command ends in a line; with room again it ends as if nothing had been."""
    harms, command, same = work(rng, world)
    kind, number = rng.choice(["limit", "calls", "change", "disk", "disk"]), rng.randrange(1, 25)
    size = rng.choice([15_000, 20_000, 30_000, 50_000, 80_000])  # what is printed goes to a file, too
    if kind == "disk":
        places = {"train": ["other", "cache"], "evaluate": ["run/scores", "cache"], "describe": ["."]}[command[0]]
        harms.append(small_disk(rng, places) if command[0] != "describe" else argument("--quiet"))
    else:
        faults = {
            "limit": (lambda: only_room_for(size), f"no file may have more than {size} bytes"),
            "calls": (lambda: failing_calls(number), f"the disk is full from the {number}. call on"),
            "change": (at_change(number, no_space), f"the disk is full when a file is changed for the {number}. time"),
        }
        fault, text = faults[kind]
        harms.append(lambda setting: setting.inside.append((0, fault)) or text)

    def judge(setting, outcome):
        return f"exit code {outcome.code}: {outcome.err[-200:]!r}" if outcome.code else same(setting.root)

    return Trial(harms, [Step(command), Step(command)], judge)
