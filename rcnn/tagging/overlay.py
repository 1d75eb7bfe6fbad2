"""Score maps laid over photos, in colours whose differences look as large as those of the scores."""

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from rcnn.files import replace_file
from rcnn.score.reading import read_rgb, reason
from rcnn.tagging.tags import Scored

if TYPE_CHECKING:
    from rcnn.tagger import Tagger

OPACITY = 0.55  # of the colours
LONGEST = 80  # bytes of a class name in a file name
# OKLab's definition (Björn Ottosson, 2020): to the roots of cone responses, and from their cubes to linear sRGB
OKLAB_TO_CONES = [[1, 1, 1], [0.39634, -0.10556, -0.08948], [0.21580, -0.06385, -1.29149]]
CONES_TO_SRGB = [[4.07674, -1.26844, -0.00420], [-3.30771, 2.60976, -0.70342], [0.23097, -0.34132, 1.70761]]


def oklab_colours() -> np.ndarray:
    """(256, 3) colours of a map in OKLab, from dark blue over red to light yellow.

    A helix: lightness and hue grow evenly and chroma stays, so all steps look the same, and greys keep the order.
    """
    t = np.linspace(0, 1, 256)
    hue, chroma = np.deg2rad(280 + 180 * t), 0.12  # with more of it, some would lie outside of sRGB
    return np.stack([0.27 + 0.66 * t, chroma * np.cos(hue), chroma * np.sin(hue)], 1)


def colours() -> np.ndarray:
    """The same as sRGB, (256, 3) uint8."""
    linear = (oklab_colours() @ np.array(OKLAB_TO_CONES)) ** 3 @ np.array(CONES_TO_SRGB)
    return np.round(255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)).astype(np.uint8)


def overlay(photo: Image.Image, score_map: np.ndarray, snippets: Sequence[Sequence[float]] = ()) -> Image.Image:
    """A photo under the colours of a score map, in the photo's size.

    Args:
        photo: RGB, upright, as the map saw it.
        score_map: (H, W); its lowest value is dark blue and its highest light yellow, whatever they are.
        snippets: (G, 4) boxes to outline in white: left, top, right and bottom as shares of the sides.
    """
    low, high = float(score_map.min()), float(score_map.max())
    levels = np.round(255 * (score_map - low) / max(high - low, 1e-12)).astype(np.uint8)
    smooth = Image.fromarray(levels).resize(photo.size, Image.Resampling.BICUBIC)
    grey = photo.convert("L").convert("RGB")  # so that all colour is the map's
    made = Image.blend(grey, Image.merge("RGB", [smooth.point(c.tolist()) for c in colours().T]), OPACITY)
    draw, (width, height) = ImageDraw.Draw(made), made.size
    for left, top, right, bottom in snippets:
        box = left * (width - 1), top * (height - 1), right * (width - 1), bottom * (height - 1)
        draw.rectangle(box, outline="white", width=max(1, min(made.size) // 200))
    return made


class Overlays:
    """A folder with an overlay of each tag of each photo; of the best one of a.jpg it is "a.jpg.1 dog 0.312.jpg"."""

    def __init__(self, folder: str | Path, paths: Sequence[Path], tagger: "Tagger") -> None:
        """`paths` are those of all photos; below `folder` they lie as below the folder that they have in common."""
        self.folder, self.tagger = Path(folder), tagger
        self.names = tagger.full_names
        self.common = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths] or ["."])

    def write(self, photo: Path, tags: Scored) -> str | None:
        """Write the overlays of a photo; returns why they cannot be written, if so."""
        if not tags:
            return None
        base, tagger = self.folder / os.path.relpath(os.path.abspath(photo), self.common), self.tagger
        try:
            found = tagger.maps(photo, [self.names[column] for column, _ in tags])
            image = read_rgb(photo, tagger.model.image.image_size, True, tagger.settings.evaluate.max_pixels)
            for rank, ((column, score), map_, boxes) in enumerate(zip(tags, found.maps, found.snippets, strict=True), 1):
                name = re.sub(r"[^\w ()\[\]'-]", "_", self.names[column]).encode()[:LONGEST].decode(errors="ignore")
                with replace_file(base.with_name(f"{base.name}.{rank} {name} {score:.3f}.jpg")) as file:
                    overlay(image, map_.numpy(), boxes.tolist()).save(file, "JPEG", quality=90)
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise  # the next photo's could not be written either
            return reason(error)
        return None


def must_be_apart(folder: str, places: Sequence[str]) -> None:
    """ValueError unless `folder` can hold overlays, and these are not found among the photos of `places` the next time."""
    if os.path.lexists(folder) and not os.path.isdir(folder):
        raise ValueError(f"--maps: expected a folder, and {folder} is none")
    if any(Path(folder).resolve().is_relative_to(Path(place).resolve()) for place in places if os.path.isdir(place)):
        raise ValueError(f"--maps: {folder} lies among the photos that are tagged; choose a folder outside of them")
