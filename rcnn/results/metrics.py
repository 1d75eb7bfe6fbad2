"""Average precision and top-k precision, recall, F1: pure functions that leave their input alone (paper 4.1).

Labels are 1 (present), -1 (absent) or 0 (unknown). Everything takes optional image weights, so that a bootstrap over
images is the same formula with other weights.
"""

import torch


def average_precision(scores, labels, weights=None):
    """Average precision of every class: the mean, over its positives, of the precision at each one's rank.

    Args:
        scores: (B, C) float; ties are ranked in the order of the images.
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
        positive = (y[order] == 1).nonzero()[:, 0]
        weight = by_image[order]
        ahead, own = weight.cumsum(0)[positive], weight[positive]  # (positives, R)
        found = own.cumsum(0)
        total = own.sum(0).clamp(min=1e-12)
        columns.append((own * found / ahead.clamp(min=1e-12)).sum(0) / total)
    return torch.stack(columns, 1)


def top_k_counts(scores, labels, k):
    """Per image, what top-k precision and recall are made of.

    Returns:
        (hits, positives): two (B,) float64 tensors, the positives among the k best scores and all positives.
    """
    _check(scores, labels)
    if not 1 <= k <= scores.shape[1]:
        raise ValueError(f"k: expected 1 to {scores.shape[1]} (the number of classes), got {k}")
    hits = (labels.gather(1, scores.topk(k, dim=1).indices) == 1).sum(1)
    return hits.double(), (labels == 1).sum(1).double()


def precision_recall_f1(hits, positives, k, weights=None):
    """Micro precision Σ hits / (images · k), recall Σ hits / Σ positives, and their harmonic mean.

    Args:
        hits, positives: (B,) from `top_k_counts`.
        k: predictions per image.
        weights: (R, B) image weights, or None.

    Returns:
        (3,) or, with weights, (R, 3) in [0, 1].
    """
    if weights is None:
        weights = torch.ones(1, len(hits), dtype=hits.dtype)
        return precision_recall_f1(hits, positives, k, weights)[0]
    hit, images, all_positives = weights @ hits, weights.sum(1), weights @ positives
    precision, recall = hit / (images * k).clamp(min=1e-12), hit / all_positives.clamp(min=1e-12)
    f1 = 2 * precision * recall / (precision + recall).clamp(min=1e-12)
    return torch.stack([precision, recall, f1], 1)


def _check(scores, labels):
    if scores.shape != labels.shape or scores.dim() != 2:
        raise ValueError(f"expected scores and labels of one shape (B, C), got {tuple(scores.shape)}, {tuple(labels.shape)}")
