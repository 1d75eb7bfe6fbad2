"""A method of one's own, measured beside all rows: copy this file, change it, and name its functions.

python -m rcnn.evaluate outputs/mini rows.short=scripts.own_method:short_prompts scorers.ten=scripts.own_method:ten_patches
"""

import torch
from torch.nn import functional as F

from rcnn import clip
from rcnn.clip.image_tower import ImageFeatures
from rcnn.config import EvaluateConfig

PROMPTS = ("{}", "a {}.", "this is a {}.")


def short_prompts(class_names: list[str], model: clip.Clip) -> torch.Tensor:
    """A row: class embeddings (C, D), of any length; here the mean over three short prompts."""
    sentences = [prompt.format(name) for name in class_names for prompt in PROMPTS]
    features = model.text.encode(clip.tokenize(sentences, len(model.text.positional_embedding)))
    return features.unflatten(0, (-1, len(PROMPTS))).mean(1)


def ten_patches(features: ImageFeatures, class_embeddings: torch.Tensor, settings: EvaluateConfig) -> torch.Tensor:
    """A scorer: scores (B, C) from features of the views, (B, V, D) and (B, V, N, D); here of the full image, view 0.

    The mean of the whole and of the ten best patches, weighed by the softmax of their scores.
    """
    whole = features.global_features[:, 0] @ class_embeddings.T
    best = (features.local_features[:, 0] @ class_embeddings.T).topk(10, dim=1).values  # (B, 10, C)
    weights = F.softmax(best / settings.temperature, dim=1)
    return (whole + (weights * best).sum(1)) / 2
