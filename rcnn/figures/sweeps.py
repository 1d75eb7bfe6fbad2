"""What a sweep shows of the runs of its points: a table, means and deviations over the seeds, and a plot."""

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rcnn.figures import style
from rcnn.results.result import Metric


class Line(NamedTuple):
    """Runs that differ in their seed alone."""

    keys: dict[str, str]
    seeds: int
    mean: dict[str, float]  # task and metric -> percent
    deviation: dict[str, float | None]  # None for one seed


def metrics(by_task: Mapping[str, Mapping[str, Metric]]) -> dict[str, float]:
    """{task and metric: percent} of one row of a result: mAP and F1."""
    return {f"{task.upper()} {name}": m[name].value for task, m in by_task.items() for name in m if name[:2] in ("mA", "F1")}


def summary(points: Sequence[tuple[dict[str, str], dict[str, float]]]) -> list[Line]:
    """A Line for all points, (keys, metrics), with the same keys but for the seed."""
    groups = {}
    for keys, found in points:
        groups.setdefault(tuple((key, value) for key, value in keys.items() if key != "seed"), []).append(found)
    lines = []
    for keys, runs in groups.items():
        values = {name: [found[name] for found in runs] for name in runs[0]}
        deviation = {name: statistics.stdev(v) if len(v) > 1 else None for name, v in values.items()}
        lines.append(Line(dict(keys), len(runs), {name: statistics.mean(v) for name, v in values.items()}, deviation))
    return lines


def markdown(lines: Sequence[Line]) -> str:
    """The table for people."""
    head = [*lines[0].keys, "seeds", *lines[0].mean]
    rows = [head, ["---"] * len(head)]
    for of in lines:
        spread = {name: "" if d is None else f" ± {d:.1f}" for name, d in of.deviation.items()}
        rows.append([*of.keys.values(), str(of.seeds), *(f"{mean:.1f}{spread[name]}" for name, mean in of.mean.items())])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def as_csv(lines: Sequence[Line]) -> str:
    """The table for programs, a line for each number."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*lines[0].keys, "seeds", "metric", "mean", "deviation"])
    for of in lines:
        for name, mean in of.mean.items():
            writer.writerow([*of.keys.values(), of.seeds, name, mean, of.deviation[name]])
    return text.getvalue()


def draw(lines: Sequence[Line], label: str, baseline: Mapping[str, float]) -> "style.Figure":
    """mAP and the first F1 of every task over the key with most values, a curve for each value of the others.

    Values of a key are drawn at even steps, since not all are numbers; `baseline`, called `label`, is a line.
    """
    values = {key: list(dict.fromkeys(of.keys[key] for of in lines)) for key in lines[0].keys} or {"": [""]}
    along = max(values, key=lambda key: len(values[key]))
    shown = list(dict.fromkeys(name.split()[1] for name in baseline))[:2]
    names = [name for metric in shown for name in baseline if name.endswith(metric)]
    figure = style.new(2.4)
    panels = figure.subplots(1, len(names), squeeze=False)[0]
    for panel, name in zip(panels, names, strict=True):
        curves = {}
        for of in lines:
            others = ", ".join(f"{key} {value}" for key, value in of.keys.items() if key != along)
            curves.setdefault(others or "method", []).append(of)
        for i, (of_others, of) in enumerate(curves.items()):
            x, look = [values[along].index(line.keys.get(along, "")) for line in of], i % len(style.COLOURS)
            mean, deviation = [line.mean[name] for line in of], [line.deviation[name] or 0 for line in of]
            panel.errorbar(x, mean, deviation, color=style.COLOURS[look], marker=style.MARKERS[look], label=of_others)
        panel.axhline(baseline[name], color="0.4", linestyle="--", label=label)
        panel.set(title=f"{name}, %", xlabel=along)
        panel.set_xticks(range(len(values[along])), values[along])
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
    return figure
