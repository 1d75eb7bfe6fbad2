"""The optimum that learned class names can at best reach: the expected loss minimised over free unit vectors. Not in the paper.

With a_c = (b/M) Σ_{i: c_i = c} t_i the expected loss of a step is, up to a constant,

    J(z) = −2 Σ_c a_c·z_c + λ ‖Σ_c z_c‖²,   ‖z_c‖ = 1.

Writing λ‖s‖² = max_w (2λ w·s − λ‖w‖²) and letting the z_c fill their balls gives the dual problem in a single D-vector w

    minimise g(w) = 2 Σ_c ‖a_c − λw‖ + λ‖w‖²,   with  z_c(w) = (a_c − λw) / ‖a_c − λw‖.

g is strongly convex, so Newton's method takes a few steps whatever the number of classes, and −g(w) ≤ min J ≤ J(z(w)) holds
at every w: the difference of the two ends certifies the result. The optimum is also the fixed point of the block-coordinate
sweep z_c ∝ a_c − λ Σ_{ĉ≠c} z_ĉ, which needs up to hundreds of passes over all classes to get there.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F


class Optimum(NamedTuple):
    class_embeddings: torch.Tensor  # (C, D) float32 unit vectors
    gap: float  # the objective is at most this far above the global minimum
    iterations: int


def minimise(sums: torch.Tensor, weight: float, tolerance: float = 1e-10, iterations: int = 100) -> Optimum:
    """Minimise the expected loss over unit vectors.

    Args:
        sums: (C, D), a_c of every class (`losses.class_sums`); no class may be without sentences.
        weight: λ ≥ 0.
        tolerance: stop when the certified gap is below this share of Σ‖a_c‖.

    A gap that stays large means that some a_c = λw: λ is so large that the optimum leaves the sphere.
    """
    a = sums.double()
    norms = a.norm(dim=1)
    if not (norms > 0).all():
        raise ValueError(f"expected sentences for every class, got none for {int((norms == 0).sum())} of {len(a)}")
    w, eye = torch.zeros_like(a[0]), torch.eye(a.shape[1], dtype=a.dtype, device=a.device)
    value = _dual(a, w, weight)
    step = 0
    while True:
        rest = a - weight * w
        z = F.normalize(rest, dim=1)
        total = z.sum(0)
        gap = (-2 * (a * z).sum() + weight * total.square().sum() + value).item()
        if gap <= tolerance * norms.sum() or step == iterations:
            return Optimum(z.float(), max(gap, 0.0), step)
        # gradient and Hessian of g, both divided by 2λ
        inverse = 1 / rest.norm(dim=1).clamp(min=1e-12)
        hessian = (1 + weight * inverse.sum()) * eye - weight * (z * inverse[:, None]).T @ z
        direction = torch.linalg.solve(hessian, total - w)
        size, slope = 1.0, 2 * weight * (direction @ (total - w))
        while (new := _dual(a, w + size * direction, weight)) > value - 0.25 * size * slope and size > 1e-9:
            size /= 2
        if new >= value:  # rounding is all that is left
            return Optimum(z.float(), max(gap, 0.0), step)
        w, value, step = w + size * direction, new, step + 1


def _dual(a, w, weight):
    return 2 * (a - weight * w).norm(dim=1).sum() + weight * w.square().sum()
