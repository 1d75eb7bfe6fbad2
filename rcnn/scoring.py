"""What an evaluation scores images with: its sets of class embeddings, and their scorers, with functions of one's own."""

from collections.abc import Mapping, Sequence
from functools import partial
from types import MappingProxyType

import torch

from rcnn import rows
from rcnn.clip.image_tower import ImageFeatures
from rcnn.config import EvaluateConfig
from rcnn.functions import Function
from rcnn.printing import short
from rcnn.score.mssa import Scores
from rcnn.score.score_file import ScoredSet


def scored_sets(
    settings: EvaluateConfig,
    embeddings: dict[str, torch.Tensor],
    epochs: dict[int, torch.Tensor],
    own: Mapping[str, Function] = MappingProxyType({}),
    of_rows: Sequence[str] = (),
) -> dict[str, ScoredSet]:
    """Rows by all their scorers, in parts if these are measured too; epochs by the last scorer, which is the method's.

    `own` scorers score the rows `of_rows`, and come before the last.
    """
    in_parts = tuple(key for key, scorer in rows.SCORERS.items() if scorer.has_parts and settings.diagnostics)
    sets = {}
    mine = {key: partial(_own_scores, function, settings) for key, function in own.items()}
    for row, z in embeddings.items():
        *first, last = rows.scorers(row, settings)
        of_row = {key: _scorer(key, settings) for key in first} | (mine if row in of_rows else {})
        sets[row] = ScoredSet(z, of_row | {last: _scorer(last, settings)}, in_parts)
    last = rows.method_scorer(settings)
    return sets | {f"epoch/{epoch}": ScoredSet(z, {last: _scorer(last, settings)}) for epoch, z in epochs.items()}


def _scorer(key, settings):
    return partial(rows.of_key(key).score, settings=settings)


def _own_scores(function, settings, features, class_embeddings):
    """Scores by a function of one's own, which is given copies: what it does with them is felt by no other scorer."""
    scores = function(ImageFeatures(*(f.clone() for f in features)), class_embeddings.clone(), settings)
    shape = len(features.global_features), len(class_embeddings)
    if not isinstance(scores, torch.Tensor):
        raise ValueError(f"{function.name}: expected a tensor of scores {shape}, got {short(scores)}")
    if scores.shape != shape or not scores.is_floating_point():
        found = f"{tuple(scores.shape)} of {scores.dtype}"
        raise ValueError(f"{function.name}: expected scores of shape {shape} of floating-point numbers, got {found}")
    if not (total := scores.float()).isfinite().all():
        raise ValueError(f"{function.name}: expected finite scores")
    return Scores(total, None, None, None)
