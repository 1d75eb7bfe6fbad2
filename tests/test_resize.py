"""Snippets cut by torch are Pillow's, byte for byte, at every size and grid and on every device."""

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch._subclasses.fake_tensor import FakeTensorMode

from rcnn.config import EvaluateConfig
from rcnn.score import decoding, resize, views

EXTREMES = st.sampled_from([(0, 256), (254, 256), (0, 2)])  # bytes drawn: any, nearly saturated, nearly black


def by_pillow(squashed, grids):
    """(V, S, S, 3) views of one image's full view and square, (2, S, S, 3), cut one by one."""
    out, square, size = [squashed[0]], Image.fromarray(squashed[1]), squashed.shape[1]
    for n in grids:
        side = size // n
        for top in range(0, n * side, side):
            for left in range(0, n * side, side):
                snippet = square.crop((left, top, left + side, top + side))
                out.append(np.asarray(snippet.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(out)


def noise(seed, count, size, low=0, high=256):
    return np.random.default_rng(seed).integers(low, high, (count, 2, size, size, 3), np.uint8)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(size=st.integers(1, 80), grids=st.lists(st.integers(1, 16), min_size=1, max_size=3), bounds=EXTREMES)
@example(size=16, grids=[16], bounds=(0, 256))
@example(size=33, grids=list(range(1, 9)), bounds=(0, 256))
def test_snippets_of_any_size_and_grids_are_pillows(size, grids, bounds):
    grids = [min(n, size) for n in grids]
    squashed = noise(size, 2, size, *bounds)
    found = resize.cut(torch.from_numpy(squashed), grids)
    for image, of_image in zip(squashed, found.numpy(), strict=True):
        assert np.array_equal(of_image, by_pillow(image, grids))


@pytest.mark.parametrize("size", [224, 336, 518])
@pytest.mark.parametrize("n", range(1, 17))
def test_snippets_at_the_sizes_of_clips_are_pillows_for_every_grid_of_the_configuration(size, n):
    """The first snippet alone, whose pixels and weights are those of the others."""
    assert EvaluateConfig(grids=(n,)).grids == (n,)
    square, side = noise(n, 1, size)[0, 1], size // n
    indices, weights = (t[:, :size] for t in resize._nearest(n, size))
    x = torch.from_numpy(square[:side, :side].copy())[None]
    x = resize._magnify(resize._magnify(x.transpose(1, 2), indices, weights).transpose(1, 2), indices, weights)
    expected = Image.fromarray(square).crop((0, 0, side, side)).resize((size, size), Image.Resampling.BILINEAR)
    assert np.array_equal(x[0].numpy(), expected)


def test_the_papers_views_of_a_picture_are_those_that_pillow_cuts():
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (48, 64, 3), np.uint8)).resize((640, 480), Image.Resampling.BICUBIC)
    size, kinds = (224, 224), (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)
    squashed = np.stack([np.asarray(picture.resize(size, kind)) for kind in kinds])
    assert np.array_equal(views.views(picture, 224, (2, 3)).numpy(), by_pillow(squashed, (2, 3)))


def test_a_grid_with_more_snippets_on_a_side_than_pixels_is_refused():
    with pytest.raises(ValueError, match=r"evaluate\.grids: expected at most 8 snippets on a side, one a pixel, got 9"):
        views.views(Image.new("RGB", (20, 20)), 8, (2, 9))


@pytest.mark.parametrize("products", ["highest", "medium"])
def test_the_precision_of_float_products_changes_no_byte(products):
    squashed, before = noise(3, 1, 64), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(products)
    try:
        found = resize.cut(torch.from_numpy(squashed), (3,))
    finally:
        torch.set_float32_matmul_precision(before)
    assert np.array_equal(found[0].numpy(), by_pillow(squashed[0], (3,)))


@pytest.mark.parametrize(("grids", "number"), [((), 1), ((1,), 2), ((2, 3), 14)])
def test_what_lies_on_a_gpu_is_cut_there_into_bytes(grids, number):
    with FakeTensorMode():
        squashed = torch.empty(5, 2 if grids else 1, 32, 32, 3, dtype=torch.uint8, device="cuda")
        found = resize.cut(squashed, grids)
    assert (found.device.type, found.dtype, found.shape) == ("cuda", torch.uint8, (5, number, 32, 32, 3))


def test_batches_are_moved_to_the_gpu_before_they_are_cut(monkeypatch):
    cut_on = []
    monkeypatch.setattr(views, "cut", lambda x, grids: cut_on.append((x.device.type, x.shape)) or resize.cut(x, grids))
    with FakeTensorMode():
        squashed = torch.empty(3, 2, 32, 32, 3, dtype=torch.uint8)
        source = [decoding.ViewBatch([0, 1, 3], squashed, {2: "bad"}), decoding.ViewBatch([], None, {4: "bad"})]
        first, last = views.Views(source, (2,), torch.device("cuda"))
    assert cut_on == [("cuda", (3, 2, 32, 32, 3))]
    assert (first.pixels.device.type, first.pixels.shape) == ("cuda", (3, 5, 32, 32, 3))
    assert (first.indices, first.broken, last) == ([0, 1, 3], {2: "bad"}, source[1])


def test_batches_for_a_gpu_are_decoded_into_pinned_memory_and_others_are_not():
    assert views.batches([], 32, (2,), 4, device="cuda:0").squashed.pinned
    assert not views.batches([], 32, (2,), 4).squashed.pinned


@pytest.mark.parametrize(("grids", "squashed"), [((), 1), ((2,), 2), ((2, 3, 16), 2)])
def test_a_worker_hands_over_two_squashed_images_whatever_the_grids(grids, squashed):
    pictures = [Image.new("RGB", (40, 30))] * 3
    (batch,) = views.batches(pictures, 32, grids, 4).squashed
    assert batch.pixels.shape == (3, squashed, 32, 32, 3)
