#!/usr/bin/env python
"""Give the commands thousands of bad inputs, and count what comes of it.

    python scripts/fault_campaign.py [--minutes 5] [--seed N] [--family NAME …] [--keep FOLDER]

Every input is a small world (a tiny CLIP, class lists, a corpus, images with labels, a finished and an interrupted run) that
one or a few harms were done to. The commands' own code then runs on it in a process of its own, in a temporary folder, without
a network. The families:

    images         damaged, huge and odd image files, names and links, and a decoder that is killed: tagging
    configuration  YAML files, key=value pairs of every option, devices
    texts          class lists and corpora
    annotations    COCO's JSON, NUS-WIDE's text files: the labels are those of the unharmed files, or refused
    own            files of runs, caches, notes, answers: the results are those of the unharmed files, or refused
    weights        safetensors, state dicts, TorchScript
    service        a language-model service that misbehaves, and echoes the key
    divergence     learning that leads nowhere: nothing that is not finite is left behind as good
    kills          a command killed one or more times, then run again: the result of an unharmed run
    disk           a full disk, then room again: the result of an unharmed run

Each input ends in one column: refused (exit code 2, or 1 where a command names what it skipped, with few and printable lines),
accepted (0), traceback (also: another exit code, death by a signal, unprintable or endless text), hang (more than 10 s of CPU,
half a minute, or 2 GB), wrong (accepted with another result than the unharmed input has, something lost unsaid, a leaked key). The
last three are failures: the first of a kind is reduced to the harms that it takes, its input is kept, and the exit code is 1.

The inputs are a function of seed, family and number: the same on every machine, as far as the time goes. --number tries one
of them again.
"""

import argparse
import contextlib
import csv
import errno
import fcntl
import functools
import io
import json
import math
import os
import re
import resource
import shutil
import signal
import socket
import string
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import safetensors.numpy
import safetensors.torch
import yaml
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import make_standins
import torch

import rcnn.__main__
from rcnn import Tagger, cli, config, describe, evaluate, predict, report, train  # noqa: F401, imported once, before forking
from rcnn.clip.tokens import tokenizer
from rcnn.datasets.images import read_images
from rcnn.printing import message, printable, short
from rcnn.progress import progress
from rcnn.text.classes import ClassList

COLUMNS = ("tried", "refused", "accepted", "traceback", "hang", "wrong")
FAILURES = COLUMNS[3:]
CPU, WALL, MEMORY = 10, 30, 2 << 30  # seconds of CPU, seconds, bytes that one command may take
MOST_TEXT = 16_000  # characters on stderr
KEY = "sk-qZ7Rw2Lx9Vb4Tn6Jm8Kd3Hs5"  # of the service; the first eight characters of it are enough of a leak
RAW = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")  # acted upon by a terminal
SEEN, UNSEEN = ("vehicle", "food", "animal"), ("building", "furniture", "fruit")


# what an input is, and what comes of it


@dataclass
class Setting:
    """The world of one input; harms change it."""

    root: Path
    arguments: list[str] = field(default_factory=list)  # of the first command, beside its own
    inside: list[tuple[int, Callable[[], None]]] = field(default_factory=list)  # (step, called in its process, first of all)
    service: list[Callable[["Reply"], None]] = field(default_factory=list)  # what the service does to its good replies
    after: list[Callable[[], None]] = field(default_factory=list)  # to clean up

    def path(self, pattern: str, seed: int = 0) -> Path:
        """A file of the world; of those that a pattern fits, one by its number."""
        found = sorted(self.root.glob(pattern)) or [self.root / pattern]
        return found[seed % len(found)]


Harm = Callable[[Setting], str]  # does it, and says what it did


class Step(NamedTuple):
    """A command; `killed` if it may die of the harms."""

    command: list[str]
    killed: bool = False
    encoding: str = "utf-8:strict"  # PYTHONIOENCODING


@dataclass
class Outcome:
    """What came of one step."""

    command: list[str]
    code: int  # negative: the signal it died of
    out: str
    err: str
    exceeded: str = ""  # the bound


@dataclass
class Trial:
    """One input: harms that are done one after the other, then commands, and what must be true of the last one's outcome."""

    harms: list[Harm]
    steps: list[Step]
    judge: Callable[[Setting, Outcome], str | None] = lambda setting, outcome: None  # what is wrong


class Verdict(NamedTuple):
    column: str
    why: str = ""
    harms: Sequence[str] = ()  # what was done
    step: int = 0


