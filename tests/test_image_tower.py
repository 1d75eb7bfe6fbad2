"""The image tower: global features against open_clip, local ones against ClearCLIP's equations written out."""

import plain_clip
import pytest
import recipe
import torch

from rcnn import clip

HEADS, GRID = 2, 14


@pytest.fixture(scope="module")
def images():
    pictures = torch.stack([torch.from_numpy(recipe.image(7, i, 224, 224)) for i in range(2)])
    return (pictures.permute(0, 3, 1, 2) / 255 - 0.45) / 0.27  # (B, S, S, 3) -> (B, 3, S, S)


def test_global_features_equal_open_clip(towers, reference_clip, images):
    expected = reference_clip().encode_image(images, normalize=True)
    torch.testing.assert_close(towers[0](images).global_features, expected, rtol=0, atol=1e-5)


def test_global_features_with_gelu_equal_open_clip_with_gelu(state, reference_clip, images):
    expected = reference_clip(quick_gelu=False).encode_image(images[:1], normalize=True)
    ours = clip.build(state, "gelu")[0](images[:1]).global_features
    torch.testing.assert_close(ours.detach(), expected, rtol=0, atol=1e-5)


def test_global_and_local_features_equal_clearclip_written_out(state, towers, images):
    ours = towers[0](images)
    assert ours.local_features.shape == (2, GRID * GRID, 64)
    for found, expected in zip(ours, plain_clip.image_features(state, images, HEADS), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)


def test_both_kinds_of_features_are_unit_vectors(towers, images):
    for features in towers[0](images):
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(features.shape[:-1]))


def test_an_images_features_do_not_depend_on_the_rest_of_the_batch(towers, images):
    both, alone = towers[0](images), towers[0](images[1:])
    for together, single in zip(both, alone, strict=True):
        torch.testing.assert_close(together[1:], single, rtol=0, atol=1e-5)
