"""The commands as a user runs them, on a small world drawn for the test."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import draw_mini
import pytest
import torch
from running import rcnn
from safetensors.torch import load_file

from rcnn import checkpoint

ROOT = Path(__file__).parents[1]
ROWS = ["baseline", "centred", "templates", "mean", "mean_with_templates", "principal", "cnr", "cnr_pbl", "closed_form"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def settings(folder):
    """Overrides that name a small mini benchmark in the test's folder."""
    draw_mini.draw_benchmark(folder / "benchmark", 24)
    return [
        f"output={folder}/run", f"cache={folder}/cache", f"dataset.images={folder}/benchmark/images",
        f"dataset.annotations={folder}/benchmark/instances.json", "train.epochs=2", "train.batch_size=2048",
        "evaluate.bootstrap=20", "device=cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def trained(folder, settings):
    stdout, _ = rcnn("train", "--config", "configs/mini.yaml", *settings)
    return folder / "run", stdout


def learn(output, settings, *more):
    """Arguments of a run that learns and evaluates nothing."""
    rest = [s for s in settings if not s.startswith("output=")]
    return ["--config", "configs/mini.yaml", *rest, f"output={output}", "dataset.annotations=null", *more]


def test_train_learns_evaluates_and_prints_every_row_with_and_without_mssa(trained):
    run, stdout = trained
    result = json.loads((run / "result.json").read_text())
    assert list(result["rows"]) == ROWS
    for row in ROWS:
        for variant in ("plain", "mssa"):
            for task in ("zsl", "gzsl"):
                metrics = result["rows"][row][variant][task]
                assert set(metrics) == {"mAP", "P@3", "R@3", "F1@3", "P@5", "R@5", "F1@5"}
                low, high = metrics["mAP"]["interval"]
                assert low <= metrics["mAP"]["value"] <= high
            assert set(result["diagnostics"][row][variant]["zsl"]) == {"global", "local"}
    assert "optimality gap" in stdout
    assert "CNR + PBL (learned names) + MSSA" in stdout


def test_result_file_says_what_it_was_made_from(trained):
    run, _ = trained
    result = json.loads((run / "result.json").read_text())
    assert result["images"]["used"] == 24
    assert result["config"]["train"]["epochs"] == 2
    assert len(result["weights_sha256"]) == len(result["corpus_fingerprint"]) == len(result["class_fingerprint"]) == 64
    assert {"versions", "git_commit", "seed", "seconds"} <= set(result)


def test_learned_names_never_fall_below_the_optimum(trained):
    learning = checkpoint.read_run(trained[0])[1]["learning"]
    for row in learning["learned"].values():
        assert row["optimality_gap"] >= 0
        assert row["expected_loss"] == pytest.approx(row["lower_bound"] + row["optimality_gap"])


def test_class_embeddings_of_every_epoch_are_kept_and_the_last_is_the_result(trained):
    run, _ = trained
    epochs = sorted((run / "cnr_pbl" / "epochs").iterdir())
    assert [e.name for e in epochs] == ["000.safetensors", "001.safetensors"]
    rows, _ = checkpoint.read_run(run)
    assert torch.equal(load_file(epochs[-1])["class_embeddings"], rows["cnr_pbl"])


def test_evaluating_again_gives_the_same_numbers(trained):
    run, _ = trained
    before = json.loads((run / "result.json").read_text())["rows"]
    rcnn("evaluate", run)
    assert json.loads((run / "result.json").read_text())["rows"] == before


def test_closed_form_needs_no_learned_names(folder, settings):
    rcnn("train", *learn(folder / "closed", settings, "train.method=closed_form"))
    rows, facts = checkpoint.read_run(folder / "closed")
    assert facts["method"] == "closed_form"
    assert "cnr_pbl" not in rows


def test_training_killed_at_random_moments_ends_in_the_same_vectors(folder, settings):
    more = ("train.epochs=6", "train.ablation=false")
    rcnn("train", *learn(folder / "whole", settings, *more))
    killed = [sys.executable, "-m", "rcnn.train", *learn(folder / "killed", settings, *more)]
    state = folder / "killed" / "cnr_pbl" / "state.safetensors"
    rng, kills = random.Random(0), 0
    while kills < 2:
        process = subprocess.Popen(killed, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        before = state.stat().st_mtime_ns if state.exists() else None
        while process.poll() is None and (not state.exists() or state.stat().st_mtime_ns == before):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        kills += 1
    rcnn("train", *learn(folder / "killed", settings, *more))
    for name in ("cnr_pbl/state.safetensors", "class_embeddings.safetensors"):
        whole, resumed = (load_file(folder / run / name) for run in ("whole", "killed"))
        assert all(torch.equal(whole[k], resumed[k]) for k in whole)


def test_resuming_a_run_that_is_not_there_is_an_error(folder, settings):
    _, stderr = rcnn("train", *learn(folder / "x", settings), "--resume", folder / "nowhere", code=2)
    assert "no run" in stderr


def test_a_folder_with_a_run_of_other_settings_is_not_overwritten(trained, settings):
    _, stderr = rcnn("train", *learn(trained[0], settings, "train.tokens=3"), code=2)
    assert "differs in tokens" in stderr


def test_a_closed_form_run_does_not_overwrite_learned_names(trained, settings):
    before = (trained[0] / "class_embeddings.safetensors").read_bytes()
    _, stderr = rcnn("train", *learn(trained[0], settings, "train.method=closed_form"), code=2)
    assert "differs in method" in stderr
    assert (trained[0] / "class_embeddings.safetensors").read_bytes() == before


def test_evaluate_refuses_keys_that_were_settled_by_learning(trained):
    _, stderr = rcnn("evaluate", trained[0], "train.centring=0.9", code=2)
    assert "train.centring=0.9: this was settled when the run was learned" in stderr


def test_evaluate_without_a_bootstrap_gives_differences_without_intervals(trained, folder):
    copy = folder / "no_bootstrap"
    copy.mkdir()
    shutil.copy(trained[0] / "class_embeddings.safetensors", copy)
    stdout, _ = rcnn("evaluate", copy, "evaluate.bootstrap=0", "evaluate.counts=[]")
    m = json.loads((copy / "result.json").read_text())["rows"]["mean"]["plain"]["zsl"]["mAP"]
    assert set(m) == {"value", "versus_baseline"}
    assert set(m["versus_baseline"]) == {"value"}
    assert "descriptions, mean" in stdout


def test_evaluate_says_when_no_image_shows_an_unseen_class(trained, folder):
    content = json.loads((folder / "benchmark" / "instances.json").read_text())
    cat = next(c["id"] for c in content["categories"] if c["name"] == "dog")
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": cat}]
    (folder / "seen_only.json").write_text(json.dumps(content))
    where = ["dataset.kind=coco", f"dataset.annotations={folder}/seen_only.json"]
    _, stderr = rcnn("evaluate", trained[0], *where, code=2)
    assert "zsl: no image shows any of the 28 classes" in stderr


def test_learning_without_momentum_can_be_continued(folder, settings):
    for _ in range(2):
        rcnn("train", *learn(folder / "still", settings, "train.momentum=0", "train.ablation=false"))


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["clip.weights=/nowhere/clip.pt"], "there is no file /nowhere/clip.pt"),
        (["train.epoch=3"], "unknown configuration key train.epoch; the nearest is train.epochs"),
        (["corpus.path=pyproject.toml"], "is not JSON"),
        (["classes.seen=null"], "class 0 is"),
        (["train.method=magic"], "expected names or closed_form"),
        (["train.batch_size=100000"], "do not fill one batch"),
        (["device=cuda"], "finds no CUDA GPU"),
        (["train.epochs=many"], "train.epochs: expected int"),
    ],
)
def test_train_explains_bad_input_in_one_line(folder, settings, overrides, said):
    if overrides == ["device=cuda"] and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    _, stderr = rcnn("train", *learn(folder / "bad", settings, *overrides), code=2)
    assert said in stderr
    assert stderr.strip().splitlines()[-1].startswith("error: ")


