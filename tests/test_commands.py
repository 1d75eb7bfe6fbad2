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

from rcnn import checkpoint, provenance
from rcnn.learn import losses, optimise
from rcnn.results.result import Result
from rcnn.rows import ROWS, SCORERS

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("commands")


@pytest.fixture(scope="module")
def settings(folder, features):
    """Overrides that name a small mini benchmark in the test's folder."""
    draw_mini.draw_benchmark(folder / "benchmark", 24)
    return [
        f"output={folder}/run", f"cache={features}", f"dataset.images={folder}/benchmark/images",
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
    return ["--config", "configs/mini.yaml", "--no-evaluate", *rest, f"output={output}", *more]


def test_train_learns_evaluates_and_prints_every_row_with_and_without_mssa(trained):
    run, stdout = trained
    result = Result.load(run)
    assert list(result.rows) == [*ROWS, "baseline/standardised", "cnr_pbl/standardised"]
    for row in ROWS:
        for scorer in SCORERS:
            for task in ("zsl", "gzsl"):
                metrics = result.rows[row][scorer][task]
                assert set(metrics) == {"mAP", "P@3", "R@3", "F1@3", "P@5", "R@5", "F1@5"}
                low, high = metrics["mAP"].interval
                assert low <= metrics["mAP"].value <= high
            assert set(result.diagnostics[row][scorer]["zsl"]) == {"global", "local"}
    assert "optimality gap" in stdout
    assert "CNR + PBL (learned names) + MSSA" in stdout


def test_result_file_says_what_it_was_made_from(trained):
    run, _ = trained
    result = Result.load(run)
    assert result.images.used == 24
    assert result.config["train"]["epochs"] == 2
    assert len(result.weights_sha256) == len(result.corpus_fingerprint) == len(result.class_fingerprint) == 64
    assert {"score/mssa.py", "evaluation.py"} <= set(result.sources)
    assert "torch" in result.versions


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
    assert "differs in train.tokens" in stderr


def test_a_closed_form_run_does_not_overwrite_learned_names(trained, settings):
    before = (trained[0] / "class_embeddings.safetensors").read_bytes()
    _, stderr = rcnn("train", *learn(trained[0], settings, "train.method=closed_form"), code=2)
    assert "differs in train.method" in stderr
    assert (trained[0] / "class_embeddings.safetensors").read_bytes() == before


def test_evaluate_refuses_keys_that_were_settled_by_learning(trained):
    _, stderr = rcnn("evaluate", trained[0], "train.centring=0.9", code=2)
    assert "train.centring: this was settled when the run was learned" in stderr


def test_evaluate_without_a_bootstrap_gives_differences_without_intervals(trained, folder):
    copy = folder / "no_bootstrap"
    copy.mkdir()
    shutil.copy(trained[0] / "class_embeddings.safetensors", copy)
    stdout, _ = rcnn("evaluate", copy, "evaluate.bootstrap=0", "evaluate.grids=[]")
    m = Result.load(copy).rows["mean"]["plain"]["zsl"]["mAP"]
    assert m.interval is m.versus_plain is m.versus_baseline.interval is None
    assert m.versus_baseline.value == pytest.approx(m.value - Result.load(copy).rows["baseline"]["plain"]["zsl"]["mAP"].value)
    assert "descriptions, mean" in stdout


def test_evaluate_says_when_no_image_shows_an_unseen_class(trained, folder):
    content = json.loads((folder / "benchmark" / "instances.json").read_text())
    cat = next(c["id"] for c in content["categories"] if c["name"] == "dog")
    content["annotations"] = [{"id": 1, "image_id": 1, "category_id": cat}]
    (folder / "seen_only.json").write_text(json.dumps(content))
    where = ["dataset.kind=coco", f"dataset.annotations={folder}/seen_only.json"]
    _, stderr = rcnn("evaluate", trained[0], *where, code=2)
    assert "zsl: no image shows any of the 28 classes" in stderr


def interrupted_after(monkeypatch, epochs):
    """Learning ends as by Ctrl-C once the state of so many epochs is written."""
    write = checkpoint.write

    def stop(path, tensors, **metadata):
        write(path, tensors, **metadata)
        if path.name == "state.safetensors" and len(metadata["losses"]) == epochs:
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write", stop)


def test_learning_without_momentum_is_continued_to_the_same_vectors(monkeypatch, folder, settings):
    more = ("train.momentum=0", "train.ablation=false", "train.epochs=3", "train.learning_rate=0.01")
    rcnn("train", *learn(folder / "at_once", settings, *more))
    with monkeypatch.context() as patch:
        interrupted_after(patch, 2)
        rcnn("train", *learn(folder / "in_two", settings, *more), code=130)
    assert not (folder / "in_two" / checkpoint.EMBEDDINGS).exists()
    rcnn("train", *learn(folder / "in_two", settings, *more))
    rows = [checkpoint.read_run(folder / run)[0]["cnr_pbl"] for run in ("at_once", "in_two")]
    losses = checkpoint.read_run(folder / "at_once")[1]["learning"]["learned"]["cnr_pbl"]["losses"]
    epochs = checkpoint.read_epochs(folder / "at_once", "cnr_pbl", rows[0].shape, losses)
    assert torch.equal(*rows)
    assert not torch.equal(epochs[1], epochs[2])


def test_learning_again_begins_anew(folder, settings):
    arguments = learn(folder / "again", settings, "train.ablation=false")
    rcnn("train", *arguments)
    state = folder / "again" / "cnr_pbl" / "state.safetensors"
    written = state.stat().st_mtime_ns
    rcnn("train", *arguments)
    assert state.stat().st_mtime_ns == written
    rcnn("train", *arguments, "--again")
    assert state.stat().st_mtime_ns > written


def test_learning_again_leaves_another_run_alone(trained, settings):
    before = (trained[0] / "class_embeddings.safetensors").read_bytes()
    _, stderr = rcnn("train", *learn(trained[0], settings, "seed=7"), "--again", code=2)
    assert "differs in seed" in stderr
    assert (trained[0] / "class_embeddings.safetensors").read_bytes() == before
    assert (trained[0] / "cnr_pbl" / "state.safetensors").exists()


def test_the_time_of_learning_is_that_of_all_its_parts(monkeypatch, folder, settings):
    arguments = learn(folder / "timed", settings, "train.ablation=false")
    with monkeypatch.context() as patch:
        interrupted_after(patch, 1)
        rcnn("train", *arguments, code=130)
    first = checkpoint.read(folder / "timed" / "cnr_pbl" / "state.safetensors")[1]["seconds"]
    rcnn("train", *arguments)
    whole = checkpoint.read_run(folder / "timed")[1]["learning"]["learned"]["cnr_pbl"]["seconds"]
    assert whole > first > 0
    rcnn("train", *arguments)  # nothing is left to learn
    assert checkpoint.read_run(folder / "timed")[1]["learning"]["learned"]["cnr_pbl"]["seconds"] == whole


def test_a_run_of_another_version_is_refused_in_one_line(trained, folder):
    rows, metadata = checkpoint.read_run(trained[0])
    checkpoint.write(folder / "old" / checkpoint.EMBEDDINGS, rows, **metadata | {"version": 1})
    _, stderr = rcnn("evaluate", folder / "old", code=2)
    assert "was made by another version of this code; learn again" in stderr


def test_homonyms_are_learned_and_measured(folder, settings):
    lists = {name: (ROOT / "data" / "mini" / f"{name}.txt").read_text() for name in ("seen", "unseen")}
    corpus = json.loads((ROOT / "data" / "mini" / "corpus.json").read_text())
    corpus["84"] = corpus["3"]  # the same class twice, told apart by a note
    name = corpus["84"]["node_name"]
    (folder / "seen.txt").write_text(lists["seen"])
    (folder / "unseen.txt").write_text(lists["unseen"].rstrip("\n") + f"\n{name} [another]\n")
    (folder / "homonyms.json").write_text(json.dumps(corpus))
    pairs = [f"classes.seen={folder}/seen.txt", f"classes.unseen={folder}/unseen.txt", f"corpus.path={folder}/homonyms.json"]
    rest = [pair for pair in settings if not pair.startswith("output=")]
    method = ["train.method=closed_form", "evaluate.bootstrap=0", f"output={folder}/homonyms"]
    rcnn("train", "--config", "configs/mini.yaml", *rest, *pairs, *method)
    result = Result.load(folder / "homonyms")
    assert result.class_names.count(name) == 2
    assert [name, name] in result.coinciding["baseline"]


def test_torchrun_is_for_evaluation(monkeypatch, folder, settings):
    monkeypatch.setenv("WORLD_SIZE", "2")
    _, stderr = rcnn("train", *learn(folder / "many", settings), code=2)
    assert "learning runs in one process; torchrun is for python -m rcnn.evaluate" in stderr


@pytest.mark.parametrize("other", ["cnr/epochs/001", "cnr_pbl/epochs/000"])
def test_an_epoch_of_another_row_or_number_is_not_measured(trained, folder, other):
    shutil.copytree(trained[0], folder / "swapped")
    shutil.copy(trained[0] / f"{other}.safetensors", folder / "swapped/cnr_pbl/epochs/001.safetensors")
    _, stderr = rcnn("evaluate", folder / "swapped", "--again", code=2)
    shutil.rmtree(folder / "swapped")
    assert "001.safetensors is damaged" in stderr
    assert "it is of another epoch, row or run" in stderr


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ("2", "error: WORLD_SIZE=2, and torchrun did not start this process"),
        ("abc", "error: environment variable WORLD_SIZE: expected a whole number from 1, got 'abc'"),
        ("0", "error: environment variable WORLD_SIZE: expected a whole number from 1, got '0'"),
    ],
)
def test_processes_that_nobody_started_are_not_waited_for(monkeypatch, trained, size, said):
    for name, value in {"WORLD_SIZE": size, "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29511"}.items():
        monkeypatch.setenv(name, value)
    _, stderr = rcnn("evaluate", trained[0], code=2)
    assert stderr.startswith(said)
    assert len(stderr.splitlines()) == 1


