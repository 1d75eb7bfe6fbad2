"""The families of commands that run long: learning that leads nowhere, kills, full disks."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from random import Random

from faults.harms import absent, argument, in_process
from faults.inside import at_change, children_die, die, killed_by, no_space, only_room_for
from faults.results import copy, finite, remove
from faults.trial import Harm, Step, Trial
from faults.world import World

EXTREMES = ["1e30", "1e38", "3.4e38", "1e300", "1.7e308", "1e10", "1000", "5", "0", "1e-300", "-1", "1e20"]
KEYS = ["learning_rate", "warmup_rate", "momentum", "pair_weight", "weight_decay", "centring"]


def divergence(rng: Random, world: World) -> Trial:
    """Extreme settings are refused, or the run ends finite; nothing that is not finite stays as a good result."""
    harms = [argument(f"train.{rng.choice(KEYS)}={rng.choice(EXTREMES)}") for _ in range(rng.randint(1, 3))]
    for text in (
        f"train.tokens={rng.choice([1, 8, 60, 70, 72, 77, 1000, 10**9])}", "train.method=closed_form",
        f"evaluate.temperature={rng.choice(['1e-300', '1e300', '1e-30', '1e-10'])}",
    ):  # fmt: skip
        harms += [argument(text)] if rng.random() < 0.2 else []
    evaluated = [] if rng.random() < 0.2 else ["--no-evaluate"]
    return Trial(harms, [Step(["train", "--config", "coco.yaml", "output=other", *evaluated])], finite)


def work(rng: Random, world: World) -> tuple[list[Harm], list[str], list[str]]:
    """A command that runs long: harms before it, its arguments, and folders that it writes to."""
    some = rng.random() < 0.6
    return rng.choice([
        ([absent("cache/*")] if some else [], ["train", "--config", "coco.yaml", "--no-evaluate", "output=other"],
         ["other", "cache"]),
        *[([absent("run/result.json"), *([absent("run/scores")] if some else [])], ["evaluate", "run"],
           ["run/scores", "cache"])] * 2,
        ([absent("names.corpus.*")], ["describe", "names.txt", *world.describe], []),
    ])  # fmt: skip


def kills(rng: Random, world: World) -> Trial:
    """Killed at any moments, the same command ends with the result of an unharmed run."""
    if rng.random() < 0.2:
        return killed_decoders(rng, world)
    harms, command, _ = work(rng, world)
    count = rng.randint(1, 3)
    for step in range(count):
        number, seconds = rng.randrange(1, 30), rng.uniform(0.01, 1.0)
        timer = lambda seconds=seconds: signal.setitimer(signal.ITIMER_PROF, seconds)  # noqa: E731
        harms.append(rng.choice([
            in_process(step, timer, f"it is killed after {seconds:.3f} s of CPU"),
            in_process(step, at_change(number, die), f"it is killed when it changes a file for the {number}. time"),
        ]))  # fmt: skip
    return Trial(harms, [*[Step(command, killed=True)] * count, Step(command)], world.same(command, must=True))


def killed_decoders(rng: Random, world: World) -> Trial:
    """Processes that decode images are killed while an evaluation runs: the same result, or one of the images is named."""
    count, seconds = rng.choice([1, 1, 2, 1000]), rng.uniform(0.001, 0.05)
    image = rng.choice(sorted(path.name for path in world.pristine.glob("coco/val2014/*")))
    harm = rng.choice([
        in_process(0, lambda: children_die(count, seconds), f"the first {count} that decode are killed after {seconds:.3f} s"),
        in_process(0, lambda: killed_by(image), f"what decodes {image} is killed"),
    ])  # fmt: skip
    command = ["evaluate", "run"]
    same = world.same(command, must=True)

    def judge(setting, outcome):
        named = outcome.code == 2 and re.search(r"\d+\.jpg", outcome.err)
        return None if named else same(setting, outcome)

    return Trial([absent("run/result.json"), absent("run/scores"), harm], [Step(command)], judge)


def small_disk(place: str, size: int, number: int) -> Harm:
    """A folder is a disk of its own, which is small at first, or filled up by somebody else in the middle."""

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
    harms, command, folders = work(rng, world)
    number, some = rng.randrange(1, 25), rng.choice([0, rng.randrange(1, 12)])
    size = rng.choice([15_000, 20_000, 30_000, 50_000, 80_000])  # what is printed goes to a file, too
    harms.append(rng.choice([
        in_process(0, lambda: only_room_for(size), f"no file may have more than {size:,} bytes"),
        in_process(0, at_change(number, no_space), f"the disk is full when a file is changed for the {number}. time"),
        *[small_disk(folder, 4096 * rng.randrange(1, 60), some) for folder in folders],
    ]))  # fmt: skip
    return Trial(harms, [Step(command), Step(command)], world.same(command, must=True))
