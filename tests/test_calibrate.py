"""Labels of checked photos, and cut-offs fitted to them from the command line, with the mini CLIP."""

import contextlib
import csv
import io
import json
import os
from pathlib import Path

import draw_mini
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import rcnn

from rcnn.files import read_json
from rcnn.tagger import Tagger
from rcnn.tagging.cutoffs import Cutoffs
from rcnn.tagging.labels import full_names, presence, read_labels
from rcnn.text.classes import ClassList

ROOT = Path(__file__).parents[1]
PAIRS = ["clip.model=null", "clip.pretrained=null", f"clip.weights={ROOT}/data/mini/clip.safetensors", "device=cpu"]
NAMES = ("animal", "plant", "tree", "vehicle", "beach", "forest", "butterfly")
CLASSES = ClassList(("dog", "crane", "crane", "hot air balloon"), 0, ("", "a wading bird", "a machine", ""))
TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), max_size=12)


@pytest.fixture
def labelled(tmp_path):
    """A function: labels as they are read from a CSV file of this text."""

    def read(text, name="labels.csv"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_labels(tmp_path / name, CLASSES)

    return read


def test_a_photo_has_the_classes_of_all_its_lines_and_one_with_an_empty_class_has_none(labelled):
    found = labelled("image,class\nb.jpg,dog\na.jpg,\nb.jpg,hot air balloon\nb.jpg,dog\n\n")
    assert list(found.items()) == [("a.jpg", set()), ("b.jpg", {"dog", "hot air balloon"})]


@pytest.mark.parametrize(
    "text", ["\ufeffImage,Class\r\na.jpg,dog\r\n", "image;class\na.jpg;dog\n", 'image,class\n"a.jpg", dog']
)
def test_labels_are_read_as_spreadsheets_write_them(labelled, text):
    assert labelled(text) == {"a.jpg": {"dog"}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "line 1: expected the header image,class, got ''"),
        ("a.jpg,dog\n", "line 1: expected the header image,class, got 'a.jpg,dog'"),
        ("image,rank,class\n", "line 1: expected the header image,class, got 'image,rank,class'"),
        ("image,class\n", "has no labels of checked photos"),
        ("image,class\na.jpg\n", "line 2: expected an image and one class, got 'a.jpg'"),
        ("image,class\na.jpg,dog,crane\n", "line 2: expected an image and one class, got 'a.jpg,dog,crane'"),
        ("image,class\n,dog\n", "line 2: expected an image and one class, got ',dog'"),
        ("image,class\na.jpg,dog\na.jpg,\n", "line 3: 'a.jpg' has classes, and a line that says it has none"),
        ("image,class\na.jpg,\na.jpg,dog\n", "line 3: 'a.jpg' has classes, and a line that says it has none"),
        ('image,class\n"a.jpg,dog\n', "line 2: unexpected end of data"),
        (b"image,class\na\xff.jpg,dog\n", "is not UTF-8 text: invalid start byte at byte 13"),
        ("image,class\n" + "a" * 200_000 + ",dog\n", "line 2: field larger than field limit"),
    ],
)
def test_what_is_no_file_of_labels_is_named_with_its_line(labelled, text, problem):
    with pytest.raises(ValueError, match=r"labels\.csv") as error:
        labelled(text)
    assert problem in str(error.value)
    assert "\n" not in str(error.value)


