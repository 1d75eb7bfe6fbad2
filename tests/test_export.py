# ruff: noqa: F811, the parameters of tests are fixtures
"""Runs as files to publish: what they hold and do not hold, the ONNX file, and the hub."""

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

import numpy as np
import onnxruntime
import pytest
import torch
from made_up import made_up
from PIL import Image
from running import rcnn
from sklearn.datasets import load_sample_images
from tagging import MINI, NAMES, ROOT, folder, pictures, run, six  # noqa: F401

from rcnn import checkpoint
from rcnn.score.views import views
from rcnn.tagger import Tagger

WEIGHTS = {"clip.weights": MINI["weights"], "device": "cpu"}
EXAMPLE = ROOT / "scripts" / "onnx_example.py"


@pytest.fixture(scope="module")
def saved(folder, pictures):
    """A saved tagger with cut-offs, below a folder with a user's name."""
    tagger = Tagger.from_names(["dog", "cat", "tree [a plant]"], **MINI)
    tagger.calibrate(list(pictures) * 2, [["tree"], ["dog", "tree"]] * 10)
    tagger.save(folder / "home" / "anna-secret" / "run")
    return folder / "home" / "anna-secret" / "run"


@pytest.fixture(scope="module")
def exported(saved, folder):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_TOKEN", "hf_mySecretKey")
        patch.setenv("USER", "anna-secret")
        out, _ = rcnn("export", saved, folder / "exported", "--onnx")
    assert "3 classes, with thresholds" in out
    return folder / "exported"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    place = tmp_path_factory.mktemp("photographs")
    for number, pixels in enumerate(load_sample_images().images):
        Image.fromarray(pixels).save(place / f"{number}.png")
    return sorted(place.iterdir())


def test_an_exported_folder_gives_the_same_tags_with_the_same_thresholds(saved, exported, pictures):
    before, after = Tagger.load(saved), Tagger.load(exported, **WEIGHTS)
    assert after.tag(pictures[0], top=3) == before.tag(pictures[0], top=3)
    assert after.cutoffs.thresholds.tolist() == before.cutoffs.thresholds.tolist()
    assert after.notes == ["", "", "a plant"]


def test_nothing_exported_holds_a_path_a_user_s_name_or_a_key(saved, exported):
    assert (
        "anna-secret" in str(Tagger.load(saved).settings.cache)
        or b"clip.safetensors" in (saved / checkpoint.EMBEDDINGS).read_bytes()
    )
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert sorted(path.name for path in files) == ["README.md", "class_embeddings.safetensors", "cutoffs.json", "model.onnx"]
    homes = [str(ROOT), os.path.expanduser("~") + "/", sys.prefix, os.path.dirname(torch.__file__), "/home/", "/tmp/", "/usr/"]
    for path in files:
        text = path.read_bytes()
        found = [word for word in [*homes, "anna-secret", "mySecretKey", '.safetensors"'] if word.encode() in text]
        assert found == [], path.name


