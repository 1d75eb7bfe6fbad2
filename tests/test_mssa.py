"""Views of an image, and the aggregation of their scores, against loops."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from rcnn.clip import image_tower
from rcnn.clip.image_tower import ImageFeatures
from rcnn.score import mssa, views

COLOURS = [(20 * i, 255 - 20 * i, (70 * i) % 256) for i in range(9)]


def checkers(n, side, size, margin=(255, 255, 255)):
    """A size × size image of n × n plain boxes, row by row, with what is left over in another colour."""
    image = Image.new("RGB", (size, size), margin)
    for i in range(n * n):
        row, column = divmod(i, n)
        image.paste(COLOURS[i], (column * side, row * side, (column + 1) * side, (row + 1) * side))
    return image


def unit(seed, *shape):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed)), dim=-1)


@pytest.mark.parametrize(("grids", "number"), [((), 1), ((2,), 5), ((3,), 10), ((2, 3), 14)])
def test_there_is_one_view_plus_one_per_snippet_all_of_one_size(grids, number):
    pixels = views.views(Image.new("RGB", (50, 30)), 32, grids)
    assert pixels.shape == (number, 32, 32, 3)
    assert pixels.dtype == torch.uint8


@pytest.mark.parametrize(("n", "side"), [(2, 112), (3, 74)])
def test_snippets_come_row_by_row_and_hold_their_own_box_alone(n, side):
    pixels = views.views(checkers(n, side, 224), 224, (n,))
    for i, view in enumerate(pixels[1:]):
        assert view.flatten(0, 1).unique(dim=0).tolist() == [list(COLOURS[i])]


def test_three_snippets_a_side_leave_two_pixels_at_the_right_and_bottom():
    image = checkers(3, 74, 224)
    full, *snippets = views.views(image, 224, (3,))
    assert (full[:, 222:] == 255).all()
    assert (full[222:] == 255).all()
    assert not any((view == 255).all(-1).any() for view in snippets)


def test_views_of_several_grids_follow_each_other():
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8))
    both = views.views(image, 24, (2, 3))
    assert torch.equal(both[:5], views.views(image, 24, (2,)))
    assert torch.equal(both[5:], views.views(image, 24, (3,))[1:])


def test_the_image_is_squashed_and_not_cropped():
    image = Image.new("RGB", (100, 20), (255, 0, 0))
    image.paste((0, 0, 255), (50, 0, 100, 20))
    (view,) = views.views(image, 20)
    assert view[:, 0].tolist() == [[255, 0, 0]] * 20
    assert view[:, -1].tolist() == [[0, 0, 255]] * 20


def test_an_image_of_the_right_size_is_its_own_full_view():
    pixels = np.random.default_rng(1).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    assert torch.equal(views.views(Image.fromarray(pixels), 16)[0], torch.from_numpy(pixels))


@pytest.mark.parametrize("mode", ["RGBA", "CMYK", "P", "LA", "L", "1"])
def test_images_of_every_mode_are_seen_as_rgb(mode):
    colour = (200, 100, 50) if mode in ("RGBA", "CMYK", "P") else (255, 255, 255)
    image = Image.new("RGB", (30, 20), colour)
    image = image.quantize(4) if mode == "P" else image.convert(mode)
    assert image.mode == mode
    pixels = views.views(image, 12, (2,))
    assert pixels.shape == (5, 12, 12, 3)
    assert (pixels.int() - torch.tensor(colour)).abs().max() <= 2


def test_a_grey_image_has_three_equal_channels():
    image = Image.fromarray(np.random.default_rng(2).integers(0, 256, (20, 20), dtype=np.uint8))
    pixels = views.views(image, 12, (2,))
    assert torch.equal(pixels[..., 0], pixels[..., 1])
    assert torch.equal(pixels[..., 0], pixels[..., 2])
    assert pixels.float().std() > 1


def test_transparent_pixels_keep_their_colour():
    image = Image.new("RGBA", (10, 10), (10, 20, 30, 0))
    assert views.views(image, 10)[0, 5, 5].tolist() == [10, 20, 30]


def test_normalise_puts_channels_first_and_subtracts_each_ones_mean():
    pixels = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    pixels[1, 2, 3] = torch.tensor([255, 51, 0], dtype=torch.uint8)
    x = image_tower.normalise(pixels, (0.5, 0.1, 0.2), (0.5, 0.1, 0.4))
    assert x.shape == (2, 3, 4, 4)
    torch.testing.assert_close(x[1, :, 2, 3], torch.tensor([1.0, 1.0, -0.5]))
    torch.testing.assert_close(x[0, :, 0, 0], torch.tensor([-1.0, -1.0, -0.5]))


def naive_local(scores, grids):
    """aggregate_local by loops over pixels of the map that the snippets' maps make side by side."""
    views, classes, height, width = scores.shape
    maps, first = [scores[0]], 1
    for n in grids:
        pooled = torch.full((classes, height, width), -np.inf)
        for y in range(n * height):
            for x in range(n * width):
                snippet = first + n * (y // height) + x // width
                value = scores[snippet, :, y % height, x % width]
                pooled[:, y // n, x // n] = torch.maximum(pooled[:, y // n, x // n], value)
        maps.append(pooled)
        first += n * n
    assert first == views
    return sum(maps) / len(maps)


@pytest.mark.parametrize(("grids", "grid"), [((), (4, 4)), ((2,), (4, 4)), ((3,), (7, 5)), ((2, 3), (7, 7))])
def test_local_maps_equal_loops_over_their_pixels(grids, grid):
    views = 1 + sum(n * n for n in grids)
    scores = torch.rand(2, views, 3, *grid, generator=torch.Generator().manual_seed(0))
    expected = torch.stack([naive_local(image, grids) for image in scores])
    torch.testing.assert_close(mssa.aggregate_local(scores, grids), expected)


def test_the_best_snippets_count_in_the_global_score():
    scores = torch.rand(3, 14, 5, generator=torch.Generator().manual_seed(1))
    expected = torch.zeros(3, 5)
    for b in range(3):
        for c in range(5):
            full, *rest = scores[b, :, c].tolist()
            expected[b, c] = (full + max(rest[:4]) + max(rest[4:])) / 3
    torch.testing.assert_close(mssa.aggregate_global(scores, (2, 3)), expected)


def test_local_score_goes_from_the_maximum_to_the_mean_as_the_temperature_rises():
    scores = torch.randn(2, 3, 49, generator=torch.Generator().manual_seed(2))
    cold, warm, hot = (mssa.pool_scores(scores, t) for t in (1e-4, 0.5, 1e6))
    torch.testing.assert_close(cold, scores.amax(-1))
    torch.testing.assert_close(hot, scores.mean(-1), rtol=0, atol=1e-5)
    assert ((warm < cold) & (warm > hot)).all()


def test_local_score_of_a_constant_map_is_the_constant():
    torch.testing.assert_close(mssa.pool_scores(torch.full((1, 2, 9), 0.3)), torch.full((1, 2), 0.3))


def features(views, seed=3):
    return ImageFeatures(unit(seed, 2, views, 8), unit(seed + 1, 2, views, 16, 8))


@pytest.mark.parametrize("views", [1, 5])
def test_score_without_snippets_is_the_formula_of_the_full_image(views):
    seen, z = features(views), unit(9, 3, 8)
    total, by_global, by_local, _ = mssa.score(seen, z, ())
    for b in range(2):
        for c in range(3):
            s = [float(patch @ z[c]) for patch in seen.local_features[b, 0]]
            weights = [np.exp(20 * v) for v in s]
            expected = sum(w * v for w, v in zip(weights, s, strict=True)) / sum(weights)
            assert by_local[b, c].item() == pytest.approx(expected, abs=1e-5)
            assert by_global[b, c].item() == pytest.approx(float(seen.global_features[b, 0] @ z[c]), abs=1e-6)
            assert total[b, c].item() == pytest.approx((by_global[b, c] + by_local[b, c]).item() / 2)


def test_score_with_snippets_pools_maps_before_patches():
    seen, z = features(14), unit(9, 3, 8)
    _, by_global, by_local, maps_of = mssa.score(seen, z, (2, 3), temperature=0.1, maps=True)
    for b in range(2):
        maps = torch.stack([(patches @ z.T).T.reshape(3, 4, 4) for patches in seen.local_features[b]])
        torch.testing.assert_close(maps_of[b], naive_local(maps, (2, 3)))
        pooled = naive_local(maps, (2, 3)).flatten(1)
        expected = ((pooled / 0.1).exp() * pooled).sum(1) / (pooled / 0.1).exp().sum(1)
        torch.testing.assert_close(by_local[b], expected, rtol=0, atol=1e-5)
        whole = seen.global_features[b] @ z.T
        torch.testing.assert_close(by_global[b], (whole[0] + whole[1:5].amax(0) + whole[5:].amax(0)) / 3)


@pytest.mark.parametrize("maps", [False, True])
def test_classes_scored_a_part_at_a_time_get_the_same_scores(monkeypatch, maps):
    seen, z = features(5), unit(9, 7, 8)
    whole = mssa.score(seen, z, (2,), maps=maps)
    monkeypatch.setattr(mssa, "CLASSES_AT_A_TIME", 3)
    for expected, found in zip(whole, mssa.score(seen, z, (2,), maps=maps), strict=True):
        assert (expected is None) == (found is None)
        if expected is not None:
            torch.testing.assert_close(found, expected)


def test_identical_views_score_as_the_full_image_alone_in_the_global_part():
    one = unit(5, 2, 1, 8)
    seen = ImageFeatures(one.expand(-1, 5, -1), unit(6, 2, 1, 16, 8).expand(-1, 5, -1, -1))
    z = unit(9, 3, 8)
    torch.testing.assert_close(mssa.score(seen, z, (2,)).global_part, mssa.score(seen, z, ()).global_part)


def test_sixteen_bit_greys_keep_their_upper_bits():
    grey = Image.fromarray(np.full((8, 8), 0x8040, np.uint16))
    assert views.views(grey, 4).unique().tolist() == [0x80]


def test_a_palette_with_transparency_is_read_without_a_warning():
    image = Image.new("P", (8, 8), 1)
    image.info["transparency"] = b"\x00\x80"
    assert views.views(image, 4).shape == (1, 4, 4, 3)


def test_grids_that_do_not_fit_the_views_are_refused():
    features = ImageFeatures(torch.zeros(1, 14, 2), torch.zeros(1, 14, 4, 2))
    with pytest.raises(ValueError, match="make 10 views, got 14"):
        mssa.score(features, torch.zeros(3, 2), (3,))
