"""The image tower: global features against open_clip, local ones against ClearCLIP's equations written out."""

import math

import pytest
import recipe
import torch
from equations import layer_norm, linear

from rcnn import clip

HEADS, LAYERS, PATCH, GRID = 2, 3, 16, 14


@pytest.fixture(scope="module")
def images():
    pictures = torch.stack([torch.from_numpy(recipe.image(7, i, 224, 224)) for i in range(2)])
    return (pictures.permute(0, 3, 1, 2) / 255 - 0.45) / 0.27


def projections(state, block, x):
    """Query, key, value of ln_1(x), each a list of heads."""
    y = layer_norm(state, f"{block}.ln_1", x)
    y = y @ state[f"{block}.attn.in_proj_weight"].T + state[f"{block}.attn.in_proj_bias"]
    return [part.chunk(HEADS, -1) for part in y.chunk(3, -1)]


def attend(state, block, query, key, value):
    maps = [(q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) for q, k in zip(query, key, strict=True)]
    return linear(state, f"{block}.attn.out_proj", torch.cat([m @ v for m, v in zip(maps, value, strict=True)], -1))


def clear_clip(state, images):
    """Unit local features: the last block is out_proj(softmax(q·qᵀ/√d)·v) alone."""
    kernel = state["visual.conv1.weight"].flatten(1)
    corners = [(PATCH * row, PATCH * column) for row in range(GRID) for column in range(GRID)]
    patches = [images[:, :, y : y + PATCH, x : x + PATCH].flatten(1) @ kernel.T for y, x in corners]
    first = state["visual.class_embedding"].expand(len(images), -1)
    x = layer_norm(state, "visual.ln_pre", torch.stack([first, *patches], 1) + state["visual.positional_embedding"])
    for i in range(LAYERS - 1):
        block = f"visual.transformer.resblocks.{i}"
        x = x + attend(state, block, *projections(state, block, x))
        y = linear(state, f"{block}.mlp.c_fc", layer_norm(state, f"{block}.ln_2", x))
        x = x + linear(state, f"{block}.mlp.c_proj", y * torch.sigmoid(1.702 * y))
    block = f"visual.transformer.resblocks.{LAYERS - 1}"
    query, _, value = projections(state, block, x)
    x = attend(state, block, query, query, value)
    x = layer_norm(state, "visual.ln_post", x) @ state["visual.proj"]
    return (x / x.square().sum(-1, keepdim=True).sqrt())[:, 1:]


def test_global_features_equal_open_clip(towers, reference_clip, images):
    expected = reference_clip().encode_image(images, normalize=True)
    torch.testing.assert_close(towers[0](images).global_features, expected, rtol=0, atol=1e-5)


def test_global_features_with_gelu_equal_open_clip_with_gelu(state, reference_clip, images):
    expected = reference_clip(quick_gelu=False).encode_image(images[:1], normalize=True)
    ours = clip.build(state, "gelu")[0](images[:1]).global_features
    torch.testing.assert_close(ours.detach(), expected, rtol=0, atol=1e-5)


def test_local_features_equal_clearclip_written_out(state, towers, images):
    ours = towers[0](images).local_features
    assert ours.shape == (2, GRID * GRID, 64)
    torch.testing.assert_close(ours, clear_clip(state, images), rtol=0, atol=1e-5)


def test_both_kinds_of_features_are_unit_vectors(towers, images):
    for features in towers[0](images):
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(features.shape[:-1]))


def test_an_images_features_do_not_depend_on_the_rest_of_the_batch(towers, images):
    both, alone = towers[0](images), towers[0](images[1:])
    for together, single in zip(both, alone, strict=True):
        torch.testing.assert_close(together[1:], single, rtol=0, atol=1e-5)
