#!/usr/bin/env python
"""How good cut-offs are, with and without checked photos, on the mini benchmark, tagged from class names alone.

    python scripts/cutoffs.py

draws the benchmark (unless it is there), scores it, and splits its drawings into halves, 20 times: checked drawings come from
the first half, and all rules are measured on the second. Means and deviations of scores, which need no labels, are of all
drawings. Exit code 1 if 50 checked drawings do not gain 8 points of micro-F1 over the top 5.
"""

import argparse
import contextlib
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
from rcnn.tagging.cutoffs import Statistics, assess, fit, label_free
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


def one_cosine(scores: np.ndarray, present: np.ndarray) -> float:
    """The cosine at which the micro-F1 of these drawings is highest."""
    order = np.argsort(-scores, axis=None)
    hits = present.ravel()[order].cumsum()
    return scores.ravel()[order][(2 * hits / (np.arange(1, len(order) + 1) + hits[-1])).argmax()]


def suggest(scores: np.ndarray, statistics: Statistics, count: int) -> list[int]:
    """Drawings that should be worth checking: one after the other that which likely shows most of what was chosen least.

    A class counts 1 the first time, 1/2 the second, …. This is no part of the package, since it is no better than chance.
    """
    likely, seen, chosen = scores >= label_free(statistics), np.zeros(scores.shape[1]), []
    for _ in range(count):
        gain = likely @ (1 / (1 + seen))
        gain[chosen] = -1
        chosen.append(int(gain.argmax()))
        seen += likely[chosen[-1]]
    return chosen


def compare(scores: np.ndarray, present: np.ndarray) -> tuple[dict[str, list], dict[str, list]]:
    """For each rule the MEASURES of every split, in percent, on drawings that it was not fitted to.

    The second has of the fitted rules what `assess` says of the checked drawings, and of the others.
    """
    found, reported, statistics = defaultdict(list), defaultdict(list), Statistics(scores.shape[1])
    statistics.add(scores)
    rng = np.random.default_rng(0)
    for _ in range(SPLITS):
        pool, rest = (np.sort(half) for half in np.array_split(rng.permutation(len(scores)), 2))

        def measure(rule: str, thresholds: np.ndarray | float, rest: np.ndarray = rest) -> dict[str, list[float]]:
            values = assess(scores[rest] >= thresholds, present[rest], resamples=0)
            found[rule].append([100 * values[name][0] for name in MEASURES])
            return values

        def fitted(rule: str, checked: np.ndarray, precision: float | None = None) -> None:
            thresholds, held_out = fit(scores[checked], present[checked], statistics, precision)
            reported[rule].append((assess(held_out, present[checked]), measure(rule, thresholds)))

        measure(f"top {TOP}", np.partition(scores[rest], -TOP, axis=1)[:, [-TOP]])
        measure("z-score", label_free(statistics))
        for count in CHECKED:
            chance = np.sort(rng.choice(pool, count, replace=False))
            measure(f"one cosine, {count} checked", one_cosine(scores[chance], present[chance]))
            fitted(f"fitted, {count} checked", chance)
            fitted(f"fitted, {count} suggested", np.sort(pool[suggest(scores[pool], statistics, count)]))
            for precision in PRECISIONS if count == 50 else ():
                with contextlib.suppress(ValueError):  # no cut-offs reach it on these
                    fitted(f"fitted, {count} checked, precision {precision}", chance, precision)
    return found, reported


def mean_and_range(values: np.ndarray) -> str:
    """The mean over splits, with the middle 95 % of them."""
    low, high = np.quantile(values, [0.025, 0.975])
    return f"{np.mean(values):.1f} [{low:.1f}, {high:.1f}]"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "outputs" / "mini_benchmark", help="default: outputs/mini_benchmark"
    )
    found, reported = compare(*score(parser.parse_args(argv).folder))
    print("| rule | splits | " + " | ".join(MEASURES) + " |\n|---|---|" + "---|" * len(MEASURES))
    for rule, values in found.items():
        print(f"| {rule} | {len(values)} | {' | '.join(map(mean_and_range, np.array(values).T))} |")
    print("\nreported of the checked drawings, and measured on the others; splits whose interval holds the latter:")
    for rule, pairs in reported.items():
        for name in ("micro F1", "micro precision"):
            of_checked, of_others = np.array([[told[name], [other[name][0]] * 3] for told, other in pairs]).transpose(1, 2, 0)
            held = ((of_checked[1] <= of_others[0]) & (of_others[0] <= of_checked[2])).sum()
            print(f"{rule}: {name} {of_checked[0].mean():.1%}, {of_others[0].mean():.1%}, {held} of {len(pairs)}")
    print()
    for count in CHECKED:
        more = np.subtract(found[f"fitted, {count} suggested"], found[f"fitted, {count} checked"])
        for name, values in zip(MEASURES[:2], more.T, strict=False):
            error = 2 * values.std(ddof=1) / SPLITS**0.5
            print(
                f"{count} suggested against {count} by chance, {name}: {values.mean():+.1f} ± {error:.1f} (two standard errors)"
            )
    gain = np.subtract(found["fitted, 50 checked"], found[f"top {TOP}"])[:, 0].mean()
    print(f"50 checked against the top {TOP}, {MEASURES[0]}: {gain:+.1f}; expected at least {GAIN:+.1f}")
    return 0 if gain >= GAIN else 1


if __name__ == "__main__":
    cli.run(main)