def test_what_would_stop_the_evaluation_is_said_before_learning(folder, settings):
    rest = [pair for pair in settings if not pair.startswith("output=")]
    arguments = ["--config", "configs/mini.yaml", *rest, f"output={folder}/early", "rows.mine=nowhere.json"]
    _, stderr = rcnn("train", *arguments, code=2)
    assert "rows.mine: there is no file" in stderr
    assert not (folder / "early").exists()


@pytest.mark.parametrize("device", ["mps", "xpu", "meta", "gpu"])
def test_other_devices_than_cpu_and_cuda_are_refused_in_one_line(trained, device):
    _, stderr = rcnn("evaluate", trained[0], f"device={device}", code=2)
    assert f"device: expected auto, cpu, cuda or mps, got '{device}'" in stderr or f"device: there is no {device};" in stderr


def test_a_changed_loss_is_named_as_changed_code_and_has_no_optimality_gap(monkeypatch, folder, settings):
    arguments = learn(folder / "edited", settings, "train.ablation=false")
    rcnn("train", *arguments)
    known, total = provenance.sources, losses.total_loss
    monkeypatch.setattr(provenance, "sources", lambda parts: known(parts) | {"learn/losses.py": "0" * 64})
    monkeypatch.setattr(optimise, "total_loss", lambda *arguments: total(*arguments) + 1)
    monkeypatch.setattr(losses, "total_loss", lambda *arguments: total(*arguments) + 1)
    stdout, _ = rcnn("train", *arguments)
    assert "WARNING: the code has changed since cnr_pbl was learned: learn/losses.py; --again learns anew" in stdout
    stdout, _ = rcnn("train", *arguments, "--again")
    assert "WARNING" not in stdout
    assert "cnr_pbl: total_loss is not the paper's any more, so no bound is known for it" in stdout
    assert "optimality gap" not in stdout
    assert "WARNING" not in rcnn("train", *arguments)[0]  # what is there is of this code now


