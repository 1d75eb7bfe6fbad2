"""The unharmed world, what the commands make of it, and a process for each command of a trial."""

import contextlib
import functools
import io
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from faults import trial as bounds
from faults.inside import at_change, die
from faults.results import copy, difference, finite, remove, result
from faults.server import serve
from faults.trial import KEY, Harm, Judge, Outcome, Setting, Step, Trial, Verdict, failed, leaked
from faults.unharmed import CALLS, NAMES

import rcnn.__main__
from rcnn import cli, data, describe, evaluate, predict, report, train  # noqa: F401, once, before any process is forked


class World:
    """The unharmed world, what the commands make of it, and a process for each command of a trial."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.pristine = folder, folder / "work", folder / "pristine"
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)  # one port for all: answers are stored under it
        self.describe = [
            f"base_url=http://127.0.0.1:{self._socket.getsockname()[1]}/v1", "retries=0", "timeout=2", "concurrency=4",
            "attribute_rounds=1", "hierarchy_rounds=1", "scene_rounds=1",
        ]  # fmt: skip
        self.unharmed = functools.cache(self._unharmed)

    def build(self) -> None:
        """Make the world: the files, a corpus, a finished run, and scores of an evaluation that was killed."""
        self.root.mkdir(parents=True)
        tagged = [["predict", "photos", *NAMES], ["predict", "photos", "--run", "run"]]  # whose scores are kept
        for command in (["build"], ["describe", "names.txt", *self.describe], ["train", "--config", "coco.yaml"], *tagged):
            outcome = self._process(Setting(self.root), Step(command), 0)
            if outcome.code:
                raise ValueError(f"the unharmed world: {' '.join(command)}: exit code {outcome.code}: {outcome.err}")
        done = self.root / "run" / "result.json"
        finished = done.read_bytes()
        done.unlink()
        self._process(Setting(self.root, inside=[(0, at_change(2, die, "/done."))]), Step(["evaluate", "run"]), 0)
        done.write_bytes(finished)
        copy(self.root, self.pristine)
        copy(self.root, self.folder / "unharmed")

    def _unharmed(self, *command: str) -> Any:
        """What a command makes of the unharmed world; None if it refuses."""
        outcome = self._process(Setting(self.folder / "unharmed"), Step(list(command)), 0)
        return None if outcome.code else result(command, self.folder / "unharmed", outcome.out)

    def same(self, command: Sequence[str], must: bool = False) -> Judge:
        """A judge: the result is that of the unharmed world, or refused unless it must be there."""

        def judge(setting, outcome):
            if outcome.code == 2 or (outcome.code and command[0] != "predict"):
                return f"exit code {outcome.code}: {outcome.err[-200:]!r}" if must else None
            good = self.unharmed(*command)
            try:
                found = result(command, setting.root, outcome.out)
                return finite(setting, outcome) or (None if good is None else difference(command, found, good))
            except (OSError, ValueError, LookupError) as error:
                return f"there is no result that can be read: {type(error).__name__}: {error}"

        return judge

    def run(self, trial: Trial, harms: Sequence[Harm]) -> Verdict:
        """Do these harms to the unharmed world, run the commands, and judge."""
        setting = self.harmed(harms)
        try:
            for number, step in enumerate(trial.steps):
                outcome = self._process(setting, step, number)
                if failure := failed(outcome, step.killed):
                    return Verdict(*failure, setting.done, number)
            if why := leaked(setting.root, outcome) or trial.judge(setting, outcome):
                return Verdict("wrong", why, setting.done, len(trial.steps) - 1)
            return Verdict("refused" if outcome.code else "accepted", "", setting.done)
        finally:
            for clean in setting.after:
                clean()

    def harmed(self, harms: Sequence[Harm]) -> Setting:
        """A world that these harms were done to."""
        if self.root.exists():
            remove(self.root)
        copy(self.pristine, self.root)
        setting = Setting(self.root)
        setting.done += [harm(setting) for harm in harms]
        return setting

    def _process(self, setting: Setting, step: Step, number: int) -> Outcome:
        """Run one command in a process of its own."""
        command = step.command + (setting.arguments if number == 0 else [])
        texts = [self.folder / "stdout", self.folder / "stderr"]
        process = os.fork()
        if process == 0:
            self._child(setting, step, number, command, texts)
        ended, until, pause = 0, time.monotonic() + bounds.WALL, 0.001
        while not ended and time.monotonic() < until:
            time.sleep(pause := min(pause * 1.2, 0.02))
            ended, status, usage = os.wait4(process, os.WNOHANG)
        with contextlib.suppress(ProcessLookupError):  # whatever it has started, too
            os.killpg(process, signal.SIGKILL)
        exceeded = "" if ended else f"{bounds.WALL} s"
        if not ended:
            _, status, usage = os.wait4(process, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGXCPU:
            exceeded = f"{bounds.CPU} s of CPU"
        elif usage.ru_maxrss * 1024 > bounds.MEMORY:
            exceeded = f"{bounds.MEMORY >> 30} GB: it took {usage.ru_maxrss / 2**20:.1f}"
        out, err = (path.read_bytes()[: 1 << 20].decode(step.encoding.split(":")[0], "surrogateescape") for path in texts)
        return Outcome(command, code, out, err, exceeded)

    def _child(self, setting: Setting, step: Step, number: int, command: list[str], texts: list[Path]) -> None:
        code = 70
        try:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.chdir(setting.root)
            for descriptor, path in enumerate([os.devnull, *texts]):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), descriptor)
            encoding, errors = step.encoding.split(":")
            sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding, errors)
            sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding, "backslashreplace", line_buffering=True)
            sys.argv = ["rcnn"]
            os.environ["OPENAI_API_KEY"] = KEY
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (bounds.CPU, bounds.CPU + 2))
            torch.set_num_threads(1)  # the pool of threads does not survive a fork
            only_loopback()
            if command[0] == "describe":
                serve(self._socket, [] if number else setting.service)
            for which, harm in setting.inside:
                if which == number:
                    harm()
            if command[0] in CALLS:
                cli.run(lambda: CALLS[command[0]](*command[1:]))
            rcnn.__main__.main(command)
        except SystemExit as ended:
            code = ended.code or 0
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)


def only_loopback() -> None:
    """Let nothing leave this machine."""
    look_up = socket.getaddrinfo

    def loopback(host, *rest, **more):
        if host not in ("127.0.0.1", "localhost", "127.0.0.2"):
            raise socket.gaierror("there is no network in the campaign")
        return look_up(host, *rest, **more)

    socket.getaddrinfo = loopback
