# ruff: noqa: F811, the parameters of tests are fixtures
"""Tagging from the command line, with the mini CLIP."""

import contextlib
import csv
import io
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features
from running import rcnn
from tagging import MINI, NAMES, PAIRS, ROOT, TOO_FEW, folder, names, photos, pictures, run, six  # noqa: F401

from rcnn import cli, collection, config, predict, runtime
from rcnn.collection import Collection, Source
from rcnn.learn import closed_form, losses
from rcnn.photos import find_images
from rcnn.score import reading, views
from rcnn.tagger import Tagger
from rcnn.tagging.cutoffs import FEWEST, Cutoffs, Statistics, label_free
from rcnn.tagging.tags import FORMATS
from rcnn.text import corpus
from rcnn.text.classes import ClassList

XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject><rdf:Bag>
<rdf:li>lighthouse</rdf:li>
</rdf:Bag></dc:subject></rdf:Description></rdf:RDF></x:xmpmeta>
"""


def test_predict_tags_with_a_list_of_names_as_table_csv_and_json(photos, names, six):
    expected = [tag.name for tag in six.tag(photos / "a.jpg")]
    stdout, stderr = rcnn("predict", photos, *names)
    assert (stdout.startswith(str(photos / "a.jpg")), stderr) == (True, TOO_FEW)
    table = list(csv.DictReader(io.StringIO(rcnn("predict", photos, *names, "--format", "csv")[0])))
    assert [row["class"] for row in table] == expected
    (entry,) = json.loads(rcnn("predict", photos, *names, "--format", "json")[0])
    assert [tag["class"] for tag in entry["tags"]] == expected


def test_predict_tags_with_a_run(photos, run):
    arguments = [photos, "--run", run, "--top", 2, "device=cpu", "--format", "csv"]
    whole, mssa = (rcnn("predict", *arguments, *more)[0] for more in (["--fast"], []))
    expected = Tagger.load(run).tag(photos / "a.jpg", top=2)
    assert [(r["class"], r["score"]) for r in csv.DictReader(io.StringIO(mssa))] == [
        (tag.name, f"{tag.score:.6f}") for tag in expected
    ]
    assert whole != mssa


def test_predict_takes_pairs_before_and_after_images(photos, names):
    after, _ = rcnn("predict", photos, *names, "evaluate.temperature=0.5")
    before, _ = rcnn("predict", "evaluate.temperature=0.5", photos, *names)
    assert after == before != rcnn("predict", photos, *names)[0]


def test_predict_takes_an_image_for_an_image_though_it_holds_an_equals_sign(photos, names):
    (photos / "a.jpg").rename(photos / "x=1.jpg")
    assert rcnn("predict", photos / "x=1.jpg", *names)[0].startswith(str(photos / "x=1.jpg"))


def test_predict_takes_what_holds_an_equals_sign_and_is_no_file_for_a_pair(photos, names, run):
    for given in (names, ["--run", run]):
        _, stderr = rcnn("predict", photos, *given, "evaluate.gird=[]", code=2)
        assert stderr == "error: unknown configuration key evaluate.gird; the nearest is evaluate.grids\n"


@pytest.mark.parametrize("pair", ["train.epochs=30", "train.ablation=false", "classes.unseen=x.txt", "corpus={path: x.json}"])
def test_predict_refuses_keys_that_only_learning_reads(photos, names, run, pair):
    key = pair.partition("=")[0]
    for given in (names, ["--run", run]):
        _, stderr = rcnn("predict", photos, *given, pair, code=2)
        assert stderr == f"error: {key}: tagging does not read this; python -m rcnn.train does\n"


def test_predict_accepts_a_seed(photos, names):
    assert rcnn("predict", photos, *names, "seed=1") == rcnn("predict", photos, *names)


def test_predict_caps_the_default_number_of_tags_at_the_classes(photos, names, tmp_path):
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    assert rcnn("predict", photos, *names, "--format", "csv")[0].count("a.jpg") == 2
    assert "expected 1 to 2" in rcnn("predict", photos, *names, "--top", 3, code=2)[1]


def test_predict_names_files_that_are_broken_and_exits_1(photos, names):
    (photos / "broken.png").write_bytes(b"not a picture")
    for more in ([], ["--quiet"]):
        stdout, stderr = rcnn("predict", photos, *names, *more, code=1)
        assert len(stdout.splitlines()) == 1
        assert stderr.startswith(f"{TOO_FEW}skipped {photos / 'broken.png'}: ")


@pytest.mark.parametrize(
    ("name", "said"), [("b.HEIC", "pip install pillow-heif"), ("b.heif", "pillow-heif"), ("b.NEF", "convert it to JPEG")]
)
def test_predict_names_files_of_formats_that_are_not_read(photos, names, name, said, monkeypatch):
    monkeypatch.delitem(Image.EXTENSION, ".heic", raising=False)  # where the package is installed
    monkeypatch.delitem(Image.EXTENSION, ".heif", raising=False)
    (photos / name).write_bytes(b"a photograph")
    stdout, stderr = rcnn("predict", photos, *names, code=1)
    assert len(stdout.splitlines()) == 1
    assert stderr.startswith(f"{TOO_FEW}skipped {photos / name}: ")
    assert said in stderr


def test_heic_is_read_where_its_package_is_installed(photos, tmp_path):
    (tmp_path / "pillow_heif.py").write_text(
        "from PIL import Image\ndef register_heif_opener():\n    Image.register_extension('JPEG', '.heic')\n"
    )
    (photos / "a.jpg").rename(photos / "a.heic")
    code = f"from rcnn.photos import find_images; print(find_images([{str(photos)!r}])[1])"
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert ended.stdout == "{}\n"


def test_hidden_files_and_folders_are_left_alone_and_counted(photos, names):
    for name in ("._a.jpg", ".trash/b.jpg", "deeper/.c.png", ".DS_Store"):
        (photos / name).parent.mkdir(exist_ok=True)
        (photos / name).write_bytes(b"not a picture")
    stdout, stderr = rcnn("predict", photos, *names)
    assert len(stdout.splitlines()) == 1
    assert stderr == f"{TOO_FEW}3 hidden files left alone\n"


def test_a_hidden_place_is_looked_at_when_it_is_named(photos):
    hidden = photos / ".hidden"
    hidden.mkdir()
    for name in ("b.jpg", ".c.jpg"):
        (hidden / name).touch()
    assert find_images([hidden]) == ([hidden / "b.jpg"], {}, 1)
    assert find_images([hidden / ".c.jpg"]) == ([hidden / ".c.jpg"], {}, 0)
    (hidden / "b.jpg").unlink()
    with pytest.raises(FileNotFoundError, match="hidden files left alone: 1"):
        find_images([hidden])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.jpg", "--run", "x"], "no image or folder"),
        (["LICENSE", "--run", "nowhere"], "is no finished run"),
        (["LICENSE", "--classes", "nowhere.txt"], "there is no class list nowhere.txt"),
        (["configs", "--classes", "nowhere.txt"], "no images in configs; looked for .bmp"),
    ],
)
def test_predict_explains_bad_input_in_one_line(arguments, said):
    _, stderr = rcnn("predict", *arguments, code=2)
    assert said in stderr
    assert len(stderr.splitlines()) == 1


def names_skipped(stderr):
    """{path: why} as predict says it."""
    lines = (line.removeprefix("skipped ").partition(": ") for line in stderr.splitlines() if line.startswith("skipped "))
    return {path: why for path, _, why in lines}


def test_predict_names_an_image_that_kills_the_process_which_decodes_it_and_tags_the_others(photos, names, monkeypatch):
    def read_or_die(image, *arguments):
        if Path(image).name == "deadly.jpg":
            os.kill(os.getpid(), signal.SIGKILL)
        return reading.read_rgb(image, *arguments)

    monkeypatch.setattr(views, "read_rgb", read_or_die)
    for name in ("b.jpg", "deadly.jpg", "z.jpg"):
        (photos / name).write_bytes((photos / "a.jpg").read_bytes())
    stdout, stderr = rcnn("predict", photos, *names, code=1)
    assert [Path(line.split()[0]).name for line in stdout.splitlines()] == ["a.jpg", "b.jpg", "z.jpg"]
    assert names_skipped(stderr) == {
        str(photos / "deadly.jpg"): "the process that decoded it was killed: it took more than 10 s, or the memory ran short"
    }


def test_predict_names_what_it_does_not_read_and_exits_1(photos, names, tmp_path):
    (photos / "dangling.jpg").symlink_to(photos / "nowhere.jpg")
    (photos / "loop.png").symlink_to(photos / "loop.png")
    (photos / "linked").symlink_to(tmp_path)
    (photos / "itself").symlink_to(photos)
    (photos / "zero.tif").symlink_to("/dev/zero")
    (photos / "good.jpg").symlink_to(photos / "a.jpg")
    os.mkfifo(photos / "pipe.JPG")
    stdout, stderr = rcnn("predict", photos, *names, code=1)
    assert [line.split()[0] for line in stdout.splitlines()] == [str(photos / "a.jpg"), str(photos / "good.jpg")]
    linked = "a linked folder, which is not searched; name it as an argument"
    assert names_skipped(stderr) == {
        str(photos / "dangling.jpg"): "a link that leads to no file: No such file or directory",
        str(photos / "itself"): linked,
        str(photos / "linked"): linked,
        str(photos / "loop.png"): "a link that leads to no file: Too many levels of symbolic links",
        str(photos / "pipe.JPG"): "not a regular file",
        str(photos / "zero.tif"): "not a regular file",
    }
    _, stderr = rcnn("predict", photos / "pipe.JPG", photos / "dangling.jpg", *names, code=1)
    assert len(names_skipped(stderr)) == 2


def test_a_folder_that_cannot_be_searched_is_named(photos, monkeypatch):
    (photos / "secret").mkdir()
    scandir = os.scandir

    def refuse(path):
        if Path(path).name == "secret":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    expected = {photos / "secret": "the folder cannot be searched: Permission denied"}
    assert find_images([photos]) == ([photos / "a.jpg"], expected, 0)
    assert find_images([photos / "secret"]) == ([], expected, 0)


def test_a_linked_folder_is_searched_when_it_is_named(photos, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (photos / "a.jpg").rename(tmp_path / "elsewhere" / "b.jpg")
    (photos / "linked").symlink_to(tmp_path / "elsewhere")
    assert list(find_images([photos])[1]) == [photos / "linked"]
    assert find_images([photos, photos / "linked"]) == ([photos / "linked" / "b.jpg"], {}, 0)


def test_predict_prints_rows_as_they_come_and_json_without_its_end_where_it_fails(photos, names, tmp_path, monkeypatch):
    def stream(self, paths, batch_size, workers):
        yield [0], torch.zeros(1, 6), {}
        raise OSError("the disk is gone")

    monkeypatch.setattr(Tagger, "stream", stream)
    (photos / "b.jpg").write_bytes((photos / "a.jpg").read_bytes())
    for form in FORMATS:
        stdout, stderr = rcnn("predict", photos, *names, f"cache={tmp_path}/{form}", "--format", form, code=2)
        assert str(photos / "a.jpg") in stdout
        assert stderr == f"{TOO_FEW}error: the disk is gone\n"
        if form == "json":
            with pytest.raises(json.JSONDecodeError):
                json.loads(stdout)


def test_predict_prints_a_json_list_of_any_number_of_images(photos, names):
    for count in (3, 2, 1):
        for i in range(1, count):
            (photos / f"{i}.jpg").write_bytes((photos / "a.jpg").read_bytes())
        paths = sorted(photos.iterdir())
        stdout, _ = rcnn("predict", photos, *names, "--format", "json", "--top", 2)
        assert [entry["image"] for entry in json.loads(stdout)] == [str(path) for path in paths]
        lines, _ = rcnn("predict", photos, *names, "--format", "jsonl", "--top", 2)
        assert stdout == "[\n" + ",\n".join(lines.splitlines()) + "\n]\n"
        for path in paths[:-1]:
            path.unlink()
    (photos / "a.jpg").write_bytes(b"broken")
    assert rcnn("predict", photos, *names, "--format", "json", code=1)[0] == "[]\n"


ODD = [b"caf\xe9.jpg", "café.jpg".encode(), "a\u202eb\x1b[31m\n.jpg".encode(), b"back\\slash.jpg", "猫😀.jpg".encode()]


def printed(encoding, *arguments):
    """What predict writes to a stdout of this encoding, as bytes, and to stderr; it ends with exit code 1."""
    raw, stderr = io.BytesIO(), io.StringIO()
    stdout = io.TextIOWrapper(raw, encoding)
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr), pytest.raises(SystemExit, match=r"^1$"):
        cli.run(lambda: predict.main([str(a) for a in arguments]))
    stdout.detach()
    return raw.getvalue(), stderr.getvalue()


def test_predict_prints_every_row_whatever_names_and_encoding_are(photos, names, tmp_path):
    data = (photos / "a.jpg").read_bytes()
    (photos / "a.jpg").unlink()
    for name in ODD:
        Path(os.fsdecode(os.fsencode(photos) + b"/" + name)).write_bytes(data)
    (photos / "broken\x1b[31m.jpg").write_bytes(b"")
    (tmp_path / "names.txt").write_text("dog\ncrème brûlée\n猫\n", encoding="utf-8")
    for encoding in ("ascii", "utf-8"):
        found = [printed(encoding, photos, *names, "--format", form) for form in ("table", "csv", "json", "jsonl")]
        table, rows, entries, lines = (out for out, _ in found)
        shown = [r"caf\udce9.jpg", "café.jpg", r"a\u202eb\x1b[31m\n.jpg", r"back\\slash.jpg", "猫😀.jpg", "crème brûlée"]
        *expected, dish = (name.encode(encoding, "backslashreplace").decode(encoding) for name in shown)
        paths = {f"{photos}/{name}" for name in expected}
        assert {line.partition("  ")[0] for line in table.decode(encoding).splitlines()} == paths
        listed = list(csv.DictReader(io.StringIO(rows.decode(encoding))))
        assert {row["image"] for row in listed} == paths
        assert dish in {row["class"] for row in listed}
        listed = json.loads(entries.decode(encoding))
        assert listed == [json.loads(line) for line in lines.decode(encoding).splitlines()]
        assert {os.fsencode(entry["image"]) for entry in listed} == {os.fsencode(photos) + b"/" + name for name in ODD}
        assert {tag["class"] for tag in listed[0]["tags"]} == {"dog", "crème brûlée", "猫"}
        assert b"\x1b" not in table + rows + entries + lines
        assert list(names_skipped(found[0][1])) == [rf"{photos}/broken\x1b[31m.jpg"]


@pytest.mark.parametrize("classes", [[], ["--run", "x", "--classes", "y"]])
def test_predict_wants_either_a_run_or_a_list_of_names(classes):
    assert "--run" in rcnn("predict", "LICENSE", *classes, code=2)[1]


def test_predict_names_classes_that_it_cannot_tell_apart(photos, tmp_path):
    (tmp_path / "same.txt").write_text("dog\nzyzzyva\nxylophone\n")  # the mini CLIP knows neither of the last two
    stdout, stderr = rcnn("predict", photos, "--classes", tmp_path / "same.txt", *PAIRS, f"cache={tmp_path}/cache")
    assert "these classes share their class embedding, so their scores are equal: zyzzyva, xylophone" in stderr
    assert "dog" in stdout


@pytest.fixture(scope="module")
def rotated(folder, pictures):
    (folder / "rotated").mkdir()
    for i in range(FEWEST):
        picture = Image.open(pictures[i % len(pictures)]).convert("RGB").resize((96, 96))
        picture.rotate(10 * i).save(folder / "rotated" / f"{i:02}.png")
    return folder / "rotated"


@pytest.fixture
def many(tmp_path, rotated):
    """A folder of as many photos as cut-offs take."""
    return Path(shutil.copytree(rotated, tmp_path / "many"))


@pytest.fixture
def fast(names):
    """`names` with the full image alone, which is several times faster."""
    return [*names, "--fast"]


@pytest.fixture
def scored(monkeypatch):
    """Names of the photos that are scored, in order."""
    found, stream = [], Tagger.stream

    def noted(self, images, **workload):
        found.extend(path.name for path in images)
        return stream(self, images, **workload)

    monkeypatch.setattr(Tagger, "stream", noted)
    return found


def rows(stdout):
    return list(csv.DictReader(io.StringIO(stdout)))


def as_csv(photos, *arguments, code=0):
    """{image: its rows} and stderr."""
    stdout, stderr = rcnn("predict", photos, *arguments, "--format", "csv", code=code)
    found = {}
    for row in rows(stdout):
        found.setdefault(Path(row["image"]).name, []).append(row)
    return found, stderr


def test_only_new_and_changed_photos_are_scored(many, fast, scored):
    first = rcnn("predict", many, *fast)[0]
    assert scored == sorted(path.name for path in many.iterdir())
    scored.clear()
    assert rcnn("predict", many, *fast)[0] == first
    assert scored == []
    (many / "new.png").write_bytes((many / "03.png").read_bytes())
    (many / "07.png").write_bytes((many / "03.png").read_bytes())
    os.utime(many / "09.png", (1, 1))
    rcnn("predict", many, *fast)
    assert scored == ["07.png", "09.png", "new.png"]


def test_other_classes_grids_and_runs_have_scores_of_their_own(photos, names, run, tmp_path, scored):
    (tmp_path / "others.txt").write_text("dog\ncar\n")
    other = ["--classes", tmp_path / "others.txt", *names[2:]]
    for given in (names, [*names, "--fast"], [*names, "evaluate.temperature=0.5"], other, ["--run", run, names[-1]]) * 2:
        rcnn("predict", photos, *given)
    assert scored == ["a.jpg"] * 5


def test_other_cut_offs_and_formats_need_neither_weights_nor_torch(many, fast, tmp_path):
    rcnn("predict", many, *fast)
    code = (
        "import sys\nfrom rcnn import predict\nfor more in ([], ['--top', '1'], ['--min-score', '0.2', '--format', 'csv']):\n"
    )
    code += "    predict.main([*sys.argv[1:], *more])\nassert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code, many, *fast], cwd=ROOT, capture_output=True, check=True)


def test_weights_that_are_replaced_are_read_again(photos, names, tmp_path, scored):
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(Path(names[4].partition("=")[2]).read_bytes())
    given = [*names[:4], f"clip.weights={weights}", *names[5:]]
    rcnn("predict", photos, *given)
    weights.write_bytes(b"no weights")
    assert "cannot be read as safetensors" in rcnn("predict", photos, *given, code=2)[1]


def test_a_photo_that_cannot_be_read_is_tried_again_when_it_was_changed(photos, names, scored):
    good = (photos / "a.jpg").read_bytes()
    (photos / "b.jpg").write_bytes(good[:100])
    for _ in range(2):
        _, stderr = rcnn("predict", photos, *names, code=1)
        assert list(names_skipped(stderr)) == [str(photos / "b.jpg")]
    assert scored == ["a.jpg", "b.jpg"]
    (photos / "b.jpg").write_bytes(good)
    rcnn("predict", photos, *names)
    assert scored == ["a.jpg", "b.jpg", "b.jpg"]


def test_a_photo_that_could_not_be_opened_is_tried_again_as_it_is(many, fast, scored, monkeypatch):
    def refuse(image, *arguments):
        if Path(image).name == "05.png":
            raise PermissionError(13, "Permission denied")
        return reading.read_rgb(image, *arguments)

    monkeypatch.setattr(views, "read_rgb", refuse)
    monkeypatch.setattr(collection, "open_regular", lambda path: refuse(path, 10) and reading.open_regular(path))
    assert "Permission denied" in rcnn("predict", many, *fast, code=1)[1]
    monkeypatch.undo()
    assert "05.png" in rcnn("predict", many, *fast)[0]


def test_without_labels_the_number_of_tags_follows_from_each_classs_scores(many, fast):
    plain = Tagger.from_names(NAMES, **MINI, grids=())
    found, stderr = as_csv(many, *fast)
    assert stderr.startswith(f"cut-offs: by each class's scores on these {FEWEST} photos; rcnn calibrate")
    paths = sorted(many.iterdir())
    scores, statistics = plain.scores(paths).numpy(), Statistics(6)
    statistics.add(scores)
    present = scores >= label_free(statistics)
    assert len(set(present.sum(1))) > 1
    for path, row in zip(paths, present, strict=True):
        expected = {name for name, is_there in zip(NAMES, row, strict=True) if is_there}
        assert {tag["class"] for tag in found[path.name]} == (expected or {""})
    capped, _ = as_csv(many, *fast, "--top", 1)
    assert capped == {name: tags[:1] for name, tags in found.items()}


def test_photos_that_cannot_be_read_do_not_count_as_a_collection(many, fast):
    (many / "00.png").write_bytes(b"")
    found, stderr = as_csv(many, *fast, code=1)
    assert TOO_FEW in stderr
    assert {len(tags) for tags in found.values()} == {5}


def test_one_cut_off_for_all_classes_is_for_those_who_insist(many, fast):
    plain = Tagger.from_names(NAMES, **MINI, grids=())
    found, stderr = as_csv(many, *fast, "--min-score", 0.2)
    assert stderr == "cut-offs: 0.2 for all classes\n"
    for path in sorted(many.iterdir()):
        expected = [tag.name for tag in plain.tag(path, top=6) if tag.score >= 0.2]
        assert [tag["class"] for tag in found[path.name]] == (expected or [""])


def test_fitted_cut_offs_beside_the_list_are_used_and_those_of_another_grid_refused(photos, names, six, tmp_path):
    scores = six.scores(photos / "a.jpg").numpy()
    thresholds = np.where(np.arange(6) == 2, scores, 1.0)  # only the third class, by a hair
    path = tmp_path / "names.cutoffs.json"
    Cutoffs(NAMES, thresholds, six.identity, {}).save(path)
    found, stderr = as_csv(photos, *names)
    assert [tag["class"] for tag in found["a.jpg"]] == ["boat"]
    assert stderr == f"cut-offs: fitted to checked photos, {path}\n"
    _, stderr = rcnn("predict", photos, *names, "--fast", code=2)
    assert stderr.startswith(f"error: {path} has the cut-offs of another model, other class embeddings or other grids")
    (tmp_path / "names.txt").write_text("dog\ncat\n")
    assert "the cut-offs of another class list (6 names, here 2)" in rcnn("predict", photos, *names, code=2)[1]


@pytest.mark.parametrize("form", ["csv", "jsonl", "json"])
def test_an_output_file_has_what_would_be_printed(many, fast, tmp_path, form):
    path = tmp_path / f"tags.{form}"
    assert rcnn("predict", many, *fast, "--output", path)[0] == ""
    assert path.read_bytes().decode() == rcnn("predict", many, *fast, "--format", form)[0]
    if form == "jsonl":
        entries = [json.loads(line) for line in path.read_text().splitlines()]
        assert [entry["image"] for entry in entries] == [str(p) for p in sorted(many.iterdir())]


def test_an_output_file_is_written_whole_or_stays_as_it_was(many, fast, tmp_path, monkeypatch):
    (tmp_path / "tags.csv").write_text("of before")
    monkeypatch.setattr(runtime, "load_clip", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        predict.main([str(a) for a in [many, *fast, "--top", "1", "--min-score", "0", "--output", tmp_path / "tags.csv"]])
    assert (tmp_path / "tags.csv").read_text() == "of before"
    assert not list(tmp_path.glob(".tags*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--output", "tags.txt"], "--output: expected a name that ends in .csv, .jsonl, .json, got tags.txt"),
        (["--output", "configs"], "--output: expected a name that ends in"),
        (["--output", "t.csv", "--format", "csv"], "argument --format: not allowed with argument --output"),
        (["--min-score", "nan"], "--min-score: expected a cosine from -1 to 1, got nan"),
        (["--min-score", "50"], "--min-score: expected a cosine from -1 to 1, got 50"),
        (["--top", "0"], "top: expected 1 to 6"),
        (["--dry-run"], "--dry-run: expected --xmp or --remove"),
        (["--remove"], "expected one of --run, --classes and --remove"),
        (["--merge", "nowhere.sqlite"], "nowhere.sqlite"),
    ],
)
def test_arguments_that_do_not_fit_are_one_line(photos, names, arguments, said):
    _, stderr = rcnn("predict", photos, *names, *arguments, code=2)
    assert said in stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dog\nDog\n", "these classes are listed twice: dog"),
        (
            "dog\n" + "a " * 78 + "\n",
            "a sentence has more than 77 tokens, all that CLIP takes|a sentence has .* tokens, CLIP takes",
        ),
        ("\n# no class\n", "the class list is empty"),
    ],
)
def test_class_lists_that_are_none_are_one_line(photos, names, tmp_path, text, said):
    (tmp_path / "names.txt").write_text(text)
    _, stderr = rcnn("predict", photos, *names, code=2)
    assert re.match(f"error: .*({said})", stderr)
    assert len(stderr.splitlines()) == 1


def test_one_class_is_enough(many, fast, tmp_path):
    (tmp_path / "names.txt").write_text("dog\n")
    found, _ = as_csv(many, *fast)
    assert {tag["class"] for tags in found.values() for tag in tags} == {"dog", ""}


def test_an_empty_folder_and_one_where_nothing_can_be_read(tmp_path, names):
    (tmp_path / "empty").mkdir()
    assert rcnn("predict", tmp_path / "empty", *names, code=2)[1].startswith(f"error: no images in {tmp_path}/empty")
    (tmp_path / "empty" / "a.png").write_bytes(b"")
    stdout, stderr = rcnn("predict", tmp_path / "empty", *names, code=1)
    assert stdout == ""
    assert list(names_skipped(stderr)) == [str(tmp_path / "empty" / "a.png")]


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif_is_read_where_pillow_reads_it(photos, names):
    Image.open(photos / "a.jpg").save(photos / "b.avif")
    assert "b.avif" in rcnn("predict", photos, *names)[0]


def test_vocabularies_have_names_and_descriptions_are_used_where_they_are(photos, names, tmp_path):
    pairs = config.override({}, PAIRS)
    coco, plain = Source(None, "coco", PAIRS), Tagger.for_classes(ClassList.read(unseen=ROOT / "data/coco/all.txt"), pairs)
    assert (len(coco.classes), coco.corpus.name) == (65, "corpus.json")
    assert [len(Source(None, name).classes) for name in ("nuswide", "openimages")] == [1006, 7586]
    shutil.copy(ROOT / "data/coco/corpus.json", tmp_path / "mine.corpus.json")
    (tmp_path / "mine.txt").write_text("dog\ncat\nboat\n")
    mine = Source(None, str(tmp_path / "mine.txt"), [*PAIRS, f"cache={tmp_path}/cache"]).tagger
    classes = ClassList.read(unseen=tmp_path / "mine.txt")
    both = corpus.encode(mine.model, corpus.load(tmp_path / "mine.corpus.json", classes) + corpus.templates(classes))
    weight = losses.pair_weight(3, len(both))
    expected = closed_form.minimise(losses.class_sums(both, len(both)), weight).class_embeddings
    torch.testing.assert_close(mine.class_embeddings, expected)
    assert mine.identity != plain.identity


def test_a_vocabulary_without_a_checkout_and_a_corpus_without_a_class_are_one_line(photos, names, tmp_path, monkeypatch):
    (tmp_path / "names.corpus.json").write_text('{"0": {"node_name": "dog", "candidate_sentences": ["a dog."]}}')
    assert 'class 1 "cat" is missing' in rcnn("predict", photos, *names, code=2)[1]
    monkeypatch.setattr(collection, "DATA", tmp_path / "site-packages" / "data")
    _, stderr = rcnn("predict", photos, "--classes", "coco", *names[2:], code=2)
    assert stderr.startswith("error: the class list coco is in data/ of a checkout of the project, and there is no")


def test_an_interrupt_says_how_far_it_is_and_the_same_command_goes_on(many, fast, scored, monkeypatch):
    other, stream = f"cache={many.parent}/other", Tagger.stream
    expected = rcnn("predict", many, *fast, other)[0]

    def interrupted(self, images, **workload):
        for number, batch in enumerate(stream(self, images, **workload)):
            if number == 12:
                raise KeyboardInterrupt
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(Tagger, "stream", interrupted)
        stdout, stderr = rcnn("predict", many, *fast, code=130)
    assert (stdout, stderr) == ("", f"interrupted: 12 of {FEWEST} photos are scored; the same command goes on\n")
    scored.clear()
    assert rcnn("predict", many, *fast)[0] == expected
    assert len(scored) == FEWEST - 12


FORKING = """
import json, os, resource, signal, sys, threading, time
from rcnn import cli, predict
from rcnn.tagger import Tagger

