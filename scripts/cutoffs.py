#!/usr/bin/env python
"""How good cut-offs are, with and without checked photos, on the mini benchmark, tagged from class names alone.

    python scripts/cutoffs.py

draws the benchmark (unless it is there), scores it, and splits its drawings into halves, 20 times: checked drawings come from
the first half, and all rules are measured on the second. Means and deviations of scores, which need no labels, are of all
drawings. Exit code 1 if 50 checked drawings do not gain 8 points of micro-F1 over the top 5.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from draw_mini import draw_benchmark

from rcnn import cli, config
from rcnn.datasets.images import read_images
from rcnn.progress import progress
from rcnn.tagger import Tagger
from rcnn.tagging.cutoffs import Statistics, assess, best_f1, fit, label_free, suggest
from rcnn.text.classes import ClassList

SPLITS, CHECKED, PRECISIONS = 20, (25, 50, 100), (0.7, 0.8, 0.9)
TOP, GAIN = 5, 8.0
MEASURES = "micro F1", "macro F1", "micro precision", "micro recall"


def score(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """(N, C) scores of the drawings and which classes are on them."""
    draw_benchmark(folder, 1000)
    pairs = ["device=cpu", f"dataset.images={folder}/images", f"dataset.annotations={folder}/instances.json"]
    settings = config.load(ROOT / "configs/mini.yaml", pairs)
    classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
    images, tagger = read_images(settings.dataset, classes), Tagger.for_classes(classes, settings, cache=settings.cache)
    rows = []
    with progress(title="score", total=len(images.paths), unit="image") as bar:
        for indices, scores, _ in tagger.stream(images.paths):
            rows.append(scores.numpy())
            bar.update(len(indices))
    return np.concatenate(rows), images.labels.numpy() == 1


def compare(scores: np.ndarray, present: np.ndarray) -> dict[str, np.ndarray]:
    """{rule: (SPLITS, 4) of MEASURES in percent, on drawings that no rule was fitted to}."""
    found, rng, statistics = defaultdict(list), np.random.default_rng(0), Statistics(scores.shape[1])
    statistics.add(scores)
    for _ in range(SPLITS):
        pool, rest = np.array_split(rng.permutation(len(scores)), 2)

        def measure(rule: str, predicted: np.ndarray, rest: np.ndarray = rest) -> None:
            values = assess(predicted, present[rest], resamples=0)
            found[rule].append([100 * values[name][0] for name in MEASURES])

        best = np.argsort(-scores[rest], axis=1, kind="stable")[:, :TOP]
        top = np.zeros((len(rest), scores.shape[1]), bool)
        np.put_along_axis(top, best, True, axis=1)
        measure(f"top {TOP}", top)
        measure("z-score", scores[rest] >= label_free(statistics))
        for count in CHECKED:
            chance, picked = pool[:count], pool[suggest(scores[pool], statistics, count)]
            one = best_f1(scores[chance].reshape(-1, 1), present[chance].reshape(-1, 1))
            measure(f"one cosine, {count} checked", scores[rest] >= one)
            for how, checked in (("", chance), (", suggested", picked)):
                measure(f"fitted, {count} checked{how}", scores[rest] >= fit(scores[checked], present[checked], statistics)[0])
        for precision in PRECISIONS:
            chance = pool[:50]
            thresholds = fit(scores[chance], present[chance], statistics, precision)[0]
            measure(f"fitted, 50 checked, precision {precision}", scores[rest] >= thresholds)
    return {rule: np.array(values) for rule, values in found.items()}


def table(found: dict[str, np.ndarray]) -> list[str]:
    """Markdown: means, with the middle 95 % of the splits."""
    lines = ["| rule | " + " | ".join(MEASURES) + " |", "|---" * (len(MEASURES) + 1) + "|"]
    for rule, values in found.items():
        low, high = np.quantile(values, [0.025, 0.975], axis=0)
        cells = (f"{m:.1f} [{a:.1f}, {b:.1f}]" for m, a, b in zip(values.mean(0), low, high, strict=True))
        lines.append(f"| {rule} | {' | '.join(cells)} |")
    return lines


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "outputs" / "mini_benchmark", help="default: outputs/mini_benchmark"
    )
    found = compare(*score(parser.parse_args(argv).folder))
    print("\n".join(table(found)), "\n")
    for count in CHECKED:
        more = (found[f"fitted, {count} checked, suggested"] - found[f"fitted, {count} checked"])[:, :2]
        error = 2 * more.std(0, ddof=1) / SPLITS**0.5
        print(f"{count} suggested against {count} by chance: micro F1 {more[:, 0].mean():+.1f} ± {error[0]:.1f}, "
              f"macro F1 {more[:, 1].mean():+.1f} ± {error[1]:.1f} (twice the standard error)")  # fmt: skip
    gain = (found["fitted, 50 checked"] - found[f"top {TOP}"])[:, 0].mean()
    print(f"50 checked photos against the top {TOP}: micro F1 {gain:+.1f}; expected at least {GAIN:+.1f}")
    return 0 if gain >= GAIN else 1


if __name__ == "__main__":
    cli.run(main)
