# ruff: noqa: F811, the parameters of tests are fixtures
"""Tagging from the command line, with the mini CLIP."""

import csv
import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from running import rcnn
from tagging import NAMES, PAIRS, ROOT, TOO_FEW, folder, names, photos, pictures, run, six  # noqa: F401

from rcnn.photos import find_images
from rcnn.score import reading, views
from rcnn.tagger import Tagger
from rcnn.tagging.output import FORMATS


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
    for source in (names, ["--run", run]):
        _, stderr = rcnn("predict", photos, *source, "evaluate.gird=[]", code=2)
        assert stderr == "error: unknown configuration key evaluate.gird; the nearest is evaluate.grids\n"


@pytest.mark.parametrize("pair", ["train.epochs=30", "train.ablation=false", "classes.unseen=x.txt", "corpus={path: x.json}"])
def test_predict_refuses_keys_that_only_learning_reads(photos, names, run, pair):
    key = pair.partition("=")[0]
    for source in (names, ["--run", run]):
        _, stderr = rcnn("predict", photos, *source, pair, code=2)
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
        assert stdout == json.dumps(json.loads(stdout), indent=1) + "\n"
        for path in paths[:-1]:
            path.unlink()
    (photos / "a.jpg").write_bytes(b"broken")
    assert rcnn("predict", photos, *names, "--format", "json", code=1)[0] == "[]\n"


ODD = [b"caf\xe9.jpg", "café.jpg".encode(), "a\u202eb\x1b[31m\n.jpg".encode(), b"back\\slash.jpg", "猫😀.jpg".encode()]


EVERY_FORMAT = """
import sys
from rcnn import cli, predict

for encoding in ("ascii", "utf-8"):
    for form in ("table", "csv", "json", "jsonl"):
        sys.stdout.reconfigure(encoding=encoding, errors="strict")
        try:
            cli.run(lambda: predict.main([*sys.argv[1:], "--format", form]))
        except SystemExit as ended:
            print(f"\\n== {ended.code}")
"""


def test_predict_prints_every_row_whatever_names_and_encoding_are(photos, names, tmp_path):
    data = (photos / "a.jpg").read_bytes()
    (photos / "a.jpg").unlink()
    for name in ODD:
        Path(os.fsdecode(os.fsencode(photos) + b"/" + name)).write_bytes(data)
    (photos / "broken\x1b[31m.jpg").write_bytes(b"")
    (tmp_path / "names.txt").write_text("dog\ncrème brûlée\n猫\n", encoding="utf-8")
    command, environment = [sys.executable, "-c", EVERY_FORMAT, photos, *names], os.environ | {"PYTHONIOENCODING": "ascii"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, check=True)
    *parts, rest = ended.stdout.split(b"\n== 1\n")
    assert rest == b""
    for encoding, (table, rows, entries, lines) in (("ascii", parts[:4]), ("utf-8", parts[4:])):
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
    assert b"\x1b" not in ended.stdout + ended.stderr
    assert list(names_skipped(ended.stderr.decode())) == [rf"{photos}/broken\x1b[31m.jpg"]


@pytest.mark.parametrize("classes", [[], ["--run", "x", "--classes", "y"]])
def test_predict_wants_either_a_run_or_a_list_of_names(classes):
    assert "--run" in rcnn("predict", "LICENSE", *classes, code=2)[1]


def test_predict_names_classes_that_it_cannot_tell_apart(photos, tmp_path):
    (tmp_path / "same.txt").write_text("dog\nzyzzyva\nquokka\n")  # the mini CLIP knows neither of the last two
    stdout, stderr = rcnn("predict", photos, "--classes", tmp_path / "same.txt", *PAIRS)
    assert "these classes share their class embedding, so their scores are equal: zyzzyva, quokka" in stderr
    assert "dog" in stdout
