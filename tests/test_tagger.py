"""Tagging from Python and from the command line, with the mini CLIP."""

import csv
import io
import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import draw_mini
import numpy as np
import pytest
import torch
from PIL import Image
from running import rcnn
from torch.nn import functional as F

from rcnn import predict, runtime, tagger
from rcnn.learn import class_embeddings, losses
from rcnn.photos import find_images
from rcnn.score import reading, views
from rcnn.tagger import Tagger
from rcnn.text import corpus
from rcnn.text.classes import ClassList, parse_name

ROOT = Path(__file__).parents[1]
MINI = {"model": None, "pretrained": None, "weights": ROOT / "data/mini/clip.safetensors", "device": "cpu"}
PAIRS = ["clip.model=null", "clip.pretrained=null", f"clip.weights={MINI['weights']}", "device=cpu"]
NAMES = ["dog", "cat", "boat", "tree", "house", "duck"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("tagger")


@pytest.fixture(scope="module")
def pictures(folder):
    draw_mini.draw_benchmark(folder / "benchmark", 10)
    return sorted((folder / "benchmark" / "images").iterdir())


@pytest.fixture(scope="module")
def six():
    return Tagger.from_names(NAMES, **MINI)


@pytest.fixture(scope="module")
def run(folder):
    """A run that learned nothing: its class embeddings are the closed form's."""
    more = ["train.method=closed_form", "dataset.annotations=null", f"output={folder}/run", f"cache={folder}/cache"]
    rcnn("train", "--config", "configs/mini.yaml", "device=cpu", *more)
    return folder / "run"


@pytest.fixture
def photos(tmp_path, pictures):
    """A folder with a photograph to be used as the test likes."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(pictures[0].read_bytes())
    return tmp_path / "photos"


@pytest.fixture
def names(tmp_path):
    """--classes and all that the mini CLIP needs; features are kept in the test's folder."""
    (tmp_path / "names.txt").write_text("\n".join(NAMES))
    return ["--classes", tmp_path / "names.txt", *PAIRS, f"cache={tmp_path}/cache"]


def test_one_image_gives_one_list_of_tags_best_first(six, pictures):
    tags = six.tag(pictures[0])
    assert len(tags) == 5
    assert {name for name, _ in tags} <= set(NAMES)
    assert all(a[1] >= b[1] for a, b in itertools.pairwise(tags))


def test_several_images_give_a_list_each_whatever_they_are(six, pictures):
    image = Image.open(pictures[1])
    kinds = [str(pictures[1]), pictures[1], image, np.asarray(image)]
    tags = six.tag(kinds, top=2)
    assert [len(t) for t in tags] == [2] * 4
    for found in [*tags, *(six.tag(kind, top=2) for kind in kinds)]:
        assert dict(found) == pytest.approx(dict(tags[0]), abs=1e-6)  # a batch of another size rounds otherwise


def test_scores_are_in_the_order_of_the_classes_and_of_the_images(six, pictures):
    scores = six.scores(pictures)  # more than one batch
    assert (scores.shape, scores.dtype, scores.device.type) == ((10, 6), torch.float32, "cpu")
    torch.testing.assert_close(six.scores(pictures[9]), scores[9])
    best = [max(zip(row, NAMES, strict=True))[1] for row in scores.tolist()]
    assert [tags[0][0] for tags in six.tag(iter(pictures), top=1)] == best
    assert len(set(best)) > 1


def test_a_photograph_is_turned_upright_by_its_exif_data(six, pictures, tmp_path):
    upright = Image.open(pictures[0]).resize((80, 160)).convert("RGB")
    exif = Image.Exif()
    exif[0x0112] = 6  # stored a quarter turn to the left
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "turned.png", exif=exif)
    torch.testing.assert_close(six.scores(tmp_path / "turned.png"), six.scores(upright))


def test_no_images_give_no_tags(six):
    assert six.tag([]) == []
    assert six.scores([]).shape == (0, 6)


def test_equal_scores_are_ranked_in_the_order_of_the_class_list(six):
    scores = torch.tensor([0.1, 0.3, 0.2, 0.3, 0.3, 0.2])
    assert [name for name, _ in six.best(scores)] == ["cat", "tree", "house", "boat", "duck"]


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("nowhere.jpg", "cannot read image nowhere.jpg: .*No such file"),
        (np.zeros((4, 4), np.uint8), r"cannot read image 0 \(ndarray\): expected an array \(height, width, 3\) of uint8"),
        (np.zeros((4, 4, 3)), r"cannot read image 0 \(ndarray\): .* of float64"),
    ],
)
def test_an_image_that_cannot_be_read_is_named(six, image, said):
    for look in (six.tag, six.scores):
        with pytest.raises(ValueError, match=said):
            look(image)