def killed_after(seconds, stream=Tagger.stream):
    def slowly(self, images, **workload):
        for number, batch in enumerate(stream(self, images, **workload)):
            if number == 1:  # the first is kept
                threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGKILL)).start()
            time.sleep(0.02)
            yield batch

    return slowly

def run(arguments, errors, environment={}, limit=None, kill=None):
    if child := os.fork():
        return child
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    os.dup2(2, 1)
    os.environ |= environment
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    if kill:
        Tagger.stream = killed_after(kill)
    cli.run(lambda: predict.main(arguments))

for line in sys.stdin:
    runs = json.loads(line)
    children = [run(**given) for given in runs]
    print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]), flush=True)
"""


@pytest.fixture(scope="module")
def processes():
    """A function that runs commands at once, each in a process of its own, and returns [(exit code, what it printed)]."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "cwd": ROOT}
    with subprocess.Popen([sys.executable, "-c", FORKING], **pipes) as process:  # torch is imported once

        def run(folder, *runs):
            errors = [folder / f"process{i}.txt" for i in range(len(runs))]
            given = [run | {"errors": path} for run, path in zip(runs, errors, strict=True)]
            print(json.dumps(given, default=str), file=process.stdin, flush=True)
            return [(code, path.read_text()) for code, path in zip(json.loads(process.stdout.readline()), errors, strict=True)]

        yield run
        process.stdin.close()


