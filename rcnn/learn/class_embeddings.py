"""Class embeddings without learning, which reconstructed class names are measured against: unit vectors, (C, D) float32."""

from collections.abc import Sequence

import torch
from torch.nn import functional as F

from rcnn.learn.losses import class_sums
from rcnn.text.corpus import EncodedCorpus

SAME = 1e-5  # class embeddings that are nearer than this (Euclidean) differ by rounding alone


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


def coinciding(class_embeddings: torch.Tensor) -> list[int]:
    """For every class the number of the first class with the same embedding, mostly its own; from (C, D) unit vectors."""
    z = F.normalize(class_embeddings.double(), dim=1)
    first = []
    for start in range(0, len(z), 1024):
        squares = 2 - 2 * z[start : start + 1024] @ z.T  # ‖z_i − z_j‖² of unit vectors
        first += (squares < SAME**2).int().argmax(1).tolist()
    return first


def coinciding_names(class_embeddings: torch.Tensor, names: Sequence[str]) -> list[list[str]]:
    """Groups of classes that have the same embedding, up to rounding: no score can tell them apart."""
    groups = {}
    for name, first in zip(names, coinciding(class_embeddings), strict=True):
        groups.setdefault(first, []).append(name)
    return [group for group in groups.values() if len(group) > 1]
