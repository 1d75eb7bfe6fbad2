#!/usr/bin/env python
"""How much faster the learning stage is than a plain implementation of the paper's equations, and that it computes the same.

    python scripts/benchmark_train.py                     # both shapes, 3 steps each
    python scripts/benchmark_train.py --steps 5 --threads 2 --device cpu
    python scripts/benchmark_train.py --quick             # a small tower, seconds; its ratios mean nothing

Plain: 77 tokens a row, the sentences of every batch encoded anew, explicit attention, a C × C matrix for the pair-based
loss. Ours: the modules of rcnn, which encode all sentences once. Both get the same random weights (ViT-B/16's text tower),
the same batches and the same start, and take a few steps of SGD in float32, each in a process of its own.

Times are the least of the steps; whole trainings are projected from them. Sentences are random tokens, with lengths as in
the real corpus. Plain at NUS-WIDE's 1,006 classes would need tens of GB: it runs fewer classes there, and the time of the
class part is scaled linearly. The last line of the output is `ratio coco=<x> nuswide=<y> loss_difference=<z> encode=<e>
bf16_learning=<b>`: plain / ours for the whole training; the largest relative difference of any step's loss; the corpora that
ship encoded row by row / as trees, and a step of learning in float32 / in bf16, each the lesser of the two shapes'.
"""

import argparse
import copy
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import plain_clip

from rcnn import clip
from rcnn.clip.text_tower import TREE, TextEncoder, grow
from rcnn.learn import closed_form
from rcnn.learn.optimise import new_optimiser, step
from rcnn.learn.prompt_learner import INITIAL_STD, PromptLearner
from rcnn.text import corpus
from rcnn.text.classes import ClassList

TOWER = {
    "width": 512, "heads": 8, "layers": 12, "mlp_width": 2048, "embed_dim": 512, "context": 77, "vocabulary": 49408,
}  # fmt: skip
QUICK_TOWER = TOWER | {"width": 64, "heads": 2, "layers": 2, "mlp_width": 256, "embed_dim": 64}
EPOCHS, TEMPLATES = 30, 80
PAIR_WEIGHT, MOMENTUM, WEIGHT_DECAY = 0.2, 0.9, 5e-4
RATE = 1e-3  # above the paper's 1e-4, so that a wrong gradient would show in the losses of the next steps
START, END = 49406, 49407
MANY_CLASSES = 7586  # the closed form is also timed at this vocabulary