@given(st.binary(max_size=60) | TEXT.map(lambda text: f"image,class\n{text}".encode()))
def test_any_bytes_are_labels_or_a_value_error(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    path.write_bytes(content)
    with contextlib.suppress(ValueError):
        assert all(read_labels(path, CLASSES))


@given(st.dictionaries(TEXT.map(str.strip).filter(bool), st.sets(st.sampled_from(["dog", "crane", "a, b", 'c"d']))))
def test_labels_are_read_as_they_were_written(tmp_path_factory, labels):
    path, text = tmp_path_factory.getbasetemp() / "round.csv", io.StringIO(newline="")
    rows = [(image, name) for image, names in labels.items() for name in names or [""]]
    csv.writer(text).writerows([("image", "class"), *rows])
    path.write_bytes(text.getvalue().encode())
    if labels:
        assert read_labels(path, CLASSES) == labels


def test_a_coco_file_has_labels_of_all_its_images(labelled):
    content = {
        "images": [{"id": 7, "file_name": "b.jpg"}, {"id": 3, "file_name": "a.jpg"}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(["Dog", "crane", "hot air balloon", "sofa"])],
        "annotations": [{"id": 1, "image_id": 7, "category_id": 0}, {"id": 2, "image_id": 7, "category_id": 3}],
    }
    assert list(labelled(json.dumps(content), "instances.json").items()) == [("a.jpg", set()), ("b.jpg", {"dog"})]
    del content["categories"][2]
    with pytest.raises(ValueError, match=r"instances\.json: there is no category for 1 classes: hot air balloon"):
        labelled(json.dumps(content), "instances.json")


def test_labels_find_their_class_in_any_case_and_a_homonym_by_its_note():
    names = full_names(CLASSES.names, CLASSES.notes)
    assert presence(names, [["DOG"], [], ["crane [a machine]", "hot_air balloon"]]).tolist() == [
        [True, False, False, False], [False] * 4, [False, False, True, True],
    ]  # fmt: skip


def test_labels_of_no_class_or_of_several_are_all_named():
    with pytest.raises(ValueError, match=r"labels that are not one class .*'crane' \(several classes\), 'dgo' \(no class\)"):
        presence(full_names(CLASSES.names, CLASSES.notes), [["dgo", "dog"], ["crane"]])


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """14 drawings in a folder, {name of a drawing: its classes}, and the names in a file."""
    folder = tmp_path_factory.mktemp("calibrate")
    draw_mini.draw_benchmark(folder, 14)
    content = json.loads((folder / "instances.json").read_text())
    names = {category["id"]: category["name"] for category in content["categories"]}
    found = {image["file_name"]: set() for image in content["images"]}
    for annotation in content["annotations"]:
        if names[annotation["category_id"]] in NAMES:
            found[f"{annotation['image_id'] - 1:05}.jpg"].add(names[annotation["category_id"]])
    return folder, found


@pytest.fixture
def given_files(tmp_path, drawn):
    """The drawings, labels of the first 12, and a class list, in the test's own folder; the arguments of a command."""
    folder, found = drawn
    (tmp_path / "photos").mkdir()
    for path in (folder / "images").iterdir():
        os.link(path, tmp_path / "photos" / path.name)
    write_labels(tmp_path / "photos" / "labels.csv", dict(list(found.items())[:12]))
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    return ["--classes", tmp_path / "names.txt", *PAIRS, f"cache={folder}/cache"]  # paths differ from test to test


def write_labels(path, found):
    rows = [(image, name) for image, names in found.items() for name in sorted(names) or [""]]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", "class"), *rows])


def test_labels_beside_the_photos_give_cut_offs_beside_the_class_list(tmp_path, given_files, drawn):
    out, err = rcnn("calibrate", tmp_path / "photos" / "labels.csv", *given_files)
    path = tmp_path / "names.cutoffs.json"
    assert err == ""
    assert out.splitlines()[-1] == f"cut-offs of 7 classes: {path}"
    assert out.startswith("12 checked photos of 14, with ")
    assert "\nmicro-averaged  precision " in out
    tagger = Tagger.from_names(NAMES, model=None, pretrained=None, weights=ROOT / "data/mini/clip.safetensors", device="cpu")
    cutoffs = Cutoffs.load(path, tagger.identity, NAMES)
    photos = sorted((tmp_path / "photos").glob("*.jpg"))
    scores, present = tagger.scores(photos).numpy(), presence(NAMES, drawn[1].values())
    assert (cutoffs.facts["photos"], cutoffs.facts["collection"], cutoffs.facts["labels"]) == (12, 14, present[:12].sum())
    agree = ((scores >= cutoffs.thresholds) == present)[:12].mean()
    assert agree > 0.8


def test_a_wanted_precision_gives_fewer_tags(tmp_path, given_files):
    labels = tmp_path / "photos" / "labels.csv"
    rcnn("calibrate", labels, *given_files)
    rcnn("calibrate", labels, *given_files, "--precision", 0.9, "--output", tmp_path / "sure.json")
    f1, sure = (np.array(read_json(tmp_path / name)["thresholds"]) for name in ("names.cutoffs.json", "sure.json"))
    assert (sure >= f1).all()
    assert (sure > f1).any()


def test_labels_may_lie_elsewhere_and_name_photos_as_predict_prints_them(tmp_path, given_files, drawn, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_labels(tmp_path / "labels.csv", {f"photos/{image}": names for image, names in list(drawn[1].items())[:12]})
    rcnn("calibrate", "labels.csv", "--images", "photos", *given_files, "--output", "one.json")
    rcnn("calibrate", "photos/labels.csv", *given_files, "--output", "other.json")
    assert read_json("one.json") == read_json("other.json")


def test_a_run_keeps_its_cut_offs_in_its_folder(tmp_path, given_files):
    run, labels = tmp_path / "run", tmp_path / "photos" / "labels.csv"
    rcnn("train", *given_files, "corpus.path=null", f"output={run}")
    rcnn("calibrate", labels, "--run", run)
    tagger = Tagger.load(run)
    assert Cutoffs.load(run / "cutoffs.json", tagger.identity, NAMES).facts["photos"] == 12


@pytest.mark.parametrize("harm", ["evaluate.grids=[]", "damaged"])
def test_cut_offs_of_a_run_that_fit_no_more_are_refused_until_it_is_calibrated_again(tmp_path, given_files, harm):
    run, labels = tmp_path / "run", tmp_path / "photos" / "labels.csv"
    rcnn("train", *given_files, "corpus.path=null", f"output={run}")
    rcnn("calibrate", labels, "--run", run)
    pairs = [] if harm == "damaged" else [harm]
    if harm == "damaged":
        (run / "cutoffs.json").write_text((run / "cutoffs.json").read_text()[:100])
    _, err = rcnn("predict", tmp_path / "photos", "--run", run, *pairs, code=2)
    assert f"{run}/cutoffs.json" in err
    assert err.count("\n") == 1
    rcnn("calibrate", labels, "--run", run, *pairs)
    rcnn("predict", tmp_path / "photos", "--run", run, *pairs)


def test_classes_without_labels_are_named(tmp_path, given_files, drawn):
    labels = tmp_path / "photos" / "labels.csv"
    write_labels(labels, {image: names - {"beach"} for image, names in list(drawn[1].items())[:12]})
    out, _ = rcnn("calibrate", labels, *given_files)
    (line,) = (line for line in out.splitlines() if "no label" in line)
    assert "beach" in line


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (
            ["photos/labels.csv", "--precision", "90"],
            "precision: expected a share above 0 and at most 1, such as 0.9, got 90.0",
        ),
        (["photos/none.csv"], "there is no file of labels photos/none.csv; expected a CSV file image,class, or COCO's"),
        (["photos"], "photos is not a regular file"),
        (["photos/labels.csv", "--images", "none"], "there is no folder none; expected one of photos"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, given_files, monkeypatch, arguments, problem):
    monkeypatch.chdir(tmp_path)
    _, err = rcnn("calibrate", *arguments, *given_files, code=2)
    assert err.startswith(f"error: {problem}")
    assert err.count("\n") == 1


def test_labels_that_cannot_be_used_are_one_line_before_any_photo_is_scored(tmp_path, given_files, drawn, monkeypatch):
    monkeypatch.setattr(Tagger, "stream", None)
    found, labels = dict(list(drawn[1].items())[:12]), tmp_path / "photos" / "labels.csv"
    for changed, problem in [
        (found | {"00000.jpg": {"unicorn"}}, "labels that are not one class of the list each: 'unicorn' (no class)"),
        (
            found | {"lost.jpg": {"tree"}},
            f"{tmp_path}/photos does not have these photos, which have labels, or they cannot be read",
        ),
        ({image: set() for image in found}, "no checked photo shows any of the classes"),
        (dict(list(found.items())[:3]), "expected at least 10 checked photos, better 50, got 3"),
    ]:
        write_labels(labels, changed)
        _, err = rcnn("calibrate", labels, *given_files, code=2)
        assert err.startswith(f"error: {problem}")
        assert err.count("\n") == 1
        assert not (tmp_path / "names.cutoffs.json").exists()


def test_a_photo_that_cannot_be_read_is_named_and_stops_it_only_if_it_has_labels(tmp_path, given_files):
    labels, photos = tmp_path / "photos" / "labels.csv", tmp_path / "photos"
    break_photo(photos / "00013.jpg")
    _, err = rcnn("calibrate", labels, *given_files, code=1)
    assert err.startswith(f"skipped {photos}/00013.jpg: cannot identify image")
    (tmp_path / "names.cutoffs.json").unlink()
    break_photo(photos / "00000.jpg")
    _, err = rcnn("calibrate", labels, *given_files, code=2)
    assert err.startswith("error: these photos have labels and cannot be read: 00000.jpg (cannot identify image")
    assert err.count("\n") == 1
    assert not (tmp_path / "names.cutoffs.json").exists()


def test_calibrate_wants_a_run_or_a_class_list(tmp_path, given_files):
    _, err = rcnn("calibrate", tmp_path / "photos" / "labels.csv", code=2)
    assert err.splitlines()[-1].endswith("error: one of the arguments --run --classes is required")


def break_photo(path):
    path.unlink()  # it is linked to the drawing of all tests
    path.write_bytes(b"no photo")


def test_one_class_can_be_calibrated(tmp_path, given_files, drawn):
    (tmp_path / "names.txt").write_text("tree")
    write_labels(tmp_path / "photos" / "labels.csv", {image: names & {"tree"} for image, names in drawn[1].items()})
    rcnn("calibrate", tmp_path / "photos" / "labels.csv", *given_files)
    assert len(read_json(tmp_path / "names.cutoffs.json")["thresholds"]) == 1


def test_photos_whose_names_a_terminal_would_act_upon_can_be_labelled(tmp_path, given_files):
    for i, name in enumerate(["a,b.jpg", "é\\x.jpg", "\x1b[2J.jpg", os.fsdecode(b"\xff.jpg")]):
        os.rename(tmp_path / "photos" / f"{i:05}.jpg", tmp_path / "photos" / name)
    names = ["a,b.jpg", r"é\\x.jpg", r"\x1b[2J.jpg", r"\udcff.jpg", *(f"{i:05}.jpg" for i in range(4, 14))]
    write_labels(tmp_path / "photos" / "labels.csv", {name: {"tree"} for name in names})
    rcnn("calibrate", tmp_path / "photos" / "labels.csv", *given_files)
    assert read_json(tmp_path / "names.cutoffs.json")["facts"]["photos"] == 14