class World:
    """The unharmed world, what the commands make of it, and a process for each command of a trial."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root, self.good = folder, folder / "work", {}  # good: the results of the unharmed world
        self._pristine = folder / "pristine"
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)  # one port for all: answers are stored under it
        self.describe = [
            f"base_url=http://127.0.0.1:{self._socket.getsockname()[1]}/v1", "retries=0", "timeout=2", "concurrency=4",
            "attribute_rounds=1", "hierarchy_rounds=1", "scene_rounds=1",
        ]  # fmt: skip

    def build(self) -> None:
        """Make the world and the results of each command."""
        self.root.mkdir(parents=True)
        setting = Setting(self.root)
        self._must(setting, ["build"])
        self._must(setting, ["describe", "names.txt", *self.describe])
        self._must(setting, ["train", "--config", "coco.yaml"])
        interrupted = [(0, at_change(2, die, lambda name: Path(name).name.startswith("done.")))]
        result = (self.root / "run" / "result.json").read_bytes()
        (self.root / "run" / "result.json").unlink()
        self._process(Setting(self.root, inside=interrupted), Step(["evaluate", "run"]), 0)
        (self.root / "run" / "result.json").write_bytes(result)
        copy(self.root, self._pristine)
        self.good = {
            "numbers": numbers(self.root), "embeddings": embeddings(self.root / "run"),
            "corpus": (self.root / "names.corpus.json").read_bytes(),
            "tags": tags("json", self._must(setting, ["predict", "photos", *NAMES, "--format", "json"]).out),
            "run_tags": tags("json", self._must(setting, ["predict", "photos", "--run", "run", "--format", "json"]).out),
            "report": self._must(setting, ["report", "run"]).out,
            "coco": json.loads(self._must(setting, ["labels", "coco.yaml"]).out),
            "nuswide": json.loads(self._must(setting, ["labels", "nuswide.yaml"]).out),
        }  # fmt: skip

    def _must(self, setting: Setting, command: list[str]) -> Outcome:
        outcome = self._process(setting, Step(command), 0)
        if outcome.code:
            raise ValueError(f"the unharmed world: {' '.join(command)} ended with {outcome.code}: {outcome.out}{outcome.err}")
        return outcome

    def run(self, trial: Trial, harms: Sequence[Harm]) -> Verdict:
        """Do these harms to the unharmed world, run the commands, and judge."""
        remove(self.root)
        copy(self._pristine, self.root)
        setting = Setting(self.root)
        try:
            done = [harm(setting) for harm in harms]
            for number, step in enumerate(trial.steps):
                outcome = self._process(setting, step, number)
                if failure := failed(outcome, step.killed):
                    return Verdict(*failure, done, number)
            if why := leaked(setting.root, outcome) or trial.judge(setting, outcome):
                return Verdict("wrong", why, done, len(trial.steps) - 1)
            return Verdict("refused" if outcome.code else "accepted", "", done)
        finally:
            for clean in setting.after:
                clean()

    def _process(self, setting: Setting, step: Step, number: int) -> Outcome:
        """Run one command in a process of its own."""
        command = step.command + (setting.arguments if number == 0 else [])
        texts = [self.folder / "stdout", self.folder / "stderr"]
        process = os.fork()
        if process == 0:
            self._child(setting, step, number, command, texts)
        ended, until, pause = 0, time.monotonic() + WALL, 0.001
        while not ended and time.monotonic() < until:
            time.sleep(pause := min(pause * 1.2, 0.02))
            ended, status, usage = os.wait4(process, os.WNOHANG)
        with contextlib.suppress(ProcessLookupError):  # whatever it has started, too
            os.killpg(process, signal.SIGKILL)
        exceeded = "" if ended else f"{WALL} s"
        if not ended:
            _, status, usage = os.wait4(process, 0)
        code = os.waitstatus_to_exitcode(status)
        if code == -signal.SIGXCPU:
            exceeded = f"{CPU} s of CPU"
        elif usage.ru_maxrss * 1024 > MEMORY:
            exceeded = f"{MEMORY >> 30} GB: it took {usage.ru_maxrss / 2**20:.1f}"
        out, err = (read_some(path).decode(step.encoding.split(":")[0], "surrogateescape") for path in texts)
        return Outcome(command, code, out, err, exceeded)

    def _child(self, setting: Setting, step: Step, number: int, command: list[str], texts: list[Path]) -> None:
        code = 70
        try:
            os.setsid()
            os.chdir(setting.root)
            for descriptor, path in enumerate([os.devnull, *texts]):
                os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), descriptor)
            encoding, errors = step.encoding.split(":")
            sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb", closefd=False), encoding, errors)
            sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb", closefd=False), encoding, "backslashreplace", line_buffering=True)
            sys.argv = ["rcnn"]
            os.environ |= {"OPENAI_API_KEY": KEY, "HF_HUB_OFFLINE": "1"}
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            resource.setrlimit(resource.RLIMIT_CPU, (CPU, CPU + 2))
            torch.set_num_threads(1)  # the pool of threads does not survive a fork
            only_loopback()
            if command[0] == "describe":
                serve(self._socket, setting.service)
            for which, harm in setting.inside:
                if which == number:
                    harm()
            own = {"build": build, "labels": labels, "tag": tag}
            if command[0] in own:
                cli.run(lambda: own[command[0]](*command[1:]))
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


def failed(outcome: Outcome, killed: bool) -> tuple[str, str] | None:
    """(column, why) of what no command may do, whatever the input."""
    if outcome.exceeded:
        return "hang", f"more than {outcome.exceeded}"
    if "Traceback" in outcome.err:
        return "traceback", outcome.err.strip().splitlines()[-1]
    if outcome.code < 0:
        return None if killed else ("traceback", f"died of {signal.Signals(-outcome.code).name}")
    skipping = outcome.command[0] in ("predict", "describe", "data")
    if outcome.code not in ((0, 1, 2) if skipping else (0, 2)):
        return "traceback", f"exit code {outcome.code}"
    if len(outcome.err) > MOST_TEXT:
        return "traceback", f"{len(outcome.err):,} characters on stderr"
    if raw := RAW.search((outcome.out + outcome.err).replace("\r\n", "\n")):
        return "traceback", f"prints {raw[0]!r}"
    if outcome.code == 2 and not outcome.err.strip():
        return "traceback", "exit code 2 without a word"
    return None


def leaked(root: Path, outcome: Outcome) -> str | None:
    """Where the key is, or enough of it, in whatever escapes."""
    if outcome.command[0] != "describe":
        return None
    texts = {"the output": outcome.out + outcome.err}
    texts |= {path.name: path.read_text("utf-8", "replace") for path in root.glob("*.json*") if path.is_file()}
    for name, text in texts.items():
        plain = re.sub(r"\\+u00([0-9a-fA-F]{2})", lambda found: chr(int(found[1], 16)), text)
        if KEY[:8].lower() in plain.lower():
            return f"the key is in {name}"
    return None


# the unharmed world, and what is asked beside the commands; these run in processes of their own

CLIP = ["clip.model=null", "clip.pretrained=null", "clip.weights=tiny.safetensors", "cache=cache"]
NAMES = ["--classes", "names.txt", *CLIP]
NUMBER = 10  # images


def build() -> None:
    """All that the commands start from, in the current folder."""
    root = Path()
    make_standins.coco(root / "coco", 14, [*SEEN, *UNSEEN])
    make_standins.nuswide(root / "nuswide", 14, [*SEEN, "sky"], UNSEEN)
    (root / "photos").mkdir()
    for path in sorted((root / "coco" / "val2014").iterdir())[:NUMBER]:
        shutil.copy(path, root / "photos" / f"good-{path.name[-6:]}")
    lists = {"seen": SEEN, "unseen": UNSEEN, "names": [*SEEN, *UNSEEN], "two": UNSEEN[:2]}
    for name, classes in lists.items():
        (root / f"{name}.txt").write_text("".join(f"{line}\n" for line in classes))
    common = {
        "output": "run", "cache": "cache", "device": "cpu",
        "clip": {"model": None, "pretrained": None, "weights": "tiny.safetensors"},
        "classes": {"seen": "seen.txt", "unseen": "unseen.txt"}, "corpus": {"path": "names.corpus.json"},
        "train": {"epochs": 2, "batch_size": 128, "learning_rate": 0.01},
    }  # fmt: skip
    coco = {"kind": "coco", "images": "coco/val2014", "annotations": "coco/annotations/instances_val2014.json"}
    nuswide = {"kind": "nuswide", "images": "nuswide/Flickr", "annotations": "nuswide"}
    fast = {"evaluate": {"grids": [2], "bootstrap": 5, "batch_size": 4, "top_k": [1, 2], "workers": 1, "save_every": 0.0}}
    for name, dataset in (("coco", coco), ("nuswide", nuswide)):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(common | fast | {"dataset": dataset}))
    (root / "describe.yaml").write_text(yaml.safe_dump({"classes": {"unseen": "two.txt"}, "output": "two.corpus.json"}))
    state = tiny_clip()
    safetensors.torch.save_file(state, "tiny.safetensors", {"model": "tiny"})
    torch.save(state, "tiny.pt")
    archive = torch.nn.Module()
    for name, tensor in state.items():
        *parents, last = name.split(".")
        place = archive
        for parent in parents:
            place = place._modules.setdefault(parent, torch.nn.Module())
        place.register_buffer(last, tensor)
    torch.jit.save(torch.jit.script(archive), "script.pt")
    huge = zlib.compressobj(1)  # of 9,400 × 9,400 pixels of 16 bits, black, in 0.2 MB
    rows = b"".join(huge.compress(bytes(1 + 2 * 9400)) for _ in range(9400)) + huge.flush()
    (root / "huge.png").write_bytes(png(9400, 9400, 16, 0, rows))


def tiny_clip() -> dict[str, torch.Tensor]:
    """Random weights of the smallest CLIP that the towers compute, with the tokens that the names need."""
    made = torch.Generator().manual_seed(0)

    def random(*shape, scale=1.0):
        return torch.randn(*shape, generator=made) * scale

    width, embed, context = 64, 32, 77
    words = " ".join([*SEEN, *UNSEEN, "a photo of the cropped bright clean small large old garden shelf worn handle ."])
    rows = sorted({*tokenizer().encode(words), tokenizer().sot_token_id, tokenizer().eot_token_id})
    state = {
        "positional_embedding": random(context, width, scale=0.3), "text_projection": random(width, embed, scale=0.2),
        "token_embedding.rows": torch.tensor(rows), "token_embedding.weight": random(len(rows) + 1, width),
        "visual.class_embedding": random(width), "visual.positional_embedding": random(5, width, scale=0.3),
        "visual.proj": random(width, embed, scale=0.2), "visual.conv1.weight": random(width, 3, 16, 16, scale=0.1),
    }  # fmt: skip
    norms = ["ln_final", "visual.ln_pre", "visual.ln_post"]
    for tower in ("", "visual."):
        for layer in range(2):
            block = f"{tower}transformer.resblocks.{layer}."
            norms += [f"{block}ln_1", f"{block}ln_2"]
            for name, out, into in (("out_proj", width, width), ("c_fc", 4 * width, width), ("c_proj", width, 4 * width)):
                part = f"{block}{'attn' if name == 'out_proj' else 'mlp'}.{name}"
                state |= {f"{part}.weight": random(out, into, scale=into**-0.5), f"{part}.bias": torch.zeros(out)}
            state |= {f"{block}attn.in_proj_weight": random(3 * width, width, scale=width**-0.5)}
            state |= {f"{block}attn.in_proj_bias": torch.zeros(3 * width)}
    return state | {f"{n}.weight": torch.ones(width) for n in norms} | {f"{n}.bias": torch.zeros(width) for n in norms}


def labels(path: str) -> None:
    """Print which classes the images of a configuration show."""
    settings = config.load(path)
    found = read_images(settings.dataset, ClassList.read(settings.classes.seen, settings.classes.unseen), settings.cache)
    rows = zip(found.paths, found.labels.tolist(), strict=True)
    print(json.dumps({os.path.relpath(path): row for path, row in rows}))


def tag(*images: str) -> None:
    """Tag images from Python."""
    tagger = Tagger.from_names([*SEEN, *UNSEEN], model=None, pretrained=None, weights="tiny.safetensors", device="cpu")
    print(json.dumps([dict(found) for found in tagger.tag(list(images))], allow_nan=False))


# looking at results


def copy(source: Path, target: Path) -> None:
    """A folder with pipes, links and times as they are."""
    subprocess.run(["cp", "-a", source, target], check=True)


def remove(folder: Path) -> None:
    """Delete a folder that may have unreadable parts."""
    subprocess.run(["chmod", "-R", "u+rwX", folder], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(folder)


def read_some(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(1 << 20)


def numbers(root: Path) -> dict[str, Any]:
    """What a result file says of images and rows."""
    result = json.loads((root / "run" / "result.json").read_bytes())
    return {key: result[key] for key in ("rows", "class_ap", "diagnostics", "epochs", "images", "class_names")}


def embeddings(run: Path) -> dict[str, list]:
    """The rows of a run."""
    found = safetensors.numpy.load_file(run / "class_embeddings.safetensors")
    return {name: array.tolist() for name, array in found.items()}


def tags(form: str, out: str) -> dict[str, list[tuple[str, float]]]:
    """{name of a file: its tags}, of what was printed in a format."""
    found: dict[str, list[tuple[str, float]]] = {}
    if form == "json":
        for entry in json.loads(out):
            found[Path(entry["image"]).name] = [(t["class"], t["score"]) for t in entry["tags"]]
    elif form == "csv":
        for image, _, name, score in list(csv.reader(io.StringIO(out)))[1:]:
            found.setdefault(Path(image).name, []).append((name, float(score)))
    else:
        for line in filter(None, out.split("\n")):
            image, *rest = re.split(r"\s{2,}", line)
            found[Path(image).name] = [(t.rpartition(" ")[0], float(t.rpartition(" ")[2])) for t in rest]
    return found


def alike(found: dict, good: dict) -> str | None:
    """What differs in the tags of unharmed images."""
    for image, expected in good.items():
        if image not in found:
            return f"the unharmed {image} has no tags"
        if [name for name, _ in found[image]] != [name for name, _ in expected]:
            return f"the unharmed {image} has other tags"
        if not all(abs(a - b) < 1e-3 for (_, a), (_, b) in zip(found[image], expected, strict=True)):
            return f"the unharmed {image} has other scores"
    return None


def finite(folder: Path) -> str | None:
    """What is not finite in the tensors that a run left."""
    for path in sorted(folder.rglob("*.safetensors")):
        for name, array in safetensors.numpy.load_file(path).items():
            if not np.isfinite(array).all():
                return f"{path.relative_to(folder)}: {name} is not finite"
    return None


# harms to files, whatever they are

DEEP = "nested 100,000 deep"  # stands for such a list
JUNK = [
    None, True, 5, -1, 0.5, 10**400, math.inf, math.nan, "", "x", "😀", "\x1b[2J", "\u202ex", "\ud800", [], {}, [[]], ["x"],
    {"x": 1}, "a" * 100_000, DEEP,
]  # fmt: skip


def dump(value: Any) -> bytes:
    """JSON, also of what is none."""
    return json.dumps(value).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000).encode()


def in_file(pattern: str, change: Callable[[Random, bytes], tuple[str, bytes]], seed: int) -> Harm:
    """Replace what is in a file by what `change` makes of it, which also says what it did."""

    def harm(setting):
        path = setting.path(pattern, seed)
        name = path.relative_to(setting.root)
        if not path.is_file() or not path.stat().st_size:
            return f"{name}: nothing to change"
        text, data = change(Random(seed), path.read_bytes())
        path.unlink()
        path.write_bytes(data)
        return f"{name}: {text}"

    return harm


def bytes_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """Some bytes of a file are others, more or fewer."""
    at, kind = rng.randrange(len(data)), rng.choice(["flip", "flip", "flip", "cut", "zero", "insert", "repeat", "remove"])
    if kind == "flip":
        bit = rng.randrange(8)
        return f"bit {bit} of byte {at} is flipped", data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
    length = rng.choice([1, 8, 100])
    rest = {
        "cut": b"", "zero": bytes(length) + data[at + length :], "insert": rng.randbytes(length) + data[at:],
        "repeat": data[at : at + length] + data[at:], "remove": data[at + length :],
    }[kind]  # fmt: skip
    return f"{kind}, {length} at byte {at}", data[:at] + rest


def places(tree: Any) -> Iterator[tuple[Any, Any, tuple]]:
    """(container, key, path) of every value in JSON."""
    waiting = [(tree, ())]
    while waiting:
        container, path = waiting.pop()
        for key in container if isinstance(container, dict) else range(len(container)):
            yield container, key, (*path, key)
            if isinstance(container[key], dict | list):
                waiting.append((container[key], (*path, key)))


def value_changed(rng: Random, tree: Any) -> tuple[str, Any]:
    """One value of JSON is another, of any type, or absent."""
    found = list(places(tree)) if isinstance(tree, dict | list) else []
    if not found or rng.random() < 0.05:
        return "the whole is replaced", rng.choice(JUNK)
    container, key, path = rng.choice(found)
    name = ".".join(map(str, path))
    if rng.random() < 0.2:
        del container[key]
        return f"{name} is removed", tree
    container[key] = rng.choice(JUNK)
    return f"{name} = {short(container[key])}", tree


def json_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """One value of a JSON file, of a line of a JSONL file, or of the header of a safetensors file."""
    try:
        text, tree = value_changed(rng, json.loads(data))
        return text, dump(tree)
    except ValueError:
        pass
    try:
        return header_changed(rng, data)
    except (ValueError, KeyError, struct.error):
        pass
    lines = data.splitlines()
    try:
        number = rng.randrange(len(lines))
        text, tree = value_changed(rng, json.loads(lines[number]))
        lines[number] = dump(tree)
        return f"line {number + 1}: {text}", b"\n".join(lines) + b"\n"
    except ValueError:
        return bytes_changed(rng, data)


def header_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """One value of the header of a safetensors file, or of the JSON in its metadata."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    inner = header.get("__metadata__", {})
    if "metadata" in inner and rng.random() < 0.6:
        text, tree = value_changed(rng, json.loads(inner["metadata"]))
        inner["metadata"] = dump(tree).decode()
    else:
        text, header = value_changed(rng, header)
    new = dump(header)
    return f"header: {text}", struct.pack("<Q", len(new)) + new + data[8 + length :]


