# ruff: noqa: F811, the parameters of tests are fixtures
"""Score maps: those of `Tagger.maps`, and the overlays that `rcnn predict --maps` writes."""

import draw_mini
import numpy as np
import pointing
import pytest
import torch
from PIL import Image
from running import rcnn
from tagging import MINI, NAMES, PAIRS, folder, names, photos, pictures, run, six  # noqa: F401

from rcnn.clip.image_tower import ImageFeatures
from rcnn.score import mssa
from rcnn.score.views import views
from rcnn.tagger import Tagger
from rcnn.tagging.maps import boxes, score_maps
from rcnn.tagging.overlay import CONES_TO_SRGB, OKLAB_TO_CONES, colours, oklab_colours, overlay


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


def overlays(folder, photo):
    return sorted(path.name.removeprefix(f"{photo}.") for path in folder.iterdir())


def test_predict_writes_an_overlay_of_each_tag_named_by_class_and_score_in_the_photo_s_size(photos, names, tmp_path):
    Image.open(photos / "a.jpg").resize((150, 90)).save(photos / "a.jpg")
    out, _ = rcnn("predict", photos, *names, "--top", 2, "--maps", tmp_path / "maps")
    _, first, one, second, other = out.split()
    assert overlays(tmp_path / "maps", "a.jpg") == [f"1 {first} {one}.jpg", f"2 {second} {other}.jpg"]
    for path in (tmp_path / "maps").iterdir():
        with Image.open(path) as made:
            assert made.size == (150, 90)


def test_an_overlay_is_bright_where_the_map_is_high_and_outlines_the_snippet(six, photos):
    photo = Image.new("RGB", (200, 100), "grey")
    made = np.asarray(overlay(photo, np.eye(2)[::-1], [[0, 0, 0.5, 1]])).astype(int).sum(2)
    assert made.shape == (100, 200)
    assert made[10:40, 150:190].min() > made[60:90, 150:190].max()  # right: above, then below
    assert (made[:, 0] == 3 * 255).all()  # the outline
    assert (made[1:-1, 150] < 3 * 255).all()


def test_steps_of_the_colours_look_equally_large_and_grow_in_lightness_without_leaving_srgb():
    steps = np.linalg.norm(np.diff(oklab_colours(), axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-3)
    assert (np.diff(oklab_colours()[:, 0]) > 0).all()
    assert len(np.unique(colours(), axis=0)) == 256
    back = (colours() / 255 > 0.04045) * ((colours() / 255 + 0.055) / 1.055) ** 2.4
    back += (colours() / 255 <= 0.04045) * colours() / 255 / 12.92
    cones = np.cbrt(back @ np.linalg.inv(np.array(CONES_TO_SRGB)))
    np.testing.assert_allclose(
        cones @ np.linalg.inv(np.array(OKLAB_TO_CONES)), oklab_colours(), atol=0.01
    )  # nothing was cut off


def test_photos_of_one_name_in_two_folders_get_overlays_of_their_own(photos, names, tmp_path):
    for below in ("x", "y"):
        (photos / below).mkdir()
        (photos / below / "a.jpg").write_bytes((photos / "a.jpg").read_bytes())
    rcnn("predict", photos, *names, "--top", 1, "--maps", tmp_path / "maps")
    assert len([path for path in (tmp_path / "maps").rglob("*.jpg") if path.is_file()]) == 3


def test_a_class_name_with_a_slash_or_very_long_is_a_file_name_all_the_same(photos, tmp_path):
    (tmp_path / "odd.txt").write_text("../dog/cat\n" + "é" * 50)
    rcnn("predict", photos, "--classes", tmp_path / "odd.txt", *PAIRS, f"cache={tmp_path}/c", "--maps", tmp_path / "maps")
    assert len(list((tmp_path / "maps").iterdir())) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c", "maps", "odd.txt", "photos"]


def test_maps_are_written_for_photos_whose_scores_are_kept(photos, names, tmp_path):
    rcnn("predict", photos, *names)
    rcnn("predict", photos, *names, "--maps", tmp_path / "maps")
    assert len(list((tmp_path / "maps").iterdir())) == 5


def test_a_photo_whose_overlay_cannot_be_written_is_named_and_the_others_are_written(photos, names, tmp_path):
    (photos / "b.jpg").write_bytes((photos / "a.jpg").read_bytes())
    long = photos / f"{'c' * 240}.jpg"
    long.write_bytes((photos / "a.jpg").read_bytes())
    _, err = rcnn("predict", photos, *names, "--top", 1, "--maps", tmp_path / "maps", code=1)
    assert "skipped" in err
    assert "File name too long" in err
    assert len(list((tmp_path / "maps").iterdir())) == 2


def test_a_folder_of_maps_that_would_be_tagged_the_next_time_is_refused(photos, names):
    _, err = rcnn("predict", photos, *names, "--maps", photos / "maps", code=2)
    assert "choose a folder outside of them" in err
    assert err.count("\n") == 1


def test_a_file_as_folder_of_maps_is_refused(photos, names, tmp_path):
    _, err = rcnn("predict", photos, *names, "--maps", tmp_path / "names.txt", code=2)
    assert "--maps: expected a folder" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("other", [["--remove"], ["--xmp", "--dry-run"]])
def test_maps_with_what_writes_none_is_refused(photos, names, tmp_path, other):
    given = names[2:] if other == ["--remove"] else names
    _, err = rcnn("predict", photos, *given, *other, "--maps", tmp_path / "maps", code=2)
    assert "--maps: neither" in err


def test_the_pointing_game_counts_points_in_boxes_of_things_alone(tmp_path):
    draw_mini.draw_benchmark(tmp_path, 6)
    world = pointing.World.load(pointing.DRAWINGS)
    scenes = {name for scene in world.scenes.values() for name in (scene.name, *scene.parents)}
    found = dict(pointing.objects(tmp_path / "instances.json"))
    assert len(found) == 6
    for there in found.values():
        things = there.keys() & world.objects
        assert things - scenes == things
        for kind in there.keys() - things:  # of all objects of the kind
            assert len(there[kind]) == sum(kind in world.objects[thing].parents for thing in things)
    places = np.array([[0.5, 0, 1, 0.5], [0, 0.9, 0.1, 1]])
    points = np.array([[0.75, 0.25], [0.25, 0.75], [0.05, 0.95], [0.25, 0.25]])  # x, y
    assert pointing.inside(points, places).tolist() == [True, False, True, False]
    rates = pointing.rates(np.array([[1.0, 2], [3, 3]] * 50))
    assert rates[0] == 80
    assert 70 < np.quantile(rates[1:], 0.025) < 80 < np.quantile(rates[1:], 0.975) < 90