def test_killed_ten_times_it_ends_in_the_same_table(many, fast, tmp_path, processes):
    expected, _ = rcnn("predict", many, *fast, f"cache={tmp_path}/other", "--format", "csv")
    chosen = Source(None, str(fast[1]), [*fast[2:-1], "evaluate.grids=[]"])
    command, left, rng = [many, *fast, "--output", tmp_path / "tags.csv"], [FEWEST], random.Random(0)
    for _ in range(10):
        ((code, _),) = processes(tmp_path, {"arguments": command, "kill": rng.uniform(0.001, 0.1)})
        if code == -signal.SIGKILL:
            assert not (tmp_path / "tags.csv").exists()
        with contextlib.closing(Collection(sorted(many.iterdir()), chosen)) as found:
            left.append(len(found.missing))
    assert left == sorted(left, reverse=True)  # nothing that was kept is lost
    assert len(set(left)) > 3
    assert processes(tmp_path, {"arguments": command})[0][0] == 0
    assert (tmp_path / "tags.csv").read_bytes().decode() == expected


def test_two_at_once_on_one_collection_are_both_right(many, fast, tmp_path, processes):
    tables = [tmp_path / f"{i}.csv" for i in range(2)]
    ended = processes(tmp_path, *({"arguments": [many, *fast, "--output", table]} for table in tables))
    assert [(code, said[:8]) for code, said in ended] == [(0, "cut-offs")] * 2
    expected = rcnn("predict", many, *fast, f"cache={tmp_path}/other", "--format", "csv")[0]
    assert [table.read_bytes().decode() for table in tables] == [expected] * 2


