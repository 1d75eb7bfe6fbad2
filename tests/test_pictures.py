"""The pictures of the README: the script draws the one that is kept, and the other is well-formed."""

import json
from pathlib import Path
from xml.etree import ElementTree

import draw_mini
import draw_pictures
import numpy as np
import pytest
from drawing import DRAWINGS, World
from PIL import Image

ROOT = Path(__file__).parents[1]
SIZE = (1500, 750)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The file that the script writes, in a folder that is not there yet."""
    path = tmp_path_factory.mktemp("pictures") / "new" / "tags.png"
    draw_pictures.main(["--output", str(path)])
    return path


def test_the_script_draws_a_picture_of_the_expected_size_that_is_small_enough_for_a_readme(drawn):
    with Image.open(drawn) as image:
        assert image.size == SIZE
    assert drawn.stat().st_size < 150_000


def test_the_picture_that_is_kept_is_the_one_that_the_script_draws(drawn):
    blocks = []
    for path in (ROOT / "data" / "mini" / "tags.png", drawn):
        with Image.open(path) as image:
            blocks.append(np.asarray(image.convert("RGB").reduce(10), float))
    assert np.abs(blocks[0] - blocks[1]).max() < 25  # other versions of Pillow may smooth and choose colours differently


def test_the_drawings_are_the_first_of_the_benchmark_with_two_objects_or_more(tmp_path):
    world = World.load(DRAWINGS)
    chosen = list(draw_pictures.chosen(world))
    draw_mini.draw_benchmark(tmp_path, chosen[-1] + 1)
    content = json.loads((tmp_path / "instances.json").read_text())
    category = {c["id"]: c["name"] for c in content["categories"]}
    shown = [
        {category[a["category_id"]] for a in content["annotations"] if a["image_id"] == i["id"]} for i in content["images"]
    ]
    several = [number for number, names in enumerate(shown) if len(names & world.objects.keys()) >= 2]
    assert several == chosen
    assert len(chosen) == 4
    for number in chosen:
        one, finer = draw_pictures.drawing(world, number), draw_pictures.drawing(world, number, 2)
        assert one.labels() == finer.labels() == shown[number]
        assert [p.box for p in one.placed] == [p.box for p in finer.placed]
        assert finer.image.size == tuple(2 * side for side in one.image.size)
        with Image.open(tmp_path / "images" / f"{number:05}.jpg") as image:
            assert image.size == one.image.size


def test_a_tag_that_is_true_has_a_filled_bar_and_one_that_is_not_a_hollow_one():
    sheet = draw_pictures.Sheet()
    sheet.column(draw_pictures.MARGIN, Image.new("RGB", (8, 6)), [("cat", 0.5), ("dog", 0.5)], {"cat"})
    middle = draw_pictures.FIRST_ROW + 20 + draw_pictures.BAR / 2
    places = [draw_pictures.scaled(draw_pictures.MARGIN + 50, middle + row * draw_pictures.ROW) for row in range(2)]
    colours = [sheet.image.getpixel(tuple(place)) for place in places]
    assert ["#" + bytes(rgb).hex() for rgb in colours] == [draw_pictures.BLUE, draw_pictures.BACKGROUND]


def test_the_pipeline_is_well_formed_and_loads_nothing_from_elsewhere():
    svg = ElementTree.parse(ROOT / "data" / "pipeline.svg").getroot()
    namespace = "{http://www.w3.org/2000/svg}"
    assert svg.tag == f"{namespace}svg"
    references = [value for node in svg.iter() for name, value in node.attrib.items() if name.endswith("href")]
    assert references
    assert all(reference.startswith("#") for reference in references)
    identifiers = {node.get("id") for node in svg.iter()}
    assert {reference[1:] for reference in references} <= identifiers
    assert svg.find(f"{namespace}title").text
