"""Class embeddings without learning: the rows that reconstructed class names are measured against.

All take and return unit vectors: t (M, D) sentence features with targets (M,), z (C, D) class embeddings.
"""

import torch
from torch.nn import functional as F


def mean(t, targets, classes):
    """Normalised mean of each class's sentences (paper 3.4, the alternative it argues against)."""
    total = torch.zeros(classes, t.shape[1], dtype=torch.float64).index_add_(0, targets, t.double())
    return F.normalize(total, dim=1).float()


def principal_direction(t, targets, classes):
    """Leading eigenvector of Σ t tᵀ of each class's sentences, on the side of their mean (paper 3.4, the other one)."""
    rows = []
    for c in range(classes):
        own = t[targets == c].double()
        leading = torch.linalg.svd(own, full_matrices=False).Vh[0]
        rows.append(leading * torch.sign(own.sum(0) @ leading))
    return torch.stack(rows).float()


def centred(z, strength):
    """z minus `strength` × its mean over classes, normalised: a control for what the pair-based loss does."""
    return F.normalize(z - strength * z.mean(0), dim=1)
