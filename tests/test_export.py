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
    found, expected = (tagger.tag(pictures[0], top=3) for tagger in (after, before))
    assert [(tag.name, tag.present, tag.threshold) for tag in found] == [(t.name, t.present, t.threshold) for t in expected]
    assert [tag.score for tag in found] == pytest.approx([tag.score for tag in expected], abs=1e-6)  # up to alignment in memory
    assert after.cutoffs.thresholds.tolist() == before.cutoffs.thresholds.tolist()
    assert after.notes == ["", "", "a plant"]


def test_nothing_exported_holds_a_path_a_user_s_name_or_a_key(saved, exported):
    assert str(MINI["weights"]).encode() in (saved / checkpoint.EMBEDDINGS).read_bytes()
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
    same = {key: metadata[key] for key in ("class_names", "weights_sha256")}
    result = made_up("coco", "train.method=closed_form", **same, doubts=["some doubt"])
    result.save(run / "result.json")
    out, _ = rcnn("export", run, tmp_path / "exported")
    assert "84 classes, without thresholds" in out
    card = (tmp_path / "exported" / "README.md").read_text()
    assert metadata["weights_sha256"] in card
    assert metadata["identity"]["corpus"] in card
    assert all(f"    {name}\n" in card for name in metadata["class_names"])
    ap = result.rows["closed_form"]["mssa"]["zsl"]["mAP"]
    assert f"- ZSL mAP: {ap.value:.1f} [{ap.interval[0]:.1f}, {ap.interval[1]:.1f}]\n" in card
    assert "- not comparable with the paper: some doubt\n" in card
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
        ([saved, tmp_path / "file"], "choose another folder"),
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
def hub(repositories, asked):
    """An endpoint like the hub's with {repository: {file: bytes}}; requests go to `asked`."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            path = self.path.partition("?")[0].removeprefix("/api/models")
            _, user, name, kind, _, file = f"{path}/////".split("/")[:6]
            files = repositories.get(f"{user}/{name}")
            headers, data = {"X-Repo-Commit": "c" * 40, "X-Error-Code": "RepoNotFound"}, b""
            if files is not None and kind == "resolve":
                data, headers["ETag"] = files[file], hashlib.sha256(files[file]).hexdigest()
            elif files is not None:
                listed = [
                    {"rfilename": f, "path": f, "type": "file", "size": len(d), "oid": "0" * 40} for f, d in files.items()
                ]
                data = json.dumps(listed if kind == "tree" else {"id": name, "sha": "c" * 40, "siblings": listed}).encode()
            self.send_response(404 if files is None else 200)
            for key, value in {**headers, "Content-Length": len(data), "Content-Type": "application/json"}.items():
                self.send_header(key, str(value))
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
from rcnn import Tagger, predict

photo, weights, cache, *addresses = sys.argv[1:]
for address in addresses:
    for pairs in ["device=cpu"], ["device=cpu", f"clip.weights={weights}"]:
        try:
            tagger = Tagger.load(address, *pairs)
            print([name for name, *_ in tagger.tag(photo, top=3)], tagger.cutoffs is not None)
        except (ValueError, OSError) as error:
            print(type(error).__name__, error)
predict.main([photo, "--run", addresses[0], "--format", "jsonl", "device=cpu", f"clip.weights={weights}", f"cache={cache}"])
"""


def test_a_tagger_is_loaded_from_the_hub_whose_files_choose_no_local_file_as_weights(exported, saved, pictures, tmp_path):
    repositories, asked = {}, []
    for name, place in ("anna/classes", exported), ("mallory/classes", saved):  # the latter's settings name a file of weights
        repositories[name] = {path.name: path.read_bytes() for path in place.iterdir()}
    addresses = ["hf://anna/classes", "hf://mallory/classes@main", "hf://anna/nothing"]
    command = [sys.executable, "-c", LOAD, pictures[0], MINI["weights"], tmp_path / "cache", *addresses]
    with hub(repositories, asked) as endpoint:
        # the hub's client reads these once, when it is imported
        known = {**os.environ, "HF_ENDPOINT": endpoint, "HF_HOME": str(tmp_path), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
        done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True, check=True, timeout=120)
    lines = done.stdout.splitlines()
    assert len(lines) == 7
    assert json.loads(lines[6])["tags"][0]["class"] == Tagger.load(saved).tag(pictures[0], top=1)[0].name
    tags = f"{[name for name, *_ in Tagger.load(saved).tag(pictures[0], top=3)]} True"
    for without, with_weights in (lines[:2], lines[2:4]):
        assert without.startswith("ValueError clip: expected a model name or a file; set clip.weights=FILE")
        assert with_weights == tags
    assert lines[4].startswith("FileNotFoundError 'hf://anna/nothing' cannot be had: ")
    assert not [path for path in asked if "model.onnx" in path]


@pytest.mark.parametrize("address", ["hf://", "hf://a/b/c", "hf://-/x"])
def test_an_address_that_is_none_is_one_clear_line(address):
    with pytest.raises(FileNotFoundError, match="expected hf://user/repo") as found:
        Tagger.load(address)
    assert "\n" not in str(found.value)
