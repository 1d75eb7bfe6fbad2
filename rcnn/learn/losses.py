"""The two losses of class-name reconstruction (paper 3.4), and the loss that one step has on average.

`z` are class embeddings (C, D), `t` text features (·, D), all of unit length. Sums are plain sums, as in the paper.
"""

import torch


def reconstruction_loss(z, t, targets):
    """Σ_i ‖z_{c_i} − t_i‖² (eq. 6); t: (b, D), targets: (b,) class of each sentence."""
    # the gradient of index_select, unlike that of z[targets], adds up in one order on a CPU whatever the threads
    return (z.index_select(0, targets) - t).square().sum()


def pair_loss(z):
    """Σ_{c≠ĉ} (1 + z_c·z_ĉ) (eq. 7 without its constant diagonal, as in the authors' code).

    Computed as C(C−1) + ‖Σ_c z_c‖² − Σ_c ‖z_c‖², which takes no C × C matrix.
    """
    count = len(z)
    return count * (count - 1) + z.sum(0).square().sum() - z.square().sum()


def class_pull(t, targets, classes, batch_size):
    """a_c = (b/M) Σ_{i: c_i = c} t_i, what the sentences of a class contribute to one step on average.

    Args:
        t: (M, D) sentence features.
        targets: (M,) class of each sentence.
        classes: C.
        batch_size: b, sentences a step.

    Returns:
        (C, D) float64.
    """
    pull = torch.zeros(classes, t.shape[1], dtype=torch.float64)
    return pull.index_add_(0, targets, t.double()) * (batch_size / len(t))


def expected_loss(z, pull, weight, batch_size):
    """Mean loss of a step, 2b − 2 Σ_c a_c·z_c + λ·pair_loss(z), for unit vectors z and t.

    Args:
        z: (C, D) unit vectors.
        pull: (C, D) from `class_pull`.
        weight: λ.
        batch_size: b.
    """
    z = z.double()
    return 2 * batch_size - 2 * (pull * z).sum() + weight * pair_loss(z)