def test_names_and_their_descriptions_become_a_tagger_without_any_configuration(monkeypatch, folder, trained):
    names = folder / "names.txt"
    names.write_text("dog\nbutterfly\n")
    _, stderr = rcnn("train", "--classes", names, code=2)
    assert f"there is no {folder}/names.corpus.json; set corpus.path, or make it: python -m rcnn.describe {names}" in stderr
    shutil.copy(ROOT / "data" / "mini" / "corpus.json", folder / "names.corpus.json")
    weights = ["clip.model=null", "clip.pretrained=null", f"clip.weights={ROOT}/data/mini/clip.safetensors"]
    monkeypatch.chdir(folder)
    stdout, _ = rcnn("train", "--classes", names, *weights, "train.epochs=1", "train.batch_size=128", "device=cpu")
    *_, last = stdout.splitlines()
    assert last == f"next: python -m rcnn.predict PHOTOS --run {folder}/outputs/names"
    learned = checkpoint.read_run(folder / "outputs" / "names")[1]["learning"]["learned"]
    assert learned["cnr_pbl"]["pair_weight"] == pytest.approx(0.2 * 65**2 / 512 * 128 / 2**2)
    picture = next((folder / "benchmark" / "images").iterdir())
    assert "dog" in rcnn("predict", picture, "--run", "outputs/names")[0]


