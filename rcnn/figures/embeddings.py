"""Figure 4: class embeddings of names and of learned names in the plane, and how near they are by numbers (paper 4.4)."""

import itertools
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from rcnn import checkpoint, rows
from rcnn.figures import groups, style

PERPLEXITY, SEED = 10, 0


def cosines(z: torch.Tensor, of: dict[str, list[int]]) -> dict[str, Any]:
    """How near the classes of (C, D) embeddings are that share a group, and those that do not.

    The means move with all cosines at once. The AUC does not: it is the probability that a pair within is nearer than one
    between, 0.5 if groups mean nothing.
    """
    z = F.normalize(z.double(), dim=1)
    classes = sorted(set(itertools.chain(*of.values())))
    together = {pair for members in of.values() for pair in itertools.combinations(sorted(members), 2)}
    cosine = {(a, b): float(z[a] @ z[b]) for a, b in itertools.combinations(classes, 2)}
    within, between = ([c for pair, c in cosine.items() if (pair in together) == same] for same in (True, False))
    w, b = np.array(within)[:, None], np.array(between)
    by_group = {g: np.mean([cosine[pair] for pair in itertools.combinations(sorted(m), 2)]).item() for g, m in of.items()}
    return {
        "within": w.mean().item(), "between": b.mean().item(), "difference": (w.mean() - b.mean()).item(),
        "auc": ((b < w).mean() + (b == w).mean() / 2).item(), "by_group": by_group,
    }  # fmt: skip


def plane(z: torch.Tensor) -> np.ndarray:
    """(C, 2) places of (C, D) embeddings by exact t-SNE of their cosines, started from the principal components."""
    try:
        from sklearn.manifold import TSNE
    except ModuleNotFoundError:
        raise ValueError(style.MISSING) from None
    perplexity = min(PERPLEXITY, (len(z) - 1) / 3)
    made = TSNE(perplexity=perplexity, metric="cosine", init="pca", method="exact", random_state=SEED)
    return made.fit_transform(F.normalize(z, dim=1).numpy())


def numbers(run: str) -> dict[str, Any]:
    """All that the figure shows."""
    embeddings, metadata = checkpoint.read_run(run)
    names = metadata["class_names"]
    of = groups.read(metadata["config"]["dataset"]["kind"], names)
    shown = list(dict.fromkeys(itertools.chain(*of.values())))
    first = {c: g for g, members in reversed(of.items()) for c in members}  # a class of several groups has the first one's look
    points = [{"class": names[c], "group": first[c], "parent": names[c] == first[c]} for c in shown]
    panels = {}
    for row in dict.fromkeys((rows.BASELINE, metadata["method"])):
        places = plane(embeddings[row][shown])
        panels[rows.label(row)] = cosines(embeddings[row], of) | {"places": places.round(3).tolist()}
    return {"classes": points, "panels": panels}


def lines(found: dict[str, Any]) -> list[str]:
    """The numbers in words."""
    return [
        f"{len(found['classes'])} class names in {len({p['group'] for p in found['classes']})} groups. {groups.OURS}",
        *(f"{name}: {_words(of)}" for name, of in found["panels"].items()),
        "AUC: the probability that a pair within a group is nearer than one between groups",
    ]


def _words(of):
    return f"mean cosine {of['within']:.3f} within groups, {of['between']:.3f} between, AUC {of['auc']:.3f}"


def draw(found: dict[str, Any], _: str) -> "style.Figure":
    """The figure."""
    figure = style.new(4.3)
    by_group = {}
    for i, point in enumerate(found["classes"]):
        by_group.setdefault(point["group"], []).append(i)
    for panel, (name, of) in zip(figure.subplots(1, 2), found["panels"].items(), strict=False):
        places = np.array(of["places"])
        for (group, members), colour, marker in zip(by_group.items(), style.COLOURS, style.MARKERS, strict=True):
            sizes = [55 if found["classes"][i]["parent"] else 16 for i in members]
            panel.scatter(*places[members].T, sizes, color=colour, marker=marker, edgecolor="0.2", linewidth=0.4, label=group)
        panel.set(title=f"{name}\n{_words(of)}", xticks=[], yticks=[])
        panel.margins(0.09)
        panel.spines[:].set_visible(True)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=8, handletextpad=0.1)
    more = (
        f"t-SNE, exact, cosine, perplexity {PERPLEXITY}, started from principal components. Large marks: the group's own name."
    )
    style.note(figure, f"{more} {groups.OURS}")
    figure.draw_without_rendering()  # settles the layout, which labels then fit into
    for panel, of in zip(figure.axes, found["panels"].values(), strict=False):
        _name(panel, np.array(of["places"]), found["classes"])
    return figure


def _name(panel: "style.Axes", places: np.ndarray, classes: list[dict[str, Any]]) -> None:
    """Write each name beside its point, where it covers as little as may be of other names, of points and of the frame."""
    points, frame = panel.transData.transform(places), panel.get_window_extent().extents[None]  # in pixels, as all boxes below
    radii = np.array([[8 if entry["parent"] else 4] for entry in classes])
    taken = np.hstack([points - radii, points + radii])  # (N, 4): left, bottom, right, top
    far, turn = (grid.ravel() for grid in np.meshgrid([4, 7, 11, 16], np.radians(range(0, 360, 30)), indexing="ij"))
    toward = np.stack([np.cos(turn), np.sin(turn)], 1)  # (K, 2)
    for point, place, entry in zip(points, places, classes, strict=True):
        text = panel.text(0, 0, entry["class"], fontsize=5, transform=panel.transAxes, in_layout=False)
        size = text.get_window_extent().size
        corner = point + far[:, None] * panel.figure.dpi / 72 * toward - size * (1 - toward) / 2
        boxes = np.hstack([corner, corner + size])
        outside = size.prod() - _common(boxes, frame)[:, 0]
        best = np.argmin(_common(boxes, taken).sum(1) + 3 * outside + far)
        taken = np.vstack([taken, boxes[best]])
        text.set(position=panel.transAxes.inverted().transform(corner[best]), va="bottom")
        if far[best] > 4:  # a line says whose name it is
            end = panel.transData.inverted().transform(np.clip(point, boxes[best, :2], boxes[best, 2:]))
            panel.plot(*zip(place, end, strict=True), color="0.5", linewidth=0.3, zorder=0, in_layout=False)


def _common(boxes, others):
    """(K, N) area that boxes (K, 4) have in common with others (N, 4): left, bottom, right, top."""
    low, high = np.maximum(boxes[:, None, :2], others[:, :2]), np.minimum(boxes[:, None, 2:], others[:, 2:])
    return np.clip(high - low, 0, None).prod(2)
