"""TagCLIP as rows of an evaluation: its pass over the images can be killed and shared, and its scores differ by task."""

import math
import re
import shutil
import signal
from pathlib import Path

import check_tagclip
import draw_mini
import numpy as np
import pytest
import torch
from PIL import Image
from running import EVALUATE, ended, rcnn, shared, started

from rcnn import clip, rows
from rcnn.clip.image_tower import normalise
from rcnn.config import EvaluateConfig
from rcnn.results.result import Result
from rcnn.score import tagclip, tagclip_pass
from rcnn.score.score_file import ScoreFile
from rcnn.text.classes import ClassList

CLASSES = ClassList(("cat", "dog", "bird", "Sky"), 2)
SETTINGS = EvaluateConfig(workers=0, save_every=0)
SIZES = [(60, 33), (40, 40), (32, 90), (16, 50), (70, 70)]
TAGCLIP = "evaluate.tagclip=true"
KILLED_IN_THE_SECOND_PASS = """
import os, signal, sys
from rcnn import cli, evaluate
from rcnn.score.score_file import ScoreFile
save = ScoreFile.save
def note_or_die(file):
    if len(file.noted.batches) == 2 and "tagclip_scores" in str(file.folder):
        os.kill(os.getpid(), signal.SIGKILL)
    save(file)
ScoreFile.save = note_or_die
cli.run(lambda: evaluate.main(sys.argv[1:]))
"""


@pytest.fixture
def photos(tmp_path):
    random, paths = np.random.default_rng(0), []
    for i, (width, height) in enumerate(SIZES):
        pixels = random.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR).save(paths[-1])
    return paths


@pytest.fixture
def texts(tiny_clip):
    return tagclip_pass.encode(tiny_clip, CLASSES, ("sky", "road"), None)


def scored(folder, model, paths, texts, workers=0, shares=((0, 1, 2),)):
    """{plane: (B, C) scores}, and what could not be read, of a pass by several processes, one after the other."""
    settings = SETTINGS.model_copy(update={"workers": workers})
    file = ScoreFile(folder, tagclip_pass.sets(texts, rows.TAGCLIP, CLASSES.tasks), len(paths), len(CLASSES), 2, "same")
    for todo in shares:
        file.open(todo)
        tagclip_pass.fill(file, todo, model, paths, texts, CLASSES.tasks, settings)
    broken = file.close()
    return {plane.name: file.plane(plane) for plane in file.planes}, broken


def test_names_of_the_background_that_are_classes_do_not_compete(texts):
    assert (len(texts.classes), len(texts.background)) == (4, 1)


def test_rows_are_the_steps_of_tagclip_in_their_order():
    assert [row.removeprefix("tagclip").removeprefix("_") or "full" for row in rows.TAGCLIP] == list(tagclip.TagScores._fields)


@torch.inference_mode()
def test_every_image_is_scored_at_its_own_size_and_by_the_classes_of_the_task(tmp_path, tiny_clip, photos, texts):
    found, broken = scored(tmp_path, tiny_clip, photos, texts)
    assert broken == {}
    for i, path in enumerate(photos):
        image = normalise(tagclip.resized(Image.open(path), 16), tiny_clip.mean, tiny_clip.std)
        seen = tagclip.look(tiny_clip.image, image)
        for task, first in CLASSES.tasks.items():
            z = texts.classes[first:]
            steps = tagclip.score(tiny_clip.image, image, seen, z, texts.background, tiny_clip.scale)
            for row, step in zip(rows.TAGCLIP, steps, strict=True):
                table = found[tagclip_pass.plane(row, task)]
                np.testing.assert_allclose(table[i, first:], step, atol=1e-6)
                assert not table[i, :first].any()


def test_other_processes_decode_and_share_to_the_same_scores_and_a_bad_image_is_named(tmp_path, tiny_clip, photos, texts):
    photos[3].write_bytes(b"no picture")
    alone, broken = scored(tmp_path / "one", tiny_clip, photos, texts)
    shared, also_broken = scored(tmp_path / "two", tiny_clip, photos, texts, workers=2, shares=((0, 2), (1,)))
    assert list(broken) == [3]
    assert broken == also_broken
    for plane, table in alone.items():
        np.testing.assert_array_equal(table, shared[plane])


@pytest.fixture(scope="module")
def learned(tmp_path_factory, features):
    """A run in seconds, on five drawings, that nothing was measured with yet."""
    folder = tmp_path_factory.mktemp("tagclip")
    draw_mini.draw_benchmark(folder, 5)
    rcnn(
        "train", "--config", "configs/mini.yaml", "--no-evaluate", f"output={folder}/learned", f"cache={features}",
        "device=cpu", "train.method=closed_form", "train.batch_size=2048", f"dataset.images={folder}/images",
        f"dataset.annotations={folder}/instances.json", "evaluate.grids=[]", "evaluate.bootstrap=5", "evaluate.batch_size=1",
        "evaluate.workers=0", "evaluate.save_every=0",
    )  # fmt: skip
    return folder / "learned"