def replaced(pattern: str, seed: int, by: Sequence[bytes] = (b"", b"5", b"{}", b"[]", b"null", b"\xff\xfe{", b"\0" * 100)) -> Harm:
    """A file has other contents."""
    return in_file(pattern, lambda rng, data: (f"is {(new := rng.choice(by))[:20]!r}", new), seed)


def swapped(pattern: str, others: Sequence[str], seed: int) -> Harm:
    """A file is a copy of another one."""

    def harm(setting):
        path, other = setting.path(pattern, seed), setting.path(others[seed % len(others)], seed // 7)
        if other.is_file() and path.is_file():
            data = other.read_bytes()
            path.unlink()
            path.write_bytes(data)
        return f"{path.relative_to(setting.root)} is a copy of {other.relative_to(setting.root)}"

    return harm


def no_file(pattern: str, seed: int) -> Harm:
    """In place of a file there is something else."""
    kinds = {
        "a pipe": os.mkfifo, "a folder": os.mkdir, "a link that leads nowhere": lambda p: os.symlink("nowhere", p),
        "a link to itself": lambda p: os.symlink(p.name, p), "endless": lambda p: os.symlink("/dev/zero", p),
        "a socket": lambda p: socket.socket(socket.AF_UNIX).bind(os.path.relpath(p)),
    }  # fmt: skip
    kind = sorted(kinds)[seed % len(kinds)]

    def harm(setting):
        path = setting.path(pattern, seed)
        if path.exists():
            remove(path) if path.is_dir() else path.unlink()
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.chdir(setting.root):  # the names of sockets are short
            kinds[kind](path)
        return f"{path.relative_to(setting.root)} is {kind}"

    return harm


def argument(*texts: str) -> Harm:
    """More arguments of the command."""

    def harm(setting):
        setting.arguments += texts
        return "argument " + " ".join(map(short, texts))

    return harm


def absent(pattern: str) -> Harm:
    """Files are not there."""

    def harm(setting):
        for path in setting.root.glob(pattern):
            remove(path) if path.is_dir() else path.unlink()
        return f"without {pattern}"

    return harm


# harms inside a command's process


def only_loopback() -> None:
    """Let nothing leave this machine."""
    look_up = socket.getaddrinfo

    def loopback(host, *rest, **more):
        if host not in ("127.0.0.1", "localhost", "127.0.0.2"):
            raise socket.gaierror("there is no network in the campaign")
        return look_up(host, *rest, **more)

    socket.getaddrinfo = loopback


def changes_files(event: str, details: tuple) -> str | None:
    """The name of the file that an audit event is about to create or change."""
    if event == "open" and isinstance(details[0], str | bytes) and (details[2] or 0) & (os.O_WRONLY | os.O_RDWR):
        return os.fsdecode(details[0])
    at = {"os.rename": 1, "os.remove": 0, "os.mkdir": 0}.get(event)
    return None if at is None else os.fsdecode(details[at])


def at_change(number: int, do: Callable[[], None], fits: Callable[[str], bool] = lambda name: True) -> Callable[[], None]:
    """Have `do` called when the process is about to change a file for the `number`-th time; names that do not fit are left."""
    left = [number]

    def hook(event, details):
        if left[0] and (name := changes_files(event, details)) and "/dev/" not in name and fits(name):
            left[0] -= 1
            if not left[0]:
                do()

    return lambda: sys.addaudithook(hook)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def no_space() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def killed_decoder(name: str) -> None:
    """Kill the process that decodes an image, unless it is the command's own."""
    opened, own = Image.open, os.getpid()

    def open_image(file, *rest, **more):
        if name in str(getattr(file, "name", file)) and os.getpid() != own:
            die()
        return opened(file, *rest, **more)

    Image.open = open_image


# images


def png(width: int, height: int, bits: int, colours: int, rows: bytes) -> bytes:
    """A PNG file of compressed rows."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def encoded(mode: str, form: str, size: tuple[int, int] = (40, 30), **more: Any) -> Callable[[Random, bytes], bytes]:
    def make(rng, good):
        file = io.BytesIO()
        Image.new(mode, size, None).save(file, form, **more)
        return file.getvalue()

    return make


PICTURES = {
    "cut": lambda rng, good: good[: rng.randrange(len(good))],
    "harmed": lambda rng, good: functools.reduce(lambda data, _: bytes_changed(rng, data)[1] or b"x", range(9), good),
    "noise": lambda rng, good: rng.randbytes(rng.randrange(1, 3000)),
    "foreign": lambda rng, good: rng.choice([b"GIF89a", b"%PDF-1.7", b"BM", b"II*\0", b"RIFF1234WEBP", b"P6 9 9 255\n"]) + good,
    "empty": lambda rng, good: b"",
    "claims 60,000 × 60,000": lambda rng, good: png(60_000, 60_000, 8, 2, zlib.compress(bytes(1000))),
    "claims 0 × 5": lambda rng, good: png(0, 5, 8, 2, zlib.compress(bytes(1000))),
    "16 bits": encoded("I;16", "PNG"), "a palette": encoded("P", "PNG", transparency=0), "bits": encoded("1", "PNG"),
    "CMYK": encoded("CMYK", "JPEG"), "floats": encoded("F", "TIFF"), "integers": encoded("I", "TIFF"),
    "grey and alpha": encoded("LA", "PNG"), "one pixel": encoded("RGB", "PNG", (1, 1)), "a line": encoded("RGB", "PNG", (9000, 1)),
    "many frames": encoded("P", "GIF", save_all=True, append_images=[Image.new("P", (40, 30), i) for i in range(5)]),
    "cut TIFF": lambda rng, good: encoded("RGB", "TIFF", compression="tiff_lzw")(rng, good)[: rng.randrange(8, 200)],
}  # fmt: skip
ODD_NAMES = [  # bytes, since that is what they are; {} is the number
    b"odd{}.jpg", b"odd{}.png", b"odd{}.tif", b"odd{}.gif", b"odd{}.webp", b"odd{}-caf\xe9.jpg", b"odd{}-\xf0\x9f\x98\x80.png",
    b"odd{}-\x1b[31mred.jpg", b"odd{}-\n.jpg", b"odd{}-\xe2\x80\xaegpj.png", b'odd{},"a".jpg', b"odd{}=1.jpg", b"odd{}\\x.jpg",
    b"odd{}-" + b"n" * 240 + b".jpg", b"odd{}-\xed\xa0\x80.jpg", b"odd{}-\t.jpg", b"odd{}-\r.jpg", b"odd{}  x.jpg",
]  # fmt: skip


def odd_picture(rng: Random, number: int) -> Harm:
    """Another image in the folder, which is odd in itself or by its name."""
    seed, name = rng.randrange(1 << 30), rng.choice(ODD_NAMES).replace(b"{}", b"%d" % number)
    kind = rng.choice([*PICTURES, "huge", "good", "good", "no file", "no file", "a link to a folder", "in an unreadable folder"])

    def harm(setting):
        folder = setting.root / "photos"
        path = folder / os.fsdecode(name)
        good = (folder / "good-42.jpg" if (folder / "good-42.jpg").exists() else setting.path("photos/good-*")).read_bytes()
        if kind == "no file":
            return no_file(f"photos/odd{number}{rng.choice(['.jpg', '.png'])}", seed)(setting)
        if kind in ("a link to a folder", "in an unreadable folder"):
            inner = setting.root / f"elsewhere{number}" if kind == "a link to a folder" else folder / f"odd{number}"
            inner.mkdir()
            (inner / f"odd{number}-inner.jpg").write_bytes(good)
            if kind == "a link to a folder":
                (folder / f"odd{number}").symlink_to(inner)
            else:
                inner.chmod(0)
        elif kind == "huge":
            path.symlink_to(setting.root / "huge.png")
        else:
            path.write_bytes(good if kind == "good" else PICTURES[kind](Random(seed), good))
        return f"photos/{printable(path.name)} is {kind}"

    return harm


def images(rng: Random, world: World) -> Trial:
    """Tagging names every image, in a row or as skipped, and gives the unharmed ones the tags that they have alone."""
    harms = [odd_picture(rng, i) for i in range(rng.randint(1, 4))]
    if rng.random() < 0.1:
        number = rng.randrange(1, 3)
        harms.append(lambda setting: setting.inside.append((0, lambda: killed_decoder(f"odd{number}"))) or "its decoder is killed")
    if rng.random() < 0.15:
        python = lambda setting: setting.arguments.extend(odd_names(setting.root)) or "tagged from Python"  # noqa: E731
        return Trial([*harms, python], [Step(["tag", "photos/good-42.jpg"])])
    form, by_run = rng.choice(["table", "csv", "json"]), rng.random() < 0.3
    encoding = rng.choice(["utf-8:strict", "ascii:strict", "utf-8:surrogateescape", "latin-1:strict"])
    more = ["--no-mssa"] if rng.random() < 0.2 else []
    good = {} if more else world.good["run_tags" if by_run else "tags"]
    chosen = ["--run", "run", "clip.weights=tiny.safetensors"] if by_run else NAMES

    def judge(setting, outcome):
        if outcome.code == 2:
            return f"no image has tags: {outcome.err[:200]!r}"
        for name in odd_names(setting.root):
            token = re.search(r"odd\d", name)[0]
            if token not in outcome.out + outcome.err:
                return f"{name!r} is named nowhere, exit code {outcome.code}"
            if token not in outcome.out and outcome.code == 0:
                return f"{name!r} has no tags, exit code 0"
        try:
            found = tags(form, outcome.out)
        except (ValueError, KeyError, IndexError) as error:
            return f"the {form} cannot be read: {error}"
        return alike(found, good) or (None if all(map(finite_tags, found.values())) else "scores that are no numbers")

    return Trial(harms, [Step(["predict", "photos", *chosen, "--format", form, *more], encoding=encoding)], judge)


def finite_tags(row: list[tuple[str, float]]) -> bool:
    return all(math.isfinite(score) for _, score in row)


def odd_names(root: Path) -> list[str]:
    return [f"photos/{path.name}" for path in sorted((root / "photos").iterdir()) if path.name.startswith("odd")]


# configuration

WORDS = [
    "x", "", "😀", "null", "true", "5", "-1", "0", "1.5", "1e-4", ".inf", "-.inf", ".nan", "1e400", "9" * 400, "[]", "{}", "[x]",
    "[[]]", "{a: {b: c}}", "[1, [2, 3]]", "!!bool x", "!!timestamp x", "!!int x", "!!float x", "!!binary x", "!!set {a}",
    "!!python/object/apply:os.system [echo]", "&a [*a]", "*b", "2020-13-45", "2020-01-01", "0x1F", "1:2:3:4", "'\\x1b[2J'",
    '"\\e[31m"', '"\\ud800"', '"\\0"', "[" * 2000, "[" * 400 + "]" * 400, "{" * 300, "a" * 20_000, "a: b: c", "- x", "? x", "|", ">",
    "!!str", "@x", "%x", "`", '"', "'", "#", "\t", "[" + "1, " * 5000 + "1]", str(2**31), str(2**63), str(-(2**63)), "1e308", "1e30",
    "~/x", "/dev/null", "/proc/self/mem", "..", "a/b", "meta", "mps", "xla", "cuda", "cuda:99", "cuda:-1", "cpu:7", "auto", "[100]",
    "1_000", "0o17", "1__0", "１２", "yes", "NaN", "Infinity", "-0.0", "\u202e5",
]  # fmt: skip
HARMLESS_WORDS = [word for word in WORDS if word not in (str(2**31),)]


def yaml_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A line of a YAML file is another, or there is one more, or bytes are changed."""
    lines, word = data.decode("utf-8", "replace").splitlines(), rng.choice(WORDS)
    at, kind = rng.randrange(max(1, len(lines))), rng.choice(["value", "value", "value", "key", "line", "bytes", "bomb", "coding"])
    if kind == "bytes" or not lines:
        return bytes_changed(rng, data)
    if kind == "bomb":
        bomb = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [
            f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)
        ])  # fmt: skip
        return "aliases of aliases", f"{bomb}\n{lines[at].partition(':')[0].strip()}: *a8\n".encode() + data
    if kind == "coding":
        coding = rng.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1", "cp500"])
        return f"in {coding}", (data.decode("utf-8", "replace") + "# é\n").encode(coding, "replace")
    key = lines[at].partition(":")[0]
    lines[at : at + (kind != "key")] = [{"value": f"{key}: {word}", "key": f"{word}: {word}", "line": word}[kind]]
    return f"line {at + 1} is {short(lines[at])}", "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"


