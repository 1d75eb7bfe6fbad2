"""Where on an image a class is seen: its score map, aggregated as MSSA does, and the snippets that won."""

from collections.abc import Sequence
from typing import NamedTuple

import torch

from rcnn.clip.image_tower import ImageFeatures
from rcnn.score import mssa


class Maps(NamedTuple):
    """Of one image and C classes; a map is H × W patches of the whole image, row by row from the top left."""

    class_names: list[str]  # C
    maps: torch.Tensor  # (C, H, W) float32, cosines
    scores: torch.Tensor  # (C,) float32, those of Tagger.scores
    snippets: torch.Tensor  # (C, G, 4) float32, of each of G grids the snippet whose global score is best: see `boxes`


def score_maps(
    features: ImageFeatures,
    class_embeddings: torch.Tensor,
    class_names: Sequence[str],
    grids: Sequence[int],
    temperature: float,
    size: int,
) -> Maps:
    """The maps of one image, whose views are `size` pixels on a side: features (1, V, D) and (1, V, N, D)."""
    scores = mssa.score(features, class_embeddings, grids, temperature, maps=True)
    by_view = (features.global_features[0] @ class_embeddings.T).split([1, *(n * n for n in grids)])  # each (n², C)
    best = [boxes(n, size)[part.argmax(0).cpu()] for n, part in zip(grids, by_view[1:], strict=True)]  # each (C, 4)
    snippets = torch.stack(best, 1) if best else torch.zeros(len(class_names), 0, 4)
    return Maps(list(class_names), scores.maps[0].cpu(), scores.total[0].cpu(), snippets)


def boxes(n: int, size: int) -> torch.Tensor:
    """Left, top, right and bottom of n × n snippets, row by row, as shares of the image's sides: (n², 4) float32."""
    side = size // n / size  # n = 3 leaves 2 of 224 pixels at the right and bottom
    row, column = torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij")
    corner = torch.stack([column, row], -1).reshape(n * n, 2) * side
    return torch.cat([corner, corner + side], 1)
