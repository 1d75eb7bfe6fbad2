"""CLIP's text tower, without the computations that its output does not depend on.

The tower is causal and its output is the row of the end-of-text token. So rows after that token are cut off, the last
block computes that row alone, and the keys and values of a prefix shared by all rows are computed once.
"""

from collections.abc import Callable, Iterable

import torch
from torch import nn
from torch.nn import functional as F

from rcnn.clip.transformer import KeyValue, after, blocks


class TextEncoder(nn.Module):
    """Token embeddings -> text features; rows have at most `context` tokens, `embed_dim` is D, the size of the shared space."""

    def __init__(
        self,
        width: int,
        heads: int,
        layers: int,
        mlp_width: int,
        embed_dim: int,
        context: int = 77,
        vocabulary: int = 49408,
        activation: str = "quick_gelu",
    ):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.empty(context, width))
        self.transformer = blocks(width, heads, layers, mlp_width, activation)
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.empty(width, embed_dim))

    def forward(self, embeddings: torch.Tensor, end: torch.Tensor, prefix: list[KeyValue] | None = None) -> torch.Tensor:
        """Encode rows of token embeddings to (B, D) text features, not normalised.

        Args:
            embeddings: (B, T, width), positions not yet added.
            end: (B,) index of the end-of-text token within `embeddings`.
            prefix: what `self.prefix` returned for the P tokens before them, or None.
        """
        batch, length, _ = embeddings.shape
        start = prefix[0][0].shape[2] if prefix else 0
        x = embeddings + self.positional_embedding[start : start + length]
        mask = torch.ones(length, start + length, dtype=torch.bool, device=x.device).tril(start)  # (T, P + T)
        *body, last = self.transformer["resblocks"]
        *shared, shared_last = prefix or [None] * (len(body) + 1)
        for block, before in zip(body, shared, strict=True):
            x = block(x, mask, before)
        rows = torch.arange(batch, device=x.device), end
        y = last.ln_1(x)
        key, value = last.attn.project(y, 1, 3)
        (query,) = last.attn.project(y[rows][:, None], 0, 1)  # (B, width) -> (B, 1, width) -> (B, heads, 1, d)
        mask = mask[end][:, None, None]  # (B, P + T) -> (B, 1, 1, P + T)
        x = x[rows] + last.attn.mix(query, *after(shared_last, key, value), mask)[:, 0]  # (B, width)
        return self.ln_final(last.feed_forward(x)) @ self.text_projection

    @torch.no_grad()
    def prefix(self, tokens: torch.Tensor) -> list[KeyValue]:
        """Key and value of every block for the token row `tokens` (P,), with which all rows of `forward` may begin."""
        x = (self.token_embedding(tokens) + self.positional_embedding[: len(tokens)])[None]  # (P, width) -> (1, P, width)
        mask = torch.ones(len(tokens), len(tokens), dtype=torch.bool, device=x.device).tril()
        keys_values = []
        for block in self.transformer["resblocks"]:
            keys_values.append(block.attn.project(block.ln_1(x), 0, 3)[1:])
            x = block(x, mask)
        return keys_values

    @torch.no_grad()
    def encode(
        self,
        tokens: torch.Tensor,
        budget: int | None = None,
        progress: Callable[[list[list[int]]], Iterable[list[int]]] = lambda groups: groups,
    ) -> torch.Tensor:
        """Features of token rows: (M, D) float32 unit vectors on the CPU.

        Rows are sorted by length and grouped so that a group holds about `budget` tokens: hardly any padding is computed.

        Args:
            tokens: (M, context) integer rows, zero after the end-of-text token, which is each row's largest token.
            budget: tokens a group; by default as many as keep a CPU's cache, or a GPU's cores, filled.
            progress: wrapper of the list of groups that yields its items, such as a progress bar.
        """
        device = self.positional_embedding.device
        budget = budget or (1024 if device.type == "cpu" else 16384)
        end = tokens.argmax(dim=1)  # the end-of-text token has the largest number
        lengths, groups = (end + 1).tolist(), []
        for row in sorted(range(len(lengths)), key=lengths.__getitem__):
            if groups and lengths[row] * (len(groups[-1]) + 1) <= budget:
                groups[-1].append(row)
            else:
                groups.append([row])
        out = torch.empty(len(tokens), self.text_projection.shape[1])
        for rows in progress(groups):
            cut = tokens[rows, : lengths[rows[-1]]].to(device)  # the last row is the longest
            out[rows] = F.normalize(self(self.token_embedding(cut), end[rows].to(device)), dim=-1).float().cpu()
        return out
