"""rcnn sweep: a grid of runs on 8 drawings, and its table by hand."""

import csv
import importlib.util
import json
from pathlib import Path

import draw_mini
import pytest
from PIL import Image
from running import rcnn

from rcnn import checkpoint, sweep, training
from rcnn.figures import style, sweeps
from rcnn.results.result import Result

GRID = ["train.pair_weight=0,0.5", "seed=0,1"]
METRICS = ["ZSL mAP", "ZSL F1@3", "ZSL F1@5", "GZSL mAP", "GZSL F1@3", "GZSL F1@5"]


@pytest.fixture(scope="module")
def world(tmp_path_factory, features):
    """A folder, and the arguments of a quick command on 8 drawings."""
    folder = tmp_path_factory.mktemp("sweep")
    draw_mini.draw_benchmark(folder / "benchmark", 8)
    return folder, [
        "--config", "configs/mini.yaml", f"cache={features}", f"dataset.images={folder}/benchmark/images",
        f"dataset.annotations={folder}/benchmark/instances.json", "train.epochs=1", "train.batch_size=2048",
        "train.ablation=false", "evaluate.bootstrap=0", "evaluate.epochs=false", "evaluate.diagnostics=false",
        "evaluate.grids=[2]", "device=cpu",
    ]  # fmt: skip


@pytest.fixture(scope="module")
def swept(world):
    """The folder of a sweep of two weights by two seeds, and what was printed."""
    folder, settings = world
    stdout, _ = rcnn("sweep", *settings, *GRID, "--output", folder / "swept")
    return folder / "swept", stdout


def read(folder):
    return json.loads((folder / "sweep.json").read_text(encoding="utf-8"))


def test_every_point_has_a_folder_of_its_own_named_by_its_keys_and_all_share_one_pass(swept):
    folder, _ = swept
    points = [f"train.pair_weight={weight},seed={seed}" for weight in ("0", "0.5") for seed in (0, 1)]
    assert [point["folder"] for point in read(folder)["points"]] == points
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == sorted(points)
    assert (folder / "log.txt").read_text().count(" in one pass; ") == 1


def test_a_point_is_what_a_run_of_its_own_finds(swept, world, tmp_path):
    folder, settings = swept[0], world[1]
    rcnn("train", *settings, "train.pair_weight=0.5", "seed=1", f"output={tmp_path}")
    alone, point = Result.load(tmp_path), Result.load(folder / "train.pair_weight=0.5,seed=1")
    assert alone.rows == point.rows
    assert alone.rows != Result.load(folder / "train.pair_weight=0.5,seed=0").rows
    assert read(folder)["points"][3]["ZSL mAP"] == alone.rows["cnr_pbl"]["mssa"]["zsl"]["mAP"].value


def test_the_table_has_mean_and_deviation_over_the_seeds_and_names_the_key_that_differs(swept):
    folder, stdout = swept
    assert stdout.startswith("4 runs that differ in train.pair_weight and seed:\n\n| train.pair_weight | seeds | ZSL mAP |")
    values = [point["ZSL mAP"] for point in read(folder)["points"]]
    for line, pair in zip(read(folder)["table"], (values[:2], values[2:]), strict=True):
        mean, deviation = sum(pair) / 2, abs(pair[0] - pair[1]) / 2**0.5
        assert line["mean"]["ZSL mAP"] == pytest.approx(mean)
        assert line["deviation"]["ZSL mAP"] == pytest.approx(deviation)
        assert f"| {line['keys']['train.pair_weight']} | 2 | {mean:.1f} ± {deviation:.1f} |" in stdout
    rows = list(csv.DictReader((folder / "sweep.csv").read_text().splitlines()))
    assert [row["metric"] for row in rows] == 2 * METRICS
    assert float(rows[0]["mean"]) == read(folder)["table"][0]["mean"]["ZSL mAP"]
    with Image.open(folder / "sweep.png") as picture:
        assert picture.width == 2160
    assert (folder / "sweep.pdf").read_bytes().startswith(b"%PDF")


