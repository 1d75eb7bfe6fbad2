"""Photos and class names that tests of tagging share; a module with `from tagging import …` has its fixtures."""

import shutil
from pathlib import Path

import draw_mini
import pytest
from running import rcnn

from rcnn.tagger import Tagger

ROOT = Path(__file__).parents[1]
MINI = {"model": None, "pretrained": None, "weights": ROOT / "data/mini/clip.safetensors", "device": "cpu"}
PAIRS = ["clip.model=null", "clip.pretrained=null", f"clip.weights={MINI['weights']}", "device=cpu"]
NAMES = ["dog", "cat", "boat", "tree", "house", "duck"]
TOO_FEW = "cut-offs: the best 5 of each photo, since they take 30 photos, or checked ones (rcnn calibrate)\n"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tagging")


@pytest.fixture(scope="module")
def pictures(folder):
    draw_mini.draw_benchmark(folder / "benchmark", 10)
    return sorted((folder / "benchmark" / "images").iterdir())


@pytest.fixture(scope="module")
def six(folder):
    return Tagger.from_names(NAMES, **MINI, cache=folder / "features")


@pytest.fixture(scope="module")
def run(folder, features):
    """A run that learned nothing: its class embeddings are the closed form's."""
    more = ["train.method=closed_form", "dataset.annotations=null", f"output={folder}/run", f"cache={features}"]
    rcnn("train", "--config", "configs/mini.yaml", "device=cpu", *more)
    return folder / "run"


@pytest.fixture
def photos(tmp_path, pictures):
    """A folder with a photograph to be used as the test likes."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(pictures[0].read_bytes())
    return tmp_path / "photos"


@pytest.fixture
def names(tmp_path, folder, six):
    """--classes and all that the mini CLIP needs; what is kept is kept in the test's folder, and has the names' features."""
    shutil.copytree(folder / "features", tmp_path / "cache")
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    return ["--classes", tmp_path / "names.txt", *PAIRS, f"cache={tmp_path}/cache"]
