"""Measure a run on images: `python -m rcnn.evaluate --run outputs/mini`.

One pass over the images serves all rows: they differ only in their class embeddings and in the snippets that are used.
Writes RUN/result.json and prints the table.
"""

import dataclasses
import importlib.metadata
import platform
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from rcnn import checkpoint, command, config, metrics, mssa, table
from rcnn.classes import ClassList
from rcnn.datasets import coco, mini
from rcnn.datasets.views import batches
from rcnn.files import write_json

ROOT = Path(__file__).resolve().parents[1]
OVERRIDES = ("device", "dataset.", "evaluate.", "clip.weights", "clip.trust_torchscript")


@torch.inference_mode()
def score_images(model, paths, rows, counts, temperature, batch_size, workers):
    """Scores of all images by all rows, without and with MSSA, from one pass of the image encoder.

    Args:
        model: Clip.
        paths: B image files.
        rows: name -> (C, D) class embeddings.
        counts: snippets on a side.
        temperature: τ_s.
        batch_size: images at a time.
        workers: decoding processes.

    Returns:
        {(row, variant): (2, B, C) float32}, the global and the local score; variant is "plain" or "mssa".

    Raises:
        ValueError: images that cannot be read, with their names.
    """
    variants = {"plain": (), "mssa": tuple(counts)} if counts else {"plain": ()}
    stacked, classes = torch.cat(list(rows.values())).to(model.device), len(next(iter(rows.values())))
    out = {(row, variant): torch.empty(2, len(paths), classes) for row in rows for variant in variants}
    broken = {}
    loader = batches(paths, model.image.image_size, counts, batch_size, workers)
    for batch in tqdm(loader, "evaluate", unit="batch", delay=2):
        broken |= batch.broken
        if not batch.indices:
            continue
        features = model.encode_views(batch.pixels)
        for variant, used in variants.items():
            parts = torch.stack(mssa.score(features, stacked, used, temperature)).cpu()  # (2, b, rows · C)
            for row, scores in zip(rows, parts.split(classes, 2), strict=True):
                out[row, variant][:, batch.indices] = scores
    if broken:
        listed = "\n  ".join(f"{paths[i]}: {why}" for i, why in list(broken.items())[:10])
        raise ValueError(f"{len(broken)} of {len(paths)} images cannot be read:\n  {listed}")
    return out


def shows_any(labels, first):
    """(B,) whether an image has a positive label in the columns from `first`: the images that a task is measured on."""
    return (labels[:, first:] == 1).any(1)


def measure(scores, labels, first, top_k, weights):
    """Metrics of one row on one task, with 95 % intervals.

    Args:
        scores: (B, C).
        labels: (B, C) in {1, -1, 0}.
        first: first column that the task scores.
        top_k: k of precision, recall, F1.
        weights: (R, B') float64 bootstrap weights of the images with a positive among those columns, or None.

    Returns:
        ({metric: value in percent}, {metric: (R,) resampled values})
    """
    some = shows_any(labels, first)
    s, y = scores[some, first:], labels[some, first:]
    values = {"mAP": 100 * metrics.average_precision(s, y).mean().item()}
    samples = {}
    if weights is not None:
        samples["mAP"] = 100 * metrics.average_precision(s, y, weights.float()).mean(1).double()
    for k in top_k:
        counted = metrics.top_k_counts(s, y, k)
        names = [f"{letter}@{k}" for letter in ("P", "R", "F1")]
        values |= zip(names, (100 * metrics.precision_recall_f1(*counted, k)).tolist(), strict=True)
        if weights is not None:
            samples |= zip(names, (100 * metrics.precision_recall_f1(*counted, k, weights)).T, strict=True)
    return values, samples


