"""The registry of data sets."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from rcnn.config import DatasetConfig
from rcnn.datasets import DATASETS, coco
from rcnn.datasets.images import read_images
from rcnn.text.classes import ClassList

ROOT = Path(__file__).parents[1]
CLASSES = ClassList(("dog", "cat"), 1)
EVERY = pytest.mark.parametrize("key", list(DATASETS))


@EVERY
def test_every_data_set_has_its_reader_and_says_which_command_gets_what_is_missing(key):
    settings = DatasetConfig(kind=key, images="/nowhere/images", annotations="/nowhere/annotations")
    with pytest.raises(FileNotFoundError, match="/nowhere/annotations") as told:
        read_images(settings, CLASSES)
    assert str(told.value).endswith(f"; {DATASETS[key].missing}")
    assert DATASETS[key].title
    assert re.search(r"python scripts/\S+\.py", DATASETS[key].missing)


@pytest.mark.parametrize("key", [key for key, dataset in DATASETS.items() if dataset.class_names_sha256])
def test_the_class_lists_that_ship_are_those_of_the_paper(key):
    lists = ROOT / "data" / key
    assert ClassList.read(lists / "seen.txt", lists / "unseen.txt").fingerprint == DATASETS[key].class_names_sha256


def test_looking_at_the_registry_loads_neither_torch_nor_the_configuration():
    code = "import sys, rcnn.datasets; print(sorted({'torch', 'numpy', 'rcnn.config'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


@EVERY
@pytest.mark.parametrize("absent", ["images", "annotations"])
def test_images_or_labels_that_are_not_named_are_refused(key, absent):
    settings = DatasetConfig(kind=key, **({"images": "/a", "annotations": "/b"} | {absent: None}))
    with pytest.raises(ValueError, match=r"dataset\.images and dataset\.annotations: expected"):
        read_images(settings, CLASSES)


@pytest.fixture
def settings(tmp_path):
    """Three images, and a file in place of their labels."""
    for name in ("instances.json", "a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).touch()
    return DatasetConfig(kind="coco", images=str(tmp_path), annotations=str(tmp_path / "instances.json"))


@pytest.mark.parametrize("cached", [False, True])
def test_unknown_labels_stay_unknown_with_and_without_a_cache(settings, tmp_path, monkeypatch, cached):
    labels, parsed = np.array([[1, 0], [0, -1], [0, 1]], np.int8), []
    monkeypatch.setattr(coco, "labels", lambda *_: parsed.append(1) or (["a.jpg", "b.jpg", "c.jpg"], labels))
    for _ in range(2):
        found = read_images(settings, CLASSES, tmp_path / "cache" if cached else None)
        assert found.labels.tolist() == [[1, 0], [0, 1]]
        assert found.left_out == 1
    assert len(parsed) == (1 if cached else 2)


def test_kept_labels_are_told_apart_by_the_notes_on_homonyms(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(
        coco, "labels", lambda _, classes: (["a.jpg"], np.array([[1 if n == "bird" else -1 for n in classes.notes]], np.int8))
    )
    for _ in range(2):
        for notes, labels in ((("bird", "machine"), [1, -1]), (("machine", "bird"), [-1, 1])):
            found = read_images(settings, ClassList(("crane", "crane"), 1, notes), tmp_path / "cache")
            assert found.labels.tolist() == [labels]
