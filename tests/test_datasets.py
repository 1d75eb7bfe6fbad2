"""The registry of data sets, and what no file of theirs can do: hang, crash, or give wrong labels."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from rcnn import checkpoint, files
from rcnn.config import DatasetConfig
from rcnn.datasets import DATASETS, coco
from rcnn.datasets.images import read_images, remember
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


@pytest.fixture
def in_time():
    """An error after 10 seconds, in place of a test that never ends."""

    def late(*_):
        raise AssertionError("took more than 10 seconds")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@EVERY
@pytest.mark.parametrize("what", ["pipe", "device", "link to itself"])
def test_annotations_that_are_no_file_are_refused_at_once(in_time, tmp_path, key, what):
    path = tmp_path / "annotations"
    if what == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to("/dev/zero" if what == "device" else path)
    with pytest.raises((ValueError, FileNotFoundError), match=re.escape(str(path))):
        read_images(DatasetConfig(kind=key, images=str(tmp_path), annotations=str(path)), CLASSES)


def instances():
    return {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 1, "name": "dog"}, {"id": 7, "name": "cat"}],
        "annotations": [
            {"id": 5, "image_id": 1, "category_id": 1, "segmentation": [[1.5, 2]], "area": float("nan")},
            {"id": 6, "image_id": 2, "category_id": 7, "segmentation": {"counts": "x"}, "area": None},
        ],
    }


@pytest.fixture
def read_coco(settings, tmp_path):
    """Read an annotation file of this text, or of this JSON value."""

    def read(content):
        content = content if isinstance(content, (str, bytes)) else json.dumps(content)
        content = content if isinstance(content, bytes) else content.encode()
        (tmp_path / "instances.json").write_bytes(content)
        return read_images(settings, CLASSES)

    return read


@pytest.mark.parametrize("before", [b"", "\ufeff".encode()])
def test_what_is_not_used_of_an_annotation_file_may_be_anything(read_coco, before):
    assert read_coco(before + json.dumps(instances()).encode()).labels.tolist() == [[1, -1], [-1, 1]]


@pytest.mark.parametrize("value", [None, True, 1.0, "1", [1], {"a": 1}, float("nan"), 10**400, -(10**30)])
@pytest.mark.parametrize("place", ["images.1.id", "categories.1.id", "annotations.1.image_id", "annotations.1.category_id"])
def test_an_id_that_is_no_integer_is_named_by_its_place(read_coco, place, value):
    content = instances()
    what, number, key = place.split(".")
    content[what][int(number)][key] = value
    with pytest.raises(
        ValueError, match=rf"instances\.json is not a COCO annotation file: {place}: Input should be [^\n]{{,99}}$"
    ):
        read_coco(content)


@pytest.mark.parametrize("value", [None, 5, ["dog"], {}])
@pytest.mark.parametrize("place", ["images.1.file_name", "categories.1.name"])
def test_a_name_that_is_no_text_is_named_by_its_place(read_coco, place, value):
    content = instances()
    what, number, key = place.split(".")
    content[what][int(number)][key] = value
    with pytest.raises(ValueError, match=rf"instances\.json is not a COCO annotation file: {place}: Input should be"):
        read_coco(content)


@pytest.mark.parametrize("value", [None, {}, 5, [[]], [5], "x"])
@pytest.mark.parametrize("key", ["images", "categories", "annotations"])
def test_lists_and_dictionaries_in_each_others_place_are_refused(read_coco, key, value):
    with pytest.raises(ValueError, match=rf"instances\.json is not a COCO annotation file: {key}[.0]*: Input should be"):
        read_coco(instances() | {key: value})


@pytest.mark.parametrize(
    "text",
    ["[" * 100_000, '{"a":' * 100_000, '{"images": ' + "9" * 100_000 + "}", '{"a": "\\ud800"}', b"\xff\xfe{", bytes(999)],
)
def test_json_that_is_deep_or_none_is_refused(read_coco, in_time, text):
    with pytest.raises(ValueError, match=r"^[^\n]*instances\.json is not [^\n]{,200}$"):
        read_coco(text)


def test_an_annotation_file_of_more_bytes_than_any_is_not_read(read_coco, monkeypatch):
    monkeypatch.setattr(coco, "MOST", 1000)
    with pytest.raises(ValueError, match=r"instances\.json has more than 1,000 bytes"):
        read_coco(instances() | {"info": "x" * 1000})


@pytest.mark.parametrize(
    ("what", "entry", "said"),
    [
        ("categories", {"id": 9, "name": "Dog"}, "name: {'id': 1, 'name': 'dog'} and {'id': 9, 'name': 'Dog'}"),
        ("categories", {"id": 9, "name": "dog "}, "name: {'id': 1, 'name': 'dog'} and {'id': 9, 'name': 'dog '}"),
        ("categories", {"id": 1, "name": "cow"}, "id: {'id': 1, 'name': 'dog'} and {'id': 1, 'name': 'cow'}"),
        ("images", {"id": 1, "file_name": "c"}, "id: {'file_name': 'a.jpg', 'id': 1} and {'file_name': 'c', 'id': 1}"),
        ("images", {"id": 3, "file_name": "a.jpg"}, "file name: {'file_name': 'a.jpg', 'id': 1} and {"),
    ],
)
def test_a_category_or_an_image_that_is_there_twice_is_refused_and_both_are_named(read_coco, what, entry, said):
    content = instances()
    content[what].append(entry)
    with pytest.raises(ValueError, match=rf"instances\.json: two {what} have the same {re.escape(said)}"):
        read_coco(content)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/a.jpg", "a\0.jpg", "a\n.jpg", "\x1b[31m.jpg", "a\u202egpj.exe", "../" * 9999]
)
def test_a_file_name_that_is_none_is_refused_in_one_short_line(read_coco, name):
    content = instances()
    content["images"][1]["file_name"] = name
    with pytest.raises(ValueError, match=r"^[^\n\0\x1b\u202e]*instances\.json: file name '[^\n\0\x1b\u202e]{,500}$"):
        read_coco(content)


NAMES, LABELS = ["a.jpg", "b.jpg"], np.array([[1, 0, -1], [0, -1, 1]], np.int8)


@pytest.fixture
def kept(tmp_path):
    """A function that reads labels by way of a cache, checks them, and says whether they had to be parsed; and the cache."""
    parsed = []

    def read():
        parsed.clear()
        names, labels = remember(tmp_path, [], "", lambda: parsed.append(1) or (NAMES, LABELS))
        assert (names, labels.tolist()) == (NAMES, LABELS.tolist())
        return bool(parsed)

    assert read()
    assert not read()
    (path,) = tmp_path.glob("labels_*")
    return read, path


def test_labels_are_parsed_again_after_a_change_of_any_byte_of_the_cache(kept, tmp_path):
    class Parsed(Exception):  # noqa: N818
        pass

    def parse():
        raise Parsed

    _, path = kept
    whole = path.read_bytes()
    for i in range(len(whole)):
        path.write_bytes(whole[:i] + bytes([whole[i] ^ 1 << i % 8]) + whole[i + 1 :])
        with pytest.raises(Parsed):
            remember(tmp_path, [], "", parse)


@pytest.mark.parametrize(
    ("change", "metadata"),
    [
        ({"positive": torch.zeros(2, dtype=torch.uint8)}, {}),
        ({"positive": torch.zeros(0, dtype=torch.uint8)}, {}),
        ({"positive": torch.zeros(1, dtype=torch.int8)}, {}),
        ({"negative": torch.zeros(1, dtype=torch.float32)}, {}),
        ({"other": torch.zeros(1, dtype=torch.uint8)}, {}),
        ({}, {"names": [1, 2]}),
        ({}, {"names": ["a.jpg"] * 9}),
        ({}, {"names": "ab"}),
        ({}, {"names": None}),
        ({}, {"classes": -3}),
        ({}, {"classes": True}),
        ({}, {"classes": 3.0}),
        ({}, {"classes": 10**30}),
    ],
)
def test_labels_are_parsed_again_where_the_cache_holds_something_else(kept, change, metadata):
    read, path = kept
    bits = {name: torch.zeros(1, dtype=torch.uint8) for name in ("positive", "negative")} | change
    checkpoint.write(path, bits, **({"names": NAMES, "classes": 3} | metadata))
    assert read()
    assert not read()


def test_a_pipe_in_place_of_the_cache_is_replaced(kept, in_time):
    read, path = kept
    path.unlink()
    os.mkfifo(path)
    assert read()
    assert not read()


def test_what_killed_processes_left_in_the_cache_is_removed(kept):
    read, path = kept
    old = path.with_name(f".{path.name}.{2**22 + 1}.rcnn")  # of no process that can be
    new = path.with_name(f".{path.name}.{2**22 + 2}.rcnn")
    old.touch()
    new.touch()
    os.utime(old, (time.time() - 2 * files.DAY,) * 2)
    read()
    assert (old.exists(), new.exists()) == (False, True)