def compare(scores, labels, classes, top_k, bootstrap, seed):
    """All metrics of all rows.

    Returns:
        {row: {variant: {task: {metric: {"value", "interval", "versus_baseline", "versus_plain"}}}}}. The differences are
        those of the same resampled images: to the baseline in the same variant, and of MSSA to the row without it.
        Intervals are absent without a bootstrap.
    """
    result, draws = {}, {}
    for task, first in classes.tasks.items():
        ks = [k for k in top_k if k <= len(classes) - first]
        if len(ks) < len(top_k):
            print(f"{task}: no top-k for k above {len(classes) - first}, the number of classes")
        images = int(shows_any(labels, first).sum())
        weights = None
        if bootstrap:
            rng = np.random.default_rng([seed, first])
            weights = torch.from_numpy(rng.multinomial(images, np.full(images, 1 / images), bootstrap)).double()
        for (row, variant), parts in tqdm(scores.items(), f"metrics {task}", delay=2):
            values, samples = draws[row, variant] = measure(parts.mean(0), labels, first, ks, weights)
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


def diagnose(scores, labels, classes):
    """mAP in percent of the global and the local part alone: {row: {variant: {task: {part: mAP}}}}."""
    out = {}
    for (row, variant), parts in scores.items():
        out.setdefault(row, {})[variant] = {
            task: {
                name: measure(part, labels, first, [], None)[0]["mAP"]
                for name, part in zip(("global", "local"), parts, strict=True)
            }
            for task, first in classes.tasks.items()
        }
    return out


def evaluate(settings, model, images):
    """Evaluate the run in settings.output (Config) on an ImageSet and write its result.json; return the result."""
    began = time.perf_counter()
    rows, facts = checkpoint.read_run(settings.output)
    classes = ClassList(tuple(facts["class_names"]), facts["seen"])
    for task, first in classes.tasks.items():
        if not shows_any(images.labels, first).any():
            raise ValueError(f"{task}: no image shows any of the {len(classes) - first} classes that it scores")
    e = settings.evaluate
    scores = score_images(model, images.paths, rows, e.counts, e.temperature, e.batch_size, e.workers)
    scored = time.perf_counter() - began
    tasks = {}
    for task, first in classes.tasks.items():
        count = int(shows_any(images.labels, first).sum())
        positives = int((images.labels[:, first:] == 1).sum())
        tasks[task] = {"images": count, "positives_per_image": positives / count}
    result = {
        "method": facts["method"],
        "rows": compare(scores, images.labels, classes, e.top_k, e.bootstrap, settings.seed),
        "diagnostics": diagnose(scores, images.labels, classes),
        "images": {"used": len(images.paths), "left_out_without_labels": images.left_out, "tasks": tasks},
        "learning": facts["learning"],
        "class_fingerprint": classes.fingerprint,
        "corpus_fingerprint": facts["identity"]["corpus"],
        "weights_sha256": model.sha256,
        "seed": settings.seed,
        "versions": versions(),
        "git_commit": git_commit(),
        "config": config.to_dict(settings),
        "seconds": {"score": scored, "metrics": time.perf_counter() - began - scored},
    }
    path = Path(settings.output) / "result.json"
    write_json(path, result)
    print(table.render(result))
    print(f"\nresult file: {path}")
    return result


def read_dataset(dataset, classes):
    """ImageSet that a DatasetConfig describes; the mini benchmark is drawn first if it is not there."""
    if not dataset.annotations or not dataset.images:
        raise ValueError("dataset.images and dataset.annotations: expected a folder and a COCO annotation file, got null")
    if dataset.kind == "mini":
        mini.prepare(dataset.images, dataset.annotations, dataset.count)
    return coco.read(dataset.annotations, dataset.images, classes)


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
    parser = command.parser("evaluate", __doc__)
    parser.add_argument("--run", required=True, metavar="RUN", help="folder of a finished run of rcnn.train")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="dataset.*, evaluate.*, device or clip.weights to set"
    )
    args = parser.parse_intermixed_args(argv)
    facts = checkpoint.read_run(args.run)[1]
    if learned := [o for o in args.overrides if not o.startswith(OVERRIDES)]:
        raise ValueError(f"{learned[0]}: this was settled when the run was learned; python -m rcnn.train makes another run")
    settings = dataclasses.replace(config.override(facts["config"], args.overrides), output=args.run)
    images = read_dataset(settings.dataset, ClassList(tuple(facts["class_names"]), facts["seen"]))
    evaluate(settings, command.load_clip(settings, facts), images)


if __name__ == "__main__":
    command.run(main)
