"""Figure 5: pairs of child and parent among the ten best, precision and recall among the five best (paper 4.4)."""

from typing import Any

import numpy as np
import torch

from rcnn import rows
from rcnn.figures import groups, style
from rcnn.figures.kept_scores import KeptScores
from rcnn.results.metrics import precision_recall_f1, top_k_hits
from rcnn.results.result import Result

PAIRS_AMONG, LABELS_AMONG = 10, 5  # the best classes of an image


def completed(labels: torch.Tensor, pairs: list[tuple[int, int]]) -> torch.Tensor:
    """(B, C) labels in {1, -1, 0}, where every parent of a positive child is positive as well."""
    out = labels.clone()
    for child, parent in pairs:
        out[labels[:, child] == 1, parent] = 1
    return out


def pair_hits(scores: torch.Tensor, pairs: list[tuple[int, int]], k: int) -> torch.Tensor:
    """(B, P) whether both classes of a pair are among the k best of an image.

    Classes that are tied for the last of the k places count as any order of them would on average.
    """
    last = scores.topk(k, dim=1).values[:, -1:]
    above, level = scores > last, scores == last
    places, tied = (k - above.sum(1)).double(), level.sum(1).double()
    both_tied = places * (places - 1) / (tied * (tied - 1)).clamp(min=1)  # that both get one of the places
    share = above + level * (places / tied)[:, None]  # that a class gets one
    columns = [torch.where(level[:, c] & level[:, p], both_tied, share[:, c] * share[:, p]) for c, p in pairs]
    return torch.stack(columns, 1)


def pairwise_recall(hits: torch.Tensor, labels: torch.Tensor, pairs: list[tuple[int, int]]) -> dict[str, Any]:
    """Σ pairs found / Σ pairs in the labels, in percent, before and after completing parents; `hits` of `pair_hits`.

    A pair is in the labels of an image if both classes are, or, after completing, if the child is.
    """
    child, parent = ((labels == 1)[:, list(columns)] for columns in zip(*pairs, strict=True))
    return {
        when: 100 * (hits * there).sum().item() / max(there.sum().item(), 1)
        for when, there in (("before", child & parent), ("after", child))
    }


def numbers(run: str) -> dict[str, Any]:
    """All that the figure shows, of the task that scores every class of the groups: NUS-WIDE's are unseen, so ZSL."""
    result = Result.load(run)
    of = groups.read(result.dataset, result.class_names)
    pairs = groups.pairs(of, result.class_names)
    if not pairs:
        raise ValueError("figure 5 is of pairs of a class and its parent, and no group of this data set is a class itself")
    kept = KeptScores(run, result)
    task, first = max((t for t in kept.tasks.items() if t[1] <= min(map(min, pairs))), key=lambda found: found[1])
    labelled = np.asarray(kept.labels[:, first:])
    used = kept.readable & (labelled == 1).any(1)
    labels = torch.from_numpy(labelled[used])
    pairs = [(child - first, parent - first) for child, parent in pairs]
    parents = {parent: result.class_names[first + parent] for _, parent in pairs}
    members = {name: [i for i, pair in enumerate(pairs) if pair[1] == parent] for parent, name in parents.items()}
    versions = {"before": labels, "after": completed(labels, pairs)}
    counts = {when: sum((y[:, c] == 1) & (y[:, p] == 1) for c, p in pairs).sum().item() for when, y in versions.items()}
    found, scorer = {}, result.scorer
    for row, by in dict.fromkeys([(rows.BASELINE, "plain"), (rows.BASELINE, scorer), (result.method, scorer)]):
        scores = torch.from_numpy(kept.scores(row, by)[:, first:][used])
        hits = pair_hits(scores, pairs, PAIRS_AMONG)
        labelwise = {}
        for when, y in versions.items():
            among, positives, _ = top_k_hits(scores, y, LABELS_AMONG)
            precision, recall, _ = (100 * precision_recall_f1(among, positives, LABELS_AMONG)).tolist()
            labelwise[when] = {"precision": precision, "recall": recall}
        found[result.label(row, by)] = {
            "pairwise_recall": pairwise_recall(hits, labels, pairs),
            "by_group": {g: pairwise_recall(hits[:, i], labels, [pairs[j] for j in i]) for g, i in members.items()},
            "labels": labelwise,
        }
    return {
        "task": task, "images": len(labels), "hierarchy": len(pairs), "pairs": counts, "pairs_among": PAIRS_AMONG,
        "labels_among": LABELS_AMONG, "rows": found,
    }  # fmt: skip


def lines(found: dict[str, Any]) -> list[str]:
    """The numbers in words."""
    before, after = found["pairs"].values()
    out = [
        f"{found['task'].upper()}, {found['images']:,} images, {found['hierarchy']} pairs of child and parent; in the labels "
        f"{before:,} times, {after:,} with parents completed{' (none was missing)' * (before == after)}. {groups.OURS}"
    ]
    for name, of in found["rows"].items():
        recall, y = of["pairwise_recall"], of["labels"]
        out.append(
            f"{name}: pairwise recall@{PAIRS_AMONG} {recall['before']:.1f} before, {recall['after']:.1f} after completing; "
            + "; ".join(
                f"P@{LABELS_AMONG} {y[when]['precision']:.1f} R@{LABELS_AMONG} {y[when]['recall']:.1f} {when}" for when in y
            )
        )
    return out


def draw(found: dict[str, Any], _: str) -> "style.Figure":
    """The figure."""
    figure = style.new(2.3)
    panels = figure.subplots(1, 4, width_ratios=[0.7, 1, 1, 1])
    counts = panels[0].bar(list(found["pairs"]), list(found["pairs"].values()), color=["0.8", "0.55"], width=0.6)
    panels[0].bar_label(counts, fmt="{:,.0f}", fontsize=6)
    panels[0].set(title="pairs in the labels", xlabel="completing parents")
    shown = [f"recall@{PAIRS_AMONG} of pairs, %", f"P@{LABELS_AMONG}, %", f"R@{LABELS_AMONG}, %"]
    for panel, title, part in zip(panels[1:], shown, ("pairwise_recall", "precision", "recall"), strict=True):
        for i, (name, of) in enumerate(found["rows"].items()):
            values = [of[part][w] if part in of else of["labels"][w][part] for w in ("before", "after")]
            bars = panel.bar([x + 0.27 * (i - 1) for x in (0, 1)], values, 0.25, color=style.COLOURS[i], label=name)
            panel.bar_label(bars, fmt="{:.1f}", fontsize=5.5)
        panel.set(title=title, xlabel="completing parents", xticks=[0, 1], xticklabels=["before", "after"])
    for panel in panels:
        panel.margins(y=0.12)
    figure.legend(*panels[1].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    style.note(figure, f"{found['task'].upper()}, {found['images']:,} images, {found['hierarchy']} pairs. {groups.OURS}")
    return figure
