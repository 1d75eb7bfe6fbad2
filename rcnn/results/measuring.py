"""All tables of scores of a run measured, by one process or shared among many."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from rcnn.config import EvaluateConfig
from rcnn.progress import progress
from rcnn.results.measure import ByImage, Measured, image_weights, measure, positive_or_unknown, positives, task_images
from rcnn.results.result import STANDARDISED
from rcnn.score.processes import Group
from rcnn.score.score_file import PARTS, ScoreFile
from rcnn.score.standardised import Standardised
from rcnn.text.classes import ClassList

Key = tuple[str, str]  # row, scorer
ALONE = Group()


def images_in_use(
    labels: torch.Tensor, classes: ClassList, good: torch.Tensor, keep_unlabelled: bool
) -> dict[str, torch.Tensor]:
    """{task: (B,) whether it is measured on an image} of those that could be read, (B,) bool `good`; see `task_images`."""
    used = {task: task_images(labels, first, keep_unlabelled) & good for task, first in classes.tasks.items()}
    for task, mask in used.items():
        if not positives(labels, classes.tasks[task])[mask].any():
            raise ValueError(f"{task}: none of the images that show its classes can be read")
    return used


def unknown_as_absent(
    labels: torch.Tensor, classes: ClassList, settings: EvaluateConfig, keep_unlabelled: bool
) -> dict[str, torch.Tensor]:
    """{task: (C,) bool, the classes whose unknown labels count as absent}, by all images of the task, readable or not."""
    if settings.unknown == "always":
        return {}
    return {
        task: positive_or_unknown(labels, first, task_images(labels, first, keep_unlabelled))
        for task, first in classes.tasks.items()
    }


@dataclass
class Measurements:
    """What was measured of a run."""

    rows: dict[str, dict[Key, Measured]]  # by task
    parts: dict[Key, dict[str, dict[str, float]]] = field(default_factory=dict)  # task -> part -> mAP of it alone
    epochs: dict[int, dict[str, dict[str, float]]] = field(default_factory=dict)  # task -> metric -> value


class Unit(NamedTuple):
    """Tables of scores that are measured together, by one process."""

    key: Key | int  # of a row, or an epoch
    read: Callable[[int], dict[str, ByImage] | None]  # {part: table} at the process of this rank, None at the others
    tasks: Collection[str]  # that its scores are of
    standardised: bool = False  # whether its standardised scores are measured as well


def units(
    file: ScoreFile, rows: Iterable[str], tasks: Collection[str], standardised: Collection[Key], group: Group = ALONE
) -> list[Unit]:
    """The rows of a file by all their scorers."""
    return [
        Unit(key, lambda owner, key=key: file.tables(*key, owner, group), tasks, key in standardised)
        for key in file.scorers(rows)
    ]


def measure_all(
    of: list[Unit],
    labels: torch.Tensor,
    used: dict[str, torch.Tensor],
    classes: ClassList,
    settings: EvaluateConfig,
    seed: int,
    group: Group = ALONE,
    as_absent: Mapping[str, torch.Tensor] = MappingProxyType({}),
) -> Measurements | None:
    """Measure everything; the first process gets it, the others get None.

    Images are resampled the same for all rows, and epochs are not resampled. `labels`, and by task `used` and `as_absent`, are
    those of `measure`.
    """

    @cache
    def weights(task: str) -> torch.Tensor | None:
        return image_weights(int(used[task].sum()), settings.bootstrap, [seed, classes.tasks[task]])

    def one(table: ByImage, task: str, top_k=settings.top_k, resampled: bool = True) -> Measured:
        given = labels, classes.tasks[task], used[task], top_k, weights(task) if resampled else None
        return measure(table, *given, settings, as_absent.get(task))

    def everything(unit: Unit, tables: dict[str, ByImage]) -> dict[str, Any]:
        if isinstance(unit.key, int):
            return {task: one(tables["total"], task, resampled=False).values for task in unit.tasks}
        out = {}
        for task in unit.tasks:
            total, parts = tables["total"], {part: tables[part] for part in PARTS if part in tables}
            again = Standardised(total, classes.tasks[task], used[task].numpy()) if unit.standardised else None
            out[task] = (
                one(total, task),
                {part.removesuffix("_part"): one(table, task, (), False).values["mAP"] for part, table in parts.items()},
                again and one(again, task),
            )
        return out

    own = {}
    with progress(title="metrics", total=len(of), unit="table") as bar:
        for start in range(0, len(of), group.world):
            turn = list(enumerate(of[start : start + group.world]))
            read = [unit.read(rank) for rank, unit in turn]  # all first, since every process sends its part to every other
            for rank, unit in turn:
                if rank == group.rank:
                    own[start + rank] = everything(unit, read[rank])
            bar.update(len(turn))
    found = {i: value for part in group.everyone(own) for i, value in part.items()}
    return _together(of, [found[i] for i in range(len(of))], classes.tasks) if group.rank == 0 else None


def _together(of, values, tasks):
    out = Measurements({task: {} for task in tasks})
    for unit, value in zip(of, values, strict=True):
        if isinstance(unit.key, int):
            out.epochs[unit.key] = value
            continue
        for task, (total, parts, _) in value.items():
            out.rows[task][unit.key] = total
            if parts:
                out.parts.setdefault(unit.key, {})[task] = parts
    for unit, value in zip(of, values, strict=True):  # after all others, as they are shown
        for task in unit.tasks if unit.standardised else ():
            row, scorer = unit.key
            out.rows[task][row + STANDARDISED, scorer] = value[task][2]
    return out
