"""Snippets of squashed images, cut on the device where these lie, byte for byte as Pillow's bilinear resize makes them.

Pillow weighs the two nearest pixels by whole numbers, 2²² for 1, and rounds to bytes along rows, then along columns. In
integers of 32 bits all of it is exact (255 · (2²² + 1) + 2²¹ < 2³¹) whatever the device and its precision of products.
"""

from collections.abc import Sequence

import torch

BITS = 22  # of a weight


def cut(squashed: torch.Tensor, grids: Sequence[int]) -> torch.Tensor:
    """Squashed images to their views, on the same device: (B, 1 or 2, S, S, 3) uint8 -> (B, V, S, S, 3) uint8.

    Args:
        squashed: of every image its full view and, if there are `grids`, the square that snippets are cut from.
        grids: snippets on a side; each is resized to S × S.

    Raises:
        ValueError: a grid has more snippets on a side than there are pixels.
    """
    size = squashed.shape[2]
    if size < max(grids, default=1):
        raise ValueError(f"evaluate.grids: expected at most {size} snippets on a side, one a pixel, got {max(grids)}")
    if not grids:
        return squashed
    views = squashed.new_empty(len(squashed), 1 + sum(n * n for n in grids), *squashed.shape[2:])
    views[:, 0] = squashed[:, 0]
    at_once = len(squashed) if squashed.is_cuda else 1  # one image fits in a CPU's cache
    first = 1
    for n in grids:
        indices, weights = (t.to(squashed.device, non_blocking=True) for t in _nearest(n, size))
        places = views[:, first : first + n * n].unflatten(1, (n, n))
        for place, images in zip(places.split(at_once), squashed[:, 1].split(at_once), strict=True):
            x = images[:, : size // n * n, : size // n * n]  # n = 3 leaves 2 of 224 pixels at the right and bottom
            x = _magnify(x.transpose(1, 2), indices, weights)  # (b, n·S, n·s, 3), of columns: s = S // n pixels become S
            x = _magnify(x.transpose(1, 2), indices, weights)  # (b, n·S, n·S, 3), of rows
            place.copy_(x.unflatten(2, (n, size)).unflatten(1, (n, size)).transpose(2, 3))  # (b, n, n, S, S, 3)
        first += n * n
    return views


def _nearest(n: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """For each of n times `size` places along a side the two pixels nearest to it, (2, n·S), and their weights, (2, n·S, 1)."""
    side = size // n
    centre = (torch.arange(size, dtype=torch.float64) + 0.5) * (side / size)
    pixels = (centre - 0.5).long() + torch.arange(2)[:, None]  # (2, S) of one snippet
    weights = (1 - (pixels - centre + 0.5).abs()).clamp(min=0) * (pixels < side)
    weights = (weights / weights.sum(0) * (1 << BITS) + 0.5).int()
    starts = torch.arange(n)[:, None] * side
    indices = pixels.clamp(max=side - 1)[:, None] + starts  # (2, n, S)
    return indices.flatten(1), weights.repeat(1, n)[..., None]


def _magnify(x: torch.Tensor, indices: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(b, L, M, 3) uint8 -> (b, n·S, M, 3) uint8."""
    rows = x.flatten(2).int()  # in one piece, so that what is taken of them is copied row by row
    near, far = (rows.index_select(1, i) for i in indices)
    near.mul_(weights[0]).addcmul_(far, weights[1]).add_(1 << BITS - 1).bitwise_right_shift_(BITS)
    return near.to(torch.uint8).unflatten(2, x.shape[2:])
