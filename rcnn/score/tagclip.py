"""TagCLIP: classes of an image from its patches, without training (Lin et al., AAAI 2024), as its authors' code has it.

An image is seen once, at its own size. In the last block every token sees itself alone, so that patches keep what they show;
the probabilities of classes at every patch are smoothed by the attention of the blocks before (`look`), restricted
to where a class stands out (`boxes`), and smoothed again. The classes that are then likely are looked at once more, each cut
out of the image (`reidentify`).

Constants are the authors', who wrote them for the 12 blocks of ViT-B/16; with L blocks, attention is that of the three before
the last (numbers L - 4 to L - 2 from 0), and an entry counts if it is above the mean in a third of all L. An image one patch
high or wide scores 0 after the second refinement: their code leaves out the last row and column.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch.nn import functional as F

from rcnn.clip.image_tower import ImageEncoder
from rcnn.text import corpus
from rcnn.text.classes import ClassList
from rcnn.text.corpus import Corpus

TEMPLATES = (  # added to OpenAI's 80
    "there is a {} in the scene.", "there is the {} in the scene.", "this is a {} in the scene.",
    "this is the {} in the scene.", "this is one {} in the scene.",
)  # fmt: skip
MOST_PATCHES = 3072  # 1,024 × 768 pixels by 16; attention is quadratic in them: five such matrices are 190 MB
CUTS_AT_A_TIME = 16


class TagScores(NamedTuple):
    """Scores of an image for C classes, (C,) each, in [0, 1]; each field is one step further."""

    patch: torch.Tensor  # the best patch
    refined: torch.Tensor  # after one refinement by attention
    masked: torch.Tensor  # after the second, where the class stands out
    full: torch.Tensor  # with re-identification: TagCLIP


class Seen(NamedTuple):
    """What one pass over an image gives, whatever the classes."""

    features: torch.Tensor  # (1 + N, D) unit vectors of class token and patches
    attention: torch.Tensor  # (N, N) among patches, 0 where it is above the mean of too few layers
    votes: torch.Tensor  # (N, N) how many these are


class Box(NamedTuple):
    """A rectangle of patches; `right` and `bottom` are exclusive."""

    left: int
    top: int
    right: int
    bottom: int


def templates(classes: ClassList) -> Corpus:
    """OpenAI's 80 templates and TagCLIP's five, filled with every class name."""
    return corpus.templates(classes) + Corpus.of([[text.format(name) for text in TEMPLATES] for name in classes.names])


def resized(image: Image.Image, patch: int, most: int = MOST_PATCHES) -> torch.Tensor:
    """(H, W, 3) uint8 of an RGB image with its sides rounded up to whole patches, or shrunk to `most` patches in all."""
    columns, rows = (math.ceil(side / patch) for side in image.size)
    if rows * columns > most:
        shrink = math.sqrt(most / (rows * columns))
        rows = min(max(int(rows * shrink), 1), most)
        columns = min(max(int(columns * shrink), 1), most // rows)
    image = image.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.array(image))


def score(
    tower: ImageEncoder,
    image: torch.Tensor,
    seen: Seen,
    class_embeddings: torch.Tensor,
    background: torch.Tensor,
    scale: float,
) -> TagScores:
    """Scores of one image.

    Args:
        image: (3, H, W) normalised, of whole patches.
        seen: what `look` gives for it.
        class_embeddings: (C, D) unit vectors.
        background: (K, D) of names that compete with the classes at every patch and are not scored; K may be 0.
        scale: of cosines before the softmax over classes, that of CLIP's weights.
    """
    texts, count = torch.cat([class_embeddings, background]), len(class_embeddings)
    probabilities = (scale * seen.features[1:] @ texts.T).softmax(-1)  # (N, C + K)
    refined_once = seen.attention @ probabilities
    refined = seen.attention @ (probabilities * boxes(unit(refined_once), grid_of(tower, image)))
    full = reidentify(tower, image, refined, texts, count, scale)
    return TagScores(*(step[:, :count].amax(0) for step in (probabilities, refined_once, refined)), full)


def grid_of(tower: ImageEncoder, image: torch.Tensor) -> tuple[int, int]:
    """(rows, columns) of an image's patches."""
    side = tower.conv1.kernel_size[0]
    return image.shape[-2] // side, image.shape[-1] // side


def look(tower: ImageEncoder, image: torch.Tensor) -> Seen:
    """One pass over an image, (3, H, W); the tower in float32, since lower precision moves what is compared with means."""
    count = len(tower.transformer["resblocks"])
    if count < 2:
        raise ValueError("TagCLIP: expected an image tower of two blocks or more")
    chosen = range(max(count - 4, 0), count - 1)
    votes, total = 0, 0
    for number, layer in enumerate(layers(tower, image)):
        among_patches = layer.attention[1:, 1:]  # whose rows are not normalised again
        votes = votes + (among_patches > among_patches.mean())
        if number in chosen:
            total = total + among_patches
    return Seen(tower.to_shared_space(layer.tokens), total / len(chosen) * (3 * votes >= count), votes)


class Layer(NamedTuple):
    """What a block makes of an image."""

    tokens: torch.Tensor  # (1 + N, width)
    attention: torch.Tensor  # (1 + N, 1 + N), mean over heads, before anything is masked


