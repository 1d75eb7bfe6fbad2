"""The mini benchmark's own files: drawings, facts, corpus, pictures."""

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import draw_mini
import numpy as np
import pytest
import torch
import train_mini_clip
from drawing import DRAWINGS, STYLES, Shape, World, draw
from safetensors.torch import load_file

from rcnn import clip, config
from rcnn.config import DatasetConfig
from rcnn.datasets.images import read_images
from rcnn.text import corpus
from rcnn.text.classes import ClassList

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data" / "mini"


@pytest.fixture(scope="module")
def world():
    return World.load(DRAWINGS)


@pytest.fixture(scope="module")
def classes():
    return ClassList.read(DATA / "seen.txt", DATA / "unseen.txt")


def read(folder, classes):
    settings = DatasetConfig(kind="mini", annotations=str(folder / "instances.json"), images=str(folder / "images"))
    return read_images(settings, classes)


def test_every_class_is_a_thing_a_kind_or_a_scene_of_the_drawings_and_a_third_is_unseen(world, classes):
    kinds = {kind for thing in world.objects.values() for kind in thing.parents}
    assert set(classes.names) == {*world.objects, *kinds, *world.scenes}
    assert 3 * (len(classes) - classes.seen) == len(classes)


def test_the_shipped_corpus_follows_from_the_facts(tmp_path):
    shipped = (DATA / "corpus.json").read_bytes()
    code = "import sys, json; sys.argv = ['x']; import compose_mini_corpus as c; print(json.dumps(c.corpus()))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / "scripts", capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == json.loads(shipped)


def test_the_shipped_corpus_fits_the_class_list_and_clips_context(classes):
    samples = corpus.load(DATA / "corpus.json", classes)
    assert torch.bincount(samples.targets).min() >= 50


@pytest.mark.parametrize("style", STYLES)
def test_a_picture_depends_on_its_seed_alone(world, style):
    one, two, other = (draw(world, np.random.default_rng(seed), style, 64, 48).image for seed in (3, 3, 4))
    assert one.size == (64, 48)
    assert one.tobytes() == two.tobytes() != other.tobytes()


def test_labels_of_a_picture_include_all_kinds_and_the_scene(world):
    for seed in range(20):
        picture = draw(world, np.random.default_rng(seed), "flat", 32, 32)
        names = picture.labels()
        assert picture.scene.name in names
        for placed in picture.placed:
            assert {placed.thing.name, *placed.thing.parents} <= names
    assert "animal" in world.objects["bee"].parents


@pytest.mark.parametrize(
    "text", ["circle red 0 0 1", "ellipse red 0 0 1", "polygon red 0 0 1 1", "line red 0.1 0 0 1", "blob red x y z"]
)
def test_a_shape_that_cannot_be_drawn_is_named(text):
    with pytest.raises(ValueError, match=text):
        Shape.parse(text)


def test_an_unknown_colour_is_named(tmp_path):
    path = tmp_path / "world.yaml"
    path.write_text(
        "palette: {red: [1, 2, 3]}\nkinds: {}\nscenes: {}\nobjects:\n  cat: {kinds: [], shapes: [ellipse bleu 0 0 1 1]}"
    )
    with pytest.raises(ValueError, match=r"cat: colours .*bleu"):
        World.load(path)


def test_the_benchmark_is_drawn_once_and_read_like_coco(tmp_path, classes):
    draw_mini.draw_benchmark(tmp_path, 6)
    annotations = tmp_path / "instances.json"
    written = annotations.stat().st_mtime_ns
    found = read(tmp_path, classes)
    assert found.labels.shape == (6, 84)
    assert set(found.labels.unique().tolist()) == {-1, 1}
    draw_mini.draw_benchmark(tmp_path, 6)
    assert annotations.stat().st_mtime_ns == written
    draw_mini.draw_benchmark(tmp_path, 7)
    assert len(read(tmp_path, classes).paths) == 7


def test_a_file_name_that_leaves_the_image_folder_is_refused(tmp_path, classes):
    draw_mini.draw_benchmark(tmp_path, 2)
    annotations = tmp_path / "instances.json"
    content = json.loads(annotations.read_text())
    content["images"][0]["file_name"] = "../instances.json"
    annotations.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="leads out of the image folder"):
        read(tmp_path, classes)


def test_images_without_a_positive_label_are_left_out_and_counted(tmp_path, classes):
    draw_mini.draw_benchmark(tmp_path, 3)
    annotations = tmp_path / "instances.json"
    content = json.loads(annotations.read_text())
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] != 2]
    annotations.write_text(json.dumps(content))
    found = read(tmp_path, classes)
    assert (len(found.paths), found.left_out) == (2, 1)


def test_an_annotation_file_without_one_of_the_classes_is_refused(tmp_path, classes):
    draw_mini.draw_benchmark(tmp_path, 2)
    with pytest.raises(ValueError, match="no category for 1 classes: zebra"):
        read(tmp_path, ClassList((*classes.names, "zebra"), 0))


def test_all_styles_look_different(world):
    drawn = [
        [np.asarray(draw(world, np.random.default_rng(s), style, 48, 48).image, float) for style in STYLES] for s in range(5)
    ]
    for pictures in drawn:
        assert all(np.abs(a - b).mean() > 5 for a, b in itertools.combinations(pictures, 2))
    assert all((a[0] != b[0]).any() for a, b in itertools.pairwise(drawn))