def configuration(rng: Random, world: World) -> Trial:
    """A configuration is refused, or learns and scores finite numbers."""
    seed = rng.randrange(1 << 30)
    commands = {
        "data": ["data", "check", "--config", "coco.yaml"],
        "train": ["train", "--config", "coco.yaml", "--no-evaluate", "output=other"],
        "describe": ["describe", "describe.yaml", "--dry-run"],
        "evaluate": ["evaluate", "run"], "predict": ["predict", "photos/good-42.jpg", *NAMES],
    }  # fmt: skip
    name = rng.choice(sorted(commands))
    cls = config.DescribeConfig if name == "describe" else config.Config
    file = "describe.yaml" if name == "describe" else "coco.yaml"
    if name in ("data", "train", "describe") and rng.random() < 0.5:
        harms = [in_file(file, yaml_changed, seed + i) for i in range(rng.randint(1, 3))]
    else:
        known = config.known_keys(cls)
        keys = [rng.choice([*known, rng.choice(known).partition(".")[0], "rows.x", "x", ""]) for _ in range(rng.randint(1, 3))]
        harms = [argument(f"{key}={rng.choice(WORDS)}") for key in keys]

    def judge(setting, outcome):
        if outcome.code == 0 and name == "train":
            return finite(setting.root / "other") if (setting.root / "other").is_dir() else None
        if outcome.code == 0 and name == "predict" and re.search(r"\b(nan|inf)\b", outcome.out):
            return "scores that are no numbers"
        return None

    return Trial(harms, [Step(commands[name])], judge)


