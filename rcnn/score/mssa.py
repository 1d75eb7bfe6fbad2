"""Scores of images for classes, with multi-snippet semantic aggregation (paper 3.2 and 3.5); `views` cuts the snippets."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

from rcnn.clip.image_tower import ImageFeatures

TEMPERATURE = 1 / 20  # τ_s; the paper names no value, the authors' code divides by this one
CLASSES_AT_A_TIME = 2048  # bounds the score maps in memory: 16 images × 14 views × 2,048 classes × 196 patches are 360 MB


class Scores(NamedTuple):
    """Scores of B images for C classes; the total is what counts."""

    total: torch.Tensor  # (B, C), the mean of both parts (eq. 5 and 10)
    global_part: torch.Tensor  # (B, C)
    local_part: torch.Tensor  # (B, C)
    maps: torch.Tensor | None  # (B, C, H, W) where they were asked for: score of every patch, before the softmax


def pool_scores(scores: torch.Tensor, temperature: float = TEMPERATURE) -> torch.Tensor:
    """p_local = Σ_i softmax_i(s_i / τ)·s_i over patches (eq. 4); scores: (B, C, N) -> (B, C)."""
    return (scores.div(temperature).softmax(-1) * scores).sum(-1)


def aggregate_global(scores: torch.Tensor, grids: Sequence[int]) -> torch.Tensor:
    """Mean over the full image and, for every n, the best of its n² snippets (eq. 9, left); (B, V, C) -> (B, C)."""
    parts = scores.split([1, *(n * n for n in grids)], dim=1)
    return torch.stack([part.amax(1) for part in parts]).mean(0)


def aggregate_local(scores: torch.Tensor, grids: Sequence[int]) -> torch.Tensor:
    """Mean of the full image's score map and one map for every n, made of its snippets' maps (eq. 9, right).

    The n × n maps of the snippets are put side by side and max-pooled n × n to the size of one map: (B, V, C, H, W) score maps
    of all views -> (B, C, H, W).
    """
    batch, _, num_classes, height, width = scores.shape
    full, *snippets = scores.split([1, *(n * n for n in grids)], dim=1)
    maps = [full[:, 0]]
    for n, part in zip(grids, snippets, strict=True):
        tiled = part.unflatten(1, (n, n)).permute(0, 3, 1, 4, 2, 5)  # (B, n, n, C, H, W) -> (B, C, n, H, n, W)
        tiled = tiled.reshape(batch, num_classes, n * height, n * width)
        maps.append(F.max_pool2d(tiled, n))
    return torch.stack(maps).mean(0)


def score(
    features: ImageFeatures,
    class_embeddings: torch.Tensor,
    grids: Sequence[int],
    temperature: float = TEMPERATURE,
    maps: bool = False,
) -> Scores:
    """Scores of every image for every class (eq. 3-5 without grids, eq. 9-10 with them); ValueError for views of other grids.

    Args:
        features: of the views of B images: (B, V, D) and (B, V, N, D).
        class_embeddings: (C, D) unit vectors.
        grids: snippets on a side, those of the views; or () to use the full image alone, whatever views there are.
        temperature: τ_s.
        maps: also return the aggregated score maps.
    """
    used, views = 1 + sum(n * n for n in grids), features.local_features.shape[1]
    if grids and used != views:
        raise ValueError(f"grids {tuple(grids)} make {used} views, got {views}")
    if len(class_embeddings) > CLASSES_AT_A_TIME:
        parts = [score(features, z, grids, temperature, maps) for z in class_embeddings.split(CLASSES_AT_A_TIME)]
        return Scores(*(None if part[0] is None else torch.cat(part, 1) for part in zip(*parts, strict=True)))
    global_features, local_features = (f[:, :used] for f in features)
    grid = round(local_features.shape[2] ** 0.5)
    by_view = global_features @ class_embeddings.T  # (B, V, C)
    by_patch = (class_embeddings @ local_features.mT).unflatten(-1, (grid, grid))  # (B, V, C, H, W)
    score_maps = aggregate_local(by_patch, grids)
    global_part, local_part = aggregate_global(by_view, grids), pool_scores(score_maps.flatten(2), temperature)
    return Scores((global_part + local_part) / 2, global_part, local_part, score_maps if maps else None)