def broken_corpus(folder, change):
    corpus = json.loads((ROOT / "data" / "mini" / "corpus.json").read_text())
    change(corpus)
    path = folder / "corpus.json"
    path.write_text(json.dumps(corpus))
    return f"corpus.path={path}"


def test_train_names_a_class_that_the_corpus_lacks(folder, settings):
    corpus = broken_corpus(folder, lambda c: c.pop("5"))
    _, stderr = rcnn("train", *learn(folder / "bad", settings, corpus), code=2)
    assert 'class 5 "duck" is missing' in stderr


def test_train_names_a_sentence_that_is_too_long_for_clip(folder, settings):
    long = "a cat, which has " + "very " * 80 + "long whiskers."
    corpus = broken_corpus(folder, lambda c: c["3"]["candidate_sentences"].append(long))
    _, stderr = rcnn("train", *learn(folder / "bad", settings, corpus), code=2)
    assert "tokens, CLIP takes 77" in stderr
    assert long in stderr


def test_evaluate_explains_what_is_wrong_with_images_and_annotations(trained, folder):
    run, _ = trained
    copy = folder / "copy"
    shutil.copytree(folder / "benchmark", copy)
    where = ["dataset.kind=coco", f"dataset.images={copy}/images", f"dataset.annotations={copy}/instances.json"]
    picture = copy / "images" / "00003.jpg"
    picture.write_bytes(picture.read_bytes()[:200])
    _, stderr = rcnn("evaluate", run, *where, code=2)
    assert "1 of 24 images cannot be read" in stderr
    assert "00003.jpg" in stderr
    picture.unlink()
    _, stderr = rcnn("evaluate", run, *where, code=2)
    assert "1 of 24 images are missing" in stderr
    assert "00003.jpg" in stderr
    annotations = copy / "instances.json"
    annotations.write_bytes(annotations.read_bytes()[:500])
    _, stderr = rcnn("evaluate", run, *where, code=2)
    assert "is not JSON" in stderr
