"""The unharmed world: all that commands start from, and what is asked beside them. Each runs in a process of its own."""

import json
import os
import shutil
import struct
import zlib
from pathlib import Path

import make_standins
import safetensors.torch
import torch
import yaml

from rcnn import Tagger, config
from rcnn.clip.tokens import tokenizer
from rcnn.datasets.images import read_images
from rcnn.text.classes import ClassList

SEEN, UNSEEN = ("vehicle", "food", "animal"), ("building", "furniture", "fruit")

WITHOUT = ["clip.model=null", "clip.pretrained=null", "cache=cache"]
CLIP = [*WITHOUT, "clip.weights=tiny.safetensors"]
NAMES = ["--classes", "names.txt", *CLIP]
NUMBER = 10  # images


def build() -> None:
    """All that the commands start from, in the current folder."""
    root = Path()
    make_standins.coco(root / "coco", 14, [*SEEN, *UNSEEN])
    make_standins.nuswide(root / "nuswide", 14, [*SEEN, "sky"], UNSEEN)
    (root / "photos").mkdir()
    for path in sorted((root / "coco" / "val2014").iterdir())[:NUMBER]:
        shutil.copy(path, root / "photos" / f"good-{path.name[-6:]}")
    lists = {"seen": SEEN, "unseen": UNSEEN, "names": [*SEEN, *UNSEEN], "two": UNSEEN[:2]}
    for name, classes in lists.items():
        (root / f"{name}.txt").write_text("".join(f"{line}\n" for line in classes))
    common = {
        "output": "run", "cache": "cache", "device": "cpu",
        "clip": {"model": None, "pretrained": None, "weights": "tiny.safetensors"},
        "classes": {"seen": "seen.txt", "unseen": "unseen.txt"}, "corpus": {"path": "names.corpus.json"},
        "train": {"epochs": 2, "batch_size": 128, "learning_rate": 0.01},
    }  # fmt: skip
    coco = {"kind": "coco", "images": "coco/val2014", "annotations": "coco/annotations/instances_val2014.json"}
    nuswide = {"kind": "nuswide", "images": "nuswide/Flickr", "annotations": "nuswide"}
    fast = {"evaluate": {"grids": [2], "bootstrap": 5, "batch_size": 4, "top_k": [1, 2], "workers": 1, "save_every": 0.0}}
    for name, dataset in (("coco", coco), ("nuswide", nuswide)):
        (root / f"{name}.yaml").write_text(yaml.safe_dump(common | fast | {"dataset": dataset}))
    (root / "describe.yaml").write_text(yaml.safe_dump({"classes": {"unseen": "two.txt"}, "output": "two.corpus.json"}))
    state = tiny_clip()
    safetensors.torch.save_file(state, "tiny.safetensors", {"model": "tiny"})
    torch.save(state, "tiny.pt")
    archive = torch.nn.Module()
    for name, tensor in state.items():
        *parents, last = name.split(".")
        place = archive
        for parent in parents:
            place = place._modules.setdefault(parent, torch.nn.Module())
        place.register_buffer(last, tensor)
    torch.jit.save(torch.jit.script(archive), "script.pt")
    huge = zlib.compressobj(1)  # of 9,400 × 9,400 pixels of 16 bits, black, in 0.2 MB
    rows = b"".join(huge.compress(bytes(1 + 2 * 9400)) for _ in range(9400)) + huge.flush()
    (root / "huge.png").write_bytes(png(9400, 9400, 16, 0, rows))


def tiny_clip() -> dict[str, torch.Tensor]:
    """Random weights of the smallest CLIP that the towers compute, with the tokens that the names need."""
    made = torch.Generator().manual_seed(0)

    def random(*shape, scale=1.0):
        return torch.randn(*shape, generator=made) * scale

    width, embed, context = 64, 32, 77
    words = " ".join([*SEEN, *UNSEEN, "a photo of the cropped bright clean small large old garden shelf worn handle ."])
    rows = sorted({*tokenizer().encode(words), tokenizer().sot_token_id, tokenizer().eot_token_id})
    state = {
        "positional_embedding": random(context, width, scale=0.3), "text_projection": random(width, embed, scale=0.2),
        "token_embedding.rows": torch.tensor(rows), "token_embedding.weight": random(len(rows) + 1, width),
        "visual.class_embedding": random(width), "visual.positional_embedding": random(5, width, scale=0.3),
        "visual.proj": random(width, embed, scale=0.2), "visual.conv1.weight": random(width, 3, 16, 16, scale=0.1),
    }  # fmt: skip
    norms = ["ln_final", "visual.ln_pre", "visual.ln_post"]
    for tower in ("", "visual."):
        for layer in range(2):
            block = f"{tower}transformer.resblocks.{layer}."
            norms += [f"{block}ln_1", f"{block}ln_2"]
            for name, out, into in (("out_proj", width, width), ("c_fc", 4 * width, width), ("c_proj", width, 4 * width)):
                part = f"{block}{'attn' if name == 'out_proj' else 'mlp'}.{name}"
                state |= {f"{part}.weight": random(out, into, scale=into**-0.5), f"{part}.bias": torch.zeros(out)}
            state |= {f"{block}attn.in_proj_weight": random(3 * width, width, scale=width**-0.5)}
            state |= {f"{block}attn.in_proj_bias": torch.zeros(3 * width)}
    return state | {f"{n}.weight": torch.ones(width) for n in norms} | {f"{n}.bias": torch.zeros(width) for n in norms}


def labels(path: str) -> None:
    """Print which classes the images of a configuration show."""
    settings = config.load(path)
    found = read_images(settings.dataset, ClassList.read(settings.classes.seen, settings.classes.unseen), settings.cache)
    rows = zip(found.paths, found.labels.tolist(), strict=True)
    print(json.dumps({os.path.relpath(path): row for path, row in rows}))


def tag(*images: str) -> None:
    """Tag images from Python."""
    tagger = Tagger.from_names([*SEEN, *UNSEEN], model=None, pretrained=None, weights="tiny.safetensors", device="cpu")
    print(json.dumps({os.path.basename(path): row for path, row in zip(images, tagger.tag(list(images)), strict=True)}))


def png(width: int, height: int, bits: int, colours: int, rows: bytes) -> bytes:
    """A PNG file of compressed rows."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


CALLS = {"build": build, "labels": labels, "tag": tag}  # beside the commands