@pytest.fixture
def run(learned, tmp_path):
    return Path(shutil.copytree(learned, tmp_path / "run"))


@pytest.fixture(scope="module")
def measured(learned):
    """(run, stdout) of an evaluation with TagCLIP; to be read only."""
    run = shutil.copytree(learned, learned.parent / "measured")
    return run, rcnn("evaluate", run, TAGCLIP)[0]


def numbers(run):
    result = Result.load(run).model_dump()
    del result["seconds"], result["config"]["output"]
    return result


def test_tagclip_and_its_ablations_are_rows_with_intervals_and_paired_differences(measured):
    run, stdout = measured
    result = Result.load(run)
    for row, name in rows.TAGCLIP.items():
        assert f" {name} " in stdout
        for task in ("zsl", "gzsl"):
            metric = result.rows[row]["plain"][task]["mAP"]
            assert 0 < metric.value <= 100
            assert metric.interval
            assert metric.versus_baseline.value == pytest.approx(
                metric.value - result.rows["baseline"]["plain"][task]["mAP"].value
            )
    assert result.seconds["tagclip_images"] == 5
    assert not list(run.glob("*scores"))


def test_without_the_option_there_is_no_second_pass(run):
    assert "TagCLIP" not in rcnn("evaluate", run)[0]
    assert not rows.TAGCLIP.keys() & Result.load(run).rows.keys()


def test_a_pass_of_tagclip_that_was_killed_goes_on_to_the_identical_result(run, measured):
    assert ended(started(KILLED_IN_THE_SECOND_PASS, run, TAGCLIP)) == [-signal.SIGKILL]
    assert not (run / "result.json").exists()
    assert len(list((run / "tagclip_scores").glob("*/*.json"))) == 1
    rcnn("evaluate", run, TAGCLIP)
    assert numbers(run) == numbers(measured[0])
    assert Result.load(run).seconds["tagclip_images"] == 4


def test_two_processes_find_what_one_finds(run, measured):
    assert shared(EVALUATE, [run, TAGCLIP], [run, TAGCLIP]) == [0, 0]
    assert numbers(run) == numbers(measured[0])


def test_an_unreadable_image_ends_the_evaluation_before_the_second_pass(run, learned, tmp_path):
    images = shutil.copytree(learned.parent / "images", tmp_path / "images")
    (images / "00002.jpg").write_bytes(b"no picture")
    stdout, stderr = rcnn("evaluate", run, TAGCLIP, f"dataset.images={images}", code=2)
    assert "1 of 5 images cannot be read" in stderr
    assert "00002.jpg" in stderr
    assert "TagCLIP" not in stdout


def test_a_row_of_ones_own_cannot_be_called_like_one_of_tagclip(run, tmp_path):
    (tmp_path / "mine.json").write_text("{}")
    _, stderr = rcnn("evaluate", run, f"rows.tagclip={tmp_path}/mine.json", code=2)
    assert "rows.tagclip: expected a name of your own" in stderr


@pytest.mark.parametrize(("names", "said"), [('["sky", "Sky"]', "listed twice: sky"), ('[" "]', "expected a class name")])
def test_a_background_of_no_names_is_refused_before_anything_is_scored(run, names, said):
    stdout, stderr = rcnn("evaluate", run, TAGCLIP, f"evaluate.tagclip_background={names}", code=2)
    assert re.fullmatch(f"error: evaluate.tagclip_background: .*{said}.*\n", stderr)
    assert stdout == ""


def test_the_scale_is_that_of_the_weights_or_100_and_one_that_is_none_is_refused(state, write_weights):
    for logit, scale in (({}, 100.0), ({"logit_scale": torch.tensor(2.0)}, math.exp(2))):
        tensors = {name: tensor for name, tensor in state.items() if name != "logit_scale"} | logit
        assert clip.load(None, None, write_weights(tensors)).scale == pytest.approx(scale)
    for bad in (torch.tensor(torch.nan), torch.tensor(1e9), torch.ones(3)):
        with pytest.raises(ValueError, match="logit_scale: expected one number from -20 to 20"):
            clip.load(None, None, write_weights(state | {"logit_scale": bad}))


def test_the_names_of_the_check_with_openai_s_weights_are_80_and_absent_photographs_are_listed(tmp_path):
    assert len(check_tagclip.CLASSES) == 80
    (tmp_path / "labels.json").write_text('{"000000000776": {"predicted": [77], "ground_truth": [59, 77]}}')
    with pytest.raises(FileNotFoundError, match=r"1 of 1 images are not in .*: 000000000776"):
        check_tagclip.main([str(tmp_path / "labels.json"), str(tmp_path)])
