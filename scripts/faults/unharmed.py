"""The unharmed world: all that commands start from, and what is asked beside them. Each runs in a process of its own."""

import json
import os
import shutil
from pathlib import Path

import make_standins
import open_clip.model
import safetensors.torch
import torch
import yaml
from PIL import Image

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
    Image.new("I;16", (9400, 9400)).save("huge.png")  # 0.1 MB that decode to 0.2 GB or more


def tiny_clip() -> dict[str, torch.Tensor]:
    """Random weights of the smallest CLIP that the towers compute, with the tokens that the names need."""
    torch.manual_seed(0)
    vision = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 16, "head_width": 64}
    text = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
    state = dict(open_clip.model.CLIP(32, vision, text, quick_gelu=True).state_dict())
    words = " ".join([*SEEN, *UNSEEN, "a photo of the cropped bright clean small large old garden shelf worn handle ."])
    rows = sorted({*tokenizer().encode(words), tokenizer().sot_token_id, tokenizer().eot_token_id})
    embeddings = state.pop("token_embedding.weight")[[*rows, 0]]  # the last stands for all other tokens
    return state | {"token_embedding.rows": torch.tensor(rows), "token_embedding.weight": embeddings}


def labels(path: str) -> None:
    """Print which classes the images of a configuration show."""
    settings = config.load(path)
    found = read_images(settings.dataset, ClassList.read(settings.classes.seen, settings.classes.unseen), settings.cache)
    rows = zip(found.paths, found.labels.tolist(), strict=True)
    print(json.dumps({os.path.relpath(path): row for path, row in rows}))


def tag(*images: str) -> None:
    """Tag images from Python."""
    tagger = Tagger.from_names([*SEEN, *UNSEEN], model=None, pretrained=None, weights="tiny.safetensors", device="cpu")
    found = zip(images, tagger.tag(list(images)), strict=True)
    print(json.dumps({os.path.basename(path): [(tag.name, tag.score) for tag in tags] for path, tags in found}))


CALLS = {"build": build, "labels": labels, "tag": tag}  # beside the commands