def test_onnx_scores_are_ours_to_1e_4_on_real_photographs_in_batches_of_any_size(exported, saved, photographs):
    session = onnxruntime.InferenceSession(exported / "model.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape[0] == "batch"
    tagger = Tagger.load(saved)
    size = tagger.model.image.image_size
    pixels = np.stack([views(Image.open(path), size, (2, 3)).numpy() for path in photographs])
    assert pixels.dtype == np.uint8
    for count in (1, 2):
        found = session.run(["scores"], {"views": pixels[:count]})[0]
        np.testing.assert_allclose(found, tagger.scores(photographs[:count]).numpy(), rtol=0, atol=1e-4)


def test_the_example_needs_onnxruntime_numpy_and_pillow_alone(exported, saved, photographs):
    code = (
        "import sys, runpy; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0]); "
        "print([m for m in ('torch', 'rcnn', 'open_clip', 'onnx') if m in sys.modules])"
    )
    given = [sys.executable, "-c", code, EXAMPLE, exported / "model.onnx", photographs[0]]
    *tags, others = subprocess.run(given, capture_output=True, text=True, check=True).stdout.splitlines()
    assert others == "[]"
    scores = Tagger.load(saved).scores(photographs[0])
    found = {name: float(score) for score, name in (line.split(" ", 1) for line in tags)}
    assert list(found) == [["dog", "cat", "tree [a plant]"][c] for c in scores.argsort(descending=True)]
    for name, score in zip(["dog", "cat", "tree [a plant]"], scores.tolist(), strict=True):
        assert found[name] == pytest.approx(score, abs=1e-4)


def test_the_onnx_file_knows_names_thresholds_and_grids(exported, saved):
    known = onnxruntime.InferenceSession(exported / "model.onnx").get_modelmeta().custom_metadata_map
    assert json.loads(known["class_names"]) == ["dog", "cat", "tree [a plant]"]
    assert json.loads(known["thresholds"]) == Tagger.load(saved).cutoffs.thresholds.tolist()
    assert json.loads(known["grids"]) == [2, 3]


def test_the_card_of_a_run_says_classes_corpus_weights_and_metrics(run, tmp_path):
    _, metadata = checkpoint.read_run(run)
    result = made_up("mini", "train.method=closed_form", weights_sha256=metadata["weights_sha256"], doubts=["some doubt"])
    result.save(run / "result.json")
    out, _ = rcnn("export", run, tmp_path / "exported")
    assert "84 classes, without thresholds" in out
    card = (tmp_path / "exported" / "README.md").read_text()
    assert metadata["weights_sha256"] in card
    assert metadata["identity"]["corpus"] in card
    assert all(f"    {name}\n" in card for name in metadata["class_names"])
    ap = result.rows["closed_form"]["mssa"]["zsl"]["mAP"]
    assert f"| ZSL | mAP | {ap.value:.1f} [{ap.interval[0]:.1f}, {ap.interval[1]:.1f}] |" in card
    assert "Not comparable with the paper: some doubt." in card
    assert not (tmp_path / "exported" / "model.onnx").exists()
    result.model_copy(update={"weights_sha256": "e" * 64}).save(run / "result.json")
    _, err = rcnn("export", run, tmp_path / "other", code=2)
    (run / "result.json").unlink()
    assert "is the result of another run" in err


def test_a_second_export_replaces_the_first_and_no_file_of_others(saved, tmp_path):
    rcnn("export", saved, tmp_path / "exported")
    (tmp_path / "exported" / "model.onnx").write_bytes(b"of other classes")
    rcnn("export", saved, tmp_path / "exported")
    assert not (tmp_path / "exported" / "model.onnx").exists()
    (tmp_path / "README.md").write_text("# my project\n")
    _, err = rcnn("export", saved, tmp_path, code=2)
    assert "choose another folder" in err
    assert err.count("\n") == 1
    assert (tmp_path / "README.md").read_text() == "# my project\n"


def test_bad_arguments_of_export_are_one_clear_line(saved, tmp_path):
    (tmp_path / "file").write_text("")
    for given, said in [
        ([tmp_path, tmp_path / "out"], "is no finished run"),
        ([saved, tmp_path / "file"], "is no folder"),
        ([saved, tmp_path / "out", "clip.weights=nowhere.pt"], "there is no file"),
    ]:
        _, err = rcnn("export", *given, code=2)
        assert said in err
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_onnx_without_its_packages_says_what_to_install(saved, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    _, err = rcnn("export", saved, tmp_path / "out", "--onnx", code=2)
    assert "--onnx needs the package onnxruntime; pip install '.[onnx]'" in err
    assert not (tmp_path / "out").exists()


@contextlib.contextmanager
def hub(files, asked):
    """An endpoint like the hub's that has the repository anna/classes with `files`, {name: bytes}; requests go to `asked`."""
    commit = "c" * 40

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(f"{self.command} {self.path}")
            path, headers = self.path.partition("?")[0], {"X-Repo-Commit": commit}
            name = path.rpartition("/")[2]
            if path.startswith("/api/models/anna/classes"):
                listed = [
                    {"rfilename": name, "type": "file", "path": name, "size": len(data), "oid": "0" * 40}
                    for name, data in files.items()
                ]
                data = json.dumps(
                    listed if "/tree/" in path else {"id": "anna/classes", "sha": commit, "siblings": listed}
                ).encode()
            elif path.startswith("/anna/classes/resolve/") and name in files:
                data, headers["ETag"] = files[name], hashlib.sha256(files[name]).hexdigest()
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_response(200)
            for key, value in {**headers, "Content-Length": str(len(data)), "Content-Type": "application/json"}.items():
                self.send_header(key, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


LOAD = """
import sys
from rcnn import Tagger
try:
    tagger = Tagger.load(sys.argv[1], *sys.argv[2].split(), device="cpu")
    print([name for name, *_ in tagger.tag(sys.argv[3], top=3)], tagger.cutoffs is not None)
except (ValueError, OSError) as error:
    print(type(error).__name__, error)
"""


def load(endpoint, place, *given):
    environment = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(place), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, "-c", LOAD, *map(str, given)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True, timeout=120).stdout


def test_a_tagger_is_loaded_from_the_hub(exported, saved, pictures, tmp_path):
    files, asked = {path.name: path.read_bytes() for path in exported.iterdir()}, []
    with hub(files, asked) as endpoint:
        found = load(endpoint, tmp_path, "hf://anna/classes", f"clip.weights={MINI['weights']}", pictures[0])
        assert found.strip() == f"{[name for name, *_ in Tagger.load(saved).tag(pictures[0], top=3)]} True"
        assert not [line for line in asked if "model.onnx" in line]
        missing = load(endpoint, tmp_path, "hf://anna/nothing", "", pictures[0])
    assert missing.startswith("FileNotFoundError 'hf://anna/nothing' cannot be had: ")
    assert missing.count("\n") == 1


def test_a_file_of_the_hub_chooses_no_local_file_as_weights(saved, pictures, tmp_path):
    files = {path.name: path.read_bytes() for path in saved.iterdir()}  # not exported: its settings name the weights
    with hub(files, []) as endpoint:
        found = load(endpoint, tmp_path, "hf://anna/classes@main", "", pictures[0])
    assert found.startswith("ValueError clip: expected a model name or a file; set clip.weights=FILE")


@pytest.mark.parametrize("address", ["hf://", "hf://a/b/c", "hf://-/x"])
def test_an_address_that_is_none_is_one_clear_line(address):
    with pytest.raises(FileNotFoundError, match="expected hf://user/repo") as found:
        Tagger.load(address)
    assert "\n" not in str(found.value)
