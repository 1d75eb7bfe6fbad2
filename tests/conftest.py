"""A tiny CLIP with made-up weights, as towers of this project, as open_clip's own model, and as files."""

import os
import signal
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from open_clip.model import CLIP
from safetensors.torch import save_file

from rcnn import clip

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
sys.path.insert(0, str(Path(__file__).parent / "golden"))
import recipe

# where the tests are started in the background Ctrl-C is ignored, and commands that they start would ignore it, too
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("project", database=None, deadline=None, derandomize=True)
settings.load_profile("project")


# files that take longest; begun first, they do not leave one process working after all others are done
LONGEST = ("test_reproduce", "test_paper", "test_evaluate", "test_predict", "test_sweep", "test_mini", "test_tagclip_pass")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONGEST)


@pytest.fixture(scope="session")
def features(tmp_path_factory):
    """A folder for cache=, in which what several test files read is encoded once, for all processes that run tests."""
    own = tmp_path_factory.getbasetemp()
    return (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "features"


@pytest.fixture(scope="session")
def captions():
    return [sentence for sentence, _ in recipe.CAPTIONS]


@pytest.fixture(scope="session")
def state():
    """Tensors of the tiny CLIP under OpenAI's names; shared by all tests, so never to be changed in place."""
    return {name: torch.tensor(array) for name, array in recipe.clip_weights("tiny16", 7).items()}


@pytest.fixture(scope="session")
def towers(state):
    image, text = clip.build(state)
    return image.eval().requires_grad_(False), text.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def tiny_clip(towers):
    image, text = towers
    return clip.Clip(text, image, "tiny16", "0" * 64, "1" * 64, clip.MEAN, clip.STD)


@pytest.fixture(scope="session")
def reference_clip(state):
    """open_clip's model with the tiny weights; a function of the activation."""

    def build(quick_gelu=True):
        vision = {"image_size": 224, "layers": 3, "width": 128, "patch_size": 16, "head_width": 64}
        text = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 3}
        model = CLIP(64, vision, text, quick_gelu=quick_gelu)
        model.load_state_dict(state)
        return model.eval().requires_grad_(False)

    return build


@pytest.fixture
def write_weights(state, tmp_path):
    """Write the tiny CLIP, or other tensors, as safetensors; returns the path."""

    def write(tensors=None, name="tiny.safetensors", **metadata):
        save_file(state if tensors is None else tensors, tmp_path / name, metadata)
        return tmp_path / name

    return write