# class lists and corpora

LINES = [
    "", " ", "_", "#", "[]", "[x]", "x []", "x [y]", "x [y] [z]", "a" + "[" * 60_000, "[" * 60_000, "a" + "]" * 60_000, "a [" * 20_000,
    "\x00", "a\x00b", "\x1b[31mred\x1b[0m", "a\tb", "a\x0bb", "a\x85b", "a\u2028b", "\u202eabc", "\u200b", "\ufeff", "\ud800", "😀",
    "<end_of_text>", "<start_of_text>", "a dog<end_of_text> is a cat", "<|endoftext|>", "word " * 100, "x" * 100_000, "é" * 300,
    "VEHICLE", "vehicle", "vehicle [a note]", "null", "true", "5", "a,b", 'a"b', "a=b", "../x", "%s", "{}", "{0}", "\\", "a\\nb",
    "ﬃ", "ǅ", "İ", "ß", "a\u0301", "<script>alert(1)</script>", "http://example.org/x",
]  # fmt: skip


def line_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A line of a text is another, there is one more, or bytes are changed."""
    if rng.random() < 0.25:
        return bytes_changed(rng, data)
    lines, line = data.decode("utf-8", "replace").splitlines(), rng.choice(LINES)
    at, coding = rng.randrange(len(lines) + 1), rng.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"])
    lines[at : at + rng.randint(0, 1)] = [line]
    text = rng.choice(["\n", "\n", "\r\n", "\r"]).join(lines)
    return f"line {at + 1} is {short(line)}, in {coding}", text.encode(coding, "surrogatepass" if "utf" in coding else "replace")


def sentence_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A name or a sentence of a corpus is another."""
    try:
        tree = json.loads(data)
        found = [place for place in places(tree) if isinstance(place[0][place[1]], str)]
        container, key, path = rng.choice(found)
    except (ValueError, TypeError, IndexError):
        return bytes_changed(rng, data)
    container[key] = rng.choice(LINES)
    return f"{'.'.join(map(str, path))} = {short(container[key])}", dump(tree)


SPECIAL = ("<end_of_text>", "<start_of_text>")


def texts(rng: Random, world: World) -> Trial:
    """A class list or a corpus is refused, or makes names that say something and finite numbers."""
    seed = rng.randrange(1 << 30)
    name = rng.choice(["predict", "describe", "train"])
    file = "names.corpus.json" if name == "train" and rng.random() < 0.7 else "names.txt"
    changes = [line_changed] if file == "names.txt" else [json_changed, sentence_changed, bytes_changed]
    harms = [in_file(file, rng.choice(changes), seed + i) for i in range(rng.randint(1, 3))]
    if rng.random() < 0.05:
        harms = [no_file(file, seed)]
    commands = {
        "predict": ["predict", "photos/good-42.jpg", *NAMES, "--format", "json"],
        "describe": ["describe", "names.txt", "--dry-run"],
        "train": ["train", "--classes", "names.txt", *CLIP, "output=other", "train.method=closed_form", "train.batch_size=64"],
    }

    def judge(setting, outcome):
        if outcome.code:
            return None
        text = setting.path(file).read_text("utf-8", "replace")
        if name != "describe" and any(token in text for token in SPECIAL):
            return "CLIP's own token is taken as a word"
        if name == "predict":
            (row,) = tags("json", outcome.out).values()
            return None if finite_tags(row) and all(n.strip() for n, _ in row) else "a tag without a name or a number"
        return finite(setting.root / "other") if name == "train" else None

    return Trial(harms, [Step(commands[name])], judge)


# annotations

COCO = "coco/annotations/instances_val2014.json"
USED = {"images": ("id", "file_name"), "annotations": ("image_id", "category_id"), "categories": ("id", "name")}


def coco_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """COCO's file is changed so that the labels stay as they are, or cannot be had."""
    kind = rng.choice(["value", "value", "value", "remove", "again", "cut", "coding", "whole"])
    if kind == "cut":
        return "cut", data[: rng.randrange(len(data) - 2)]
    if kind == "coding":
        coding = rng.choice(["utf-16", "utf-32", "utf-8-sig"])
        return f"in {coding}", data.decode().encode(coding)
    try:
        tree = json.loads(data)
        part = rng.choice(["images", "annotations", "categories"])
        number = rng.randrange(len(tree[part]))
        entry = tree[part][number]
        if kind == "whole":
            name, tree[part] = rng.choice([part, "info", "licenses"]), rng.choice([v for v in JUNK if v not in ([], {})])
            return f"{part} = {short(tree[part])}", dump(tree)
        if kind == "again":
            more = json.loads(json.dumps(entry))
            if rng.random() < 0.6:
                keys = {"images": ["id", "file_name"], "annotations": ["id"], "categories": ["id", "name"]}[part]
                key = rng.choice(keys)
                more[key] = 9999 if key == "id" else str(more[key]).swapcase()
            tree[part].insert(rng.randrange(len(tree[part]) + 1), more)
            return f"{part}: one more, {short(more)}", dump(tree)
        key = rng.choice(sorted(entry))
        text = f"{part}.{number}.{key}"
        if kind == "remove":
            del entry[key]
            return f"{text} is removed", dump(tree)
        # a whole number may be another one's; True is 1
        entry[key] = rng.choice([v for v in JUNK if v not in (5, True)] + [entry[key] if isinstance(entry[key], str) else str(entry[key])])
        return f"{text} = {short(entry[key])}", dump(tree)
    except (ValueError, LookupError, TypeError):
        return "cut", data[: rng.randrange(len(data))]