def layers(tower: ImageEncoder, image: torch.Tensor) -> Iterator[Layer]:
    """The blocks, one after the other, each token seeing itself alone in the last."""
    x = tower.embed(image[None], positions(tower, *grid_of(tower, image)))
    *_, last = blocks = tower.transformer["resblocks"]
    for block in blocks:
        query, key, value = block.attn.project(block.ln_1(x), 0, 3)
        # in the last block all scores but a token's own are lowered by 100 before the softmax: only its value is left
        seen = block.attn.merge(value) if block is last else block.attn.mix(query, key, value)
        x = block.feed_forward(x + seen)
        yield Layer(x[0], block.attn.weights(query, key)[0])


def positions(tower: ImageEncoder, rows: int, columns: int) -> torch.Tensor:
    """Positional embeddings (1 + rows·columns, width), interpolated and rounded to float16, as in the authors' code."""
    known, grid = tower.positional_embedding, tower.grid
    if (rows, columns) == (grid, grid):
        return known
    patches = known[1:].T.reshape(1, -1, grid, grid)  # (N, width) -> (1, width, H, W)
    patches = F.interpolate(patches, (rows, columns), mode="bilinear", align_corners=False)
    return torch.cat([known[:1], patches[0].flatten(1).T]).half().to(known.dtype)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Every column scaled to [0, 1]; (N, C)."""
    low, high = x.aminmax(dim=0)
    return (x - low) / (high - low).clamp(min=torch.finfo(x.dtype).tiny)


def boxes(scaled: torch.Tensor, grid: tuple[int, int]) -> torch.Tensor:
    """(N, C) bool: patches in the box of a region where a class's scores, (N, C) in [0, 1], are above their mean."""
    grey = (255 * scaled).to(torch.uint8)
    on = grey > (scaled.mean(0) * grey.amax(0)).int()
    on = on.T.unflatten(1, grid).cpu().numpy()  # (N, C) -> (C, H, W)
    return torch.from_numpy(box_union(on)).flatten(1).T.to(scaled.device)


def box_union(on: np.ndarray) -> np.ndarray:
    """(C, H, W) bool: the boxes of all 8-connected regions of every (H, W) map, without the last row and column."""
    within_a_map = np.zeros((3, 3, 3), bool)
    within_a_map[1] = True
    regions, _ = ndimage.label(on, within_a_map)
    union = np.zeros_like(on)
    for c, rows, columns in ndimage.find_objects(regions):
        union[c, rows, columns] = True
    union[:, -1], union[:, :, -1] = False, False
    return union


def reidentify(
    tower: ImageEncoder, image: torch.Tensor, refined: torch.Tensor, texts: torch.Tensor, count: int, scale: float
) -> torch.Tensor:
    """Scores of the first `count` classes, each of the likely ones averaged with its probability in its part of the image.

    Args:
        refined: (N, C + K) scores at every patch after the second refinement.
        texts: (C + K, D), C = `count` class embeddings and then the background's.
    """
    scores = refined[:, :count].amax(0)
    found = candidates(refined, count, grid_of(tower, image))
    for start in range(0, len(found), CUTS_AT_A_TIME):
        part = found[start : start + CUTS_AT_A_TIME]
        cuts, seen = (torch.stack(c) for c in zip(*(cut(tower, image, box, on) for _, box, on in part), strict=True))
        probabilities = (scale * class_token(tower, cuts, seen) @ texts.T).softmax(-1)
        for (c, _, _), own in zip(part, probabilities, strict=True):
            scores[c] = (scores[c] + own[c]) / 2
    return scores


def candidates(refined: torch.Tensor, count: int, grid: tuple[int, int]) -> list[tuple[int, Box, torch.Tensor]]:
    """(class, its box, (H, W) bool where it stands out) of the likely ones among the first `count`, in their order.

    The first whose box is empty without the last row and column ends the list, as it ends the authors' loop.
    """
    rows, columns = grid
    low, high = refined.aminmax()
    likely = refined[:, :count].amax(0) > low + 0.5 * (high - low)
    stands_out = (unit(refined[:, :count]) > 0.5).T.unflatten(1, grid)  # (N, C) -> (C, H, W)
    found = []
    for c in likely.nonzero()[:, 0].tolist():
        y, x = stands_out[c].nonzero().T
        box = Box(int(x.min()), int(y.min()), min(int(x.max()) + 1, columns - 1), min(int(y.max()) + 1, rows - 1))
        if box.left >= box.right or box.top >= box.bottom:
            break
        found.append((c, box, stands_out[c]))
    return found


def cut(tower: ImageEncoder, image: torch.Tensor, box: Box, on: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The part of an image in a box, (3, S, S), and the patches of it that the class token may look at, (N,) bool."""
    side = tower.conv1.kernel_size[0]
    rows, columns = slice(box.top, box.bottom), slice(box.left, box.right)
    within = image[:, side * box.top : side * box.bottom, side * box.left : side * box.right]
    within = F.interpolate(within[None], (tower.image_size,) * 2, mode="bilinear", align_corners=False)[0]
    seen = F.interpolate(on[None, None, rows, columns].float(), (tower.grid,) * 2, mode="nearest")
    return within, seen.flatten() > 0


def class_token(tower: ImageEncoder, images: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    """(B, D) global features by the unchanged blocks, of images (B, 3, S, S), the class token seeing the patches in `seen`."""
    x = tower.embed(images)
    mask = torch.ones(len(x), 1, x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
    mask[:, 0, 0, 1:] = seen
    for block in tower.transformer["resblocks"]:
        x = block(x, mask)
    return tower.to_shared_space(x[:, 0])
