"""The family of images."""

import functools
import io
import os
import re
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from faults.harms import bytes_changed, in_process, no_file
from faults.inside import children_die, killed_by
from faults.trial import Harm, Setting, Step, Trial
from faults.unharmed import NAMES
from faults.world import World
from PIL import Image

from rcnn.printing import printable


def encoded(mode: str, form: str, size: tuple[int, int] = (40, 30), **more: Any) -> Callable[[Random, bytes], bytes]:
    def make(rng, good):
        file = io.BytesIO()
        Image.new(mode, size, None).save(file, form, **more)
        return file.getvalue()

    return make


def claiming(width: int, height: int) -> bytes:
    """A PNG file whose header says another size."""
    data = encoded("RGB", "PNG")(Random(0), b"")
    header = data[12:16] + struct.pack(">II", width, height) + data[24:29]
    return data[:12] + header + struct.pack(">I", zlib.crc32(header)) + data[33:]


PICTURES = {
    "good": lambda rng, good: good, "empty": lambda rng, good: b"",
    "cut": lambda rng, good: good[: rng.randrange(len(good))],
    "harmed": lambda rng, good: functools.reduce(lambda data, _: bytes_changed(rng, data)[1] or b"x", range(9), good),
    "noise": lambda rng, good: rng.randbytes(rng.randrange(1, 3000)),
    "foreign": lambda rng, good: rng.choice([b"GIF89a", b"%PDF-1.7", b"BM", b"II*\0", b"RIFF1234WEBP", b"P6 9 9 255\n"]) + good,
    "claims 60,000 × 60,000": lambda rng, good: claiming(60_000, 60_000),
    "claims 0 × 5": lambda rng, good: claiming(0, 5),
    "16 bits": encoded("I;16", "PNG"), "a palette": encoded("P", "PNG", transparency=0), "bits": encoded("1", "PNG"),
    "CMYK": encoded("CMYK", "JPEG"), "floats": encoded("F", "TIFF"), "integers": encoded("I", "TIFF"),
    "grey and alpha": encoded("LA", "PNG"), "one pixel": encoded("RGB", "PNG", (1, 1)),
    "a line": encoded("RGB", "PNG", (9000, 1)),
    "many frames": encoded("P", "GIF", save_all=True, append_images=[Image.new("P", (40, 30), i) for i in range(5)]),
    "cut TIFF": lambda rng, good: encoded("RGB", "TIFF", compression="tiff_lzw")(rng, good)[: rng.randrange(8, 200)],
}  # fmt: skip
KINDS = [*PICTURES, "good", "huge", "no file", "no file", "a link to a folder", "in an unreadable folder"]
ODD_NAMES = [  # bytes, since that is what they are; {} is the number
    b"odd{}.jpg", b"odd{}.png", b"odd{}.tif", b"odd{}.gif", b"odd{}.webp", b"odd{}-caf\xe9.jpg", b"odd{}-\xf0\x9f\x98\x80.png",
    b"odd{}-\x1b[31mred.jpg", b"odd{}-\n.jpg", b"odd{}-\xe2\x80\xaegpj.png", b'odd{},"a".jpg', b"odd{}=1.jpg", b"odd{}\\x.jpg",
    b"odd{}-" + b"n" * 240 + b".jpg", b"odd{}-\xed\xa0\x80.jpg", b"odd{}-\t.jpg", b"odd{}-\r.jpg", b"odd{}  x.jpg",
]  # fmt: skip


def odd_picture(rng: Random, number: int) -> Harm:
    """Another image in the folder, which is odd in itself or by its name."""
    seed, name, kind = rng.randrange(1 << 30), rng.choice(ODD_NAMES).replace(b"{}", b"%d" % number), rng.choice(KINDS)
    suffix = rng.choice([".jpg", ".png"])

    def harm(setting):
        folder = setting.root / "photos"
        path, good, text = folder / os.fsdecode(name), (folder / "good-42.jpg").read_bytes(), kind
        inner = folder / f"odd{number}"  # a folder; it is searched, so there must be something in it
        if kind == "no file":
            text = no_file(f"photos/odd{number}{suffix}", seed)(setting)
            inner = folder / f"odd{number}{suffix}"
        elif kind == "a link to a folder":
            (setting.root / f"elsewhere{number}").mkdir()
            inner.symlink_to(setting.root / f"elsewhere{number}")
        elif kind == "in an unreadable folder":
            inner.mkdir()
        elif kind == "huge":
            path.symlink_to(setting.root / "huge.png")
        else:
            path.write_bytes(PICTURES[kind](Random(seed), good))
        if inner.is_dir():
            (inner / f"odd{number}-inner.jpg").write_bytes(good)
        if kind == "in an unreadable folder":
            inner.chmod(0)
        return f"photos/{printable(path.name)}: {text}"

    return harm


def odd_names(setting: Setting) -> list[str]:
    return [f"photos/{path.name}" for path in sorted((setting.root / "photos").iterdir()) if path.name.startswith("odd")]


def images(rng: Random, world: World) -> Trial:
    """Tagging names every image, in a row or as skipped, and gives the unharmed ones the tags that they have alone."""
    python = rng.random() < 0.15
    harms = [odd_picture(rng, i) for i in range(1 if python else rng.randint(1, 4))]
    if rng.random() < 0.1:
        number = rng.randrange(3)
        harms.append(in_process(0, lambda: killed_by(f"odd{number}"), f"the decoder of odd{number} is killed"))
    elif rng.random() < 0.1:
        count, seconds = rng.randint(1, 2), rng.uniform(0.001, 0.1)
        harms.append(in_process(0, lambda: children_die(count, seconds), f"{count} decoders are killed after {seconds:.3f} s"))
    if python:
        harms.append(lambda setting: setting.arguments.extend(odd_names(setting)) or "tagged from Python")
        command = ["tag", *(str(path.relative_to(world.pristine)) for path in sorted(world.pristine.glob("photos/good-*")))]
        return Trial(harms, [Step(command)], world.same(command))
    form, by_run = rng.choice(["table", "csv", "json"]), rng.random() < 0.3
    encoding = rng.choice(["utf-8:strict", "ascii:strict", "utf-8:surrogateescape", "latin-1:strict"])
    chosen = ["--run", "run", "clip.weights=tiny.safetensors"] if by_run else NAMES
    command = ["predict", "photos", *chosen, "--format", form, *(["--fast"] if rng.random() < 0.2 else [])]
    alike = world.same(command, must=True)

    def judge(setting, outcome):
        for name in odd_names(setting):
            token = re.search(r"odd\d", name)[0]
            if token not in outcome.out + (outcome.err if outcome.code else ""):
                return f"{name!r} is named nowhere, exit code {outcome.code}"
        return alike(setting, outcome)

    return Trial(harms, [Step(command, encoding=encoding)], judge)
