"""CLIP and ClearCLIP written straight from the paper's equations, on tensors under OpenAI's names.

Every token passes through every block and attention maps are explicit. Tests compare the towers of rcnn.clip with these
functions; benchmarks measure how much faster the towers are.
"""

import math

import torch
from torch.nn import functional as F

State = dict[str, torch.Tensor]


def text_features(state: State, embeddings: torch.Tensor, end: torch.Tensor, heads: int) -> torch.Tensor:
    """Unit text features, (B, D), of (B, T, width) token embeddings; `end` (B,) is where each row's end-of-text token is."""
    x, length = embeddings + state["positional_embedding"], embeddings.shape[1]
    future = torch.full((length, length), -math.inf, device=x.device).triu(1)
    for block in names_of_blocks(state, "transformer"):
        x = transform(state, block, x, heads, future)
    x = norm(state, "ln_final", x)[torch.arange(len(x), device=x.device), end]
    return F.normalize(x @ state["text_projection"], dim=-1)


def image_features(state: State, images: torch.Tensor, heads: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Unit global features, (B, D), and local ones, (B, N, D), of (B, 3, S, S) normalised images.

    The last block of the local ones is out_proj(softmax(q·qᵀ/√d)·v) alone (eq. 2).
    """
    kernel = state["visual.conv1.weight"]
    x = F.conv2d(images, kernel, stride=kernel.shape[-1]).flatten(2).mT  # (B, width, g, g) -> (B, g·g, width)
    x = torch.cat([state["visual.class_embedding"].expand(len(x), 1, -1), x], 1)
    x = norm(state, "visual.ln_pre", x + state["visual.positional_embedding"])
    *body, last = names_of_blocks(state, "visual.transformer")
    for block in body:
        x = transform(state, block, x, heads)
    query, key, value = query_key_value(state, last, x, heads)
    x = feed_forward(state, last, x + attend(state, last, query, key, value))
    x = torch.cat([x[:, :1], attend(state, last, query, query, value)[:, 1:]], 1)
    x = F.normalize(norm(state, "visual.ln_post", x) @ state["visual.proj"], dim=-1)
    return x[:, 0], x[:, 1:]


def names_of_blocks(state: State, transformer: str) -> list[str]:
    layers = sum(name.startswith(transformer) and name.endswith("ln_1.weight") for name in state)
    return [f"{transformer}.resblocks.{i}" for i in range(layers)]


def transform(state: State, block: str, x: torch.Tensor, heads: int, mask: torch.Tensor | None = None) -> torch.Tensor:
    """x + attention(ln_1(x)), then x + mlp(ln_2(x)) (eq. 1)."""
    return feed_forward(state, block, x + attend(state, block, *query_key_value(state, block, x, heads), mask))


def feed_forward(state: State, block: str, x: torch.Tensor) -> torch.Tensor:
    hidden = linear(state, f"{block}.mlp.c_fc", norm(state, f"{block}.ln_2", x))
    return x + linear(state, f"{block}.mlp.c_proj", hidden * torch.sigmoid(1.702 * hidden))


def query_key_value(state: State, block: str, x: torch.Tensor, heads: int) -> list[torch.Tensor]:
    """Query, key and value of ln_1(x), each (B, heads, T, d)."""
    x = norm(state, f"{block}.ln_1", x)
    x = F.linear(x, state[f"{block}.attn.in_proj_weight"], state[f"{block}.attn.in_proj_bias"])
    # (B, T, heads·d) -> (B, heads, T, d)
    return [part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in x.chunk(3, -1)]


def attend(
    state: State, block: str, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """out_proj(softmax(q·kᵀ/√d + mask)·v), (B, T, width)."""
    scores = query @ key.mT / math.sqrt(query.shape[-1])
    maps = (scores if mask is None else scores + mask).softmax(-1)
    x = (maps @ value).transpose(1, 2).flatten(2)  # (B, heads, T, d) -> (B, T, heads·d)
    return linear(state, f"{block}.attn.out_proj", x)


def norm(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])


def linear(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    return F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])