def zeros_and_ones_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A text file of NUS-WIDE is changed so that the labels stay as they are, or cannot be had."""
    kind = rng.choice(["cut", "ends", "foreign", "blank", "coding", "slashes", "long", "twice"])
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    if kind == "cut":  # within a line
        return f"cut in line {at + 1}", b"\r\n".join(lines[:at]) + b"\r\n" * bool(at) + lines[at][: len(lines[at]) // 2]
    if kind == "ends":
        return "LF", data.replace(b"\r\n", b"\n")
    if kind == "slashes":
        return "slashes", data.replace(b"\\", b"/")
    if kind == "coding":
        return "in UTF-16", data.decode("latin-1").encode("utf-16")
    lines[at] = {
        "foreign": rng.choice([b"2", b"-1", b"x", b"\xff", b"\0", b"1 1 1 1 1 1 1 1", b"\xd9\xa1", b"0.0"]), "blank": b"\r\n" + lines[at],
        "long": lines[at] * 1000, "twice": lines[at] + b"\r\n" + lines[at],
    }[kind]  # fmt: skip
    return f"line {at + 1}: {kind}", b"\r\n".join(lines) + b"\r\n"


def loop_of_folders(place: str) -> Harm:
    def harm(setting):
        (setting.root / place / "again").symlink_to(setting.root / place)
        return f"{place}/again is a link to {place}"

    return harm


def annotations(rng: Random, world: World) -> Trial:
    """Labels are those of the unharmed files, or refused."""
    seed, kind = rng.randrange(1 << 30), rng.choice(["coco", "nuswide"])
    files = ["nuswide/ImageList/*.txt", "nuswide/NUS_WID_Tags/*.txt", "nuswide/Groundtruth/AllLabels/*.txt"]
    if kind == "coco":
        harms = [in_file(COCO, coco_changed, seed + i) for i in range(rng.randint(1, 2))]
    else:
        harms = [in_file(rng.choice(files), zeros_and_ones_changed, seed)]
    if rng.random() < 0.1:
        harms = [no_file(COCO if kind == "coco" else rng.choice(files), seed)]
    if kind == "nuswide" and rng.random() < 0.1:
        harms = [loop_of_folders(rng.choice(["nuswide", "nuswide/ImageList", "nuswide/Flickr"]))]

    def judge(setting, outcome):
        if outcome.code or json.loads(outcome.out) == world.good[kind]:
            return None
        return "the labels are others"

    return Trial(harms, [Step(["labels", f"{kind}.yaml"])], judge)


# our own files

RUN = ["run/class_embeddings.safetensors", "run/cnr*/state.safetensors", "run/cnr*/epochs/*.safetensors", "run/result.json"]
OWN = [*RUN, "run/scores/*/done*.json", "run/scores/*/scores.f32", "cache/*.safetensors", "names.corpus.answers.jsonl",
       "names.corpus.about.json", "names.corpus.batch.json"]  # fmt: skip


def own(rng: Random, world: World) -> Trial:
    """What the project wrote itself, damaged: the results are those of the unharmed files, or refused."""
    seed, file = rng.randrange(1 << 30), rng.choice(OWN)
    evaluated, learned = ["evaluate", "run"], ["train", "--config", "coco.yaml", "--no-evaluate"]
    described = ["describe", "names.txt", *world.describe]
    commands, first = {
        "run/class": ([evaluated, learned, ["predict", "photos", "--run", "run", "--format", "json"]], "run/result.json"),
        "run/cnr*/": ([learned, evaluated], "run/class_embeddings.safetensors"),
        "run/resul": ([evaluated, ["report", "run"]], ""),
        "run/score": ([evaluated], "run/result.json"),
        "cache/*.s": ([evaluated, ["predict", "photos", *NAMES, "--format", "json"], ["labels", "coco.yaml"],
                       [*learned, "output=other"]], "run/result.json"),
        "names.cor": ([described, ["describe", "stats", "names.corpus.json"], [*described, "--batch", "poll=0.01"]], ""),
    }[file[:9]]  # fmt: skip
    command = rng.choice(commands)
    harms = [absent(first)] if first and (command[0] == "evaluate" or rng.random() < 0.7) else []
    kind = rng.choice([bytes_changed, bytes_changed, json_changed, json_changed, replaced, swapped, no_file])
    if kind in (bytes_changed, json_changed):
        harms += [in_file(file, kind, seed + i) for i in range(rng.randint(1, 2))]
    else:
        harms.append(swapped(file, OWN, seed) if kind is swapped else kind(file, seed))
    if command[0] == "evaluate" and file.startswith("run/cnr"):
        harms = harms[-1:] + [absent("run/result.json")]

    def judge(setting, outcome):
        if outcome.code:
            return None
        if command[0] == "predict":
            return alike(tags("json", outcome.out), world.good["run_tags" if "run" in command else "tags"])
        same = {
            "evaluate": lambda: numbers(setting.root) == world.good["numbers"],
            "report": lambda: outcome.out == world.good["report"],
            "labels": lambda: json.loads(outcome.out) == world.good["coco"],
            "train": lambda: embeddings(setting.root / command[-1].removeprefix("output=")
                                        if "output=other" in command else setting.root / "run") == world.good["embeddings"],
            "describe": lambda: "stats" in command or setting.path("names.corpus.json").read_bytes() == world.good["corpus"],
        }[command[0]]  # fmt: skip
        return None if same() else "the result is another"

    return Trial(harms, [Step(command)], judge)


# weights


def tensors_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A tensor of a safetensors file has another shape, type or value, or is absent; or the metadata say something else."""
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    state = safetensors.numpy.load(data)
    name = rng.choice(sorted(state))
    kind, tensor = rng.choice(["shape", "type", "value", "absent", "metadata", "more", "rows", "size"]), state[name]
    if kind == "metadata":
        key = rng.choice(["activation", "vision_heads", "text_heads", "model"])
        metadata[key] = rng.choice(["", "0", "-1", "3", "7", "1e9", "x", "9" * 5000, "gelu", "quick_gelu", "\x1b[31m", "x" * 10_000, "１"])
        text = f"{key} = {short(metadata[key])}"
    elif kind == "rows":
        rows = state["token_embedding.rows"]
        rows[rng.randrange(len(rows))] = rng.choice([-1, -50_000, 49_408, 2**40, -(2**63), 2**63 - 1, 0])
        text = "a row of the vocabulary is another"
    else:
        tensor = np.array(tensor)
        if kind == "shape":
            tensor = rng.choice([lambda t: t[None], lambda t: t.reshape(-1), lambda t: t[:1], lambda t: t[:0], lambda t: t.sum()])(tensor)
        elif kind == "type":
            tensor = tensor.astype(rng.choice([np.float64, np.float16, np.int8, np.uint8, np.int64, np.bool_]))
        elif kind == "value" and tensor.dtype == np.float32:
            tensor.flat[rng.randrange(tensor.size)] = rng.choice([math.nan, math.inf, -math.inf, 3e38, 1e-45])
        elif kind == "size":
            tensor = np.concatenate([tensor.reshape(len(tensor), -1)] * 2)
        state |= {name: np.ascontiguousarray(tensor)} if kind != "more" else {rng.choice(["x", "visual.x", "\x1b[31m", "😀" * 50]): tensor}
        if kind == "absent":
            del state[name]
        text = f"{name}: {kind}"
    return text, safetensors.numpy.save(state, metadata)


def weights(rng: Random, world: World) -> Trial:
    """Weights are refused, or score finite numbers; with a run they are those that it was learned with, or refused."""
    seed, file = rng.randrange(1 << 30), rng.choice(["tiny.safetensors", "tiny.safetensors", "tiny.pt", "script.pt"])
    changes = [bytes_changed, header_changed, tensors_changed] if file == "tiny.safetensors" else [bytes_changed]
    harms = [in_file(file, rng.choice(changes), seed)]
    if rng.random() < 0.15:
        harms = [rng.choice([replaced, no_file])(file, seed)]
    if rng.random() < 0.1:
        harms = [swapped(file, ["tiny.safetensors", "tiny.pt", "script.pt", "run/class_embeddings.safetensors"], seed)]
    by_run = rng.random() < 0.3
    chosen = ["--run", "run"] if by_run else ["--classes", "names.txt", "cache=cache", "clip.model=null", "clip.pretrained=null"]
    trust = ["clip.trust_torchscript=true"] if rng.random() < 0.7 else []

    def judge(setting, outcome):
        if outcome.code:
            return f"exit code 1: {outcome.err[:100]!r}" if outcome.code == 1 else None
        found = tags("json", outcome.out)
        good = {image: row for image, row in world.good["run_tags"].items() if by_run and image in found}
        return alike(found, good) or (None if all(map(finite_tags, found.values())) else "scores that are no numbers")

    command = ["predict", "photos/good-42.jpg", *chosen, *trust, f"clip.weights={file}", "--format", "json"]
    return Trial(harms, [Step(command)], judge)


