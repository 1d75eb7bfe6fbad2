"""Vector drawings: what the pictures of the mini benchmark show, and how they are drawn.

`data/mini/drawings.yaml` describes every object and every scene as a few shapes in a unit square (x right, y down):

    ellipse  COLOUR  cx cy rx ry [degrees]
    polygon  COLOUR  x y  x y  x y ...
    blob     COLOUR  x y  x y  x y ...         a smooth closed curve through the points
    line     COLOUR  width  x y  x y ...       a stroke
    curve    COLOUR  width  x y  x y ...       a smooth stroke through the points

COLOUR is one of the object's own `colours` (a list to choose from, so that cats come in several furs) or a palette entry.
Every drawing is a pure function of the random generator handed in: same seed, same picture.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml
from PIL import Image, ImageDraw, ImageFilter

DRAWINGS = Path(__file__).resolve().parents[1] / "data" / "mini" / "drawings.yaml"
STYLES = ("flat", "crayon", "chalk")
SUPERSAMPLING = 2
Box = tuple[float, float, float, float]  # x, y, width, height as shares of the canvas
Colours = dict[str, tuple[str, np.ndarray]]  # role -> palette entry, its rgb with noise
Transform = Callable[[np.ndarray], np.ndarray]  # of (P, 2) points


@functools.cache
def parse(text: str) -> dict:
    """The content of a drawings file, which takes half a second to parse: once."""
    return yaml.safe_load(text)


@dataclass(frozen=True)
class Shape:
    """A filled shape or a stroke of a drawing."""

    kind: str
    colour: str
    width: float  # of a stroke, in units of the square; 0 for filled shapes
    points: np.ndarray  # (P, 2)

    @classmethod
    def parse(cls, text: str) -> "Shape":
        """From a line of the drawings file, as the module describes it; ValueError if it is none."""
        kind, colour, *rest = text.split()
        try:
            numbers = [float(n) for n in rest]
            return cls._from_numbers(kind, colour, numbers)
        except ValueError as error:
            raise ValueError(f"bad shape {text!r}: {error}") from None

    @classmethod
    def _from_numbers(cls, kind: str, colour: str, numbers: list[float]) -> "Shape":
        width = 0.0
        if kind == "ellipse":
            if len(numbers) not in (4, 5):
                raise ValueError("an ellipse takes cx cy rx ry and perhaps an angle")
            cx, cy, rx, ry, degrees = [*numbers, 0.0][:5]
            t = np.linspace(0, 2 * np.pi, 28, endpoint=False)
            x, y, a = rx * np.cos(t), ry * np.sin(t), np.deg2rad(degrees)
            points = np.stack([cx + x * np.cos(a) - y * np.sin(a), cy + x * np.sin(a) + y * np.cos(a)], 1)
        elif kind in ("polygon", "blob", "line", "curve"):
            if kind in ("line", "curve"):
                width, *numbers = numbers
            if len(numbers) % 2 or len(numbers) < (4 if width else 6):
                raise ValueError(f"a {kind} takes x y pairs, at least {2 if width else 3} of them")
            points = np.array(numbers).reshape(-1, 2)
            if kind in ("blob", "curve"):
                points = smooth(points, closed=kind == "blob")
        else:
            raise ValueError("expected ellipse, polygon, blob, line or curve")
        return cls(kind, colour, width, points)


def smooth(points: np.ndarray, closed: bool, steps: int = 6) -> np.ndarray:
    """Catmull-Rom spline through `points` (P, 2), with `steps` points for each of them."""
    if closed:
        p = np.concatenate([points[-1:], points, points[:2]])
    else:
        p = np.concatenate([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    t = (np.arange(steps) / steps)[None, :, None]
    a, b, c, d = p[:-3, None], p[1:-2, None], p[2:-1, None], p[3:, None]
    curve = 0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
    curve = curve.reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


@dataclass(frozen=True)
class Scatter:
    """Small shapes repeated at random places in a part of a scene (pebbles, grass, bubbles)."""

    number: tuple[int, int]  # fewest and most
    box: tuple[float, float, float, float]  # x0, y0, x1, y1 of the centres
    size: tuple[float, float]  # least and largest, as shares of the shorter side of the canvas
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class Thing:
    """An object or a scene that can be drawn."""

    name: str
    colours: dict[str, list[str]]  # role -> list of palette names; the first role is the one that captions name
    shapes: tuple[Shape, ...]
    parents: tuple[str, ...] = ()  # kinds, nearest first
    scenes: tuple[str, ...] = ()  # where it is usually drawn
    scatter: tuple[Scatter, ...] = ()


@dataclass(frozen=True)
class World:
    """All that can be drawn."""

    palette: dict[str, tuple[int, int, int]]  # r, g, b
    objects: dict[str, Thing]
    scenes: dict[str, Thing]  # `parents` are what the scene itself shows

    @classmethod
    def load(cls, path: str | Path) -> "World":
        """From a drawings file; ValueError names what in it cannot be drawn."""
        raw = parse(Path(path).read_text())
        kinds = raw["kinds"]

        def ancestors(names: Sequence[str]) -> tuple[str, ...]:
            found = []
            for name in names:
                if name not in found:
                    found.append(name)
                found += [a for a in ancestors(kinds[name]) if a not in found]
            return tuple(found)

        def thing(name: str, entry: dict, up: Sequence[str]) -> Thing:
            scatter = tuple(
                Scatter(tuple(s["count"]), tuple(s["box"]), tuple(s["size"]), tuple(Shape.parse(x) for x in s["shapes"]))
                for s in entry.get("scatter", ())
            )
            colours = {role: [c] if isinstance(c, str) else c for role, c in entry.get("colours", {}).items()}
            shapes = tuple(Shape.parse(x) for x in entry["shapes"])
            used = [s.colour for s in shapes] + [s.colour for g in scatter for s in g.shapes]
            missing = {c for c in used if c not in colours and c not in raw["palette"]}
            missing |= {c for choice in colours.values() for c in choice if c not in raw["palette"]}
            if missing:
                raise ValueError(f"{name}: colours {sorted(missing)} are neither its own nor in the palette")
            return Thing(name, colours, shapes, ancestors(up), tuple(entry.get("scenes", ())), scatter)

        return cls(
            palette={k: tuple(v) for k, v in raw["palette"].items()},
            objects={k: thing(k, v, v["kinds"]) for k, v in raw["objects"].items()},
            scenes={k: thing(k, v, v.get("shows", ())) for k, v in raw["scenes"].items()},
        )


@dataclass(frozen=True)
class Placed:
    """An object in a picture."""

    thing: Thing
    colour: str  # the palette name of its first role
    box: Box


@dataclass(frozen=True)
class Picture:
    """A drawn picture and what it shows."""

    image: Image.Image
    scene: Thing
    placed: tuple[Placed, ...]

    def labels(self) -> set[str]:
        """Names that are true of this picture: things, their ancestors, the scene and what it shows."""
        names = {self.scene.name, *self.scene.parents}
        for p in self.placed:
            names |= {p.thing.name, *p.thing.parents}
        return names


class Pencil:
    """Draws shapes on one canvas in one style."""

    def __init__(self, world: World, rng: np.random.Generator, style: str, width: int, height: int):
        if style not in STYLES:
            raise ValueError(f"style: expected one of {STYLES}, got {style!r}")
        self.palette, self.rng, self.style = world.palette, rng, style
        self.size = np.array([width, height]) * SUPERSAMPLING
        self.image = Image.new("RGB", tuple(self.size.tolist()), "white")
        self.draw = ImageDraw.Draw(self.image)

    def choose(self, colours: dict[str, list[str]], deviation: float = 12) -> Colours:
        """One palette entry per role, with noise on it."""
        out = {}
        for role, choice in colours.items():
            name = choice[self.rng.integers(len(choice))]
            out[role] = name, np.array(self.palette[name]) + self.rng.normal(0, deviation, 3)
        return out

    def shapes(self, shapes: Sequence[Shape], chosen: Colours, transform: Transform, scale: float) -> None:
        """Draw `shapes`; `transform` maps unit points to canvas pixels, `scale` is pixels per unit for strokes."""
        for shape in shapes:
            rgb = chosen[shape.colour][1] if shape.colour in chosen else np.array(self.palette[shape.colour])
            points = transform(shape.points)
            self._one(points, shape.width * scale, rgb + self.rng.normal(0, 5, 3))

    def _one(self, points: np.ndarray, width: float, rgb: np.ndarray) -> None:
        if self.style == "crayon":  # pale fill, dark wobbly outline
            reach = min(self.size.mean(), 3 * np.ptp(points, axis=0).max())  # small shapes get a thin, steady outline
            points = points + self.rng.normal(0, 0.006 * reach, points.shape)
            fill, edge = 0.7 * rgb + 0.3 * 255, 0.35 * rgb
        elif self.style == "chalk":  # dark fill, light outline and strokes
            reach = self.size.mean()
            fill, edge = 0.35 * rgb, 0.5 * rgb + 0.5 * 255
            fill = edge if width else fill
        else:
            fill, edge = rgb, None
        fill = tuple(np.clip(fill, 0, 255).astype(int).tolist())
        flat = [tuple(p) for p in points.tolist()]
        if width:
            self.draw.line(flat, fill=fill, width=max(1, round(width)), joint="curve")
            return
        self.draw.polygon(flat, fill=fill)
        if edge is not None:
            edge = tuple(np.clip(edge, 0, 255).astype(int).tolist())
            self.draw.line(flat + flat[:1], fill=edge, width=max(1, round(0.008 * reach)))

    def finish(self) -> Image.Image:
        """The picture in its final size, with texture, light and grain."""
        rng, (w, h) = self.rng, self.size // SUPERSAMPLING
        image = self.image.resize((int(w), int(h)), Image.Resampling.BOX)
        x = np.asarray(image, np.float32)
        coarse = Image.fromarray(rng.uniform(0, 255, (6, 6)).astype(np.uint8))
        light = np.asarray(coarse.resize((int(w), int(h)), Image.Resampling.BICUBIC), np.float32)[..., None] / 255
        x = x * (1 + rng.uniform(0.1, 0.4) * (light - 0.5)) + rng.uniform(-18, 18)
        if self.style == "crayon":  # the strokes of the crayon
            yy, xx = np.mgrid[0:h, 0:w] / min(w, h)
            angle, period = rng.uniform(0, np.pi), rng.uniform(0.03, 0.06)
            hatch = np.sin((xx * np.cos(angle) + yy * np.sin(angle)) * 2 * np.pi / period)[..., None]
            x = x + 10 * hatch
        x = x + rng.normal(0, rng.uniform(2, 10), x.shape)
        image = Image.fromarray(np.clip(x, 0, 255).astype(np.uint8))
        return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 0.8))) if rng.uniform() < 0.3 else image


def warp(rng: np.random.Generator, amount: float) -> Transform:
    """A smooth random displacement of the unit square by up to `amount`, so that no two drawings have the same proportions."""
    frequency, phase = rng.uniform(0.4, 1.0, (2, 2)), rng.uniform(0, 2 * np.pi, 2)
    strength = rng.uniform(0, amount, 2)
    return lambda p: p + strength * np.sin(2 * np.pi * p @ frequency + phase)


def draw(world: World, rng: np.random.Generator, style: str, width: int, height: int) -> Picture:
    """Draw one random picture of one to four objects in a scene.

    Args:
        world: what can be drawn.
        rng: the picture depends on nothing else.
        style: "flat" (training), "chalk" (watched while training) or "crayon" (held out for testing).
        width, height: size in pixels.
    """
    pencil = Pencil(world, rng, style, width, height)
    scenes, things = list(world.scenes.values()), list(world.objects.values())
    chosen = [things[i] for i in rng.choice(len(things), rng.integers(1, 5), replace=False)]
    # mostly a scene in which the first object belongs, sometimes any
    usual = [world.scenes[s] for s in chosen[0].scenes]
    scene = usual[rng.integers(len(usual))] if usual and rng.uniform() < 0.7 else scenes[rng.integers(len(scenes))]
    draw_scene(pencil, scene)
    placed = []
    for thing in chosen:
        box = free_place(rng, [p.box for p in placed], (0.3, 0.85 - 0.12 * len(chosen)), width / height)
        placed.append(draw_thing(pencil, thing, box))
    return Picture(pencil.finish(), scene, tuple(placed))


def draw_scene(pencil: Pencil, scene: Thing) -> None:
    """Fill the whole canvas with a scene."""
    rng, chosen = pencil.rng, pencil.choose(scene.colours)
    bend, flip = warp(rng, 0.06), rng.uniform() < 0.5

    def stretch(points: np.ndarray) -> np.ndarray:  # the edges stay outside the canvas
        p = bend((points - 0.5) * 1.2 + 0.5)
        return np.where([flip, False], 1 - p, p) * pencil.size

    pencil.shapes(scene.shapes, chosen, stretch, pencil.size.mean())
    for scatter in scene.scatter:
        x0, y0, x1, y1 = scatter.box
        for _ in range(rng.integers(scatter.number[0], scatter.number[1] + 1)):
            centre = np.array([rng.uniform(x0, x1), rng.uniform(y0, y1)]) * pencil.size
            size = rng.uniform(*scatter.size) * pencil.size.min()
            pencil.shapes(scatter.shapes, chosen, lambda p, c=centre, s=size: c + (p - 0.5) * s, size)


def free_place(rng: np.random.Generator, taken: Sequence[Box], sizes: tuple[float, float], aspect: float) -> Box:
    """A box, square in pixels, that hides little of the others.

    Args:
        taken: boxes of the others.
        sizes: least and largest share of the shorter side.
        aspect: width / height of the canvas.
    """
    best, least = None, np.inf
    for _ in range(12):
        side = rng.uniform(*sizes)  # share of the shorter edge
        w, h = (side / aspect, side) if aspect >= 1 else (side, side * aspect)
        x, y = rng.uniform(-0.04, 1.04 - w), rng.uniform(-0.04, 1.04 - h)
        hidden = sum(
            max(0, min(x + w, bx + bw) - max(x, bx)) * max(0, min(y + h, by + bh) - max(y, by)) / min(w * h, bw * bh)
            for bx, by, bw, bh in taken
        )
        if hidden < least:
            best, least = (x, y, w, h), hidden
        if hidden < 0.1:
            break
    return best


def draw_thing(pencil: Pencil, thing: Thing, box: Box) -> Placed:
    """Draw an object into a box, turned, bent and mirrored at random."""
    rng, chosen = pencil.rng, pencil.choose(thing.colours)
    x, y, w, h = box
    scale = np.array([w, h]) * pencil.size
    angle, bend = np.deg2rad(rng.normal(0, 9)), warp(rng, 0.05)
    stretch = rng.uniform(0.8, 1.0, 2)
    stretch[0] *= -1 if rng.uniform() < 0.5 else 1  # mirrored
    shear = rng.normal(0, 0.08)
    matrix = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ np.array([[1, shear], [0, 1]])

    def transform(points: np.ndarray) -> np.ndarray:
        p = (bend(points) - 0.5) * stretch @ matrix.T + 0.5
        return np.array([x, y]) * pencil.size + p * scale

    pencil.shapes(thing.shapes, chosen, transform, scale.min())
    first = next(iter(chosen.values()))[0] if chosen else ""
    return Placed(thing, first, box)
