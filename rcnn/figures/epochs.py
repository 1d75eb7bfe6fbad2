"""Figure "epochs": the loss of learning, and what the class embeddings of every epoch measure."""

import shlex
from typing import Any

from rcnn.figures import style
from rcnn.results.result import Result


def numbers(run: str) -> dict[str, Any]:
    """All that the figure shows; of the metrics mAP and the F1 of the fewest names."""
    result = Result.load(run)
    losses = {result.label(row): record["losses"] for row, record in result.learning.get("learned", {}).items()}
    if not losses:
        raise ValueError(f"{run} has no epochs: nothing was learned step by step")
    if not result.epochs:
        raise ValueError(f"{run} has no measured epochs: python -m rcnn.evaluate {shlex.quote(str(run))} evaluate.epochs=true")
    curves = {}
    for task in result.images.tasks:
        measured = result.epochs[0][task]
        shown = [name for name in ("mAP", next((m for m in measured if m.startswith("F1")), None)) if name in measured]
        curves |= {f"{task.upper()} {name}": [point[task][name] for point in result.epochs] for name in shown}
    label = result.label(result.method, result.scorer)
    return {"losses": losses, "epochs": [point["epoch"] for point in result.epochs], "metrics": curves, "row": label}


def lines(found: dict[str, Any]) -> list[str]:
    """The numbers in words."""
    curves = {f"{name}, loss": loss for name, loss in found["losses"].items()}
    curves |= {f"{found['row']}, {name}": values for name, values in found["metrics"].items()}
    return [f"{name}: {values[0]:.1f} at the first epoch, {values[-1]:.1f} at the last" for name, values in curves.items()]


def draw(found: dict[str, Any], _: str) -> "style.Figure":
    """The figure."""
    figure = style.new(2.4)
    losses, metrics = figure.subplots(1, 2)
    losses.set(title="mean loss of a step", xlabel="epoch")
    metrics.set(title=f"{found['row']}, %", xlabel="after epoch")
    for panel, curves, epochs in ((losses, found["losses"], None), (metrics, found["metrics"], found["epochs"])):
        for (name, values), colour, marker in zip(curves.items(), style.COLOURS, style.MARKERS, strict=False):
            panel.plot(epochs or range(len(values)), values, color=colour, marker=marker, markevery=0.2, label=name)
        panel.legend()
        panel.grid(axis="y", linewidth=0.3, color="0.85")
    return figure
