"""Average precision and top-k precision, recall, F1: pure functions that leave their input alone (paper 4.1).

Labels are 1 (present), -1 (absent) or 0 (unknown). Everything takes optional image weights, so that a bootstrap over
images is the same formula with other weights.

Equal scores are treated as equal, so that neither the order of images nor that of classes decides: in average precision all
images of a tie are ranked at its end (as scikit-learn does); of classes that are tied for the last of the k places each has
the same share of what is left.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

RESAMPLES = 64  # in double precision at a time


class Ranking(NamedTuple):
    """All that average precision needs of one class; images are sorted once for any number of resamples."""

    order: torch.Tensor  # (n,) images with a known label, best first
    positive: torch.Tensor  # (P,) places of the positives in it, increasing
    last: torch.Tensor  # (P,) place of the last image that has the score of each


def average_precision(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Average precision of every class: the mean, over its positives, of the precision at each one's rank.

    Args:
        scores: (B, C) float; images with equal scores share the rank of the last of them.
        labels: (B, C) in {1, -1, 0}; images whose label is 0 are left out of that class.
        weights: (R, B) non-negative weights of the images, for R resamples; None counts each image once.

    Returns:
        (C,) or, with weights, (R, C): values in [0, 1]; 0 for a class without a positive, as the authors count it.
    """
    return ranked_precision(rankings(scores, labels), weights)


def rankings(scores: torch.Tensor, labels: torch.Tensor) -> list[Ranking]:
    """The Ranking of every class, from (B, C) scores and labels."""
    _check(scores, labels)
    out = []
    for s, y in zip(scores.T.contiguous(), labels.T.contiguous(), strict=True):
        known = y.nonzero()[:, 0]  # in a sparse data set few of the images
        out.append(ranking(s[known], y[known], known))
    return out


def ranking(scores: torch.Tensor, labels: torch.Tensor, images: torch.Tensor) -> Ranking:
    """The Ranking of a class, from its (n,) scores and labels, 1 or -1, at the images where its label is known."""
    below, order = (-scores).sort()
    positive = (labels[order] == 1).nonzero()[:, 0]
    return Ranking(images[order], positive, torch.searchsorted(below, below[positive], right=True) - 1)


def ranked_precision(ranked: list[Ranking], weights: torch.Tensor | None = None) -> torch.Tensor:
    """`average_precision` of classes that are ranked already.

    Of all weights between two positives only the sum is needed: their running sum is the weight of the images down to each.
    embedding_bag adds up rows of the weights as it reads them, without a (B, R) copy in the order of each class; it is fast in
    float32, where sums of whole weights are exact up to 2^24.
    """
    by_image = None if weights is None else weights.T.contiguous()  # (B, R)
    columns = []
    for order, positive, last in ranked:
        if by_image is None:
            own, ahead = torch.ones(len(positive), 1, dtype=torch.float64), (last[:, None] + 1).double()
        elif len(positive):
            own = by_image[order[positive]]  # (P, R)
            starts = torch.cat([last.new_zeros(1), last[:-1] + 1])
            ahead = F.embedding_bag(order[: last[-1] + 1], by_image, starts, mode="sum").cumsum(0)
        else:
            own = ahead = by_image[:0]
        found = own.cumsum(0)[torch.searchsorted(positive, last, right=True) - 1]
        columns.append((own * found / ahead.clamp(min=1e-12)).sum(0) / own.sum(0).clamp(min=1e-12))
    out = torch.stack(columns, 1)
    return out[0].float() if weights is None else out


def top_k_hits(scores: torch.Tensor, labels: torch.Tensor, k: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Per image, what top-k precision and recall are made of: (hits, positives, decided), each (B,).

    The positives among the k best scores, float64, where classes that are tied for the last places count as any order of them
    would on average; all positives; whether the order of tied classes decides how many hits there are.
    """
    _check(scores, labels)
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k: expected 1 to {scores.shape[1]} (the number of classes), got {k}")
    last = scores.topk(k, dim=1).values[:, -1:]
    positive, above, level = labels == 1, scores > last, scores == last
    places, tied, tied_positive = k - above.sum(1), level.sum(1), (level & positive).sum(1)
    hits = (above & positive).sum(1) + places.double() * tied_positive / tied
    decided = (places < tied) & (tied_positive > 0) & (tied_positive < tied)
    return hits, positive.sum(1).double(), decided


def precision_recall_f1(
    hits: torch.Tensor, positives: torch.Tensor, k: int, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Micro precision Σ hits / (images · k), recall Σ hits / Σ positives, and their harmonic mean.

    From hits and positives of `top_k_hits`, (B,), to (3,) in [0, 1]; with weights of the images, (R, B), to (R, 3).
    """
    if weights is None:
        return precision_recall_f1(hits, positives, k, torch.ones(1, len(hits), dtype=hits.dtype))[0]
    counts = torch.stack([hits, torch.ones_like(hits), positives], 1)  # (B, 3)
    parts = [part.to(counts.dtype) @ counts for part in weights.split(RESAMPLES)]
    hit, images, all_positives = torch.cat(parts).unbind(1)
    precision, recall = hit / (images * k).clamp(min=1e-12), hit / all_positives.clamp(min=1e-12)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    return torch.stack([precision, recall, f1], 1)


def _check(scores, labels):
    if scores.shape != labels.shape or scores.dim() != 2:
        raise ValueError(f"expected scores and labels of one shape (B, C), got {tuple(scores.shape)}, {tuple(labels.shape)}")
