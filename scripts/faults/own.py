"""The families of the files that the project writes itself, and of weights."""

import json
import math
import struct
from random import Random

import numpy as np
import safetensors.numpy
from faults.harms import absent, bytes_changed, in_file, json_changed, no_file, replaced, swapped
from faults.results import finite
from faults.trial import Step, Trial
from faults.unharmed import NAMES, WITHOUT
from faults.world import World

from rcnn.printing import short

EMBEDDINGS, RESULT = "run/class_embeddings.safetensors", "run/result.json"


def own(rng: Random, world: World) -> Trial:
    """What the project wrote itself, damaged: the results are those of the unharmed files, or refused."""
    evaluated, learned = ["evaluate", "run"], ["train", "--config", "coco.yaml", "--no-evaluate"]
    described, tagged = ["describe", "names.txt", *world.describe], ["predict", "photos", "--format", "json"]
    uses = {  # files -> the commands that read them, and what must be away for that
        (EMBEDDINGS,): ([evaluated, learned, [*tagged, "--run", "run"]], RESULT),
        ("run/cnr*/state.safetensors", "run/cnr*/epochs/*.safetensors"): ([learned], EMBEDDINGS),
        ("run/cnr*/epochs/*.safetensors", "run/scores/*/done*.json", "run/scores/*/scores.f32"): ([evaluated], RESULT),
        (RESULT,): ([evaluated, ["report", "run"]], ""),
        ("cache/*.safetensors",): (
            [evaluated, [*tagged, *NAMES], ["labels", "coco.yaml"], [*learned, "output=other"]], RESULT
        ),
        ("cache/tagged/*.sqlite", "cache/tagged/*.json"): ([[*tagged, *NAMES], [*tagged, "--run", "run"]], ""),
        ("names.corpus.answers.jsonl", "names.corpus.about.json", "names.corpus.batch.json"): (
            [described, ["describe", "stats", "names.corpus.json"], [*described, "--batch", "poll=0.01"]], ""
        ),
    }  # fmt: skip
    files = [(file, use) for names, use in uses.items() for file in names]
    seed, (file, (commands, first)) = rng.randrange(1 << 30), rng.choice(files)
    command = rng.choice(commands)
    harms = [absent(first)] if first and (command is evaluated or rng.random() < 0.7) else []
    change = rng.choice([bytes_changed, bytes_changed, json_changed, json_changed, replaced, None, None])
    if change:
        harms += [in_file(file, change, seed + i) for i in range(rng.randint(1, 2))]
    else:
        harms.append(rng.choice([swapped(file, [name for name, _ in files], seed), no_file(file, seed)]))
    return Trial(harms, [Step(command)], world.same(command))


def tensors_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A tensor of a safetensors file has another shape, type or value, or is absent; or the metadata say something else."""
    (length,) = struct.unpack("<Q", data[:8])
    metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    state = safetensors.numpy.load(data)
    name, number = rng.choice(sorted(state)), rng.choice([math.nan, math.inf, -math.inf, 3e38, 1e-45])
    kind = rng.choice(["[None]", "flat", "[:1]", "[:0]", "scalar", "twice", "type", "type", "value", "value", "absent", "more",
                       "rows", "metadata"])  # fmt: skip
    tensor = np.array(state[name])
    if kind == "metadata":
        name = rng.choice(["activation", "vision_heads", "text_heads", "model"])
        metadata[name] = rng.choice(
            ["", "0", "-1", "3", "7", "1e9", "x", "9" * 5000, "gelu", "quick_gelu", "\x1b[31m", "x" * 10_000, "１"]
        )
        kind = short(metadata[name])
    elif kind == "rows":
        rows = state["token_embedding.rows"]
        rows[rng.randrange(len(rows))] = rng.choice([-1, -50_000, 49_408, 2**40, -(2**63), 2**63 - 1, 0])
    elif kind == "absent":
        del state[name]
    elif kind == "more":
        state[rng.choice(["x", "visual.x", "\x1b[31m", "😀" * 50])] = tensor
    elif kind == "value":
        tensor.flat[rng.randrange(tensor.size)] = number if tensor.dtype == np.float32 else -1
        state[name] = tensor
    else:
        kinds = [np.float64, np.float16, np.int8, np.uint8, np.int64, np.bool_]
        state[name] = np.ascontiguousarray({
            "[None]": tensor[None], "flat": tensor.reshape(-1), "[:1]": tensor[:1], "[:0]": tensor[:0], "scalar": tensor.sum(),
            "twice": np.concatenate([tensor] * 2), "type": tensor.astype(rng.choice(kinds)),
        }[kind])  # fmt: skip
    return f"{name}: {kind}", safetensors.numpy.save(state, metadata)


def weights(rng: Random, world: World) -> Trial:
    """Weights are refused, or score finite numbers; with a run they are those that it was learned with, or refused."""
    files = ["tiny.safetensors", "tiny.safetensors", "tiny.pt", "script.pt"]
    seed, file = rng.randrange(1 << 30), rng.choice(files)
    changes = [bytes_changed, json_changed, tensors_changed] if file == "tiny.safetensors" else [bytes_changed]
    harms = [in_file(file, rng.choice([*changes] * 5 + [replaced]), seed)]
    if rng.random() < 0.2:
        harms = [rng.choice([no_file(file, seed), swapped(file, [*files, EMBEDDINGS], seed)])]
    by_run = rng.random() < 0.3
    chosen = ["--run", "run"] if by_run else ["--classes", "names.txt", *WITHOUT]
    trust = ["clip.trust_torchscript=true"] if rng.random() < 0.7 else []
    command = ["predict", "photos/good-42.jpg", *chosen, *trust, f"clip.weights={file}", "--format", "json"]
    right = world.same(command) if by_run else finite

    def judge(setting, outcome):
        return "the unharmed image is skipped" if outcome.code == 1 else right(setting, outcome)

    return Trial(harms, [Step(command)], judge)