def test_every_token_of_a_caption_is_in_the_vocabulary_and_every_class_has_further_words():
    captions, rng = train_mini_clip.Captions(DRAWINGS), np.random.default_rng(0)
    assert set(captions.further) == set(captions.classes)
    scenes, things = list(captions.scenes), [name for name in captions.entries if name not in captions.scenes]
    said = [captions.caption(rng, scenes[i % 8], [(things[(i + j) % 60], "red") for j in range(i % 4)]) for i in range(3000)]
    tokens = clip.tokenize(said).unique()
    assert len(tokens) > 1500
    assert not set(tokens[tokens > 0].tolist()) - set(captions.vocabulary().tolist())
    assert any(", often seen " in sentence for sentence in said)


def test_reading_draws_nothing_and_one_line_says_which_script_does(tmp_path, classes):
    with pytest.raises(FileNotFoundError, match=r"^there is no .*instances\.json .*; python scripts/draw_mini\.py draws it$"):
        read(tmp_path, classes)
    assert not list(tmp_path.iterdir())


def test_a_deleted_picture_is_named_with_the_script_which_then_draws_it_anew(tmp_path, classes):
    draw_mini.draw_benchmark(tmp_path, 3)
    picture = tmp_path / "images" / "00001.jpg"
    before = picture.read_bytes()
    picture.unlink()
    with pytest.raises(FileNotFoundError, match=r"00001\.jpg\n.*; python scripts/draw_mini\.py draws it$"):
        read(tmp_path, classes)
    draw_mini.draw_benchmark(tmp_path, 3)
    assert picture.read_bytes() == before


def test_as_a_command_it_draws_into_the_folder_that_is_given(tmp_path, capsys):
    draw_mini.main(["--images", "2", "--folder", str(tmp_path / "drawn")])
    assert sorted(path.name for path in (tmp_path / "drawn" / "images").iterdir()) == ["00000.jpg", "00001.jpg"]
    assert f"the mini benchmark is in {tmp_path}/drawn" in capsys.readouterr().out


def test_it_is_drawn_where_the_configuration_looks_for_it(monkeypatch):
    settings, drawn = config.load(ROOT / "configs" / "mini.yaml").dataset, []
    monkeypatch.setattr(draw_mini, "draw_benchmark", lambda folder, count: drawn.append((folder, count)))
    draw_mini.main([])
    ((folder, count),) = drawn
    assert (settings.images, settings.annotations) == (str(folder / "images"), str(folder / "instances.json"))
    assert count == 1000


@pytest.mark.parametrize(
    "content",
    [
        '{"images": []}',
        '{"info": {"description": "COCO 2014"}}',
        '{"info": {"description": 5}}',
        "[]",
        "not JSON",
        "[" * 100_000,
    ],
)
def test_an_annotation_file_of_somebody_else_is_left_alone(tmp_path, content):
    annotations = tmp_path / "instances.json"
    annotations.write_text(content)
    with pytest.raises(ValueError, match="is left alone"):
        draw_mini.draw_benchmark(tmp_path, 2)
    assert annotations.read_text() == content
    assert not (tmp_path / "images").exists()


def test_a_pipe_in_place_of_the_annotation_file_is_left_alone(tmp_path):
    os.mkfifo(tmp_path / "instances.json")
    command = [sys.executable, ROOT / "scripts" / "draw_mini.py", "--images", "2", "--folder", tmp_path]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is left alone" in done.stderr


def test_a_benchmark_whose_labels_were_changed_is_drawn_anew(tmp_path):
    draw_mini.draw_benchmark(tmp_path, 2)
    annotations = tmp_path / "instances.json"
    whole = annotations.read_text()
    content = json.loads(whole)
    content["annotations"][0]["category_id"] += 1
    names = json.loads(whole)
    names["images"][0]["file_name"] = 5
    for changed in (content, names, content | {"sha256": None}, {"info": content["info"]}):
        annotations.write_text(json.dumps(changed))
        draw_mini.draw_benchmark(tmp_path, 2)
        assert annotations.read_text() == whole


def test_an_interrupted_training_ends_in_the_same_bits(tmp_path):
    code = """
import sys
from pathlib import Path
import train_mini_clip as t

folder, original = Path(sys.argv[1]), t.batch
t.BATCH, t.WATCHED, t.SAVE_EVERY = 4, 4, 2


def train(name, batch):
    t.batch = batch
    t.main(["--steps", "5", "--pool", "10", "--cache", str(folder / name), "--output", str(folder / f"{name}.safetensors")])


def dies(*given, made=[]):
    made.append(1)
    return original(*given) if len(made) <= 3 else sys.exit("dies")


train("straight", original)
try:
    train("interrupted", dies)
except SystemExit:
    train("interrupted", original)
"""
    command = [sys.executable, "-c", code, tmp_path]
    done = subprocess.run(command, cwd=ROOT / "scripts", check=True, capture_output=True, text=True)
    assert "continue at step 2" in done.stdout
    straight, interrupted = ((tmp_path / f"{name}.safetensors").read_bytes() for name in ("straight", "interrupted"))
    assert straight == interrupted


def test_the_script_that_trains_the_clip_writes_one_that_loads_and_refuses_other_settings(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "train_mini_clip.py", "--pool", "30", "--cache", tmp_path]
    output = tmp_path / "clip.safetensors"
    subprocess.run([*command, "--steps", "1", "--output", output], check=True, capture_output=True)
    model = clip.load(None, None, output)
    assert (model.image.image_size, model.image.grid) == (64, 8)
    first = load_file(output)
    again = subprocess.run([*command, "--steps", "1", "--output", output], check=True, capture_output=True, text=True)
    assert "continue at step 1" in again.stdout
    assert all(torch.equal(first[name], tensor) for name, tensor in load_file(output).items())
    other = subprocess.run([*command, "--steps", "2", "--output", output], check=False, capture_output=True, text=True)
    assert other.returncode == 2
    assert "was made with other settings" in other.stderr
