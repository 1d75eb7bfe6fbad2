"""Processor time and memory of measuring a row with intervals, on generated scores of the size of NUS-WIDE or Open Images.

    python scripts/benchmark_bootstrap.py nuswide          107,859 images, 1,006 classes, all labels known
    python scripts/benchmark_bootstrap.py openimages       125,436 images, 7,586 classes, 13 known labels an image

Writes the scores, 0.4 or 3.8 GB, to a temporary folder. A row more costs as much again; the weights are made once.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from rcnn.config import EvaluateConfig
from rcnn.results import measure
from rcnn.text.classes import ClassList

SIZES = {  # images, seen, unseen, positives an image, known labels an image (None: all), k
    "nuswide": (107_859, 925, 81, 6.9, None, (3, 5)),
    "openimages": (125_436, 7_186, 400, 8.8, 13.3, (10, 20)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--resamples", type=int, nargs="+", default=[0, 500], help="each is measured")
    args = parser.parse_args()
    images, seen, unseen, shown, known, top_k = SIZES[args.size]
    rng, classes = np.random.default_rng(0), ClassList(tuple(f"c{i}" for i in range(seen + unseen)), seen)
    labels = torch.full((images, len(classes)), -1 if known is None else 0, dtype=torch.int8)
    shares = rng.permutation(1 / np.arange(1, len(classes) + 1))  # few classes have most of the positives, as in the real ones
    for value, per_image in ((-1, (known or 0) - shown), (1, shown)):
        count = max(0, int(per_image * images))
        labels[rng.integers(0, images, count), rng.choice(len(classes), count, p=shares / shares.sum())] = value
    used = {task: measure.task_images(labels, first) for task, first in classes.tasks.items()}
    with tempfile.TemporaryDirectory() as folder:
        table = np.memmap(Path(folder) / "scores.f32", np.float32, "w+", shape=tuple(labels.shape))
        for start in range(0, images, 4096):
            part = table[start : start + 4096]
            part[:] = rng.standard_normal(part.shape, np.float32) + 2 * (labels[start : start + 4096].numpy() == 1)
        table.flush()
        before = _peak()
        for resamples in args.resamples:
            settings, start = EvaluateConfig(top_k=top_k, bootstrap=resamples), time.process_time()
            weights = [measure.image_weights(int(mask.sum()), resamples, [0]) for mask in used.values()]
            drawn = time.process_time() - start
            del weights
            start = time.process_time()
            measure.measure_all({task: {("row", "plain"): table} for task in classes.tasks}, labels, used, classes, settings, 0)
            row = time.process_time() - start - drawn
            print(
                f"{args.size}, {resamples} resamples, {torch.get_num_threads()} threads, processor time: weights "
                f"{drawn:.0f} s, a row in both tasks {row:.0f} s, so 18 rows {(drawn + 18 * row) / 60:.1f} min; "
                f"peak memory {_peak():.2f} GB, {before:.2f} GB of it before (labels, pages of the file)",
                flush=True,
            )


def _peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
