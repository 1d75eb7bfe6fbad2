"""`python -m rcnn.data check` on a few pictures, whole and with every part missing once."""

import dataclasses
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import draw_mini
import open_clip
import pytest

from rcnn import cli, data
from rcnn.datasets import DATASETS, coco
from rcnn.files import file_sha256

ROOT = Path(__file__).resolve().parents[1]
PARTS = ["CLIP's weights", "classes", "text corpus", "images and labels"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    draw_mini.draw_benchmark(folder, 12)
    return folder


@pytest.fixture
def world(drawn, tmp_path, monkeypatch):
    """A folder with pictures and labels of its own, and the overrides that name it; the pictures 00003 and on have labels."""
    monkeypatch.chdir(ROOT)
    shutil.copytree(drawn, tmp_path, dirs_exist_ok=True)
    content = json.loads((tmp_path / "instances.json").read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] > 3]
    (tmp_path / "instances.json").write_text(json.dumps(content))
    return tmp_path, overrides(tmp_path)


def overrides(folder):
    return [
        "dataset.kind=coco", f"dataset.images={folder}/images", f"dataset.annotations={folder}/instances.json",
        f"cache={folder}/cache", "evaluate.workers=0",
    ]  # fmt: skip


@pytest.fixture
def check(world, capsys):
    """check(*arguments) -> (exit code, {part: (state, text)}, all that was printed)."""

    def go(*arguments):
        with pytest.raises(SystemExit) as ended:
            cli.run(lambda: data.main(["check", "--config", "configs/mini.yaml", *world[1], *arguments]))
        out, err = capsys.readouterr()
        assert "error:" not in err
        return ended.value.code or 0, parts(out), out

    return go


def parts(out):
    """{part: (state, text)} of what was printed; lines without a state belong to the part before."""
    found, name = {}, None
    for line in out.splitlines():
        if line.startswith("next: "):
            break
        if line.startswith(("ok       ", "MISSING  ", "-        ")):
            name, _, text = line[9:].partition(": ")
            found[name] = (line[:9].strip(), text)
        else:
            found[name] = (found[name][0], f"{found[name][1]}\n{line.strip()}")
    return found


def states(found):
    return [found[name][0] if name in found else None for name in PARTS]


def expect_missing(checked, name, *said):
    """This part alone is missing, with `said` in its lines; the exit code is 1 and no next step is told."""
    code, found, out = checked
    assert code == 1
    assert states(found) == ["MISSING" if part == name else "ok" for part in PARTS]
    for text in said:
        assert text in found[name][1]
    assert "next:" not in out


