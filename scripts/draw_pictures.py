#!/usr/bin/env python
"""Draw the picture of tagged drawings in the README: data/mini/tags.png.

    python scripts/draw_pictures.py [--output data/mini/tags.png]

It shows the first four pictures of the mini benchmark that have two objects or more, whatever their tags turn out to be, each
with the five best of the benchmark's 84 classes by `Tagger.from_names`: class names alone, nothing learned. A filled bar marks
a tag that is true of the drawing. What is tagged are the pictures in the size that the benchmark draws, 96 to 192 pixels a side
(before their compression to JPEG); what is shown are the same drawings in finer pixels. The other picture of the README,
data/pipeline.svg, is written by hand.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import draw_mini
from drawing import DRAWINGS, Picture, World, draw

from rcnn import Tagger, cli
from rcnn.files import replace_file
from rcnn.tagging.tags import TOP, Tag
from rcnn.text.classes import ClassList

DATA = ROOT / "data" / "mini"
PICTURES, OBJECTS = 4, 2  # columns; fewest objects in a picture
FINER = 8  # pixels on a side of a drawing that is shown for each one of the benchmark's picture; reduced when it is put in
LONGEST = 0.7  # score that fills the whole width
COLOURS = 160  # of the image file

# lengths in units of UNIT pixels; two of these pixels on a side become one of the image file, which smooths the edges
UNIT, REDUCED = 3, 2
WIDTH, HEIGHT, MARGIN, GAP, TILE = 1000, 500, 28, 24, 218
FIRST_ROW, ROW, BAR, CAPTION = 262, 36, 7, 472  # top of the first tag, distance between tags, thickness of a bar, baseline
BACKGROUND, FRAME, PANEL, TRACK = "#ffffff", "#d8dee4", "#f3f5f8", "#eceff3"
INK, GREY, BLUE = "#1f2933", "#66707c", "#3b6ea5"


def drawing(world: World, number: int, finer: int = 1) -> Picture:
    """Picture `number` of the mini benchmark, with `finer` times as many pixels on a side."""
    rng = np.random.default_rng([draw_mini.SEED, number])
    width, height = (finer * int(side) for side in rng.integers(*draw_mini.SIDES, size=2, endpoint=True))
    return draw(world, rng, draw_mini.STYLE, width, height)


def chosen(world: World) -> Iterator[int]:
    """Numbers of the first PICTURES pictures of the mini benchmark with at least OBJECTS objects."""
    several = (number for number in itertools.count() if len(drawing(world, number).placed) >= OBJECTS)
    return itertools.islice(several, PICTURES)


def scaled(*lengths: float) -> list[int]:
    """Pixels of lengths in units."""
    return [round(UNIT * length) for length in lengths]


class Sheet:
    """The card that drawings and tags are put on."""

    def __init__(self) -> None:
        self.image = Image.new("RGB", tuple(scaled(WIDTH, HEIGHT)), BACKGROUND)
        self.canvas = ImageDraw.Draw(self.image)
        self.canvas.rectangle((0, 0, self.image.width - 1, self.image.height - 1), outline=FRAME, width=UNIT)

    def text(self, x: float, y: float, text: str, colour: str, size: float = 14, anchor: str = "ls") -> float:
        """Write on the baseline y; returns the width of the text."""
        font = ImageFont.load_default(UNIT * size)
        self.canvas.text(scaled(x, y), text, colour, font, anchor)
        return font.getlength(text) / UNIT

    def bar(self, x: float, y: float, width: float, filled: bool) -> None:
        """A filled or hollow bar."""
        corners, radius = scaled(x, y, x + width, y + BAR), round(UNIT * BAR / 2)
        self.canvas.rounded_rectangle(corners, radius, BLUE if filled else BACKGROUND, BLUE, width=4)

    def column(self, x: int, picture: Image.Image, tags: list[Tag], true: set[str]) -> None:
        """A drawing above its tags."""
        tile = Image.new("RGB", (UNIT * TILE, UNIT * TILE), PANEL)
        picture = ImageOps.contain(picture, tile.size, Image.Resampling.LANCZOS)
        tile.paste(picture, tuple((UNIT * TILE - side) // 2 for side in picture.size))
        self.image.paste(tile, (UNIT * x, UNIT * MARGIN))
        for y, (name, score, *_) in zip(itertools.count(FIRST_ROW, ROW), tags, strict=False):
            self.text(x, y + 14, name, INK if name in true else GREY)
            self.text(x + TILE, y + 14, f"{score:.2f}", GREY, 13, "rs")
            self.canvas.rounded_rectangle(scaled(x, y + 20, x + TILE, y + 20 + BAR), round(UNIT * BAR / 2), TRACK)
            self.bar(x, y + 20, TILE * max(score, 0) / LONGEST, name in true)

    def caption(self, x: float, y: float, classes: int) -> None:
        """What the bars mean."""
        for filled, words in ((True, "true of the drawing"), (False, "not true of it")):
            self.bar(x, y - 9, 26, filled)
            x += 34 + self.text(x + 34, y, words, GREY, 13) + 24
        self.text(WIDTH - MARGIN, y, f"the {TOP} best of {classes} class names; scores are cosines", GREY, 13, "rs")


def tags_sheet() -> Image.Image:
    """The drawings and their tags."""
    world = World.load(DRAWINGS)
    names = ClassList.read(DATA / "seen.txt", DATA / "unseen.txt").names
    tagger = Tagger.from_names(names, model=None, pretrained=None, weights=DATA / "clip.safetensors", device="cpu")
    sheet = Sheet()
    for column, number in enumerate(chosen(world)):
        picture = drawing(world, number)
        x = MARGIN + column * (TILE + GAP)
        sheet.column(x, drawing(world, number, FINER).image, tagger.tag(picture.image, TOP), picture.labels())
    sheet.caption(MARGIN, CAPTION, len(names))
    return sheet.image.reduce(REDUCED)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=DATA / "tags.png", help="image file (default: data/mini/tags.png)")
    output = parser.parse_args(argv).output
    with replace_file(output) as file:
        tags_sheet().quantize(COLOURS, kmeans=4, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    print(f"{output} is drawn")


if __name__ == "__main__":
    cli.run(main)
