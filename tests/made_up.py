"""Results as an evaluation writes them, with made-up numbers, and none of its work."""

import functools
import itertools
from pathlib import Path

from rcnn import config, rows
from rcnn.datasets import DATASETS
from rcnn.results.result import Images, Metric, Number, Result, TaskImages
from rcnn.text.classes import ClassList

ROOT = Path(__file__).parents[1]
METRICS = ["mAP", "P@3", "R@3", "F1@3", "P@5", "R@5", "F1@5"]


@functools.cache
def classes(kind):
    """The class list that ships for a data set."""
    return ClassList.read(ROOT / "data" / kind / "seen.txt", ROOT / "data" / kind / "unseen.txt")


def made_up(kind="coco", *overrides, **fields):
    """The Result of a shipped configuration on the paper's test set, with numbers that all differ; `fields` replaced."""
    settings, of, numbers = (
        config.load(ROOT / "configs" / f"{kind}.yaml", overrides),
        classes(kind),
        itertools.count(20.03, 0.29),
    )

    def metric():
        value = next(numbers)
        return Metric(value=value, interval=(value - 1, value + 1), versus_baseline=Number(value=0.5))

    values = {
        row: {s: {t: {m: metric() for m in METRICS} for t in of.tasks} for s in rows.scorers(row, settings.evaluate)}
        for row, known in rows.ROWS.items()
        if known.wanted(settings.train)
    }
    tasks = {
        task: TaskImages(images=12345, positives_per_image=positives)
        for task, positives in DATASETS[kind].positives_per_image.items()
    }
    result = Result(
        made_from="a" * 64, method=rows.METHODS[settings.train.method], rows=values, class_names=list(of.names), seen=of.seen,
        class_ap={}, decided_by_ties={}, coinciding={}, diagnostics={}, epochs=[], best_on_test={}, classes={},
        images=Images(used=12345, left_out_without_labels=7, missing=0, unreadable=0, tasks=tasks), comparable=True,
        doubts=[], learning={}, class_fingerprint=of.fingerprint, corpus_fingerprint="c" * 64, weights_sha256="d" * 64,
        clip_fingerprint="b" * 64, labels={},
        seed=settings.seed, versions={}, git_commit=None, sources={}, config=config.to_dict(settings), seconds={},
    )  # fmt: skip
    return labelled(result.model_copy(update=fields))


def labelled(result):
    """The result with the labels of its rows."""
    labels = {row: {scorer: rows.label(row, scorer) for scorer in rows.SCORERS} for row in result.rows}
    return result.model_copy(update={"labels": labels})
