"""Views of an image, and multi-snippet semantic aggregation of their scores (paper 3.5).

An image is seen whole and in n × n snippets for every n in `counts`. Views are ordered: the full image, then the
snippets of counts[0] row by row, then those of counts[1], … In all, V = 1 + Σ n².
"""

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

TEMPERATURE = 1 / 20  # τ_s; the paper names no value, the authors' code divides by this one


def views(image, size, counts=()):
    """The full image and its snippets, as the authors cut them.

    Args:
        image: PIL image, any mode; seen as RGB.
        size: S, side of the encoder's input in pixels. Images are squashed, not cropped.
        counts: snippets on a side, such as (2, 3) for 4 + 9 snippets.

    Returns:
        (V, S, S, 3) uint8 tensor.
    """
    image = to_rgb(image)
    out = [image.resize((size, size), Image.Resampling.BILINEAR)]
    if counts:
        square = image.resize((size, size), Image.Resampling.BICUBIC)
    for n in counts:
        side = size // n  # n = 3 leaves 2 of 224 pixels at the right and bottom
        for row in range(n):
            for column in range(n):
                left, top = column * side, row * side
                snippet = square.crop((left, top, left + side, top + side))
                out.append(snippet.resize((size, size), Image.Resampling.BILINEAR))
    return torch.from_numpy(np.stack([np.asarray(view) for view in out]))


def to_rgb(image):
    """The image as RGB: transparency is dropped, 16-bit greys keep their upper 8 bits, EXIF rotation is ignored."""
    if image.mode.startswith("I"):
        return Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def normalise(pixels, mean, std):
    """uint8 (…, S, S, 3) pixels -> float32 (…, 3, S, S), in the units the image encoder was trained with."""
    x = pixels.movedim(-1, -3).float().div(255)
    mean, std = (torch.tensor(v, device=x.device)[:, None, None] for v in (mean, std))
    return (x - mean) / std


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