# a language-model service


@dataclass
class Reply:
    """What the service says to one question; `spoil` functions change it before it is sent."""

    kind: str
    answer: Any  # the JSON in the message
    text: str | None = None  # instead of it
    message: dict = field(default_factory=dict)
    choice: dict = field(default_factory=dict)
    top: dict = field(default_factory=dict)
    status: int = 200
    headers: dict = field(default_factory=dict)
    body: Callable[[bytes], bytes] = bytes
    absent: int = 0  # bytes that are announced and not sent
    pause: float = 0  # seconds after every byte

    def completion(self) -> dict:
        """The reply as a chat completion."""
        text = dump(self.answer).decode() if self.text is None else self.text
        message = {"role": "assistant", "content": text, "refusal": None} | self.message
        choices = [{"index": 0, "finish_reason": "stop", "message": message} | self.choice]
        usage = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
        return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": choices, "usage": usage} | self.top


def good_reply(request: dict) -> Reply:
    """A good answer, which differs with the class."""
    kind, name = request["response_format"]["json_schema"]["name"], request["messages"][1]["content"].split("\n")[0][7:]
    answer = {
        "triage": {"kind": "object", "gloss": f"the everyday {name} seen in photographs", "other_senses": [], "visible": True},
        "hierarchy": {"narrower": [f"small {name}", f"old {name}", "garden item"], "broader": ["artefact"]},
        "scenes": {"scenes": [{"name": "Garden", "description": f"beside a shelf and {len(name)} pots"}]},
        "parts": {"attributes": ["handle: long and worn", "surface: grey and bright"]},
        "phrases": {"attributes": ["a clean implement", f"often leans on {len(name)} walls"]},
    }[kind]
    return Reply(kind, answer)


class Handler(BaseHTTPRequestHandler):
    """Chat completions, and batches of them."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing is logged."""

    def _reply(self, request: dict) -> Reply:
        reply = good_reply(request)
        for spoil in self.server.spoils:
            spoil(reply)
        return reply

    def do_POST(self) -> None:  # noqa: N802, the name is http.server's
        data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.path.endswith("/files"):
            self.server.requests = [json.loads(line) for line in data.split(b"\r\n\r\n")[-1].splitlines() if line.startswith(b"{")]
            return self._send(b'{"id": "f", "object": "file", "bytes": 1, "created_at": 0, "filename": "f", "purpose": "batch"}')
        if self.path.endswith("/batches"):
            return self._batch()
        reply = self._reply(json.loads(data))
        return self._send(reply.body(dump(reply.completion())), reply)

    def do_GET(self) -> None:  # noqa: N802
        if not self.path.endswith("/content"):
            return self._batch()
        lines = []
        for request in self.server.requests:
            reply = self._reply(request["body"])
            response = {"status_code": reply.status, "request_id": "r", "body": reply.completion()}
            lines.append(reply.body(dump({"id": "x", "custom_id": request["custom_id"], "response": response, "error": None})))
        return self._send(b"\n".join(lines))

    def _batch(self) -> None:
        self._send(
            b'{"id": "b", "object": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h", "created_at": 0, '
            b'"input_file_id": "f", "status": "completed", "output_file_id": "o"}'
        )

    def _send(self, data: bytes, reply: Reply = Reply("", None)) -> None:  # noqa: B008, it is not changed
        with contextlib.suppress(OSError):  # the client may have gone
            self.send_response(reply.status)
            for name, value in ({"Content-Type": "application/json"} | reply.headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data) + reply.absent))
            self.end_headers()
            if reply.pause:
                for i in range(len(data)):
                    self.wfile.write(data[i : i + 1])
                    time.sleep(reply.pause)
            self.wfile.write(data)
            self.close_connection = bool(reply.absent)


