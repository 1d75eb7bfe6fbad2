# ruff: noqa: F811, the parameters of tests are fixtures
"""Score maps: those of `Tagger.maps`, and the overlays that `rcnn predict --maps` writes."""

import numpy as np
import pytest
import torch
from PIL import Image
from tagging import MINI, NAMES, PAIRS, folder, names, photos, pictures, run, six  # noqa: F401

from rcnn.clip.image_tower import ImageFeatures
from rcnn.score import mssa
from rcnn.score.views import views
from rcnn.tagger import Tagger
from rcnn.tagging.maps import boxes, score_maps


def test_a_map_is_aggregated_as_mssa_does_and_its_scores_are_those_of_tagging(six, pictures):
    found = six.maps(pictures[0])
    grid = six.model.image.grid
    assert (found.maps.shape, found.maps.dtype) == ((6, grid, grid), torch.float32)
    assert found.class_names == NAMES
    torch.testing.assert_close(found.scores, six.scores(pictures[0]), rtol=0, atol=1e-6)
    pixels = views(Image.open(pictures[0]), six.model.image.image_size, (2, 3))[None]
    features = six.model.encode_views(pixels)
    local = (six.class_embeddings @ features.local_features.mT).unflatten(-1, (grid, grid))  # of all 14 views
    torch.testing.assert_close(found.maps, mssa.aggregate_local(local, (2, 3))[0], rtol=0, atol=1e-6)


def test_maps_of_some_classes_come_in_the_order_of_their_names(six, pictures):
    every, some = six.maps(pictures[1]), six.maps(pictures[1], ["Tree", "dog"])
    assert some.class_names == ["tree", "dog"]
    for mine, whole in zip(some[1:], every[1:], strict=True):
        torch.testing.assert_close(mine, whole[[3, 0]], rtol=0, atol=1e-6)


def test_a_homonym_is_chosen_by_its_note(pictures):
    tagger = Tagger.from_names(["crane [a bird]", "crane [a machine]"], **MINI)
    assert tagger.maps(pictures[0], ["crane [a machine]"]).maps.shape[0] == 1
    with pytest.raises(ValueError, match="several classes"):
        tagger.maps(pictures[0], ["crane"])


def test_the_snippet_that_wins_is_the_one_with_the_best_global_score():
    z = torch.eye(2)
    views = torch.zeros(1, 14, 2)
    views[0, 1 + 2, 0] = 1  # bottom left of 2 × 2, for class 0
    views[0, 1 + 4 + 5, 1] = 1  # middle row, right of 3 × 3, for class 1
    found = score_maps(ImageFeatures(views, torch.zeros(1, 14, 4, 2)), z, ["a", "b"], (2, 3), 0.05, 224)
    assert found.snippets.shape == (2, 2, 4)
    assert found.snippets[0, 0].tolist() == [0, 0.5, 0.5, 1]
    torch.testing.assert_close(found.snippets[1, 1], torch.tensor([148, 74, 222, 148]) / 224)


def test_boxes_of_snippets_are_where_they_are_cut(six):
    size = six.model.image.image_size
    white = np.full((size, size, 3), 255, np.uint8)
    for number, box in enumerate(boxes(3, size)):
        left, top, right, bottom = (box * size).round().int().tolist()
        black = white.copy()
        black[top:bottom, left:right] = 0
        of_snippets = views(black, size, (3,))[1:]
        assert [i for i, snippet in enumerate(of_snippets) if snippet.max() == 0] == [number]


def test_without_grids_there_are_maps_and_no_snippets(pictures):
    found = Tagger.from_names(NAMES, **MINI, grids=()).maps(pictures[0])
    assert found.maps.shape[0] == 6
    assert found.snippets.shape == (6, 0, 4)


@pytest.mark.parametrize("given", ["dog", [], 5, [5], [["dog"]], ["zebra"]])
def test_names_that_are_no_classes_of_the_list_are_one_clear_line(six, pictures, given):
    with pytest.raises(ValueError, match=r"names: expected a list of class names|'zebra' \(no class\)"):
        six.maps(pictures[0], given)


def test_a_photo_that_cannot_be_read_is_named(six, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"no photo")
    with pytest.raises(ValueError, match=r"cannot read image .*bad\.jpg"):
        six.maps(tmp_path / "bad.jpg")
