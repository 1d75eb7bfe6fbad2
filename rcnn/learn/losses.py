"""The loss of class-name reconstruction (paper 3.4), and what one step of it is on average.

`z` are class embeddings (C, D), `t` text features (·, D), all of unit length. Sums are plain sums, as in the paper.
"""

import torch

from rcnn.text.corpus import EncodedCorpus


def total_loss(z: torch.Tensor, t: torch.Tensor, targets: torch.Tensor, weight: float) -> torch.Tensor:
    """What is learned with: reconstruction_loss + λ · pair_loss (eq. 8)."""
    return reconstruction_loss(z, t, targets) + weight * pair_loss(z)


def reconstruction_loss(z: torch.Tensor, t: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Σ_i ‖z_{c_i} − t_i‖² (eq. 6); t: (b, D), targets: (b,) class of each sentence."""
    # the gradient of index_select, unlike that of z[targets], adds up in one order on a CPU whatever the threads
    return (z.index_select(0, targets) - t).square().sum()


def pair_loss(z: torch.Tensor) -> torch.Tensor:
    """Σ_{c≠ĉ} (1 + z_c·z_ĉ) (eq. 7 without its constant diagonal, as in the authors' code).

    Computed as C(C−1) + ‖Σ_c z_c‖² − Σ_c ‖z_c‖², which takes no C × C matrix.
    """
    count = len(z)
    return count * (count - 1) + z.sum(0).square().sum() - z.square().sum()


def pair_weight(num_classes: int, batch_size: int) -> float:
    """λ at which λC²/b, the share of the pair-based loss in a step, is what it is at COCO (λ 0.2, C 65, b 512). Ours."""
    return 0.2 * 65**2 / 512 * batch_size / num_classes**2


def class_sums(corpus: EncodedCorpus, batch_size: int) -> torch.Tensor:
    """a_c = (b/M) Σ_{i: c_i = c} t_i, what the sentences of a class contribute to one step on average: (C, D) float64."""
    t = corpus.features.double()
    sums = torch.zeros(corpus.num_classes, t.shape[1], dtype=t.dtype).index_add_(0, corpus.targets, t)
    return sums * (batch_size / len(corpus))


def expected_loss(z: torch.Tensor, sums: torch.Tensor, weight: float, batch_size: int) -> torch.Tensor:
    """Mean of `total_loss` over steps, 2b − 2 Σ_c a_c·z_c + λ·pair_loss(z), for unit vectors; `sums`: a_c of `class_sums`."""
    z = z.double()
    return 2 * batch_size - 2 * (sums * z).sum() + weight * pair_loss(z)
