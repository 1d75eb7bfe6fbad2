"""TagCLIP against direct implementations of its steps; tests/test_golden.py compares it with its authors' code."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from rcnn.clip.image_tower import ImageEncoder
from rcnn.score import tagclip
from rcnn.text.classes import ClassList

PATCH = 4


def tower(layers=3, seed=0):
    """A small ViT with made-up weights: 4 × 4 patches of 4 pixels."""
    made = ImageEncoder(16, PATCH, width=32, heads=2, layers=layers, mlp_width=64, embed_dim=12)
    random = torch.Generator().manual_seed(seed)
    for parameter in made.parameters():
        parameter.data = torch.randn(parameter.shape, generator=random) * (0.3 if parameter.ndim > 1 else 1)
    return made.eval().requires_grad_(False)


def image(rows=6, columns=8, seed=1):
    return torch.randn(3, rows * PATCH, columns * PATCH, generator=torch.Generator().manual_seed(seed))


def texts(count, seed=2):
    return F.normalize(torch.randn(count, 12, generator=torch.Generator().manual_seed(seed)), dim=1)


def scores(model, picture, z, background, scale=100.0):
    return tagclip.score(model, picture, tagclip.look(model, picture), z, background, scale)


@pytest.mark.parametrize(("size", "expected"), [((32, 16), (16, 32)), ((33, 17), (32, 48)), ((1, 1), (16, 16))])
def test_sides_are_rounded_up_to_whole_patches(size, expected):
    assert tagclip.resized(Image.new("RGB", size), 16).shape == (*expected, 3)


@pytest.mark.parametrize("size", [(4000, 3000), (16 * 4000, 16), (8, 16 * 9000), (1040, 800)])
def test_a_large_image_is_shrunk_to_the_most_patches_in_about_its_shape(size):
    height, width, _ = tagclip.resized(Image.new("RGB", size), 16).shape
    assert 0.9 * tagclip.MOST_PATCHES < height * width / 256 <= tagclip.MOST_PATCHES or min(height, width) == 16
    if min(size) > 100:
        assert abs(width / height / (size[0] / size[1]) - 1) < 0.05


def test_an_image_of_the_authors_sizes_is_not_shrunk():
    assert tagclip.resized(Image.new("RGB", (1024, 768)), 16).shape == (768, 1024, 3)


def test_all_classes_in_one_product_are_the_authors_loop_over_classes():
    model, picture, t = tower(), image(), texts(9)
    found = scores(model, picture, t[:6], t[6:], 20.0)
    features, attention, _ = tagclip.look(model, picture)
    p = (20.0 * features[1:] @ t.T).softmax(-1)
    once = attention @ p
    for c in range(6):
        allowed = tagclip.boxes(tagclip.unit(once)[:, c : c + 1], (6, 8))[:, 0]
        q = (attention * allowed) @ p[:, c]
        assert found.masked[c].item() == pytest.approx(q.max().item(), abs=1e-6)
        assert found.refined[c].item() == pytest.approx(once[:, c].max().item(), abs=1e-6)
        assert found.patch[c].item() == pytest.approx(p[:, c].max().item(), abs=1e-6)


def test_without_background_the_softmax_runs_over_the_classes_alone():
    found = scores(tower(), image(), texts(1), texts(0))
    assert found.patch.tolist() == [1.0]


def test_in_the_last_block_a_token_sees_itself_alone():
    model, picture = tower(), image()
    *_, before, last = tagclip.layers(model, picture)
    block = model.transformer["resblocks"][-1]
    for token in (0, 5):
        alone = block(before.tokens[None, token : token + 1])[0, 0]
        torch.testing.assert_close(last.tokens[token], alone, atol=1e-5, rtol=1e-5)


def test_attention_is_the_mean_over_heads_of_the_layers_before_the_last_where_a_third_of_all_is_above_its_mean():
    for count in (2, 3, 6, 12):
        model, picture = tower(count), image()
        patches = torch.stack([layer.attention[1:, 1:] for layer in tagclip.layers(model, picture)])
        votes = (patches > patches.mean((1, 2), keepdim=True)).sum(0)
        expected = patches[max(count - 4, 0) : count - 1].mean(0) * (votes >= count / 3)
        torch.testing.assert_close(tagclip.look(model, picture)[1], expected)
    assert list(range(12))[8:-1] == list(range(12 - 4, 12 - 1))  # the authors' slice


def test_a_tower_of_one_block_is_refused():
    with pytest.raises(ValueError, match="two blocks or more"):
        tagclip.look(tower(1), image())


def test_positions_of_the_towers_own_grid_are_not_rounded_and_others_are():
    model = tower()
    assert tagclip.positions(model, 4, 4) is model.positional_embedding
    found = tagclip.positions(model, 6, 8)
    assert found.shape == (49, 32)
    assert torch.equal(found, found.half().float())


def test_boxes_are_those_of_8_connected_regions_without_the_last_row_and_column():
    drawn = """
        #.......
        .#....#.
        .....#..
        ........
        .......#
        ...#....
    """
    on = np.array([[mark == "#" for mark in line] for line in drawn.split()])
    expected = """
        ##......
        ##...##.
        .....##.
        ........
        ........
        ........
    """
    both = np.stack([on, np.zeros_like(on), on[:, ::-1]])
    union = tagclip.box_union(both)
    assert np.array_equal(union[0], [[mark == "#" for mark in line] for line in expected.split()])
    assert not union[1].any()  # regions of one class are not those of its neighbours


def refined(*spots, classes=6, rows=4, columns=5):
    """Scores at every patch, low but for spots (class, row, column, value)."""
    made = torch.full((rows, columns, classes), 0.01)
    for c, row, column, value in spots:
        made[row, column, c] = value
    return made.flatten(0, 1)


def test_likely_classes_come_with_the_box_of_where_they_stand_out():
    found = tagclip.candidates(refined((1, 1, 1, 0.9), (1, 2, 2, 0.8), (4, 0, 3, 0.7), (2, 0, 0, 0.3)), 6, (4, 5))
    assert [(c, box) for c, box, _ in found] == [(1, tagclip.Box(1, 1, 3, 3)), (4, tagclip.Box(3, 0, 4, 1))]
    assert found[0][2].nonzero().tolist() == [[1, 1], [2, 2]]


def test_a_likely_class_in_the_last_column_alone_ends_the_re_identification():
    spots = [(1, 1, 1, 0.9), (3, 1, 4, 0.9), (4, 1, 1, 0.9)]
    assert [c for c, _, _ in tagclip.candidates(refined(*spots), 6, (4, 5))] == [1]
    model, picture, t = tower(), image(4, 5), texts(6)
    scores = tagclip.reidentify(model, picture, refined(*spots), t, 6, scale=20.0)
    assert scores[[3, 4]].tolist() == pytest.approx([0.9, 0.9])
    assert scores[1] != pytest.approx(0.9)


def test_a_name_of_the_background_is_never_re_identified():
    assert tagclip.candidates(refined((5, 1, 1, 0.9)), 5, (4, 5)) == []


def test_many_likely_classes_are_looked_at_in_parts_to_the_same_scores(monkeypatch):
    model, picture, t = tower(), image(4, 5), texts(6)
    q = refined(*((c, c % 3, c % 4, 0.9) for c in range(6)))
    together = tagclip.reidentify(model, picture, q, t, 6, scale=20.0)
    monkeypatch.setattr(tagclip, "CUTS_AT_A_TIME", 4)
    torch.testing.assert_close(tagclip.reidentify(model, picture, q, t, 6, scale=20.0), together)


def test_the_class_token_of_a_cut_sees_no_patch_beside_the_mask():
    model = tower()
    seen = torch.zeros(1, 16, dtype=torch.bool)
    everything = tagclip.class_token(model, image(4, 4)[None], ~seen)
    torch.testing.assert_close(everything[0], model(image(4, 4)[None]).global_features[0])
    blind = [tagclip.class_token(model, image(4, 4, seed)[None], seen) for seed in (1, 2)]
    assert torch.equal(*blind)


@pytest.mark.parametrize("grid", [(1, 1), (1, 5), (5, 1)])
def test_an_image_one_patch_high_or_wide_scores_0_and_breaks_nothing(grid):
    found = scores(tower(), image(*grid), texts(4), texts(0))
    assert found.full.tolist() == [0.0] * 4
    assert found.patch.min() > 0


def test_class_names_are_put_into_85_templates():
    made = tagclip.templates(ClassList(("cat", "dog"), 0))
    assert made.targets.bincount().tolist() == [85, 85]
    assert [s for s, c in zip(made.sentences, made.targets, strict=True) if c == 1][-1] == "this is one dog in the scene."
