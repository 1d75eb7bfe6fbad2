"""Average precision and top-k precision, recall, F1: pure functions that leave their input alone (paper 4.1).

Labels are 1 (present), -1 (absent) or 0 (unknown). Everything takes optional image weights, so that a bootstrap over
images is the same formula with other weights.

Equal scores are treated as equal, so that neither the order of images nor that of classes decides: in average precision all
images of a tie are ranked at its end (as scikit-learn does); of classes that are tied for the last of the k places each has
the same share of what is left.
"""

import torch


def average_precision(scores: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None = None) -> torch.Tensor:
    """Average precision of every class: the mean, over its positives, of the precision at each one's rank.

    Args:
        scores: (B, C) float; images with equal scores share the rank of the last of them.
        labels: (B, C) in {1, -1, 0}; images whose label is 0 are left out of that class.
        weights: (R, B) non-negative weights of the images, for R resamples; None counts each image once.

    Returns:
        (C,) or, with weights, (R, C): values in [0, 1]; 0 for a class without a positive, as the authors count it.
    """
    _check(scores, labels)
    if weights is None:
        return average_precision(scores, labels, torch.ones(1, len(scores), dtype=torch.float64))[0].float()
    by_image = weights.T.contiguous()
    columns = []
    for s, y in zip(scores.T, labels.T, strict=True):
        order = s.argsort(descending=True, stable=True)
        order = order[y[order] != 0]  # best first, known images only
        _, tie, sizes = torch.unique_consecutive(s[order], return_inverse=True, return_counts=True)
        positive = (y[order] == 1).nonzero()[:, 0]
        rank = (sizes.cumsum(0) - 1)[tie[positive]]  # (positives,) place of the last image of each one's tie
        weight = by_image[order]
        own = weight[positive]  # (positives, R)
        found = own.cumsum(0)[torch.searchsorted(positive, rank, right=True) - 1]
        ahead = weight.cumsum(0)[rank]
        columns.append((own * found / ahead.clamp(min=1e-12)).sum(0) / own.sum(0).clamp(min=1e-12))
    return torch.stack(columns, 1)


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
    hit, images, all_positives = weights @ hits, weights.sum(1), weights @ positives
    precision, recall = hit / (images * k).clamp(min=1e-12), hit / all_positives.clamp(min=1e-12)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    return torch.stack([precision, recall, f1], 1)


def _check(scores, labels):
    if scores.shape != labels.shape or scores.dim() != 2:
        raise ValueError(f"expected scores and labels of one shape (B, C), got {tuple(scores.shape)}, {tuple(labels.shape)}")