def test_finished_points_are_not_done_again_and_a_new_seed_is_learned_alone(swept, world, monkeypatch):
    (folder, stdout), settings = swept, world[1]
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*/*.*") if path.suffix in (".safetensors", ".json")}
    learned, train = [], training.train
    monkeypatch.setattr(
        sweep, "train", lambda point, *given, **more: (learned.append(point.seed), train(point, *given, **more))
    )
    again, _ = rcnn("sweep", *settings, *GRID, "--output", folder)
    assert (again, learned) == (stdout, [])
    more, _ = rcnn("sweep", *settings, "train.pair_weight=0,0.5", "seed=0,1,2", "--output", folder)
    assert learned == [2, 2]
    assert "| 0.5 | 3 | " in more
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_point_whose_descriptions_have_changed_is_refused(world, tmp_path):
    corpus = tmp_path / "corpus.json"
    given = [*world[1], f"corpus.path={corpus}", "train.method=closed_form", "seed=0,1", "--output", tmp_path / "swept"]
    whole = json.loads(Path("data/mini/corpus.json").read_text())
    corpus.write_text(json.dumps(whole))
    rcnn("sweep", *given)
    whole["0"]["candidate_sentences"][0] = "a dog, which is another."
    corpus.write_text(json.dumps(whole))
    assert "seed=0 holds a run that differs in corpus; choose another output=" in rcnn("sweep", *given, code=2)[1]


def test_methods_can_be_compared_and_without_matplotlib_there_is_no_plot(world, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    stdout, _ = rcnn("sweep", *world[1], "train.method=names,closed_form", "--output", tmp_path)
    rows = {
        method: checkpoint.read_run(tmp_path / f"train.method={method}")[1]["method"] for method in ("names", "closed_form")
    }
    assert rows == {"names": "cnr_pbl", "closed_form": "closed_form"}
    assert "| closed_form | 1 | " in stdout
    assert "±" not in stdout
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["log.txt", "sweep.csv", "sweep.json"]


def test_a_warning_of_a_point_is_printed(swept, world, monkeypatch):
    folder, settings = swept[0], world[1]
    monkeypatch.setattr("rcnn.provenance.changed_sources", lambda before, now: ["score/mssa.py"])
    stdout, _ = rcnn("sweep", *settings, *GRID, "--output", folder)
    assert "WARNING: the code has changed since this run was learned: score/mssa.py\n" in stdout


def test_values_in_brackets_are_one_value_and_a_key_of_one_value_holds_for_all_points():
    single, several = sweep.grid(["evaluate.grids=[2,3]", "seed=0,1", "train.epochs=5"])
    assert (single, several) == (["evaluate.grids=[2,3]", "train.epochs=5"], {"seed": ["0", "1"]})


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (["seed=0"], "expected a key with several values, such as train.pair_weight=0,0.1,0.2 or seed=0,1,2"),
        (["evaluate.temperature=0.05,0.1"], "evaluate.temperature: the points of a sweep share a pass over the images"),
        (["evaluate.grids=[2],[2,3]"], "evaluate.grids: the points of a sweep share a pass over the images"),
        (["output=a,b"], "output: the points of a sweep share a pass over the images"),
        (["train.pair_wait=0,1"], "unknown configuration key train.pair_wait; the nearest is train.pair_weight"),
        (["seed=0,1,0"], "two points of the sweep are the same, as of 0.1 and 0.10; expected each value once"),
        (["seed=0,1", "seed=2,3"], "seed: expected all its values in one pair, got another, 'seed=2,3'"),
        (["train.pair_weight=0.1,-1"], "train.pair_weight: expected auto or a number from 0 to 1e6, got -1"),
        (["seed=0,1", "dataset.annotations=null"], "dataset.images and dataset.annotations: expected the images"),
        (["train.pair_weight=0.1,0.10"], "two points of the sweep are the same, as of 0.1 and 0.10"),
    ],
)
def test_what_cannot_be_swept_is_one_line_before_any_work(world, tmp_path, pairs, said):
    _, stderr = rcnn("sweep", *world[1], *pairs, "--output", tmp_path / "swept", code=2)
    assert stderr.startswith(f"error: {said}")
    assert stderr.count("\n") == 1
    assert not (tmp_path / "swept").exists()


def test_two_keys_are_drawn_as_curves_and_without_k_average_precision_alone_is():
    keys = [{"a": a, "b": b} for a in ("x", "y", "z") for b in ("1", "2")]
    lines = sweeps.summary([(of, {"ZSL mAP": 1.0, "GZSL mAP": 2.0}) for of in keys])
    with style.look():
        figure = sweeps.draw(lines, "class name", lines[0].mean)
    assert [panel.get_title() for panel in figure.axes] == ["ZSL mAP, %", "GZSL mAP, %"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["class name", "b 1", "b 2"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["x", "y", "z"]


def test_a_summary_groups_points_by_all_keys_but_the_seed():
    points = [({"seed": s, "k": k}, {"ZSL mAP": float(value)}) for s, k, value in [("0", "a", 1), ("0", "b", 5), ("1", "a", 3)]]
    one, other = sweeps.summary(points)
    assert (one.keys, one.seeds, one.mean, one.deviation) == ({"k": "a"}, 2, {"ZSL mAP": 2}, {"ZSL mAP": 2**0.5})
    assert (other.keys, other.seeds, other.deviation) == ({"k": "b"}, 1, {"ZSL mAP": None})