def test_emoji_in_the_paths_of_weights_and_runs_survive_learning_resuming_and_tagging(monkeypatch, folder, trained):
    home = folder / "home 😀"
    home.mkdir()
    (home / "names.txt").write_text("dog\nbutterfly\n")
    shutil.copy(ROOT / "data" / "mini" / "corpus.json", home / "names.corpus.json")
    shutil.copy(ROOT / "data" / "mini" / "clip.safetensors", home / "😀.safetensors")
    monkeypatch.chdir(home)
    weights = ["clip.model=null", "clip.pretrained=null", "clip.weights=😀.safetensors"]
    command = ["train", "--classes", "names.txt", *weights, "train.epochs=1", "train.batch_size=128", "device=cpu"]
    rcnn(*command, "output=r😀")
    assert "next: python -m rcnn.predict PHOTOS --run" in rcnn(*command, "--resume", "r😀")[0]
    picture = next((folder / "benchmark" / "images").iterdir())
    assert "dog" in rcnn("predict", picture, "--run", "r😀")[0]
    (home / "r\udce9" / "cnr_pbl").mkdir(parents=True)
    (home / "r\udce9" / "cnr_pbl" / "state.safetensors").touch()
    _, stderr = rcnn(*command, "--resume", "r\udce9", code=2)
    assert stderr.startswith("error: output: expected text without control characters that UTF-8 can write, not '\\udce9'")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["clip.weights=/nowhere/clip.pt"], "there is no file /nowhere/clip.pt"),
        (["train.epoch=3"], "unknown configuration key train.epoch; the nearest is train.epochs"),
        (["corpus.path=pyproject.toml"], "is not JSON"),
        (["train.method=magic"], "expected 'names' or 'closed_form'"),
        (["train.batch_size=100000"], "do not fill one batch"),
        (["device=cuda"], "finds no CUDA GPU"),
        (["train.epochs=many"], "train.epochs: expected a valid integer"),
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
    assert long[:60] in stderr


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


@pytest.mark.parametrize("name", ["train", "evaluate", "predict"])
def test_help_teaches_the_keys_that_a_command_takes(name):
    stdout, _ = rcnn(name, "--help")
    assert f"python -m rcnn.{name}" in stdout
    assert "  evaluate.grids=" in stdout
    assert ("  train.pair_weight=" in stdout) == (name == "train")