def test_a_disk_that_gets_full_is_one_line(many, fast, tmp_path, processes):
    rcnn("predict", many / "00.png", *fast)  # the features of sentences, which are not what is tried here
    ((code, said),) = processes(tmp_path, {"arguments": [many, *fast], "limit": 40_000})
    assert code == 2
    assert re.fullmatch(
        rf"error: {tmp_path}/cache/tagged/\w+\.sqlite: .*; what was kept stays, and the same command goes on\n", said
    )


def test_processes_of_torchrun_give_the_table_of_one(many, fast, tmp_path, processes):
    torchrun, *words = re.search(r"`(torchrun [^`]+)`", predict.__doc__)[1].split()
    assert (torchrun, words[1:3]) == ("torchrun", ["-m", "rcnn.predict"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    common |= {"TORCHELASTIC_RUN_ID": "test"}  # by which torchrun is known
    ranks = [common | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(2)]
    first, second = processes(tmp_path, *({"arguments": [many, *fast], "environment": rank} for rank in ranks))
    table, said = rcnn("predict", many, *fast, f"cache={tmp_path}/alone")
    assert first[0] == second[0] == 0
    assert second[1] == ""
    assert sorted(first[1].splitlines()) == sorted((table + said).splitlines())
    assert len(list((tmp_path / "cache" / "tagged").glob("*-of-2.sqlite"))) == 2


def test_processes_share_the_photos_and_what_a_lost_one_left_is_done_by_the_next_call(many, fast, tmp_path, scored):
    chosen, paths = Source(None, str(fast[1]), [*fast[2:-1], "evaluate.grids=[]"]), sorted(many.iterdir())
    for rank in (0, 2):  # and 1 is lost
        with contextlib.closing(Collection(paths, chosen, rank, 3)) as share:
            assert len(list(share.score())) == FEWEST // 3
    assert len(scored) == FEWEST * 2 // 3
    shared, _ = rcnn("predict", many, *fast)
    assert len(scored) == FEWEST
    assert shared == rcnn("predict", many, *fast, f"cache={tmp_path}/alone")[0]


def test_stores_of_other_machines_are_merged(many, fast, tmp_path, scored):
    places = [[*fast, f"cache={tmp_path}/{place}"] for place in ("one", "other")]
    for place, part in zip(places, (sorted(many.iterdir())[:20], sorted(many.iterdir())[15:]), strict=True):
        rcnn("predict", *part, *place)
    scored.clear()
    (store,) = (tmp_path / "other" / "tagged").glob("*.sqlite")
    merged = rcnn("predict", many, *places[0], "--merge", store)[0]
    store.unlink()
    assert rcnn("predict", many, *places[0])[0] == merged
    assert scored == []
    assert (
        "has scores by another model"
        in rcnn("predict", many, *fast[:-1], "--merge", *tmp_path.glob("one/*/*.sqlite"), code=2)[1]
    )


def test_keywords_are_shown_written_and_removed(photos, names):
    (photos / "a.jpg.xmp").write_text(XMP)
    stdout, _ = rcnn("predict", photos, *names, "--top", 2, "--xmp", "--dry-run")
    assert stdout.splitlines()[0] == str(photos / "a.jpg.xmp")
    assert (photos / "a.jpg.xmp").read_text() == XMP
    table, _ = rcnn("predict", photos, *names, "--top", 2, "--xmp", "--prefix", "machine")
    best = table.split()[1]
    assert f"machine|{best}" in (photos / "a.jpg.xmp").read_text()
    assert "lighthouse" in (photos / "a.jpg.xmp").read_text()
    assert "--remove: no table" in rcnn("predict", photos, "--remove", "--output", "tags.csv", code=2)[1]
    assert rcnn("predict", photos, "--remove", "--prefix", "machine") == ("", "")
    assert (photos / "a.jpg.xmp").read_text() == XMP


def test_a_sidecar_that_cannot_be_changed_is_named_and_the_others_are_written(photos, names):
    (photos / "b.jpg").write_bytes((photos / "a.jpg").read_bytes())
    (photos / "b.png").write_bytes((photos / "a.jpg").read_bytes())
    (photos / "a.jpg.xmp").write_text("<no xml")
    stdout, stderr = rcnn("predict", photos, *names, "--xmp", code=1)
    assert len(stdout.splitlines()) == 3
    assert list(names_skipped(stderr)) == [str(photos / "a.jpg")]
    assert sorted(path.name for path in photos.glob("*.xmp")) == ["a.jpg.xmp", "b.jpg.xmp", "b.png.xmp"]
    _, stderr = rcnn("predict", photos, *names, "--xmp", "--xmp-replace-suffix", code=1)
    assert names_skipped(stderr) == {str(photos / "b.png"): "its sidecar b.xmp is that of b.jpg, too"}
    (photos / "a.jpg.xmp").unlink()
    rcnn("predict", photos, "--remove")
    rcnn("predict", photos, "--remove", "--xmp-replace-suffix", code=1)
    assert not list(photos.glob("*.xmp"))
