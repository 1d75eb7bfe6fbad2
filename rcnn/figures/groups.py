"""Groups of classes, and the pairs of child and parent that follow from them."""

from collections.abc import Sequence
from importlib.resources import files

import yaml

from rcnn.datasets import DATASETS
from rcnn.printing import short

OURS = "The groups are ours, as the paper does not print its own."


def read(kind: str, class_names: Sequence[str]) -> dict[str, list[int]]:
    """{group: columns of its classes, the parent first if there is one} for a data set; ValueError if it has no groups."""
    known = yaml.safe_load((files("rcnn.figures") / "groups.yaml").read_text(encoding="utf-8"))
    if kind not in known:
        raise ValueError(f"{DATASETS[kind].title} has no groups of classes; rcnn/figures/groups.yaml is where they are listed")
    column = {name: c for c, name in reversed(list(enumerate(class_names)))}
    if absent := [name for members in known[kind].values() for name in members if name not in column]:
        raise ValueError(f"rcnn/figures/groups.yaml: {kind} has {short(absent[0])}, which is no class of this run")
    parents = {group: [group] if group in column else [] for group in known[kind]}
    return {group: [column[name] for name in parents[group] + members] for group, members in known[kind].items()}


def pairs(groups: dict[str, list[int]], class_names: Sequence[str]) -> list[tuple[int, int]]:
    """(child, parent) columns of all pairs, in the order of the groups."""
    return [(child, c[0]) for group, c in groups.items() if class_names[c[0]] == group for child in c[1:]]