def test_as_a_command_all_is_there_with_exit_0_and_the_next_step(drawn, tmp_path):
    arguments = [*overrides(drawn)[1:], f"cache={tmp_path}/cache"]
    module = [sys.executable, "-m", "rcnn.data", "check", "--config", "configs/mini.yaml"]
    run = subprocess.run([*module, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert states(parts(run.stdout)) == ["ok"] * 4
    assert run.stdout.splitlines()[-1] == " ".join(
        ["next: python -m rcnn.train --config configs/mini.yaml", *map(shlex.quote, arguments)]
    )


def test_every_part_says_what_it_found(check):
    code, found, _ = check()
    assert code == 0
    weights = ROOT / "data" / "mini" / "clip.safetensors"
    assert found["CLIP's weights"] == ("ok", f"{weights}, SHA-256 {file_sha256(weights)}")
    assert found["classes"] == ("ok", "56 seen, 28 unseen")
    corpus = json.loads((ROOT / "data" / "mini" / "corpus.json").read_text())
    sentences = sum(len(entry["candidate_sentences"]) for entry in corpus.values())
    assert f"corpus.json, {sentences:,} sentences, fingerprint " in found["text corpus"][1]


def test_images_and_positives_are_counted_for_both_tasks(check, world):
    folder, _ = world
    content = json.loads((folder / "instances.json").read_text())
    unseen = (ROOT / "data" / "mini" / "unseen.txt").read_text().split("\n")
    names = {c["id"]: c["name"] for c in content["categories"]}
    shown = {(a["image_id"], names[a["category_id"]]) for a in content["annotations"]}
    zsl = {pair for pair in shown if pair[1] in unseen}
    lines = check()[1]["images and labels"][1].splitlines()
    assert lines[0] == "9 images, 3 without a positive label not used"
    for line, task, pairs in zip(lines[1:], ("ZSL", "GZSL"), (zsl, shown), strict=True):
        images = len({image for image, _ in pairs})
        assert line == f"{task}: {images:,} images, {len(pairs) / images:.3f} positives each"
    assert 0 < len(zsl) < len(shown)


def test_a_weights_file_that_is_not_there_is_missing(check, world):
    checked = check(f"clip.weights={world[0]}/ViT-B-16.pt")
    expect_missing(checked, "CLIP's weights", f"there is no file {world[0]}/ViT-B-16.pt", "set clip.weights=FILE")


def test_weights_that_cannot_be_downloaded_are_missing(check, monkeypatch):
    def no_network(*_, **__):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip, "download_pretrained", no_network)
    checked = check("clip.model=ViT-B-16-quickgelu", "clip.pretrained=openai", "clip.weights=null")
    expect_missing(checked, "CLIP's weights", "no route to host", "On a machine with internet fetch https://")


def test_a_corpus_that_is_not_there_is_missing(check, world):
    checked = check(f"corpus.path={world[0]}/corpus.json")
    expect_missing(
        checked, "text corpus", f"there is no text corpus {world[0]}/corpus.json", "python -m rcnn.describe makes one"
    )


def test_a_corpus_that_lacks_a_class_is_missing(check, world):
    corpus = json.loads((ROOT / "data" / "mini" / "corpus.json").read_text())
    del corpus["5"]
    (world[0] / "corpus.json").write_text(json.dumps(corpus))
    expect_missing(check(f"corpus.path={world[0]}/corpus.json"), "text corpus", 'class 5 "duck" is missing')


@pytest.mark.parametrize("which", ["seen", "unseen"])
def test_a_class_list_that_is_not_there_is_missing_and_what_depends_on_it_is_not_called_good(check, world, which):
    code, found, out = check(f"classes.{which}={world[0]}/names.txt")
    assert code == 1
    assert found["CLIP's weights"][0] == "ok"
    assert found["classes"][0] == "MISSING"
    assert f"there is no class list {world[0]}/names.txt" in found["classes"][1]
    assert "set classes.seen and classes.unseen" in found["classes"][1]
    assert out.count("ok ") == 1
    assert "next:" not in out


def test_the_next_command_repeats_the_pairs_quoted_for_the_shell(check, world, tmp_path):
    (tmp_path / "a folder").mkdir()
    shutil.copy(ROOT / "data" / "mini" / "corpus.json", tmp_path / "a folder")
    pairs = [f"corpus.path={tmp_path}/a folder/corpus.json", "evaluate.top_k=[3]"]
    *_, line = check(*pairs)[2].splitlines()
    assert shlex.split(line.removeprefix("next: ")) == [
        "python", "-m", "rcnn.train", "--config", "configs/mini.yaml", *world[1], *pairs,
    ]  # fmt: skip


@pytest.mark.parametrize("kind", list(DATASETS))
def test_annotations_that_are_not_there_are_missing_with_the_script_that_gets_them(check, world, kind):
    checked = check(f"dataset.kind={kind}", f"dataset.annotations={world[0]}/nowhere")
    expect_missing(checked, "images and labels", f"{world[0]}/nowhere", DATASETS[kind].missing)


@pytest.mark.parametrize("kind", ["coco", "mini"])
def test_a_deleted_image_is_missing_with_the_script_that_gets_it(check, world, kind):
    (world[0] / "images" / "00004.jpg").unlink()
    checked = check(f"dataset.kind={kind}")
    expect_missing(checked, "images and labels", "00004.jpg", DATASETS[kind].missing)
    assert checked[2].count(DATASETS[kind].missing) == 1


@pytest.mark.parametrize("content", ["{", "{}", "[]"])
def test_an_annotation_file_that_is_none_is_missing(check, world, content):
    (world[0] / "instances.json").write_text(content)
    expect_missing(check(), "images and labels", f"{world[0]}/instances.json")


def test_a_deleted_image_is_missing_and_named(check, world):
    (world[0] / "images" / "00004.jpg").unlink()
    expect_missing(check(), "images and labels", "1 of 9 images are missing", "00004.jpg", "dataset.allow_missing=true")


def test_a_deleted_image_without_labels_is_not_missed(check, world):
    (world[0] / "images" / "00000.jpg").unlink()
    assert check()[0] == 0


def test_allow_missing_lets_deleted_images_pass_and_names_them(check, world):
    for name in ("00004.jpg", "00007.jpg"):
        (world[0] / "images" / name).unlink()
    code, found, _ = check("dataset.allow_missing=true")
    assert code == 0
    lines = found["images and labels"][1].splitlines()
    assert lines[0].startswith("7 images, 3 without")
    assert lines[1].startswith("2 missing, which dataset.allow_missing lets pass: ")
    assert all(name in lines[1] for name in ("00004.jpg", "00007.jpg"))


def test_allow_missing_does_not_let_an_empty_folder_pass(check, world):
    shutil.rmtree(world[0] / "images")
    expect_missing(check("dataset.allow_missing=true"), "images and labels", "none of the 9 images")


def test_two_parts_may_be_missing_and_both_are_named(check, world):
    code, found, _ = check(f"clip.weights={world[0]}/x.pt", f"dataset.annotations={world[0]}/x.json")
    assert code == 1
    assert states(found) == ["MISSING", "ok", "ok", "MISSING"]


def test_other_numbers_of_images_than_expected_are_shown_and_do_not_stop(check):
    found = [int(line.split()[1]) for line in check()[1]["images and labels"][1].splitlines()[1:]]
    code, right, out = check(f"dataset.expected_images={{zsl: {found[0]}, gzsl: {found[1]}}}")
    assert code == 0
    assert "EXPECTED" not in out
    code, other, out = check(f"dataset.expected_images={{zsl: {found[0]}, gzsl: 39217}}")
    assert code == 0
    assert out.count("EXPECTED") == 1
    zsl, gzsl = other["images and labels"][1].splitlines()[1:]
    assert zsl in right["images and labels"][1]
    assert gzsl.startswith("GZSL: ")
    assert gzsl.endswith("; EXPECTED 39,217")
    code, other, _ = check("dataset.expected_images={zsl: 16799, gzsl: 39217}")
    assert other["images and labels"][1].splitlines()[1].endswith("; EXPECTED 16,799")


def test_what_could_not_be_verified_and_other_counts_than_the_official_ones_are_said(check, monkeypatch):
    official = dataclasses.replace(DATASETS["coco"], counts={"test images": 12, "images in all": 82_783})
    monkeypatch.setitem(DATASETS, "coco", official)
    monkeypatch.setattr(coco, "counts", lambda _: {"images in all": 40})
    monkeypatch.setattr(coco, "unverified", lambda *_: "the order")
    code, found, _ = check()
    assert code == 0
    lines = found["images and labels"][1].splitlines()
    assert lines[1:3] == ["40 images in all; EXPECTED 82,783", "not verified: the order"]
    assert lines[3].startswith("ZSL: ")


def test_what_is_said_of_a_file_is_printed_without_control_characters(check, monkeypatch):
    monkeypatch.setattr(coco, "unverified", lambda *_: "\x1b[31m\u202e")
    assert r"not verified: \x1b[31m\u202e" in check()[1]["images and labels"][1]

    def refuse(*_):
        raise ValueError("\x1b[31m\u202e" + "x" * 9999)

    monkeypatch.setattr(coco, "find", refuse)
    *_, out = checked = check()
    expect_missing(checked, "images and labels", r"\x1b[31m\u202exxx")
    assert len(out) < 3000
    assert "\x1b" not in out


@pytest.mark.parametrize("workers", [0, 2])
def test_decode_says_that_all_images_can_be_read(check, workers):
    code, found, _ = check("--decode", f"evaluate.workers={workers}")
    assert code == 0
    assert found["images and labels"][1].endswith("\nall 9 decoded")


@pytest.mark.parametrize("workers", [0, 2])
def test_decode_finds_a_truncated_image_that_is_not_found_without(check, world, workers):
    picture = world[0] / "images" / "00005.jpg"
    picture.write_bytes(picture.read_bytes()[:-200])
    assert check()[0] == 0
    checked = check("--decode", f"evaluate.workers={workers}")
    expect_missing(checked, "images and labels", "1 of 9 images cannot be read", f"{picture}: image file is truncated")


def test_decode_names_every_broken_image_with_its_reason(check, world):
    for name, content in (("00004.jpg", b""), ("00008.jpg", b"not a picture"), ("00006.jpg", None)):
        picture = world[0] / "images" / name
        picture.write_bytes(picture.read_bytes()[:300] if content is None else content)
    expect_missing(check("--decode"), "images and labels", "3 of 9", "00004.jpg: ", "00006.jpg: ", "00008.jpg: ")


def test_without_annotations_the_images_are_not_asked_for(check, world):
    shutil.rmtree(world[0] / "images")
    code, found, _ = check("dataset.annotations=null")
    assert code == 0
    assert found["images and labels"] == ("-", "none asked for (dataset.annotations is null)")


def test_an_annotation_file_without_an_image_folder_is_missing(check):
    expect_missing(check("dataset.images=null"), "images and labels", "dataset.images and dataset.annotations")


@pytest.mark.parametrize(
    "arguments", [["check", "--config", "nowhere.yaml"], ["check", "--config", "configs/mini.yaml", "a=1"]]
)
def test_a_wrong_configuration_is_one_line_and_exit_2(arguments, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: data.main(arguments))
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("error: ")
