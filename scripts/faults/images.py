"""The family of images."""

import functools
import io
import os
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from faults.harms import bytes_changed, no_file
from faults.inside import killed_decoder
from faults.results import alike, finite_tags, tags
from faults.trial import Harm, Step, Trial
from faults.unharmed import NAMES, png
from faults.world import World
from PIL import Image

from rcnn.printing import printable


def encoded(mode: str, form: str, size: tuple[int, int] = (40, 30), **more: Any) -> Callable[[Random, bytes], bytes]:
    def make(rng, good):
        file = io.BytesIO()
        Image.new(mode, size, None).save(file, form, **more)
        return file.getvalue()

    return make


PICTURES = {
    "cut": lambda rng, good: good[: rng.randrange(len(good))],
    "harmed": lambda rng, good: functools.reduce(lambda data, _: bytes_changed(rng, data)[1] or b"x", range(9), good),
    "noise": lambda rng, good: rng.randbytes(rng.randrange(1, 3000)),
    "foreign": lambda rng, good: rng.choice([b"GIF89a", b"%PDF-1.7", b"BM", b"II*\0", b"RIFF1234WEBP", b"P6 9 9 255\n"]) + good,
    "empty": lambda rng, good: b"",
    "claims 60,000 × 60,000": lambda rng, good: png(60_000, 60_000, 8, 2, zlib.compress(bytes(1000))),
    "claims 0 × 5": lambda rng, good: png(0, 5, 8, 2, zlib.compress(bytes(1000))),
    "16 bits": encoded("I;16", "PNG"), "a palette": encoded("P", "PNG", transparency=0), "bits": encoded("1", "PNG"),
    "CMYK": encoded("CMYK", "JPEG"), "floats": encoded("F", "TIFF"), "integers": encoded("I", "TIFF"),
    "grey and alpha": encoded("LA", "PNG"), "one pixel": encoded("RGB", "PNG", (1, 1)),
    "a line": encoded("RGB", "PNG", (9000, 1)),
    "many frames": encoded("P", "GIF", save_all=True, append_images=[Image.new("P", (40, 30), i) for i in range(5)]),
    "cut TIFF": lambda rng, good: encoded("RGB", "TIFF", compression="tiff_lzw")(rng, good)[: rng.randrange(8, 200)],
}  # fmt: skip
ODD_NAMES = [  # bytes, since that is what they are; {} is the number
    b"odd{}.jpg", b"odd{}.png", b"odd{}.tif", b"odd{}.gif", b"odd{}.webp", b"odd{}-caf\xe9.jpg", b"odd{}-\xf0\x9f\x98\x80.png",
    b"odd{}-\x1b[31mred.jpg", b"odd{}-\n.jpg", b"odd{}-\xe2\x80\xaegpj.png", b'odd{},"a".jpg', b"odd{}=1.jpg", b"odd{}\\x.jpg",
    b"odd{}-" + b"n" * 240 + b".jpg", b"odd{}-\xed\xa0\x80.jpg", b"odd{}-\t.jpg", b"odd{}-\r.jpg", b"odd{}  x.jpg",
]  # fmt: skip


def odd_picture(rng: Random, number: int) -> Harm:
    """Another image in the folder, which is odd in itself or by its name."""
    seed, name = rng.randrange(1 << 30), rng.choice(ODD_NAMES).replace(b"{}", b"%d" % number)
    kind = rng.choice(
        [*PICTURES, "huge", "good", "good", "no file", "no file", "a link to a folder", "in an unreadable folder"]
    )

    suffix = rng.choice([".jpg", ".png"])

    def harm(setting):
        folder = setting.root / "photos"
        path = folder / os.fsdecode(name)
        good = (folder / "good-42.jpg" if (folder / "good-42.jpg").exists() else setting.path("photos/good-*")).read_bytes()
        if kind == "no file":
            return no_file(f"photos/odd{number}{suffix}", seed)(setting)
        if kind in ("a link to a folder", "in an unreadable folder"):
            inner = setting.root / f"elsewhere{number}" if kind == "a link to a folder" else folder / f"odd{number}"
            inner.mkdir()
            (inner / f"odd{number}-inner.jpg").write_bytes(good)
            if kind == "a link to a folder":
                (folder / f"odd{number}").symlink_to(inner)
            else:
                inner.chmod(0)
        elif kind == "huge":
            path.symlink_to(setting.root / "huge.png")
        else:
            path.write_bytes(good if kind == "good" else PICTURES[kind](Random(seed), good))
        return f"photos/{printable(path.name)} is {kind}"

    return harm


def images(rng: Random, world: World) -> Trial:
    """Tagging names every image, in a row or as skipped, and gives the unharmed ones the tags that they have alone."""
    harms = [odd_picture(rng, i) for i in range(rng.randint(1, 4))]
    if rng.random() < 0.1:
        number = rng.randrange(1, 3)
        harms.append(
            lambda setting: setting.inside.append((0, lambda: killed_decoder(f"odd{number}"))) or "its decoder is killed"
        )
    if rng.random() < 0.15:
        python = lambda setting: setting.arguments.extend(odd_names(setting.root)) or "tagged from Python"  # noqa: E731
        return Trial([*harms, python], [Step(["tag", "photos/good-42.jpg"])])
    form, by_run = rng.choice(["table", "csv", "json"]), rng.random() < 0.3
    encoding = rng.choice(["utf-8:strict", "ascii:strict", "utf-8:surrogateescape", "latin-1:strict"])
    more = ["--no-mssa"] if rng.random() < 0.2 else []
    good = {} if more else world.good["run_tags" if by_run else "tags"]
    chosen = ["--run", "run", "clip.weights=tiny.safetensors"] if by_run else NAMES

    def judge(setting, outcome):
        if outcome.code == 2:
            return f"no image has tags: {outcome.err[:200]!r}"
        for name in odd_names(setting.root):
            token = re.search(r"odd\d", name)[0]
            if token not in outcome.out + outcome.err:
                return f"{name!r} is named nowhere, exit code {outcome.code}"
            if token not in outcome.out and outcome.code == 0:
                return f"{name!r} has no tags, exit code 0"
        try:
            found = tags(form, outcome.out)
        except (ValueError, KeyError, IndexError) as error:
            return f"the {form} cannot be read: {error}"
        return alike(found, good) or (None if all(map(finite_tags, found.values())) else "scores that are no numbers")

    return Trial(harms, [Step(["predict", "photos", *chosen, "--format", form, *more], encoding=encoding)], judge)


def odd_names(root: Path) -> list[str]:
    return [f"photos/{path.name}" for path in sorted((root / "photos").iterdir()) if path.name.startswith("odd")]
