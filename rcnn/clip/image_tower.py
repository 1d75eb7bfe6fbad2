"""CLIP's image tower with the last block of ClearCLIP: one global and many local features from one pass (paper 3.2)."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from rcnn.clip.transformer import Tower, blocks


def normalise(pixels: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """uint8 (…, S, S, 3) pixels -> float32 (…, 3, S, S): (pixel / 255 - mean) / std of every channel."""
    x = pixels.movedim(-1, -3).float().div(255)
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (mean, std))  # (3,) -> (3, 1, 1)
    return (x - mean) / std


def attend(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """softmax(query·keyᵀ/√d)·value of the patches, which see all tokens: (B, heads, 1 + N, d) -> (B, heads, N, d)."""
    return F.scaled_dot_product_attention(query[:, :, 1:], key, value)


CLEARCLIP = "qq"
PATCHES = {  # what patches get in the last block, of query, key and value; the paper's is ClearCLIP's, the others are controls
    CLEARCLIP: lambda q, k, v: attend(q, q, v),
    "v": lambda q, k, v: v[:, :, 1:],  # each its own value: MaskCLIP
    "vv": lambda q, k, v: attend(v, v, v),  # CLIP Surgery's, in this one block
    "kk": lambda q, k, v: attend(k, k, v),
    "qq+kk": lambda q, k, v: attend(q, q, v) + attend(k, k, v),  # SCLIP, with RESIDUAL
    "qk": lambda q, k, v: attend(q, k, v),  # with RESIDUAL the unchanged block
}
RESIDUAL = "+residual"  # after a key of PATCHES: with the block's residual and feed-forward, which ClearCLIP leaves out


class ImageFeatures(NamedTuple):
    """Unit vectors in the space shared with texts."""

    global_features: torch.Tensor  # (B, D)
    local_features: torch.Tensor  # (B, N, D), row by row


class ImageEncoder(Tower):
    """A ViT of CLIP; `image_size` and `patch` are pixels on a side, `embed_dim` is D, the size of the shared space."""

    def __init__(
        self,
        image_size: int,
        patch: int,
        width: int,
        heads: int,
        layers: int,
        mlp_width: int,
        embed_dim: int,
        activation: str = "quick_gelu",
    ):
        super().__init__()
        self.image_size, self.grid = image_size, image_size // patch
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty(self.grid**2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = blocks(width, heads, layers, mlp_width, activation)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, embed_dim))

    def forward(self, images: torch.Tensor) -> ImageFeatures:
        """(B, 3, S, S) normalised images -> ImageFeatures in float32, whatever the precision of the products.

        The class token passes the unchanged last block. The patches pass ClearCLIP's: attention of queries to queries,
        no residual, no feed-forward (eq. 2).
        """
        return self.last_block(self.trunk(images))

    def trunk(self, images: torch.Tensor) -> torch.Tensor:
        """All blocks but the last: (B, 3, S, S) -> class token and patches, (B, 1 + N, width)."""
        x = self.embed(images)
        for block in self.transformer["resblocks"][:-1]:
            x = block(x)
        return x

    def last_block(self, x: torch.Tensor, local: str = CLEARCLIP) -> ImageFeatures:
        """What the trunk returned, (B, 1 + N, width) -> ImageFeatures (B, D) and (B, N, D).

        `local`, a key of PATCHES that RESIDUAL may follow, is what the patches pass.
        """
        last = self.transformer["resblocks"][-1]
        query, key, value = last.attn.project(last.ln_1(x), 0, 3)
        class_token = last.feed_forward(x[:, :1] + last.attn.mix(query[:, :, :1], key, value))
        patches = last.attn.merge(PATCHES[local.removesuffix(RESIDUAL)](query, key, value))
        if local.endswith(RESIDUAL):
            patches = last.feed_forward(x[:, 1:] + patches)
        return ImageFeatures(self.to_shared_space(class_token)[:, 0], self.to_shared_space(patches))

    def embed(self, images: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """(B, 3, H, W) -> class token and patches, (B, 1 + N, width).

        H = W = S, unless there are `positions`, (1 + N, width): embeddings of the class token and of patches of another size.
        """
        # conv1 on patches that do not overlap is a matrix product, which on CUDA stays in float32 where cuDNN takes TF32
        side = self.conv1.kernel_size[0]
        patches = F.unfold(images.to(self.conv1.weight.dtype), side, stride=side).mT  # (B, 3·p·p, N) -> (B, N, 3·p·p)
        kernel = self.conv1.weight.flatten(1)  # (width, 3, p, p) -> (width, 3·p·p)
        patches = (patches @ kernel.T).to(self.class_embedding.dtype)  # (B, N, width)
        class_token = self.class_embedding.expand(len(images), 1, -1)
        positions = self.positional_embedding if positions is None else positions
        return self.ln_pre(torch.cat([class_token, patches], 1) + positions)

    def to_shared_space(self, x: torch.Tensor) -> torch.Tensor:
        """ln_post, proj, unit length (eq. 3 and 4): (…, width) -> (…, D)."""
        return F.normalize(self.ln_post(x.to(self.proj.dtype)) @ self.proj, dim=-1)