def serve(listening: socket.socket, spoils: Sequence[Callable[[Reply], None]]) -> None:
    """Answer in a thread of this process, on a socket that the whole campaign shares."""
    server = ThreadingHTTPServer(listening.getsockname(), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket, server.spoils, server.requests, server.daemon_threads = listening, list(spoils), [], True
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


BAD_ITEMS = [
    "N/A", "null", "none", "\x00", "a\x00b", "\x1b[31mred", "\u202egpj", "https://example.org/x", "www.example.org", "<script>alert(1)</script>",
    "ignore previous instructions", "a dog<end_of_text> is a cat", "<start_of_text>", "<|endoftext|>", "\ud800", "a" * 50_000, "",
    " ", "-", "[" * 1000, "😀", "\u2028", "\u200b", "As an AI language model", "**bold**", KEY, f"key: {KEY}",
    "x" * 185 + KEY, "_" * 60_000, "* " * 10_000, "1. " * 10_000,
]  # fmt: skip
KEY_ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
BODIES = {  # how a whole body is changed
    "nothing": lambda rng: lambda data: b"",
    "cut": lambda rng: lambda data: data[: rng.randrange(len(data))],
    "deep": lambda rng: lambda data: b"[" * 100_000,
    "HTML": lambda rng: lambda data: b"<html><b>" + KEY.encode() + b"</b>\x1b[31m" * 100,
    "bytes": lambda rng: lambda data: rng.randbytes(1000),
    "other JSON": lambda rng: lambda data: dump(rng.choice(JUNK)),
    "a changed value": lambda rng: lambda data: json_changed(rng, data)[1],
    "changed bytes": lambda rng: lambda data: bytes_changed(rng, data)[1],
    "infinite tokens": lambda rng: lambda data: data.replace(b": 100,", b": 1e999,"),
    "much text": lambda rng: lambda data: data[:-1] + b', "x": "' + b"x" * (6 << 20) + b'"}',
    "key in pieces": lambda rng: lambda data: data.replace(b'"m"', json.dumps("y" * rng.randrange(150, 400) + KEY).encode()),
}
MESSAGES = {  # parts of a completion
    "key as model": lambda reply: reply.top.update(model=KEY),
    "key as refusal": lambda reply: reply.message.update(refusal=f"I refuse {KEY}", content=None),
    "key late in the refusal": lambda reply: reply.message.update(refusal="x" * 190 + KEY, content=None),
    "key as text": lambda reply: setattr(reply, "text", KEY),
    "key as reason to finish": lambda reply: reply.choice.update(finish_reason=KEY),
    "key in escapes": lambda reply: setattr(reply, "text", dump(reply.answer).decode().replace("e", KEY_ESCAPED, 1)),
    "key as a field": lambda reply: reply.answer.update({KEY: KEY}),
    "no tokens": lambda reply: reply.top.update(usage=None),
    "huge tokens": lambda reply: reply.top.update(usage={"prompt_tokens": 10**400, "completion_tokens": 1}),
    "negative tokens": lambda reply: reply.top.update(usage={"prompt_tokens": -(10**9), "completion_tokens": True}),
    "no choices": lambda reply: reply.top.update(choices=[]),
    "cut": lambda reply: reply.choice.update(finish_reason="length"),
    "text that is a list": lambda reply: reply.message.update(content=["x"]),
    "lone surrogates": lambda reply: setattr(reply, "text", dump(reply.answer).decode().replace("e", "\\ud800", 2)),
    "deep text": lambda reply: setattr(reply, "text", "[" * 100_000),
    "control characters as model": lambda reply: reply.top.update(model="\x1b[31m\u202e\x00"),
    "long model": lambda reply: reply.top.update(model="m" * 100_000),
}


def spoil(rng: Random) -> tuple[str, Callable[[Reply], None]]:
    """One way in which a service misbehaves."""
    seed, kind = rng.randrange(1 << 30), rng.choice(["status", "body", "message", "item", "item", "many", "header", "slow"])
    own = Random(seed)
    if kind == "status":
        status = rng.choice([204, 302, 307, 308, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 599])
        text = rng.choice([KEY, "x" * 290 + KEY, "\x1b[31m", KEY_ESCAPED, "x" * 100_000, "no such model"])
        body = rng.choice([dump({"error": {"message": text, "code": text[:50]}}), text.encode(), dump({"error": text}), b"[]"])
        where = rng.choice([f"http://localhost:1/{KEY}", "/v1/elsewhere", "file:///etc/hostname", "//", "http://127.0.0.2:1/"])
        headers = {"Location": where} if status < 400 else {"Retry-After": rng.choice(["0", "1e9", "nan", "-1", "x", KEY])}
        return f"status {status}, {short(body)}, {headers}", lambda reply: vars(reply).update(
            status=status, body=lambda data: b"" if status == 204 else body, headers=headers
        )
    if kind == "body":
        name = rng.choice(sorted(BODIES))
        return f"the body is {name}", lambda reply: setattr(reply, "body", BODIES[name](Random(seed)))
    if kind == "message":
        name = rng.choice(sorted(MESSAGES))
        return name, MESSAGES[name]
    if kind == "item":
        item = rng.choice(BAD_ITEMS)
        return f"an item is {short(item)}", lambda reply: put_item(Random(seed), reply.answer, item)
    if kind == "many":
        count, length = rng.choice([(100_000, 5), (3_000, 1_000), (20, 100_000)])
        text = f"{count:,} items of {length:,} characters"
        return text, lambda reply: put_many(reply.answer, [f"{i} " + "x" * length for i in range(count)])
    if kind == "header":
        coding = rng.choice(["rot13", "zlib", "base64", "utf-16", "x", "idna", "\u00ff"])
        bomb = own.random() < 0.5
        headers = {"Content-Encoding": "gzip"} if bomb else {"Content-Type": f"application/json; charset={coding}"}
        return f"headers {headers}", lambda reply: vars(reply).update(headers=headers, **({"body": gzip_bomb} if bomb else {}))
    pause, absent_bytes = rng.choice([(0.3, 0), (0, 50), (0, 5 << 30)])
    return f"{pause} s a byte, {absent_bytes} too few", lambda reply: vars(reply).update(pause=pause, absent=absent_bytes)


def gzip_bomb(data: bytes) -> bytes:
    """1 GB of blanks in 1 MB."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(b" " * (1 << 22)) for _ in range(256)) + packer.flush()


def put_item(rng: Random, answer: Any, item: str) -> None:
    """An item among the others of an answer."""
    found = [place for place in places(answer) if isinstance(place[0][place[1]], str)] if isinstance(answer, dict) else []
    if found:
        container, key, _ = rng.choice(found)
        container[key] = item


def put_many(answer: Any, items: list[str]) -> None:
    for key, value in answer.items():
        if isinstance(value, list) and key != "scenes":
            answer[key] = items


UNWANTED = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]|https?:|www\.|<\W?\w+|ignore previous|\bN/A\b|\bnull\b|\bnone\b", re.I)


def service(rng: Random, world: World) -> Trial:
    """A service that misbehaves: nothing of it, and never the key, gets into the corpus; with a good one the command then ends."""
    spoils = [spoil(rng) for _ in range(rng.randint(1, 3))]
    kinds = [rng.choice(["", "", "", "triage", "parts", "phrases", "hierarchy", "scenes"]) for _ in spoils]

    def misbehave(text, do, kind):
        def harm(setting):
            setting.service.append(lambda reply: do(reply) if kind in ("", reply.kind) else None)
            return f"the service: {text}" + (f", to questions of {kind}" if kind else "")

        return harm

    harms = [misbehave(*spoiled, kind) for spoiled, kind in zip(spoils, kinds, strict=True)]
    command = ["describe", "two.txt", *world.describe, "timeout=1"] + rng.choice([[], [], ["--allow-partial"], ["--batch", "poll=0.01"]])
    if rng.random() < 0.05:
        harms.append(argument(f"base_url=http://user:{KEY}@127.0.0.1:1/v1"))

    def judge(setting, outcome):
        path = setting.root / "two.corpus.json"
        if not path.exists():
            return None if outcome.code else "exit code 0 and no corpus"
        for entry in json.loads(path.read_bytes()).values():
            for sentence in entry["candidate_sentences"]:
                if found := UNWANTED.search(sentence):
                    return f"{found[0]!r} is in the corpus: {short(sentence)}"
        return None

    return Trial(harms, [Step(command)], judge)


# learning that leads nowhere


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


# kills and full disks


def work(rng: Random, world: World) -> tuple[list[Harm], list[str], Callable[[Path], str | None]]:
    """A long command: harms before it, its arguments, and what must be true of its results in the end."""
    name = rng.choice(["train", "evaluate", "evaluate", "describe"])
    if name == "train":
        command = ["train", "--config", "coco.yaml", "--no-evaluate", "output=other"]
        same = lambda root: embeddings(root / "other") == world.good["embeddings"]  # noqa: E731
        return ([absent("cache/*")] if rng.random() < 0.5 else []), command, lambda root: None if same(root) else "other vectors"
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


def only_room_for(size: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def failing_calls(number: int) -> None:
    """The `number`-th of the calls that find a full disk does so, and all that follow."""
    left = [number]

    def failing(call):
        def instead(*arguments, **more):
            left[0] -= 1
            if left[0] <= 0:
                no_space()
            return call(*arguments, **more)

        return instead

    for name in ("fsync", "pwrite", "posix_fallocate", "ftruncate", "truncate", "makedirs", "mkdir", "sendfile"):
        setattr(os, name, failing(getattr(os, name)))


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
    size = rng.choice([0, 100, 1000, 4000, 10_000, 50_000])
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


FAMILIES: dict[str, Callable[[Random, World], Trial]] = {
    "images": images, "configuration": configuration, "texts": texts, "annotations": annotations, "own": own,
    "weights": weights, "service": service, "divergence": divergence, "kills": kills, "disk": disk,
}  # fmt: skip


# the campaign


class Failure(NamedTuple):
    """The first input of its kind that failed, reduced."""

    family: str
    number: int
    verdict: Verdict
    steps: list[Step]
    kept: Path


class Campaign:
    """Tries inputs, counts their columns, and keeps the first failure of each kind."""

    def __init__(self, world: World, seed: int, keep: Path) -> None:
        self.world, self.seed, self.keep = world, seed, keep
        self.counts = {name: Counter() for name in FAMILIES}
        self.failures: dict[tuple, Failure] = {}
        self.kinds: Counter = Counter()

    def attempt(self, family: str, number: int) -> None:
        """Try one input."""
        trial = FAMILIES[family](Random(f"{self.seed} {family} {number}"), self.world)
        verdict = self.world.run(trial, trial.harms)
        self.counts[family].update(["tried", verdict.column])
        if verdict.column in FAILURES:
            kind = (family, verdict.column, re.sub(r"[\d,.]+|'.*'|\".*\"|\S*/\S*", "…", verdict.why)[:60])
            self.kinds[kind] += 1
            if kind not in self.failures:
                self.failures[kind] = self._reduced(family, number, trial, verdict)

    def _reduced(self, family: str, number: int, trial: Trial, verdict: Verdict) -> Failure:
        """The failure with as few harms as it takes; its input is kept."""
        harms = list(trial.harms)
        for harm in trial.harms:
            fewer = [h for h in harms if h is not harm]
            if fewer and self.world.run(trial, fewer).column == verdict.column:
                harms = fewer
        verdict = self.world.run(trial, harms)
        kept = self.keep / f"{family}-{self.seed}-{number}"
        if kept.exists():
            remove(kept)
        copy(self.world.root, kept)
        return Failure(family, number, verdict, trial.steps[: verdict.step + 1], kept)

    def table(self) -> str:
        """The counts of all families that were tried."""
        rows = [("", *COLUMNS)] + [(name, *(n[c] for c in COLUMNS)) for name, n in self.counts.items() if n["tried"]]
        rows.append(("all", *(sum(n[c] for n in self.counts.values()) for c in COLUMNS)))
        return "\n".join(f"{name:14}" + "".join(f"{value:>11}" for value in row) for name, *row in rows)

    def report(self) -> Iterator[str]:
        """The failures, one of each kind."""
        for kind, failure in self.failures.items():
            verdict = failure.verdict
            yield f"\n{failure.family} {failure.number}: {verdict.column}: {message(verdict.why)} ({self.kinds[kind]} of this kind)"
            yield from (f"  {message(harm)}" for harm in verdict.harms)
            yield f"  cd {failure.kept}"
            for step in failure.steps:
                yield "  " + " ".join(["rcnn", *(short(a) if re.search(r"[^\w=./:-]", a) else a for a in step.command)])
            yield f"  again: --seed {self.seed} --family {failure.family} --number {failure.number}"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5, help="how long new inputs are tried (default 5)")
    parser.add_argument("--count", type=int, help="instead: so many inputs of each family")
    parser.add_argument("--number", type=int, help="instead: this one input of each family")
    parser.add_argument("--seed", type=int, default=0, help="another one, other inputs (default 0)")
    parser.add_argument("--family", choices=FAMILIES, nargs="+", default=list(FAMILIES), help="only these (default: all)")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where inputs that failed are put (default: a temporary folder)")
    args = parser.parse_args(argv)
    tokenizer()  # before the first fork, so that no process has to read it
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
