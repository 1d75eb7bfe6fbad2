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

PARTS = ("both", "global", "local")  # both: the method's score; the others are diagnostics


@torch.inference_mode()
def score_images(model, paths, rows, counts, batch_size, workers):
    """Scores of all images by all rows, without and with MSSA, from one pass of the image encoder.

    Args:
        model: Clip.
        paths: B image files.
        rows: name -> (C, D) class embeddings.
        counts: snippets on a side.
        batch_size: images at a time.
        workers: decoding processes.

    Returns:
        {(row, variant, part): (B, C) float32}, variant "plain" or "mssa", part one of PARTS.

    Raises:
        ValueError: images that cannot be read, with their names.
    """
    variants = {"plain": (), "mssa": tuple(counts)} if counts else {"plain": ()}
    stacked, classes = torch.cat(list(rows.values())).to(model.device), len(next(iter(rows.values())))
    out = {(r, v, p): torch.empty(len(paths), classes) for r in rows for v in variants for p in PARTS}
    broken = {}
    loader = batches(paths, model.image.image_size, counts, batch_size, workers)
    for batch in tqdm(loader, "evaluate", unit="batch", delay=2):
        broken |= batch.broken
        if not batch.indices:
            continue
        features = model.encode_views(batch.pixels)
        for variant, used in variants.items():
            by_global, by_local = mssa.score(features, stacked, used)
            for part, value in zip(PARTS, ((by_global + by_local) / 2, by_global, by_local), strict=True):
                for row, scores in zip(rows, value.cpu().split(classes, 1), strict=True):
                    out[row, variant, part][batch.indices] = scores
    if broken:
        listed = "\n  ".join(f"{paths[i]}: {why}" for i, why in list(broken.items())[:10])
        raise ValueError(f"{len(broken)} of {len(paths)} images cannot be read:\n  {listed}")
    return out


def measure(scores, labels, first, top_k, weights):
    """Metrics of one row on one task, with 95 % intervals.

    Args:
        scores: (B, C).
        labels: (B, C) in {1, -1, 0}.
        first: first column that the task scores.
        top_k: k of precision, recall, F1.
        weights: (R, B') bootstrap weights of the images with a positive among those columns, or None.

    Returns:
        ({metric: value in percent}, {metric: (R,) resampled values})
    """
    some = (labels[:, first:] == 1).any(1)
    s, y = scores[some, first:], labels[some, first:]
    values = {"mAP": 100 * metrics.average_precision(s, y).mean().item()}
    samples = {}
    if weights is not None:
        samples["mAP"] = 100 * metrics.average_precision(s, y, weights).mean(1)
    for k in top_k:
        counted = metrics.top_k_counts(s, y, k)
        names = [f"{letter}@{k}" for letter in ("P", "R", "F1")]
        values |= zip(names, (100 * metrics.precision_recall_f1(*counted, k)).tolist(), strict=True)
        if weights is not None:
            samples |= zip(names, (100 * metrics.precision_recall_f1(*counted, k, weights.double())).T, strict=True)
    return values, samples


def interval(samples):
    """[2.5 %, 97.5 %] quantiles of resampled values."""
    return torch.quantile(samples.double(), torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()


def compare(scores, labels, classes, top_k, bootstrap, seed):
    """All metrics of all rows.

    Returns:
        {row: {variant: {task: {metric: {"value", "interval", "versus_baseline", "versus_plain"}}}}}. The differences are
        those of the same resampled images: to the baseline in the same variant, and of MSSA to the row without it.
    """
    result, draws = {}, {}
    for task, first in classes.tasks.items():
        images = int((labels[:, first:] == 1).any(1).sum())
        weights = None
        if bootstrap:
            rng = np.random.default_rng([seed, first])
            weights = torch.from_numpy(rng.multinomial(images, np.full(images, 1 / images), bootstrap)).float()
        for (row, variant, part), s in tqdm(scores.items(), f"metrics {task}", delay=2):
            if part != "both":
                continue
            values, samples = measure(s, labels, first, [k for k in top_k if k <= len(classes) - first], weights)
            draws[row, variant] = values, samples
            entry = result.setdefault(row, {}).setdefault(variant, {})
            entry[task] = {name: {"value": v} for name, v in values.items()}
            for name in samples:
                entry[task][name]["interval"] = interval(samples[name])
                for key, other in (("versus_baseline", ("baseline", variant)), ("versus_plain", (row, "plain"))):
                    if other != (row, variant):
                        difference = interval(samples[name] - draws[other][1][name])
                        entry[task][name][key] = {"value": values[name] - draws[other][0][name], "interval": difference}
    return result


def diagnose(scores, labels, classes):
    """mAP in percent of the global and the local part alone: {row: {variant: {task: {part: mAP}}}}."""
    out = {}
    for (row, variant, part), s in scores.items():
        if part == "both":
            continue
        for task, first in classes.tasks.items():
            value = measure(s, labels, first, [], None)[0]["mAP"]
            out.setdefault(row, {}).setdefault(variant, {}).setdefault(task, {})[part] = value
    return out


def evaluate(settings, model, images):
    """Evaluate the run in settings.output (Config) on an ImageSet and write its result.json; return the result."""
    began = time.perf_counter()
    rows, facts = checkpoint.read_run(settings.output)
    classes = ClassList(tuple(facts["class_names"]), facts["seen"])
    listed = ClassList.read(settings.classes.seen, settings.classes.unseen)
    if listed != classes:
        raise ValueError(f"{settings.output} was learned with other class lists; learn again with another output=")
    e = settings.evaluate
    scores = score_images(model, images.paths, rows, e.counts, e.batch_size, e.workers)
    scored = time.perf_counter() - began
    tasks = {
        task: {
            "images": int((images.labels[:, first:] == 1).any(1).sum()),
            "positives_per_image": float((images.labels[:, first:] == 1).sum() / (images.labels[:, first:] == 1).any(1).sum()),
        }
        for task, first in classes.tasks.items()
    }
    result = {
        "method": facts["method"],
        "rows": compare(scores, images.labels, classes, e.top_k, e.bootstrap, settings.seed),
        "diagnostics": diagnose(scores, images.labels, classes),
        "images": {"used": len(images.paths), "left_out_without_labels": images.left_out, "tasks": tasks},
        "learning": facts["learning"],
        "class_fingerprint": classes.fingerprint,
        "corpus_fingerprint": facts["learning"]["corpus_fingerprint"],
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
    """Commit of this code, with "+" where files differ from it; None outside a checkout."""
    where = Path(__file__).resolve().parent
    try:
        said = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--dirty=+"], cwd=where, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()


def main(argv=None):
    parser = command.parser("evaluate", __doc__)
    parser.add_argument("--run", required=True, metavar="RUN", help="folder of a finished run of rcnn.train")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="dataset.*, evaluate.* or device to set")
    args = parser.parse_args(argv)
    facts = checkpoint.read_run(args.run)[1]
    settings = dataclasses.replace(config.load(Path(args.run) / "config.yaml", args.overrides), output=args.run)
    images = read_dataset(settings.dataset, ClassList.read(settings.classes.seen, settings.classes.unseen))
    evaluate(settings, command.load_clip(settings, facts), images)


if __name__ == "__main__":
    command.run(main)
