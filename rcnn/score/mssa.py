"""Multi-snippet semantic aggregation of the scores of an image's views (paper 3.5); `views` cuts them."""

import torch
from torch.nn import functional as F

TEMPERATURE = 1 / 20  # τ_s; the paper names no value, the authors' code divides by this one


def pool_scores(scores, temperature=TEMPERATURE):
    """p_local = Σ_i softmax_i(s_i / τ)·s_i over patches (eq. 4); scores: (B, C, N) -> (B, C)."""
    return (scores.div(temperature).softmax(-1) * scores).sum(-1)


def aggregate_global(scores, counts):
    """Mean over the full image and, for every n, the best of its n² snippets (eq. 9, left); (B, V, C) -> (B, C)."""
    parts = scores.split([1, *(n * n for n in counts)], dim=1)
    return torch.stack([part.amax(1) for part in parts]).mean(0)


def aggregate_local(scores, counts):
    """Mean of the full image's score map and one map for every n, made of its snippets' maps.

    The n × n maps of the snippets are put side by side and max-pooled n × n to the size of one map.

    Args:
        scores: (B, V, C, H, W) score maps of all views.
        counts: snippets on a side.

    Returns:
        (B, C, H, W)
    """
    batch, _, classes, height, width = scores.shape
    full, *snippets = scores.split([1, *(n * n for n in counts)], dim=1)
    maps = [full[:, 0]]
    for n, part in zip(counts, snippets, strict=True):
        tiled = part.unflatten(1, (n, n)).permute(0, 3, 1, 4, 2, 5)  # (B, n, n, C, H, W) -> (B, C, n, H, n, W)
        tiled = tiled.reshape(batch, classes, n * height, n * width)
        maps.append(F.max_pool2d(tiled, n))
    return torch.stack(maps).mean(0)


def score(features, class_embeddings, counts, temperature=TEMPERATURE):
    """Scores of every image for every class (eq. 3-5 without counts, eq. 9-10 with them).

    Args:
        features: ImageFeatures of the views of B images: (B, V, D) and (B, V, N, D).
        class_embeddings: (C, D) unit vectors.
        counts: snippets on a side, those of the views; or () to use the full image alone, whatever views there are.
        temperature: τ_s.

    Returns:
        (global, local), each (B, C); the score of the method is their mean.
    """
    used, views = 1 + sum(n * n for n in counts), features.local_features.shape[1]
    if counts and used != views:
        raise ValueError(f"counts {tuple(counts)} make {used} views, got {views}")
    global_features, local_features = (f[:, :used] for f in features)
    grid = round(local_features.shape[2] ** 0.5)
    by_view = global_features @ class_embeddings.T
    maps = (class_embeddings @ local_features.mT).unflatten(-1, (grid, grid))  # (B, V, C, H, W)
    local = pool_scores(aggregate_local(maps, counts).flatten(2), temperature)
    return aggregate_global(by_view, counts), local
