#!/usr/bin/env python
"""Which of the paper's data sets can be measured without a download: python scripts/paper_ready.py [key=value …].

Prints the names of those whose images and CLIP's weights are here, for scripts/paper.sh.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rcnn import cli, config

NAMES = ("coco", "nuswide", "openimages")


def load(name: str, pairs: Sequence[str]) -> config.Config:
    """The configuration of a data set."""
    return config.load(ROOT / "configs" / f"{name}.yaml", pairs)


def has_images(settings: config.Config) -> bool:
    """Whether there is a folder of images; what is missing in it is for `rcnn.data check` to say."""
    return Path(settings.dataset.images).is_dir()


def has_weights(settings: config.Config) -> bool:
    """Whether CLIP's weights are named, or in one of the two caches where open_clip keeps them."""
    if settings.clip.weights:
        return True
    from rcnn.clip.weights import pretrained_source  # here because torch takes seconds, in vain where no images are

    source = pretrained_source(settings.clip.model, settings.clip.pretrained)
    if source["url"] and (Path.home() / ".cache" / "clip" / Path(source["url"]).name).is_file():
        return True
    repository = source["hf_hub"].strip("/")
    files = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
    return any(isinstance(try_to_load_from_cache(repository, file), str) for file in files if repository)


def ready(pairs: Sequence[str]) -> list[str]:
    """Names of the data sets that can be measured without a download."""
    every = ((name, load(name, pairs)) for name in NAMES)
    return [name for name, settings in every if has_images(settings) and has_weights(settings)]


if __name__ == "__main__":
    cli.run(lambda: print(*ready(sys.argv[1:])))