def test_the_image_of_several_that_cannot_be_read_is_named(six, pictures):
    with pytest.raises(ValueError, match=r"cannot read image 1 \(ndarray\)"):
        six.tag([pictures[0], np.zeros(3, np.uint8)])


def test_more_tags_than_classes_are_an_error_only_when_asked_for(pictures):
    two = Tagger.from_names(["dog", "cat"], **MINI)
    assert len(two.tag(pictures[0])) == 2
    with pytest.raises(ValueError, match=r"top: expected 1 to 2 \(the number of classes\), got 3"):
        two.tag(pictures[0], top=3)


def test_names_alone_give_the_mean_of_the_templates(six):
    encoded = corpus.encode(six.model, corpus.templates(ClassList(tuple(NAMES), 0)))
    torch.testing.assert_close(six.class_embeddings, class_embeddings.mean(encoded))


def test_centred_names_reach_a_lower_expected_loss_than_their_means(six):
    encoded = corpus.encode(six.model, corpus.templates(ClassList(tuple(NAMES), 0)))
    number = len(encoded)
    sums, weight = losses.class_sums(encoded, number), losses.pair_weight(6, number)
    centred = Tagger.from_names(NAMES, **MINI, centred=True).class_embeddings
    loss, of_means = (losses.expected_loss(z, sums, weight, number) for z in (centred, six.class_embeddings))
    assert loss < of_means - 1
    off_diagonal = ~torch.eye(6, dtype=torch.bool)
    assert (centred @ centred.T)[off_diagonal].mean() < (six.class_embeddings @ six.class_embeddings.T)[off_diagonal].mean()


def test_one_centred_name_is_its_mean(six):
    one = Tagger.from_names(["dog"], **MINI, centred=True)
    torch.testing.assert_close(one.class_embeddings[0], six.class_embeddings[0])


def test_the_weight_is_the_papers_at_coco():
    assert losses.pair_weight(65, 512) == pytest.approx(0.2)


def test_a_note_tells_homonyms_apart_and_is_not_part_of_the_name():
    two = Tagger.from_names(["crane [a wading bird]", "crane [a machine]", "traffic_light"], **MINI)
    assert two.class_names == ["crane", "crane", "traffic light"]
    torch.testing.assert_close(two.class_embeddings[0], two.class_embeddings[1])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["dog", "Dog"], "listed twice: dog"),
        (["dog", " "], "expected a class name, got ' '"),
        ([], "the class list is empty"),
        ("dog", "expected a list of names, got 'dog'"),
        (None, "expected a list of names, got None"),
    ],
)
def test_names_that_make_no_class_list_are_refused(given, said):
    with pytest.raises(ValueError, match=said):
        Tagger.from_names(given, **MINI)


@pytest.mark.parametrize(
    ("line", "part"),
    [("dog", ("dog", "")), (" traffic_light ", ("traffic light", "")), ("crane [a bird]", ("crane", "a bird"))],
)
def test_a_line_of_a_class_list_is_a_name_and_a_note(line, part):
    assert parse_name(line) == part


def test_the_plain_score_looks_at_the_whole_image_alone(six, pictures):
    plain = Tagger.from_names(NAMES, **MINI, grids=())
    torch.testing.assert_close(plain.class_embeddings, six.class_embeddings)
    assert plain.model.encode_views(torch.zeros(1, 1, 64, 64, 3, dtype=torch.uint8)).global_features.shape[1] == 1
    assert not torch.allclose(plain.scores(pictures), six.scores(pictures))


def test_the_example_of_the_documentation_runs(six, photos, monkeypatch, capsys):
    (photos / "a.jpg").rename(photos / "photo.jpg")
    monkeypatch.chdir(photos)
    monkeypatch.setattr(runtime, "load_clip", lambda *_, **__: six.model)  # in place of OpenAI's weights
    lines = [line.strip() for line in tagger.__doc__.splitlines() if line.startswith("    ")]
    exec("\n".join(lines), {})
    assert capsys.readouterr().out.startswith("[('")


def test_a_run_is_loaded_with_its_class_embeddings_and_settings(run, pictures):
    of_run = Tagger.load(run)
    assert (len(of_run.class_names), of_run.grids, of_run.temperature) == (84, (2, 3), 0.05)
    torch.testing.assert_close(of_run.class_embeddings, F.normalize(of_run.class_embeddings))
    other = Tagger.load(run, "evaluate.temperature=0.5", device="cpu", **{"clip.weights": MINI["weights"]})
    assert other.temperature == 0.5
    assert not torch.allclose(other.scores(pictures[0]), of_run.scores(pictures[0]))


