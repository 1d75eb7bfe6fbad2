"""Measure a run on images: `python -m rcnn.evaluate outputs/mini`.

One pass over the images serves all rows and all epochs: they differ only in their class embeddings and in the snippets that
are used. Writes RUN/result.json and prints the table. Interrupted, the same command continues where it was. Several GPUs, or
processes: `torchrun --nproc-per-node=4 -m rcnn.evaluate RUN`.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from rcnn import checkpoint, cli, config, datasets
from rcnn.files import write_json
from rcnn.results import metrics, table
from rcnn.score import one_pass as scoring
from rcnn.score import processes
from rcnn.score.one_pass import Plane
from rcnn.text.classes import ClassList

COLUMNS, IMAGES = 64, 4096  # classes, images whose scores are in memory at a time
ROOT = Path(__file__).resolve().parents[1]
OVERRIDES = ("device", "cache=", "dataset.", "evaluate.", "clip.weights", "clip.trust_torchscript")


def task_images(labels, first, keep_unlabelled=False):
    """(B,) whether a task is measured on an image: it has a positive label in the columns from `first`, or all are kept."""
    return torch.full((len(labels),), keep_unlabelled) | (labels[:, first:] == 1).any(1)


def measure(by_image, labels, first, used, top_k=(), weights=None):
    """Metrics of one table of scores on one task, in bounded memory: classes and images are taken a part at a time.

    Args:
        by_image: (B, C) float32 scores, such as a memory map.
        labels: (B, C) in {1, -1, 0}.
        first: first column that the task scores.
        used: (B,) bool, the images of the task.
        top_k: k of precision, recall, F1.
        weights: (R, B') float64 bootstrap weights of the images in use, or None.

    Returns:
        ({metric: value in percent}, {metric: (R,) resampled values})
    """
    precision, resampled = [], []
    for start in range(first, labels.shape[1], COLUMNS):
        columns = slice(start, start + COLUMNS)
        s, y = torch.from_numpy(np.ascontiguousarray(by_image[:, columns]))[used], labels[used, columns]
        precision.append(metrics.average_precision(s, y))
        if weights is not None:
            resampled.append(metrics.average_precision(s, y, weights.float()))
    values = {"mAP": 100 * torch.cat(precision).mean().item()}
    samples = {} if weights is None else {"mAP": 100 * torch.cat(resampled, 1).mean(1).double()}
    counted = {k: [] for k in top_k}
    for start in range(0, len(labels) if top_k else 0, IMAGES):
        part = slice(start, start + IMAGES)
        s, y = torch.from_numpy(by_image[part, first:])[used[part]], labels[part, first:][used[part]]
        for k, parts in counted.items():
            parts.append(metrics.top_k_counts(s, y, k))
    for k, parts in counted.items():
        hits, positives = (torch.cat(p) for p in zip(*parts, strict=True))
        names = [f"{letter}@{k}" for letter in ("P", "R", "F1")]
        values |= zip(names, (100 * metrics.precision_recall_f1(hits, positives, k)).tolist(), strict=True)
        if weights is not None:
            samples |= zip(names, (100 * metrics.precision_recall_f1(hits, positives, k, weights)).T, strict=True)
    return values, samples


def compare(scores, labels, used, classes, top_k, bootstrap, seed):
    """All metrics of all rows.

    Args:
        scores: {(row, variant): (B, C) array}
        labels: (B, C) in {1, -1, 0}.
        used: {task: (B,) bool}
        classes: ClassList.
        top_k: k of precision, recall, F1.
        bootstrap: R, resamples of the images; 0 for none.
        seed: of the resamples.

    Returns:
        {row: {variant: {task: {metric: {"value", "interval", "versus_baseline", "versus_plain"}}}}}. The differences are
        those of the same resampled images: to the baseline in the same variant, and of MSSA to the row without it.
        Intervals are absent without a bootstrap.
    """
    result, draws = {}, {}
    for task, first in classes.tasks.items():
        images, weights = int(used[task].sum()), None
        if bootstrap:
            rng = np.random.default_rng([seed, first])
            weights = torch.from_numpy(rng.multinomial(images, np.full(images, 1 / images), bootstrap)).double()
        for (row, variant), by_image in tqdm(scores.items(), f"metrics {task}", delay=2):
            ks = [k for k in top_k if k <= len(classes) - first]
            values, samples = draws[row, variant] = measure(by_image, labels, first, used[task], ks, weights)
            entry = result.setdefault(row, {}).setdefault(variant, {})[task] = {}
            for name, value in values.items():
                entry[name] = with_interval(value, samples.get(name))
                for key, other in (("versus_baseline", ("baseline", variant)), ("versus_plain", (row, "plain"))):
                    if other != (row, variant):
                        sampled = samples[name] - draws[other][1][name] if samples else None
                        entry[name][key] = with_interval(value - draws[other][0][name], sampled)
    return result


def with_interval(value, samples):
    """A value and, if it was resampled, the interval of 95 % of the (R,) samples.

    The samples are shifted so that their mean is the value: an image drawn twice ranks beside itself, which raises the
    average precision of a resample a little whatever the row.
    """
    if samples is None:
        return {"value": value}
    shifted = samples - samples.mean() + value
    return {"value": value, "interval": torch.quantile(shifted, samples.new_tensor([0.025, 0.975])).tolist()}


def curve(scores, labels, used, classes, top_k):
    """Metrics of every epoch: [{"epoch", task: {metric: value}}], from {epoch: (B, C) array}."""
    out = []
    for epoch, by_image in tqdm(scores.items(), "metrics of the epochs", delay=2):
        tasks = {}
        for task, first in classes.tasks.items():
            ks = [k for k in top_k if k <= len(classes) - first]
            tasks[task] = measure(by_image, labels, first, used[task], ks)[0]
        out.append({"epoch": epoch, **tasks})
    return out


def best_on_test(epochs, top_k):
    """The epoch with the best F1 on the test images for every task: how the authors' code chooses, and not our result."""
    metric = f"F1@{min(top_k)}" if top_k else "mAP"
    tasks = [task for task in epochs[0] if task != "epoch"] if epochs else []
    best = {task: max(epochs, key=lambda e: e[task].get(metric, e[task]["mAP"])) for task in tasks}
    return {task: {"epoch": e["epoch"], **e[task]} for task, e in best.items()}


def planes(rows, epochs, counts, diagnostics):
    """The tables of scores that a result is made of."""
    variants = ("plain", "mssa") if counts else ("plain",)
    parts = ("score", "global", "local") if diagnostics else ("score",)
    out = [Plane(row, variant, part) for variant in variants for row in rows for part in parts]
    return out + [Plane(name, variants[-1]) for name in epochs]


def evaluate(settings, images):
    """Evaluate the run in settings.output (Config) on an ImageSet; write its result.json, print the table.

    Started by torchrun, every process scores its share, and the first one writes.

    Returns:
        the result; None in the other processes.
    """
    on = cli.device(settings.device).type
    with processes.group(on == "cuda") as (rank, world, barrier):
        began = time.perf_counter()
        rows, facts = checkpoint.read_run(settings.output)
        classes = ClassList(tuple(facts["class_names"]), facts["seen"])
        e, output = settings.evaluate, Path(settings.output)
        used = {t: task_images(images.labels, f, settings.dataset.keep_unlabelled) for t, f in classes.tasks.items()}
        for task, first in classes.tasks.items():
            if not (images.labels[:, first:] == 1).any():
                raise ValueError(f"{task}: no image shows any of the {len(classes) - first} classes that it scores")
        epochs = read_epochs(output / facts["method"]) if e.epochs else {}
        sets = rows | epochs
        identity = {
            "sets": {name: hashlib.sha256(z.contiguous().numpy().tobytes()).hexdigest() for name, z in sets.items()},
            "images": hashlib.sha256("\n".join(map(stamp, images.paths)).encode()).hexdigest(),
            "weights_sha256": facts["weights_sha256"],
            "counts": e.counts, "temperature": e.temperature, "batch_size": e.batch_size, "precision": e.precision,
            "compile": e.compile, "device": on,
        }  # fmt: skip
        made_from = fingerprint(identity, images, settings)
        path = output / "result.json"
        if (result := finished(path, made_from)) is not None:
            if rank == 0:
                print(f"{table.render(result)}\n\n{path} is of these very settings; delete it to measure again")
            return result
        model = cli.load_clip(settings, facts, e.precision)
        if e.compile:
            model.image.compile()
        wanted = planes(rows, epochs, e.counts, e.diagnostics)
        scores = scoring.Scores(output / "scores", wanted, len(images.paths), len(classes), identity)
        if rank == 0:
            print(f"{len(sets)} sets of class embeddings in one pass; scores: {scores.bytes / 1e9:.2f} GB in {scores.folder}")
            scores.open()
        barrier()
        clock = scoring.fill(
            scores.open(), model, images.paths, sets, e.counts, e.temperature, e.batch_size, e.workers,
            rank, world, e.save_every,
        )  # fmt: skip
        barrier()
        if rank:
            return None
        result = summarise(settings, facts, classes, images, used, scores, epochs)
        result |= {"made_from": made_from, "seconds": seconds(clock, began)}
        write_json(path, result)
        scores.delete()
        print(table.render(result))
        print(f"\nresult file: {path}")
        return result


def summarise(settings, facts, classes, images, used, scores, epochs):
    """The result, from the finished Scores."""
    e = settings.evaluate
    done, broken = scores.done()
    if len(done) != -(-len(images.paths) // e.batch_size):
        raise ValueError(f"{len(done)} batches of images are scored, not all; run the same command again")
    if broken and (not settings.dataset.allow_missing or len(broken) == len(images.paths)):
        listed = "\n  ".join(f"{images.paths[i]}: {why}" for i, why in sorted(broken.items())[:10])
        scores.forget({i // e.batch_size for i in broken})  # the others need not be scored again
        raise ValueError(
            f"{len(broken)} of {len(images.paths)} images cannot be read:\n  {listed}\n"
            "dataset.allow_missing=true goes on without them, and every table will say so"
        )
    good = torch.ones(len(images.paths), dtype=torch.bool)
    good[list(broken)] = False
    used = {task: mask & good for task, mask in used.items()}
    if empty := [task for task, mask in used.items() if not mask.any()]:
        raise ValueError(f"{empty[0]}: none of its images can be read")
    tables = {(p.name, p.variant): scores[p] for p in scores.planes if p.part == "score" and p.name not in epochs}
    diagnostics = {}
    for plane in scores.planes:
        if plane.part != "score":
            entry = diagnostics.setdefault(plane.name, {}).setdefault(plane.variant, {})
            for task, first in classes.tasks.items():
                value = measure(scores[plane], images.labels, first, used[task])[0]["mAP"]
                entry.setdefault(task, {})[plane.part] = value
    by_epoch = {int(p.name.split("/")[1]): scores[p] for p in scores.planes if p.name in epochs}
    points = curve(by_epoch, images.labels, used, classes, e.top_k)
    tasks, warnings = {}, []
    for task, first in classes.tasks.items():
        labels = images.labels[used[task]][:, first:]
        tasks[task] = {"images": len(labels), "positives_per_image": (labels == 1).sum().item() / len(labels)}
        expected = settings.dataset.expected(task)
        found = int((images.labels[:, first:] == 1).any(1).sum())
        if expected not in (None, found):
            counted = f"{task.upper()}: {found:,} images have a positive label, {expected:,} were expected"
            warnings.append(f"{counted}: this is another test set")
    return {
        "method": facts["method"],
        "rows": compare(tables, images.labels, used, classes, e.top_k, e.bootstrap, settings.seed),
        "diagnostics": diagnostics,
        "epochs": points,
        "best_on_test": best_on_test(points, e.top_k),
        "images": {
            "used": int(good.sum()), "left_out_without_labels": images.left_out, "missing": len(images.missing),
            "unreadable": len(broken), "tasks": tasks,
        },
        "warnings": warnings,
        "learning": facts["learning"],
        "class_fingerprint": classes.fingerprint,
        "corpus_fingerprint": facts["identity"]["corpus"],
        "weights_sha256": facts["weights_sha256"],
        "seed": settings.seed,
        "versions": versions(),
        "git_commit": git_commit(),
        "config": config.to_dict(settings),
    }  # fmt: skip


def stamp(path):
    """An image file as it is now: its path, size and time of change."""
    found = path.stat()
    return f"{path} {found.st_size} {found.st_mtime_ns}"


def read_epochs(folder):
    """{"epoch/7": (C, D) class embeddings} that learning left in a folder of the run; empty if it kept none."""
    files = sorted((folder / "epochs").glob("*.safetensors"))
    return {f"epoch/{int(file.stem)}": checkpoint.read(file)[0]["class_embeddings"] for file in files}


def fingerprint(identity, images, settings):
    """Hash of all that a result depends on."""
    labels = hashlib.sha256(images.labels.contiguous().numpy()).hexdigest()
    # neither decides a number
    evaluation = {k: v for k, v in dataclasses.asdict(settings.evaluate).items() if k not in ("workers", "save_every")}
    facts = [identity, labels, images.left_out, [str(path) for path in images.missing], settings.seed, evaluation,
             dataclasses.asdict(settings.dataset)]  # fmt: skip
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def finished(path, made_from):
    """The result in `path` if it was made from the same, else None."""
    with contextlib.suppress(OSError, ValueError):
        result = json.loads(path.read_text(encoding="utf-8"))
        if result.get("made_from") == made_from:
            return result
    return None


def seconds(clock, began):
    """Where the time of this process's last pass went; says so when the decoding of images held up the tower."""
    total = time.perf_counter() - began
    if clock.waiting > 0.1 * (clock.encoding + clock.scoring):
        print(f"waited {clock.waiting:.0f} s for images to be decoded; evaluate.workers={2 * os.cpu_count()} may help")
    return {
        "total": total, "waiting_for_images": clock.waiting, "image_tower": clock.encoding, "scores": clock.scoring,
        "images": clock.images,
    }  # fmt: skip


def read_dataset(settings, classes):
    """ImageSet that the dataset section of a Config describes; the mini benchmark is drawn first if it is not there."""
    datasets.prepare(settings.dataset)
    return datasets.read(settings.dataset, classes, settings.cache)


def versions():
    names = ("torch", "torchvision", "open_clip_torch", "numpy", "pillow", "pycocotools", "safetensors")
    return {"python": platform.python_version()} | {name: importlib.metadata.version(name) for name in names}


def git_commit():
    """Commit of this code, with "+" where files differ from it; None outside a checkout of this project."""

    def git(*arguments):
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != ROOT:
            return None
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def main(argv=None):
    parser = cli.parser("evaluate", __doc__)
    parser.add_argument("run", metavar="RUN", help="folder of a finished run of rcnn.train")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="dataset.*, evaluate.*, device, cache or clip.weights to set"
    )
    args = parser.parse_intermixed_args(argv)
    facts = checkpoint.read_run(args.run)[1]
    if learned := [o for o in args.overrides if not o.startswith(OVERRIDES)]:
        raise ValueError(f"{learned[0]}: this was settled when the run was learned; python -m rcnn.train makes another run")
    settings = dataclasses.replace(config.override(facts["config"], args.overrides), output=args.run)
    evaluate(settings, read_dataset(settings, ClassList(tuple(facts["class_names"]), facts["seen"])))


if __name__ == "__main__":
    cli.run(main)
