"""The families of the files that the project writes itself, and of weights."""

import json
import math
import struct
from random import Random

import numpy as np
import safetensors.numpy
from faults.harms import absent, bytes_changed, header_changed, in_file, json_changed, no_file, replaced, swapped
from faults.results import alike, embeddings, finite_tags, numbers, tags
from faults.trial import Step, Trial
from faults.unharmed import NAMES
from faults.world import World

from rcnn.printing import short

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
        harms = [*harms[-1:], absent("run/result.json")]

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


def tensors_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A tensor of a safetensors file has another shape, type or value, or is absent; or the metadata say something else."""
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    state = safetensors.numpy.load(data)
    name = rng.choice(sorted(state))
    kind, tensor = rng.choice(["shape", "type", "value", "absent", "metadata", "more", "rows", "size"]), state[name]
    if kind == "metadata":
        key = rng.choice(["activation", "vision_heads", "text_heads", "model"])
        metadata[key] = rng.choice(
            ["", "0", "-1", "3", "7", "1e9", "x", "9" * 5000, "gelu", "quick_gelu", "\x1b[31m", "x" * 10_000, "１"]
        )
        text = f"{key} = {short(metadata[key])}"
    elif kind == "rows":
        rows = state["token_embedding.rows"]
        rows[rng.randrange(len(rows))] = rng.choice([-1, -50_000, 49_408, 2**40, -(2**63), 2**63 - 1, 0])
        text = "a row of the vocabulary is another"
    else:
        tensor = np.array(tensor)
        if kind == "shape":
            tensor = rng.choice(
                [lambda t: t[None], lambda t: t.reshape(-1), lambda t: t[:1], lambda t: t[:0], lambda t: t.sum()]
            )(tensor)
        elif kind == "type":
            tensor = tensor.astype(rng.choice([np.float64, np.float16, np.int8, np.uint8, np.int64, np.bool_]))
        elif kind == "value" and tensor.dtype == np.float32:
            tensor.flat[rng.randrange(tensor.size)] = rng.choice([math.nan, math.inf, -math.inf, 3e38, 1e-45])
        elif kind == "size":
            tensor = np.concatenate([tensor.reshape(len(tensor), -1)] * 2)
        state |= (
            {name: np.ascontiguousarray(tensor)}
            if kind != "more"
            else {rng.choice(["x", "visual.x", "\x1b[31m", "😀" * 50]): tensor}
        )
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
    chosen = (
        ["--run", "run"] if by_run else ["--classes", "names.txt", "cache=cache", "clip.model=null", "clip.pretrained=null"]
    )
    trust = ["clip.trust_torchscript=true"] if rng.random() < 0.7 else []

    def judge(setting, outcome):
        if outcome.code:
            return f"exit code 1: {outcome.err[:100]!r}" if outcome.code == 1 else None
        found = tags("json", outcome.out)
        good = {image: row for image, row in world.good["run_tags"].items() if by_run and image in found}
        return alike(found, good) or (None if all(map(finite_tags, found.values())) else "scores that are no numbers")

    command = ["predict", "photos/good-42.jpg", *chosen, *trust, f"clip.weights={file}", "--format", "json"]
    return Trial(harms, [Step(command)], judge)