@dataclass(frozen=True)
class Job:
    """One shape, and how it is run."""

    classes: int
    tokens: int  # N_c
    sentences: int
    plain_classes: int  # as many as the plain implementation has memory for
    batch: int = 512
    tower: str = "full"
    steps: int = 3
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"

    @property
    def all_steps(self):
        return EPOCHS * (self.sentences // self.batch)

    @property
    def sizes(self):
        return QUICK_TOWER if self.tower == "quick" else TOWER


JOBS = {
    "coco": Job(classes=65, tokens=4, sentences=9864 + 65 * TEMPLATES, plain_classes=65),
    "nuswide": Job(classes=1006, tokens=3, sentences=1006 * (150 + TEMPLATES), plain_classes=64),
}


# What both implementations are given


def random_state(sizes, seed):
    """Weights under OpenAI's names, as large as CLIP starts them; random biases and gains too, so that none goes untested."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, std, mean=0.0):
        return mean + std * torch.randn(*shape, generator=generator)

    width, hidden, layers = sizes["width"], sizes["mlp_width"], sizes["layers"]
    out = width**-0.5 * (2 * layers) ** -0.5
    state = {
        "token_embedding.weight": normal(sizes["vocabulary"], width, std=0.02),
        "positional_embedding": normal(sizes["context"], width, std=0.01),
        "text_projection": normal(width, sizes["embed_dim"], std=width**-0.5),
        "ln_final.weight": normal(width, std=0.1, mean=1.0),
        "ln_final.bias": normal(width, std=0.02),
    }
    for i in range(layers):
        block = {
            "attn.in_proj_weight": normal(3 * width, width, std=width**-0.5),
            "attn.in_proj_bias": normal(3 * width, std=0.02),
            "attn.out_proj.weight": normal(width, width, std=out),
            "attn.out_proj.bias": normal(width, std=0.02),
            "mlp.c_fc.weight": normal(hidden, width, std=(2 * width) ** -0.5),
            "mlp.c_fc.bias": normal(hidden, std=0.02),
            "mlp.c_proj.weight": normal(width, hidden, std=out),
            "mlp.c_proj.bias": normal(width, std=0.02),
        }
        for name in ("ln_1", "ln_2"):
            block |= {f"{name}.weight": normal(width, std=0.1, mean=1.0), f"{name}.bias": normal(width, std=0.02)}
        state |= {f"transformer.resblocks.{i}.{k}": v for k, v in block.items()}
    return state


def new_tower(job, device):
    with torch.device("meta"):
        text = TextEncoder(**job.sizes)
    text.load_state_dict(random_state(job.sizes, job.seed), assign=True)
    return text.to(device).eval().requires_grad_(False)


def sentence_lengths(count, generator):
    """Tokens with start and end: median 17, 95 % at most 25, between 8 and 39, as in the real corpus."""
    return (17 * torch.exp(0.23 * torch.randn(count, generator=generator))).round().long().clamp(8, 39)


def corpus_tokens(job):
    """Tokens of all sentences of the corpus together."""
    return int(sentence_lengths(job.sentences, torch.Generator().manual_seed(job.seed)).sum())


def batches(job, classes):
    """(steps, b, 77) token rows and (steps, b) classes; the rows do not depend on the number of classes."""
    generator = torch.Generator().manual_seed(job.seed + 1)
    shape, context = (job.steps, job.batch), job.sizes["context"]
    lengths = sentence_lengths(job.steps * job.batch, generator).view(*shape, 1)
    rows, place = torch.randint(1, START, (*shape, context), generator=generator), torch.arange(context)
    rows = rows.where(place < lengths - 1, 0)
    rows[place.expand_as(rows) == lengths - 1] = END
    rows[..., 0] = START
    return rows, torch.randint(classes, shape, generator=generator)


def start_vectors(job, classes):
    generator = torch.Generator().manual_seed(job.seed + 2)
    return INITIAL_STD * torch.randn(classes, job.tokens, job.sizes["width"], generator=generator)


# The plain implementation


def measure_plain(job):
    """Seconds of the two parts of a step, losses, and peak memory of the plain implementation."""
    device, classes = prepare(job), job.plain_classes
    state, heads = {k: v.to(device) for k, v in random_state(job.sizes, job.seed).items()}, job.sizes["heads"]
    embedding = state["token_embedding.weight"]
    vectors = start_vectors(job, classes).to(device).requires_grad_()
    optimiser = torch.optim.SGD([vectors], lr=RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
    prompt = clip.tokenize([f"{clip.CONTEXT} {' '.join(['X'] * job.tokens)}."], job.sizes["context"]).to(device)
    first, end = len(clip.CONTEXT.split()) + 1, prompt.argmax(1).expand(classes)
    embeddings = F.embedding(prompt, embedding).expand(classes, -1, -1)
    before, after = embeddings[:, :first], embeddings[:, first + job.tokens :]
    losses, sentence_times, class_times = [], [], []
    for rows, targets in zip(*(part.to(device) for part in batches(job, classes)), strict=True):
        began = clock(device)
        with torch.no_grad():
            t = plain_clip.text_features(state, F.embedding(rows, embedding), rows.argmax(1), heads)
        halfway = clock(device)
        z = plain_clip.text_features(state, torch.cat([before, vectors, after], dim=1), end, heads)
        pairs = (1 + z @ z.T)[~torch.eye(classes, dtype=torch.bool, device=device)]
        loss = (z[targets] - t).square().sum() + PAIR_WEIGHT * pairs.sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        sentence_times.append(halfway - began)
        class_times.append(clock(device) - halfway)
        progress(f"  plain step {len(losses)}: sentences {sentence_times[-1]:.3f} s, classes {class_times[-1]:.3f} s")
    return {"sentences": min(sentence_times), "classes": min(class_times), "losses": losses, "memory": peak_memory(device)}


# Ours


def measure_ours(job):
    """Seconds of a step and of encoding all sentences, losses, and peak memory of rcnn's modules."""
    device = prepare(job)
    text = new_tower(job, device)
    rows, _ = batches(job, job.classes)
    text.encode(rows[0, :8])  # whatever a first call sets up does not scale with the corpus
    began = clock(device)
    features = text.encode(rows.flatten(0, 1)).to(device)
    sample = int((rows.argmax(-1) + 1).sum())
    encoding = (clock(device) - began) * corpus_tokens(job) / sample
    progress(f"  ours: {sample} tokens of sentences encoded, {encoding:.1f} s for all")
    times, losses = take_steps(job, job.classes, text, features, device)
    memory = peak_memory(device)
    if job.plain_classes != job.classes:  # losses to compare with the plain ones
        _, losses = take_steps(job, job.plain_classes, text, features, device)
    return {"step": min(times), "encoding": encoding, "losses": losses, "memory": memory}


@torch.no_grad()
def encode_row_by_row(text, tokens, device, budget=1024):
    """Every row by itself, sorted by length so that little padding is computed: no beginning is shared."""
    end, groups = tokens.argmax(1), []
    for row in end.argsort().tolist():
        if groups and (end[row] + 1) * (len(groups[-1]) + 1) <= budget:
            groups[-1].append(row)
        else:
            groups.append([row])
    for rows in groups:
        cut = tokens[rows, : end[rows].max() + 1].to(device)
        text(text.token_embedding(cut), end[rows].to(device))


def compare_encoding(job, name):
    """Seconds of encoding a share of a corpus that ships, sentences of whole classes, row by row and as trees, in turns."""
    device = prepare(job)
    text = new_tower(job, device)
    classes = ClassList.read(*(ROOT / "data" / name / f"{part}.txt" for part in ("seen", "unseen")))
    everything = corpus.load(ROOT / "data" / name / "corpus.json", classes) + corpus.templates(classes)
    distinct = list(dict.fromkeys(everything.sentences))
    all_tokens = clip.tokenize(distinct, job.sizes["context"])
    trees = sum(len(tree.tokens) for tree in grow(all_tokens.numpy(), TREE))
    progress(f"{name}: {len(distinct)} sentences, {int((all_tokens != 0).sum())} tokens, {trees} in trees")
    share = all_tokens[torch.from_numpy(np.lexsort(all_tokens.numpy().T[::-1]).copy())]  # neighbours, as in the whole
    count = 100 if job.tower == "quick" else 3000
    share, times = share[(len(share) - count) // 2 :][:count], {"rows": [], "trees": []}
    for _ in range(3):
        for what, encode in (("rows", encode_row_by_row), ("trees", lambda text, tokens, device: text.encode(tokens))):
            began = clock(device)
            encode(text, share, device)
            times[what].append(clock(device) - began)
    return min(times["rows"]), min(times["trees"])


def compare_precision(job):
    """Seconds of a step of learning in float32 and in bf16, in turns, and the largest relative difference of their losses."""
    device = prepare(job)
    text = new_tower(job, device)
    features = F.normalize(torch.randn(job.steps * job.batch, job.sizes["embed_dim"]), dim=1).to(device)
    learning = [steps(job, job.classes, text, features, device, precision) for precision in ("float32", "bf16")]
    turns = list(zip(*learning, strict=True))
    seconds = [min(turn[i][0] for turn in turns) for i in range(2)]
    return *seconds, max(abs(a - b) / abs(a) for (_, a), (_, b) in turns)


def take_steps(*given):
    """(seconds, losses) of all `steps`."""
    return zip(*steps(*given), strict=True)


def steps(job, classes, text, features, device, precision="float32"):
    """(seconds, loss) of one step after the other."""
    text = text if precision == "float32" else copy.deepcopy(text).set_precision(torch.bfloat16)
    learner = PromptLearner(text, classes, job.tokens)
    learner.class_vectors.data = start_vectors(job, classes).to(device)
    optimiser = new_optimiser(learner, MOMENTUM, WEIGHT_DECAY)
    for t, targets in zip(features.split(job.batch), batches(job, classes)[1].to(device), strict=True):
        began = clock(device)
        loss = step(learner, optimiser, t, targets, PAIR_WEIGHT, RATE)
        took = clock(device) - began
        progress(f"  ours, {precision}, {classes} classes: {took:.3f} s a step")
        yield took, loss


def measure_closed_form(job):
    """Seconds, Newton steps and certified gap of the closed form at this shape, sentence features given."""
    device = prepare(job)
    generator = torch.Generator().manual_seed(job.seed)
    shared, own = (F.normalize(torch.randn(n, job.sizes["embed_dim"], generator=generator), dim=1) for n in (1, job.classes))
    # all texts have much in common, and each class something of its own; a_c sums b/C sentences
    class_sums = ((0.75 * shared + 0.4 * own) * (job.batch / job.classes)).to(device)
    weight = PAIR_WEIGHT * (65 / job.classes) ** 2  # λ·C² as at COCO: the pairs weigh as much against the sentences
    times = []
    for _ in range(3):
        began = clock(device)
        found = closed_form.minimise(class_sums, weight)
        times.append(clock(device) - began)
    return {"seconds": min(times), "newton": found.iterations, "gap": found.gap}


# Measuring


def prepare(job):
    if job.threads:
        torch.set_num_threads(job.threads)
    return torch.device(job.device)


def clock(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def peak_memory(device):
    """Bytes: of tensors on the GPU, or of the whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def progress(line):
    print(line, file=sys.stderr, flush=True)


def alone(function, job):
    """function(job) in a new process, whose peak memory is then that of this measurement."""
    # forked, torch need not be imported again; CUDA does not survive that
    with ProcessPoolExecutor(1, mp_context=get_context("spawn" if job.device == "cuda" else "fork")) as pool:
        return pool.submit(function, job).result()


def duration(seconds):
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2f} s"


def report(name, job):
    """Measure one shape, print its table; return (ratio of whole trainings, largest difference of losses)."""
    progress(f"{name}: plain")
    plain = alone(measure_plain, job)
    progress(f"{name}: ours")
    ours = alone(measure_ours, job)
    scale = job.classes / job.plain_classes
    plain_step = plain["sentences"] + scale * plain["classes"]
    plain_all, ours_all = job.all_steps * plain_step, job.all_steps * ours["step"] + ours["encoding"]
    difference = max(abs(a - b) / abs(a) for a, b in zip(plain["losses"], ours["losses"], strict=True))
    at = f" at {job.plain_classes} classes" if scale != 1 else ""
    lines = [
        ("", "plain", "ours", "ratio"),
        ("sentences, a step", duration(plain["sentences"]), "-", ""),
        ("classes, a step", duration(scale * plain["classes"]), duration(ours["step"]), ""),
        ("a step", duration(plain_step), duration(ours["step"]), f"{plain_step / ours['step']:.1f}"),
        ("all sentences, once", "-", duration(ours["encoding"]), ""),
        ("whole training", duration(plain_all), duration(ours_all), f"{plain_all / ours_all:.1f}"),
        ("peak memory", f"{plain['memory'] / 2**30:.2f} GiB{at}", f"{ours['memory'] / 2**30:.2f} GiB", ""),
    ]  # fmt: skip
    print(f"{name}: {job.classes} classes, N_c {job.tokens}, {job.sentences} sentences, {job.all_steps} steps of {job.batch}")
    for line in lines:
        print("  {:22}{:>26}{:>14}{:>10}".format(*line).rstrip())
    if at:
        print(
            f"  plain ran {job.plain_classes} classes ({duration(plain['classes'])} a step); its class part is "
            f"scaled by {job.classes}/{job.plain_classes}, the sentence part is not"
        )
    print(f"  losses{at}: " + ", ".join(f"{loss:.4f}" for loss in ours["losses"]) + f"; largest difference {difference:.1e}\n")
    return plain_all / ours_all, difference


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3, help="steps of each implementation (default 3)")
    parser.add_argument("--threads", type=int, help="of torch on the CPU; default: torch's own choice")
    parser.add_argument("--seed", type=int, default=0, help="of weights, sentences and start")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--quick", action="store_true", help="a small tower and few classes: does it run, is it equal?")
    args = parser.parse_args()
    if args.steps < 1:
        parser.error("--steps: expected at least 1")
    device = args.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    jobs = {k: replace(j, steps=args.steps, seed=args.seed, threads=args.threads, device=device) for k, j in JOBS.items()}
    many = replace(jobs["coco"], classes=MANY_CLASSES)
    if args.quick:
        jobs = {
            "coco": replace(jobs["coco"], classes=8, plain_classes=8, batch=32, tower="quick"),
            "nuswide": replace(jobs["nuswide"], classes=24, plain_classes=8, batch=32, tower="quick"),
        }
        many = replace(jobs["coco"], classes=100)
    sizes = jobs["coco"].sizes
    tower = ", ".join(f"{k} {v}" for k, v in sizes.items())
    machine = torch.cuda.get_device_name() if device == "cuda" else f"CPU, {args.threads or torch.get_num_threads()} thread(s)"
    print(f"Learning class names, float32, {machine}; least time of {args.steps} steps.\nTower: {tower}\n")

    ratios, differences = zip(*(report(name, job) for name, job in jobs.items()), strict=True)
    print("closed form, sentence features given")
    for job in (*jobs.values(), many):
        found = measure_closed_form(job)
        print(
            f"  {job.classes:5} classes  {duration(found['seconds']):>10}  {found['newton']} Newton steps, "
            f"certified to {found['gap']:.1e}"
        )
    encoding = []
    for name, job in jobs.items():
        rows, trees = alone(partial(compare_encoding, name=name), job)
        encoding.append(rows / trees)
        took = f"row by row {duration(rows)}, as trees {duration(trees)}"
        print(f"encoding sentences of {name}'s corpus, {took}: {rows / trees:.1f}")
    faster = []
    for name, job in jobs.items():
        ours, half, deviation = alone(compare_precision, job)
        faster.append(ours / half)
        took = f"float32 {duration(ours)}, bf16 {duration(half)}"
        print(f"a step of learning at {name}'s shape, {took}: {faster[-1]:.2f}; losses differ by at most {deviation:.1e}")
    print(
        f"\nratio coco={ratios[0]:.1f} nuswide={ratios[1]:.1f} loss_difference={max(differences):.1e} "
        f"encode={min(encoding):.1f} bf16_learning={min(faster):.2f}"
    )


if __name__ == "__main__":
    main()
