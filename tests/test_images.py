"""Which images are used, the cache of parsed labels, COCO's annotation files, and images named to the tagger."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rcnn import provenance
from rcnn.config import DatasetConfig
from rcnn.datasets import coco, images
from rcnn.datasets.images import read_images
from rcnn.photos import find_images
from rcnn.text.classes import ClassList

NAMES = ["c.jpg", "sub/a.jpg", "b.jpg", "d.jpg"]
LABELS = np.array([[1, -1], [0, -1], [1, 1], [0, 1]], np.int8)
LEAVING = ["../x.jpg", "a/../../x.jpg", "a/..", "/x.jpg", "C:/x.jpg", "C:x.jpg"]
CLASSES = ClassList(("dog", "Cat"), 1)


def touch(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def select(names, labels, folder, **options):
    return images.select(names, labels, DatasetConfig(images=str(folder), annotations="labels.json", **options))


def names_in(root, paths):
    return [Path(path).relative_to(root).as_posix() for path in paths]


@pytest.fixture
def root(tmp_path):
    touch(tmp_path / "images", NAMES)
    return tmp_path / "images"


def test_images_with_a_positive_label_are_used_in_the_order_given_and_unknown_labels_stay_unknown(root):
    found = select(NAMES, LABELS, root)
    assert found.labels.dtype == torch.int8
    assert found.paths == [root / name for name in ("c.jpg", "b.jpg", "d.jpg")]
    assert found.labels.tolist() == [[1, -1], [1, 1], [0, 1]]
    assert (found.left_out, found.missing) == (1, ())


def test_images_without_a_label_are_kept_when_asked(root):
    found = select(NAMES, LABELS, root, keep_unlabelled=True)
    assert names_in(root, found.paths) == NAMES
    assert found.labels.tolist() == [[1, -1], [0, -1], [1, 1], [0, 1]]
    assert (found.left_out, found.missing) == (0, ())


@pytest.mark.parametrize("keep", [False, True])
def test_labels_without_a_positive_one_are_refused(root, keep):
    negative = np.full((4, 2), -1, np.int8)
    for names, labels in ((NAMES, negative), (NAMES, 0 * negative), ([], negative[:0])):
        with pytest.raises(ValueError, match="no image has a positive label of these classes"):
            select(names, labels, root, keep_unlabelled=keep)


def test_missing_images_stop_with_their_count_the_first_ten_and_the_way_out(tmp_path):
    names = [f"{i:02}.jpg" for i in range(14)]
    touch(tmp_path, ["00.jpg", "07.jpg"])
    with pytest.raises(FileNotFoundError) as error:
        select(names, np.ones((14, 1), np.int8), tmp_path)
    message = str(error.value)
    assert message.startswith(f"12 of 14 images are missing under {tmp_path} (dataset.images)")
    assert [name for name in names if name in message] == [n for n in names if n not in ("00.jpg", "07.jpg")][:10]
    assert "dataset.allow_missing=true" in message


def test_a_missing_image_that_is_not_used_does_not_matter(root):
    (root / NAMES[1]).unlink()
    assert len(select(NAMES, LABELS, root).paths) == 3
    with pytest.raises(FileNotFoundError, match="1 of 4 images are missing"):
        select(NAMES, LABELS, root, keep_unlabelled=True)


def test_a_folder_named_like_an_image_is_a_missing_image(root):
    (root / "b.jpg").unlink()
    (root / "b.jpg").mkdir()
    with pytest.raises(FileNotFoundError, match="1 of 3 images are missing"):
        select(NAMES, LABELS, root)


@pytest.mark.parametrize(("keep", "left_out"), [(False, 1), (True, 0)])
def test_missing_images_are_left_out_and_listed_when_allowed(root, keep, left_out):
    for name in ("sub/a.jpg", "b.jpg"):
        (root / name).unlink()
    found = select(NAMES, LABELS, root, keep_unlabelled=keep, allow_missing=True)
    assert names_in(root, found.paths) == ["c.jpg", "d.jpg"]
    assert found.labels.tolist() == [[1, -1], [0, 1]]
    assert found.left_out == left_out
    assert [Path(name).name for name in found.missing] == (["a.jpg", "b.jpg"] if keep else ["b.jpg"])


def test_allowing_missing_images_changes_nothing_when_none_is(root):
    strict, lenient = (select(NAMES, LABELS, root, allow_missing=allowed) for allowed in (False, True))
    assert strict.paths == lenient.paths
    assert strict.labels.equal(lenient.labels)
    assert lenient.missing == ()


@pytest.mark.parametrize(("allowed", "message"), [(False, "4 of 4 images are missing"), (True, "none of the 4 images is")])
def test_a_folder_without_any_of_the_images_is_refused_even_if_missing_ones_are_allowed(tmp_path, allowed, message):
    with pytest.raises(FileNotFoundError, match=rf"{message} under .*\(dataset\.images\)"):
        select(NAMES, np.ones((4, 2), np.int8), tmp_path / "nowhere", allow_missing=allowed)


@pytest.mark.parametrize("allowed", [False, True])
@pytest.mark.parametrize("name", LEAVING)
def test_a_name_that_leaves_the_folder_is_refused_even_if_missing_ones_are_allowed(root, name, allowed):
    touch(root.parent, ["x.jpg"])
    with pytest.raises(ValueError, match=f"file name '{name}' leads out of the image folder"):
        select([*NAMES[:3], name], LABELS, root, allow_missing=allowed)


class Parser:
    """A source file with a cache beside it, and how often the source was parsed."""

    def __init__(self, folder, names=NAMES, labels=LABELS):
        self.names, self.labels, self.calls = names, labels, 0
        self.source, self.cache = folder / "labels.txt", folder / "cache" / "labels"
        self.source.write_text("the labels")

    def parse(self):
        self.calls += 1
        return self.names, self.labels

    def get(self, metadata="metadata", sources=None):
        """Read, check what was read, and return how often the source was parsed so far."""
        names, labels = images.remember(self.cache, sources or [self.source], metadata, self.parse)
        assert names == self.names
        assert labels.dtype == np.int8
        np.testing.assert_array_equal(labels, self.labels)
        return self.calls


@pytest.fixture
def parser(tmp_path):
    return Parser(tmp_path)


def test_labels_are_parsed_once(parser):
    assert [parser.get() for _ in range(3)] == [1, 1, 1]
    assert len(list(parser.cache.iterdir())) == 1


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (5, 7), (8, 2), (2, 0), (0, 3)])
def test_labels_of_any_shape_come_back_as_they_were(tmp_path, shape):
    names = [f"Ünï/{i}.jpg" for i in range(shape[0])]
    parser = Parser(tmp_path, names, np.random.default_rng(0).integers(-1, 2, shape, np.int8))
    assert [parser.get() for _ in range(2)] == [1, 1]


def test_a_kept_label_takes_two_bits(tmp_path):
    labels = np.random.default_rng(0).integers(-1, 2, (500, 400), np.int8)
    parser = Parser(tmp_path, [f"{i:03}.jpg" for i in range(500)], labels)
    assert [parser.get() for _ in range(2)] == [1, 1]
    (path,) = parser.cache.iterdir()
    assert path.stat().st_size < labels.size / 4 + 20 * len(labels)


def test_labels_are_parsed_again_when_a_source_has_another_size(parser):
    parser.get()
    stat = parser.source.stat()
    parser.source.write_text("the labels, and more")
    os.utime(parser.source, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [parser.get() for _ in range(2)] == [2, 2]


def test_labels_are_parsed_again_when_a_source_has_another_time_of_change(parser):
    parser.get()
    stat = parser.source.stat()
    os.utime(parser.source, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    assert [parser.get() for _ in range(2)] == [2, 2]


def test_labels_are_parsed_again_for_other_sources(parser, tmp_path):
    (tmp_path / "more.txt").write_text("more labels")
    assert [parser.get(), parser.get(sources=[parser.source, tmp_path / "more.txt"])] == [1, 2]


def test_labels_are_parsed_again_for_other_metadata_and_all_are_kept(parser):
    metadata = (["dog", "cat"], ["cat", "dog"], [1, "dog", "cat"])
    assert [parser.get(entry) for entry in metadata * 2] == [1, 2, 3, 3, 3, 3]


def test_labels_are_parsed_again_when_the_code_that_parses_them_has_changed(parser, monkeypatch):
    known = provenance.sources
    assert "datasets/coco.py" in known(("datasets",))
    assert parser.get() == 1
    monkeypatch.setattr(provenance, "sources", lambda parts: known(parts) | {"datasets/coco.py": "0" * 64})
    assert [parser.get() for _ in range(2)] == [2, 2]


@pytest.mark.parametrize(
    "damage", [lambda b: b"", lambda b: b[:7], lambda b: b[: len(b) // 2], lambda b: b[:-1], lambda b: b"x" * 99]
)
def test_a_damaged_cache_file_is_parsed_anew_and_replaced(parser, damage):
    parser.get()
    (path,) = parser.cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert [parser.get() for _ in range(2)] == [2, 2]
    assert len(path.read_bytes()) == len(whole)  # safetensors writes its metadata in any order


def test_a_source_that_cannot_be_parsed_leaves_no_cache_file(parser):
    def fail():
        raise ValueError("no labels")

    with pytest.raises(ValueError, match="no labels"):
        images.remember(parser.cache, [parser.source], "metadata", fail)
    assert not parser.cache.exists()
    assert parser.get() == 1


def test_without_a_cache_folder_labels_are_parsed_each_time_and_nothing_is_written(parser, tmp_path):
    parser.cache = None
    assert [parser.get() for _ in range(2)] == [1, 2]
    assert list(tmp_path.iterdir()) == [parser.source]


def read_coco(path, folder, classes=CLASSES, cache=None, **selection):
    return read_images(DatasetConfig(kind="coco", annotations=str(path), images=str(folder), **selection), classes, cache)


@pytest.fixture
def content():
    """Three images, the last of them without a label of the classes."""
    pairs = {20: [1, 7], 3: [2], 11: [7]}
    listed = [(image, category) for image, categories in pairs.items() for category in categories]
    return {
        "images": [{"id": i, "file_name": f"{i:02}.jpg"} for i in pairs],
        "categories": [{"id": 2, "name": "cat"}, {"id": 7, "name": "rainbow"}, {"id": 1, "name": "Dog"}],
        "annotations": [{"id": n, "image_id": i, "category_id": c} for n, (i, c) in enumerate(listed)],
    }


@pytest.fixture
def read(tmp_path, content):
    """Write an annotation file, this content or a text, and read it."""
    touch(tmp_path, ["20.jpg", "03.jpg", "11.jpg"])
    path = tmp_path / "instances.json"

    def write_and_read(other=None, classes=CLASSES, **options):
        path.write_text(json.dumps(content) if other is None else other, encoding="utf-8")
        return read_coco(path, tmp_path, classes, **options)

    return write_and_read


def test_coco_images_come_in_order_of_id_with_columns_in_order_of_classes(read, tmp_path):
    found = read()
    assert names_in(tmp_path, found.paths) == ["03.jpg", "20.jpg"]
    assert found.labels.tolist() == [[-1, 1], [1, -1]]
    assert found.left_out == 1


def test_a_group_of_objects_counts_as_a_positive_label(read, content):
    before = read().labels
    content["annotations"].append({"id": 9, "image_id": 3, "category_id": 1, "iscrowd": 1})
    assert before.tolist() == [[-1, 1], [1, -1]]
    assert read().labels.tolist() == [[1, 1], [1, -1]]


def test_options_of_the_selection_are_passed_on(read, tmp_path):
    assert names_in(tmp_path, read(keep_unlabelled=True).paths) == ["03.jpg", "11.jpg", "20.jpg"]
    (tmp_path / "03.jpg").unlink()
    assert names_in(tmp_path, read(allow_missing=True).paths) == ["20.jpg"]


@pytest.mark.parametrize(("key", "what"), [("category_id", "category"), ("image_id", "image")])
def test_an_annotation_of_something_unknown_is_named(read, content, key, what):
    content["annotations"][1][key] = 99
    with pytest.raises(ValueError, match=rf"instances\.json: annotation 1 is of unknown {what} 99"):
        read()


@pytest.mark.parametrize("key", ["category_id", "image_id", "id"])
def test_an_annotation_without_one_of_its_keys_is_refused(read, content, key):
    del content["annotations"][1][key]
    with pytest.raises(ValueError, match=rf"instances\.json.*{key}"):
        read()


def test_an_annotation_file_that_is_only_half_there_is_refused(read, content):
    content["info"] = "é"
    text = json.dumps(content, ensure_ascii=False)
    for length in (0, 1, len(text) // 2, len(text) - 1):
        with pytest.raises(ValueError, match=r"instances\.json is not JSON, perhaps only half downloaded"):
            read(text[:length])


def test_an_annotation_file_cut_within_a_character_is_refused(tmp_path):
    path = tmp_path / "instances.json"
    path.write_bytes('{"info": "é'.encode()[:-1])
    with pytest.raises(ValueError, match=r"instances\.json is not JSON, perhaps only half downloaded"):
        read_coco(path, tmp_path)


@pytest.mark.parametrize("key", ["images", "annotations", "categories"])
def test_json_that_is_not_in_cocos_format_is_refused(read, content, key):
    del content[key]
    for other in (json.dumps(content), "[]", "null", '{"annotations": 1}'):
        with pytest.raises(ValueError, match=r"instances\.json is not a COCO annotation file"):
            read(other)


def test_classes_without_a_category_are_named(read):
    with pytest.raises(ValueError, match=r"instances\.json: there is no category for 2 classes: zebra, yak$"):
        read(classes=ClassList(("zebra", "dog", "yak"), 1))


@pytest.mark.parametrize("name", LEAVING)
def test_a_coco_name_that_leaves_the_folder_is_refused_with_its_file(read, content, name):
    content["images"][0]["file_name"] = name
    with pytest.raises(ValueError, match=rf"instances\.json: file name '{name}' leads out of the image folder"):
        read()


def test_an_annotation_file_that_is_not_there_is_named_even_with_a_cache(read, tmp_path):
    read(cache=tmp_path / "cache")
    (tmp_path / "instances.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"no annotation file .*instances\.json \(dataset\.annotations\)"):
        read_coco(tmp_path / "instances.json", tmp_path, cache=tmp_path / "cache")


def test_coco_is_opened_once_for_the_same_file_and_classes(read, tmp_path, monkeypatch):
    opened, opener = [], coco.COCO
    monkeypatch.setattr(coco, "COCO", lambda: opened.append(1) or opener())
    first = read(cache=tmp_path / "cache")
    again = read_coco(tmp_path / "instances.json", tmp_path, cache=tmp_path / "cache")
    assert len(opened) == 1
    assert again.paths == first.paths
    assert again.labels.equal(first.labels)
    swapped = read_coco(tmp_path / "instances.json", tmp_path, ClassList(("Cat", "dog"), 1), cache=tmp_path / "cache")
    assert swapped.labels.equal(first.labels[:, [1, 0]])
    assert len(opened) == 2


def test_the_cache_does_not_remember_which_images_were_there(read, tmp_path):
    assert len(read(cache=tmp_path / "cache").paths) == 2
    (tmp_path / "03.jpg").unlink()
    path = tmp_path / "instances.json"
    with pytest.raises(FileNotFoundError, match="1 of 2 images are missing"):
        read_coco(path, tmp_path, cache=tmp_path / "cache")


def test_an_image_named_twice_is_tagged_once(root, monkeypatch):
    touch(root, [".hidden/a.jpg"])
    shown = sorted(root / name for name in NAMES)
    for places in ([root, root / "b.jpg"], [root, root], [root, root / "sub"]):
        assert find_images(places) == (shown, {}, 1)
    monkeypatch.chdir(root)
    assert [len(part) for part in find_images(["b.jpg", root])[:2]] == [4, 0]
    assert find_images([root, ".hidden"])[2] == 0
    touch(root, ["e.nef"])
    assert list(find_images([root, root / "e.nef"])[1]) == [root / "e.nef"]
