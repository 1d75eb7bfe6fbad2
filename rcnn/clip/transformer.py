"""The residual attention block of CLIP's two towers, with parameters named as in OpenAI's checkpoints."""

from typing import Self

import torch
from torch import nn
from torch.nn import functional as F


def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    """x · sigmoid(1.702 x), the activation of OpenAI's CLIP weights; written with SiLU, whose gradient is one kernel."""
    return F.silu(1.702 * x) / 1.702


KeyValue = tuple[torch.Tensor, torch.Tensor]  # of tokens in one block, (B, heads, T, d) each
ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": F.gelu}


class Attention(nn.Module):
    """Multi-head attention in two halves, so that a tower may choose what attends to what."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def project(self, x: torch.Tensor, first: int, last: int) -> tuple[torch.Tensor, ...]:
        """Projections `first` to `last` (exclusive) of query, key, value = 0, 1, 2: each (B, heads, T, d)."""
        width = x.shape[-1]
        rows = slice(first * width, last * width)
        x = F.linear(x.to(self.in_proj_weight.dtype), self.in_proj_weight[rows], self.in_proj_bias[rows])
        # (B, T, n·heads·d) -> n tensors (B, heads, T, d)
        return x.unflatten(-1, (last - first, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def mix(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
    ) -> torch.Tensor:
        """out_proj(softmax(query·keyᵀ/√d)·value), with d = width / heads: (B, T, width).

        Query (B, heads, T, d), key and value (B, heads, S, d); `mask` is bool, broadcast to (B, heads, T, S), and False where
        a query must not see a key.
        """
        x = F.scaled_dot_product_attention(query.to(key.dtype), key, value, attn_mask=mask)
        return self.merge(x.to(query.dtype))

    def merge(self, x: torch.Tensor) -> torch.Tensor:
        """out_proj of the heads side by side: (B, heads, T, d) -> (B, T, width)."""
        return self.out_proj(x.transpose(1, 2).flatten(2))  # (B, heads, T, d) -> (B, T, heads·d)

    def weights(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """Mean over heads of softmax(query·keyᵀ/√d): two (B, heads, T, d) -> (B, T, T), one head at a time in memory."""
        heads = zip(query.unbind(1), key.unbind(1), strict=True)
        return sum((q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) for q, k in heads) / self.heads


def after(prefix: KeyValue | None, key: torch.Tensor, value: torch.Tensor) -> KeyValue:
    """Key and value, (B, heads, T, d), with those of P tokens that all rows share before them: (B, heads, P + T, d)."""
    if prefix is None:
        return key, value
    return tuple(torch.cat([p.expand(len(own), -1, -1, -1), own], dim=2) for p, own in zip(prefix, (key, value), strict=True))


class Block(nn.Module):
    """x + attention(ln_1(x)), then x + mlp(ln_2(x)) (paper eq. 1)."""

    def __init__(self, width: int, heads: int, mlp_width: int, activation: str):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.ModuleDict({"c_fc": nn.Linear(width, mlp_width), "c_proj": nn.Linear(mlp_width, width)})
        self.activation = ACTIVATIONS[activation]

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, prefix: KeyValue | None = None) -> torch.Tensor:
        """(B, T, width) -> (B, T, width); `prefix` as in `after`, `mask` as in `Attention.mix`."""
        query, key, value = self.attn.project(self.ln_1(x), 0, 3)
        return self.feed_forward(x + self.attn.mix(query, *after(prefix, key, value), mask))

    def feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        """x + mlp(ln_2(x)): (…, width) -> (…, width)."""
        hidden = self.mlp["c_fc"](self.ln_2(x).to(self.mlp["c_fc"].weight.dtype))
        return x + self.mlp["c_proj"](self.activation(hidden))


class Tower(nn.Module):
    """A tower of CLIP: blocks, and what comes before and after them."""

    def set_precision(self, dtype: torch.dtype) -> Self:
        """Have the large products of matrices in `dtype`, such as torch.bfloat16; returns self.

        The residual stream, its normalisation and the shared space stay in float32: rounding them in every block is what
        would move the scores.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | Attention):
                module.to(dtype)
        return self


def blocks(width: int, heads: int, layers: int, mlp_width: int, activation: str) -> nn.ModuleDict:
    """A stack of `layers` blocks under the name `resblocks`, as the checkpoints have it; activation: key of ACTIVATIONS."""
    stack = nn.ModuleList(Block(width, heads, mlp_width, activation) for _ in range(layers))
    return nn.ModuleDict({"resblocks": stack})