def test_stream_says_which_images_are_broken_and_gives_every_batch_in_order(six, pictures):
    given = [*pictures[:2], "nowhere.jpg", *pictures[2:]]
    got = list(six.stream(given, batch_size=4))
    assert [(indices, list(broken)) for indices, _, broken in got] == [
        ([0, 1, 3], [2]), ([4, 5, 6, 7], []), ([8, 9, 10], []),
    ]  # fmt: skip
    assert "nowhere.jpg" in got[0][2][2]
    torch.testing.assert_close(torch.cat([scores for _, scores, _ in got]), six.scores(pictures))
    assert six.best(got[0][1][2], top=1)[0][0] == six.tag(pictures[2], top=1)[0][0]


def test_predict_tags_with_a_list_of_names_as_table_csv_and_json(photos, names, six):
    expected = [name for name, _ in six.tag(photos / "a.jpg")]
    stdout, stderr = rcnn("predict", photos, *names)
    assert (stdout.startswith(str(photos / "a.jpg")), stderr) == (True, "")
    table = list(csv.DictReader(io.StringIO(rcnn("predict", photos, *names, "--format", "csv")[0])))
    assert [row["class"] for row in table] == expected
    (entry,) = json.loads(rcnn("predict", photos, *names, "--format", "json")[0])
    assert [tag["class"] for tag in entry["tags"]] == expected


def test_predict_tags_with_a_run(photos, run):
    arguments = [photos, "--run", run, "--top", 2, "device=cpu", "--format", "csv"]
    whole, mssa = (rcnn("predict", *arguments, *more)[0] for more in (["--no-mssa"], []))
    expected = Tagger.load(run).tag(photos / "a.jpg", top=2)
    assert [(r["class"], r["score"]) for r in csv.DictReader(io.StringIO(mssa))] == [(n, f"{s:.6f}") for n, s in expected]
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
        assert stderr.startswith(f"skipped {photos / 'broken.png'}: ")


@pytest.mark.parametrize(
    ("name", "said"), [("b.HEIC", "pip install pillow-heif"), ("b.heif", "pillow-heif"), ("b.NEF", "convert it to JPEG")]
)
def test_predict_names_files_of_formats_that_are_not_read(photos, names, name, said, monkeypatch):
    monkeypatch.delitem(Image.EXTENSION, ".heic", raising=False)  # where the package is installed
    monkeypatch.delitem(Image.EXTENSION, ".heif", raising=False)
    (photos / name).write_bytes(b"a photograph")
    stdout, stderr = rcnn("predict", photos, *names, code=1)
    assert len(stdout.splitlines()) == 1
    assert stderr.startswith(f"skipped {photos / name}: ")
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
    assert stderr == "3 hidden files left alone\n"


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


@pytest.mark.parametrize("look", ["tag", "scores"])
def test_what_is_no_regular_file_is_named_by_the_tagger(six, tmp_path, look):
    os.mkfifo(tmp_path / "pipe.jpg")
    for path in (tmp_path / "pipe.jpg", "/dev/zero", tmp_path):
        with pytest.raises(ValueError, match=f"cannot read image {path}: .* is not a regular file"):
            getattr(six, look)([path])


def test_predict_prints_rows_as_they_come_and_json_without_its_end_where_it_fails(photos, names, monkeypatch):
    def stream(self, paths, workers):
        yield [0], torch.zeros(1, 6), {}
        raise OSError("the disk is gone")

    monkeypatch.setattr(Tagger, "stream", stream)
    for form in predict.FORMATS:
        stdout, stderr = rcnn("predict", photos, *names, "--format", form, code=2)
        assert str(photos / "a.jpg") in stdout
        assert stderr == "error: the disk is gone\n"
    with pytest.raises(json.JSONDecodeError):
        json.loads(rcnn("predict", photos, *names, "--format", "json", code=2)[0])


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
    for form in predict.FORMATS:
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
    for encoding, (table, rows, entries) in (("ascii", parts[:3]), ("utf-8", parts[3:])):
        shown = [r"caf\udce9.jpg", "café.jpg", r"a\u202eb\x1b[31m\n.jpg", r"back\\slash.jpg", "猫😀.jpg", "crème brûlée"]
        *expected, dish = (name.encode(encoding, "backslashreplace").decode(encoding) for name in shown)
        paths = {f"{photos}/{name}" for name in expected}
        assert {line.partition("  ")[0] for line in table.decode(encoding).splitlines()} == paths
        listed = list(csv.DictReader(io.StringIO(rows.decode(encoding))))
        assert {row["image"] for row in listed} == paths
        assert dish in {row["class"] for row in listed}
        listed = json.loads(entries.decode(encoding))
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
