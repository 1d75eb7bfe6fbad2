"""CLIP's text tower, without the computations that its output does not depend on.

The tower is causal and its output is the row of the end-of-text token. So rows after that token are cut off, the last
block computes that row alone, and what rows have in common at their beginning is computed once.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from rcnn.clip.transformer import KeyValue, Tower, after, blocks

TREE = 256  # tokens; attention within a tree grows with their square


class Tree(NamedTuple):
    """Token rows with what they have in common stated once: T tokens, each after those that it follows."""

    tokens: np.ndarray  # (T,)
    depths: np.ndarray  # (T,) position of each in its rows
    ends: np.ndarray  # (T,) where the tokens that follow it end, here
    lasts: np.ndarray  # (R,) the last token of every row
    rows: np.ndarray  # (R,) the numbers of the rows


def grow(tokens: np.ndarray, most: int) -> list[Tree]:
    """Trees of at most so many tokens, or of one row, that hold all of (M, context) token rows, see `TextEncoder.encode`."""
    order = np.lexsort(tokens.T[::-1])
    lengths = tokens.argmax(1)[order] + 1  # the end-of-text token has the largest number
    differs = tokens[order[1:]] != tokens[order[:-1]]
    common = np.concatenate([[0], np.where(differs.any(1), differs.argmax(1), lengths[1:])])  # with the row before
    trees, path, nodes, last, rows = [], [], [], [], []

    def close(depth):
        for node in path[depth:]:
            node[2] = len(nodes)
        del path[depth:]

    def finish():
        close(0)
        if rows:
            columns = np.array(nodes, np.int64).T
            trees.append(Tree(*columns, np.array(last, np.int64), np.array(rows, np.int64)))
        nodes.clear(), last.clear(), rows.clear()

    for row, length, shared in zip(order, lengths, common, strict=True):
        if len(nodes) + length - shared > most:
            finish()
        close(min(shared, len(path)))
        for depth in range(len(path), length):
            nodes.append([tokens[row, depth], depth, 0])
            path.append(nodes[-1])
        last.append(len(nodes) - 1)
        rows.append(row)
    finish()
    return trees


class TextEncoder(Tower):
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
        """Key and value of every block for the token row `tokens` (P,), with which all rows of `forward` may begin.

        In float32, and so is all attention to them: torch's gradient of short attention in bfloat16 takes eight times as long.
        """
        x = (self.token_embedding(tokens) + self.positional_embedding[: len(tokens)])[None]  # (P, width) -> (1, P, width)
        mask = torch.ones(len(tokens), len(tokens), dtype=torch.bool, device=x.device).tril()
        keys_values = []
        for block in self.transformer["resblocks"]:
            keys_values.append(tuple(part.float() for part in block.attn.project(block.ln_1(x), 0, 3)[1:]))
            x = block(x, mask)
        return keys_values

    @torch.no_grad()
    def encode(
        self,
        tokens: torch.Tensor,
        budget: int | None = None,
        progress: Callable[[list[Tree]], Iterable[Tree]] = lambda trees: trees,
    ) -> torch.Tensor:
        """Features of token rows: (M, D) float32 unit vectors on the CPU.

        Rows that begin alike share what they have in common: rows are put together as trees of tokens, and every token is
        computed once, attending to those above it. Little padding is computed.

        Args:
            tokens: (M, context) integer rows, zero after the end-of-text token, which is each row's largest token.
            budget: tokens at a time; by default as many as keep a CPU's cache, or a GPU's cores, filled.
            progress: wrapper of the list of trees that yields its items, such as a progress bar.
        """
        device = self.positional_embedding.device
        budget = budget or (1024 if device.type == "cpu" else 16384)
        out, waiting = torch.empty(len(tokens), self.text_projection.shape[1]), []
        trees = grow(tokens.numpy(), min(budget, TREE))
        for tree in progress(trees):
            waiting.append(tree)
            if sum(len(t.tokens) for t in waiting) + TREE > budget or tree is trees[-1]:
                rows = torch.from_numpy(np.concatenate([t.rows for t in waiting]))
                out[rows] = F.normalize(self._encode(waiting), dim=-1).float().cpu()
                waiting = []
        return out

    def _encode(self, trees):
        """Text features of all rows of some trees, one tree after the other, not normalised."""
        device = self.positional_embedding.device
        tokens, depths, ends, lasts = (
            torch.nn.utils.rnn.pad_sequence([torch.from_numpy(part) for part in parts], batch_first=True, padding_value=value)
            for parts, value in zip(zip(*(tree[:4] for tree in trees), strict=True), (0, 0, 1 << 30, 0), strict=True)
        )
        x = self.token_embedding(tokens.to(device)) + self.positional_embedding[depths.to(device)]  # (B, T, width)
        place = torch.arange(tokens.shape[1], device=device)
        # below itself: a token is seen by those that follow it before its branch ends
        mask = (place <= place[:, None]) & (place[:, None] < ends.to(device)[:, None])  # (B, T, T)
        *body, last = self.transformer["resblocks"]
        for block in body:
            x = block(x, mask[:, None])
        rows = torch.arange(len(trees), device=device)[:, None], lasts.to(device)  # (B, R)
        y = last.ln_1(x)
        key, value = last.attn.project(y, 1, 3)
        (query,) = last.attn.project(y[rows], 0, 1)  # (B, R, width) -> (B, heads, R, d)
        x = x[rows] + last.attn.mix(query, key, value, mask[rows][:, None])
        x = self.ln_final(last.feed_forward(x)) @ self.text_projection
        return torch.cat([features[: len(tree.rows)] for features, tree in zip(x, trees, strict=True)])
