"""Figure "classes": average precision of every class, the method's minus the class name's."""

from typing import Any

import numpy as np

from rcnn import rows
from rcnn.figures import style
from rcnn.results.result import Result

MOST = 100  # classes in a picture, half of them from each end


def numbers(run: str) -> dict[str, Any]:
    """All that the figure shows, of the unseen classes where there are some: AP in percent, by difference."""
    result = Result.load(run)
    task, scorer = next(iter(result.images.tasks)), result.scorer
    shown = dict.fromkeys([(rows.BASELINE, "plain"), (rows.BASELINE, scorer), (result.method, scorer)])
    names = result.class_names[result.seen if task == "zsl" else 0 :]
    columns = [result.class_ap[row][by][task] for row, by in shown]
    found = [
        {"class": name, "ap": list(ap), "difference": round(ap[-1] - ap[0], 4)}
        for name, *ap in zip(names, *columns, strict=True)
        if None not in ap
    ]
    found.sort(key=lambda entry: (-entry["difference"], entry["class"]))
    return {"task": task, "rows": [result.label(*pair) for pair in shown], "classes": found}


def lines(found: dict[str, Any]) -> list[str]:
    """The numbers in words."""
    differences = [entry["difference"] for entry in found["classes"]]
    better, worse = sum(d > 0 for d in differences), sum(d < 0 for d in differences)
    ends = [f"{e['class']} {e['difference']:+.1f}" for e in (*found["classes"][:3], *found["classes"][-3:])]
    return [
        f"{found['task'].upper()}, AP of {found['rows'][-1]} minus {found['rows'][0]}: mean {np.mean(differences):+.1f}, "
        f"better for {better} of {len(differences)} classes, worse for {worse}; {', '.join(ends[:3])} … {', '.join(ends[3:])}"
    ]


def draw(found: dict[str, Any], _: str) -> "style.Figure":
    """The figure."""
    entries = found["classes"]
    if len(entries) > MOST:
        entries = entries[: MOST // 2] + entries[-MOST // 2 :]
    figure = style.new(3)
    panel, x = figure.subplots(), range(len(entries))
    signs = [style.COLOURS[0] if e["difference"] >= 0 else style.COLOURS[4] for e in entries]
    panel.bar(x, [e["difference"] for e in entries], color=signs, width=0.75, label=found["rows"][-1])
    if len(found["rows"]) > 2:
        only = [e["ap"][1] - e["ap"][0] for e in entries]
        panel.plot(x, only, "D", color="white", markeredgecolor="black", markersize=3, label=found["rows"][1])
    panel.axhline(0, color="black", linewidth=0.6)
    panel.set_xticks(x, [e["class"] for e in entries], rotation=90, fontsize=5.5)
    title = f"{found['task'].upper()}: AP of every class, minus {found['rows'][0]}"
    panel.set(ylabel="AP minus class name's, points", title=title)
    panel.margins(x=0.01)
    panel.legend()
    if left_out := len(found["classes"]) - len(entries):
        style.note(figure, f"{left_out} classes between are not shown.")
    return figure
