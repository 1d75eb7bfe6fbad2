#!/usr/bin/env python
"""Disk, memory and time of an evaluation of NUS-WIDE's or Open Images' size but for the image tower, on generated scores.

    python scripts/benchmark_scale.py nuswide          107,859 images, 1,006 classes, all labels known
    python scripts/benchmark_scale.py openimages       125,436 images, 7,586 classes, 13 known labels an image

Scores of 9 rows without and with MSSA are made up, written as an evaluation writes them, and measured in both tasks with their
intervals, all as configs/nuswide.yaml and configs/openimages.yaml have it, with other settings as `evaluate.standardised=true`.
Prints what each part took; the disk needs up to 8 GB.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np
import torch

from rcnn import cli, config
from rcnn.results import measure, measuring
from rcnn.score.score_file import ScoredSet, ScoreFile
from rcnn.text.classes import ClassList

SIZES = {
    "nuswide": (107_859, 6.9, None),
    "openimages": (125_436, 8.8, 13.3),
}  # images, positives and known labels (None: all) of each


def made_up_labels(images, classes, shown, known):
    """(B, C) labels with so many positives and known ones an image; few classes have most of them, as in the real ones."""
    rng, shares = np.random.default_rng(0), 1 / np.arange(1, classes + 1)
    shares = rng.permutation(shares / shares.sum())
    labels = torch.full((images, classes), -1 if known is None else 0, dtype=torch.int8)
    for value, per_image in ((-1, (known or 0) - shown), (1, shown)):
        count = max(0, int(per_image * images))
        labels[rng.integers(0, images, count), rng.choice(classes, count, p=shares)] = value
    return labels


def main(argv=None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--rows", type=int, default=9, help="without and with MSSA each (default 9)")
    parser.add_argument("--share", type=float, default=1.0, help="of the images (default: all)")
    parser.add_argument("--folder", type=Path, help="where the scores go (default: a temporary folder)")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="configuration keys to set")
    args = parser.parse_intermixed_args(argv)
    settings = config.load(ROOT / "configs" / f"{args.size}.yaml", args.overrides)
    classes, settings = ClassList.read(*(ROOT / getattr(settings.classes, of) for of in ("seen", "unseen"))), settings.evaluate
    images, shown, known = SIZES[args.size]
    images = int(args.share * images)
    labels = made_up_labels(images, len(classes), shown, known)
    start = peak()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        sets = {str(row): ScoredSet(torch.zeros(len(classes), 1), {"plain": None, "mssa": None}) for row in range(args.rows)}
        standardised = [(name, "mssa") for name in list(sets)[:2]] if settings.standardised else []
        as_absent = measuring.unknown_as_absent(labels, classes, settings, False)
        kept = None if known is None else measure.known_labels(labels, classes.tasks, settings.top_k, as_absent)
        size = images, len(classes), settings.batch_size
        file = ScoreFile(Path(folder) / "scores", sets, *size, "benchmark", kept, standardised)
        began, writing, rng = time.perf_counter(), 0.0, np.random.default_rng(1)
        file.open(file.todo())
        for batch in file.batches:
            of = file.images(batch)
            scores = rng.standard_normal((len(file.planes), len(of), len(classes)), np.float32)
            scores += 2 * (labels[of.start : of.stop].numpy() == 1)
            turn = time.perf_counter()
            file.put(batch, scores, {})
            writing += time.perf_counter() - turn
        file.save()
        print(f"{args.size}: {images:,} images, {len(classes):,} classes, {len(file.planes)} tables", flush=True)
        print(f"disk {file.bytes / 1e9:.2f} GB; {4 * labels.numel() * len(file.planes) / 1e9:.2f} GB if all scores were kept")
        print(f"counting and writing {writing:.0f} s of {time.perf_counter() - began:.0f}", flush=True)
        began = time.perf_counter()
        file.close()
        print(f"checking {time.perf_counter() - began:.0f} s; peak memory so far {peak():.2f} GB", flush=True)
        began = time.perf_counter()
        used = measuring.images_in_use(labels, classes, torch.ones(images, dtype=torch.bool), False)
        units = measuring.units(file, sets, list(classes.tasks), standardised)
        measuring.measure_all(units, labels, used, classes, settings, 0, as_absent=as_absent)
        took = time.perf_counter() - began
        print(f"measuring {took / 60:.1f} min, {settings.bootstrap} resamples, {torch.get_num_threads()} threads")
    print(f"peak memory {peak():.2f} GB, {start:.2f} GB of it before the first score (packages, labels)")


def peak() -> float:
    """The most memory so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    cli.run(main)
