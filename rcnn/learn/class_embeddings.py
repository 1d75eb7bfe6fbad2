"""Class embeddings without learning: the rows that reconstructed class names are measured against.

All return unit vectors z, (C, D) float32.
"""

import torch
from torch.nn import functional as F

from rcnn.learn.losses import class_sums
from rcnn.text.corpus import EncodedCorpus


def mean(corpus: EncodedCorpus) -> torch.Tensor:
    """Normalised mean of each class's sentences (paper 3.4, the alternative it argues against)."""
    return F.normalize(class_sums(corpus, len(corpus)), dim=1).float()


def principal_direction(corpus: EncodedCorpus) -> torch.Tensor:
    """Leading eigenvector of Σ t tᵀ of each class's sentences, on the side of their mean (paper 3.4, the other one)."""
    rows = []
    for c in range(corpus.num_classes):
        own = corpus.features[corpus.targets == c].double()
        leading = torch.linalg.svd(own, full_matrices=False).Vh[0]
        rows.append(leading * torch.sign(own.sum(0) @ leading))
    return torch.stack(rows).float()


def centred(z: torch.Tensor, strength: float) -> torch.Tensor:
    """z minus `strength` × its mean over classes, normalised: a control for what the pair-based loss does."""
    return F.normalize(z - strength * z.mean(0), dim=1)
