"""A method of one's own: functions as rows and scorers beside all others, and scores that are kept for NumPy alone."""

import hashlib
import json
import os
import re
import resource
import shutil
import sys
from pathlib import Path

import draw_mini
import numpy as np
import own_method
import pytest
import torch
from running import rcnn
from torch.nn import functional as F

from rcnn import config, functions, rows, scoring
from rcnn.clip.image_tower import ImageFeatures
from rcnn.config import EvaluateConfig
from rcnn.learn import elsewhere
from rcnn.results.result import Result
from rcnn.score import kept, mssa
from rcnn.score.score_file import Mean
from rcnn.text.classes import ClassList

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
CLASSES = ClassList(("cat", "dog", "bird"), 2)
AGAIN = "is of these very settings; --again measures anew"
EXAMPLE = ["rows.short=scripts.own_method:short_prompts", "scorers.ten=scripts.own_method:ten_patches"]
SCORER = """
from rcnn.score import mssa

FACTOR = 1

def plain(features, class_embeddings, settings):
    total = FACTOR * mssa.score(features, class_embeddings, (), settings.temperature).total
    for given in (*features, class_embeddings):
        given.zero_()
    return total
"""


@pytest.fixture(scope="module")
def learned(tmp_path_factory, features):
    """A run on class names alone; to be copied."""
    folder = tmp_path_factory.mktemp("own")
    draw_mini.draw_benchmark(folder, 15)
    settings = [
        f"output={folder}/learned", f"cache={features}", "device=cpu", "corpus.path=null", "dataset.kind=coco",
        f"dataset.images={folder}/images", f"dataset.annotations={folder}/instances.json", "evaluate.grids=[2]",
        "evaluate.bootstrap=5", "evaluate.batch_size=4", "evaluate.workers=0",
    ]  # fmt: skip
    rcnn("train", "--config", "configs/mini.yaml", "--no-evaluate", *settings)
    return folder / "learned"


@pytest.fixture
def run(learned, tmp_path):
    return Path(shutil.copytree(learned, tmp_path / "run"))


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a module of one's own in the current folder."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")

    def call(text, name="mine.py"):
        (path := tmp_path / "here" / name).parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return call


def read(name):
    return elsewhere.read(name, CLASSES, 3, "clip", lambda: "the CLIP")


def fails(what, *arguments):
    with pytest.raises(ValueError, match=" ") as raised:
        what(*arguments)
    (line,) = str(raised.value).splitlines()
    assert len(line) < 1000
    return line


def test_the_example_is_measured_beside_all_rows_with_intervals_and_paired_differences(run):
    before, _ = rcnn("evaluate", run)
    known = Result.load(run)
    stdout, _ = rcnn("evaluate", run, *EXAMPLE)
    result = Result.load(run)
    for task, metrics in result.rows["short"]["mssa"].items():
        assert metrics["mAP"].interval
        assert metrics["mAP"].versus_baseline.interval
        own = result.rows["templates"]["ten"][task]["mAP"]  # of the method, which is the templates without descriptions
        assert own.versus_baseline.value == pytest.approx(own.value - result.rows["baseline"]["ten"][task]["mAP"].value)
        assert own.versus_plain.value == pytest.approx(own.value - result.rows["templates"]["plain"][task]["mAP"].value)
        assert own.interval
        assert own.versus_plain.interval
    assert [row for row, scorers in result.rows.items() if "ten" in scorers] == ["baseline", "templates"]
    assert list(result.rows["templates"]) == ["plain", "ten", "mssa"]  # the method's scorer stays the last
    assert " short + MSSA" in stdout
    assert " class name, ten " in stdout
    for row, scorers in known.rows.items():  # all else is as without them
        for scorer, tasks in scorers.items():
            assert result.rows[row][scorer] == tasks
    assert [line[1:18] for line in before.splitlines() if line.startswith("*")] == [
        line[1:18] for line in stdout.splitlines() if line.startswith("*")
    ]


def test_the_report_shows_a_row_and_a_scorer_of_ones_own(run):
    rcnn("evaluate", run, *EXAMPLE)
    stdout, _ = rcnn("report", run)
    assert "class name, ten" in stdout
    assert "short + MSSA" in stdout


def test_a_row_by_a_function_is_that_of_the_same_vectors_and_the_function_gets_names_and_the_clip(write):
    write("import torch\ndef f(names, model):\n    assert (names, model) == (['cat', 'dog', 'bird'], 'the CLIP')\n"
          "    return (2 * torch.eye(3, dtype=torch.float64)).requires_grad_()\n")  # fmt: skip
    found = read("mine:f")
    assert torch.equal(found, torch.eye(3))
    assert found.dtype == torch.float32
    assert not found.requires_grad


def test_a_scorer_that_does_what_plain_does_has_its_numbers_and_may_spoil_what_it_is_given(write, run):
    write(SCORER)
    rcnn("evaluate", run, "scorers.same=mine:plain")
    result = Result.load(run)
    for row in ("baseline", "templates"):
        for task, metrics in result.rows[row]["plain"].items():
            for name, metric in metrics.items():
                assert result.rows[row]["same"][task][name].value == metric.value
        assert result.rows[row]["mssa"]["gzsl"]["mAP"].value > 0


def test_a_function_that_was_changed_is_scored_anew_even_within_a_second(write, run):
    path = write(SCORER)
    when = path.stat().st_mtime_ns
    rcnn("evaluate", run, "scorers.mine=mine:plain")
    before = Result.load(run).rows["baseline"]["mine"]["gzsl"]["mAP"].value
    assert AGAIN in rcnn("evaluate", run, "scorers.mine=mine:plain")[0]
    write(SCORER.replace("FACTOR = 1", "FACTOR =-1"))  # of the same size
    os.utime(path, ns=(when, when))
    assert AGAIN not in rcnn("evaluate", run, "scorers.mine=mine:plain")[0]
    assert Result.load(run).rows["baseline"]["mine"]["gzsl"]["mAP"].value != before


def test_what_the_readme_shows_is_measured(write, run):
    (example,) = re.findall(r"```python\n(from rcnn import clip\n.*?def scorer.*?)```", README, re.DOTALL)
    write(example)
    assert str(Path.cwd()) not in sys.path  # as for the installed command
    stdout, _ = rcnn("evaluate", run, "rows.mine=mine:row", "scorers.mine=mine:scorer", "evaluate.bootstrap=0")
    assert " mine + MSSA " in stdout
    assert " 80 templates, mine " in stdout.replace("*", " ")


@pytest.mark.parametrize(
    ("text", "name", "said"),
    [
        ("", "nothing:f", "nothing:f: there is no module nothing in "),
        ("", "not.there:f", "not.there:f: there is no module not.there in "),
        ("", "mine:f", "mine:f: there is no function f in "),
        ("f = 5", "mine:f", "mine:f: there is no function f in "),
        ("", "sys:exit", "sys:exit: expected a module with a Python source file"),
        ("x = 1\ny = 1 / 0", "mine:f", r"mine:f raised ZeroDivisionError: division by zero \(.*mine\.py, line 2: y = 1 / 0\)$"),
        ("def f(:", "mine:f", r"mine:f raised SyntaxError: .* \(.*mine\.py, line 1\)$"),
        ("import sys\nsys.exit()", "mine:f", r"mine:f raised SystemExit:  \(.*mine\.py, line 2: sys\.exit\(\)\)$"),
        ("\0", "mine:f", "mine:f raised (ValueError|SyntaxError): source code string cannot contain null bytes"),
        ("import nowhere", "mine:f", r"mine:f raised ModuleNotFoundError: No module named 'nowhere' \(.*, line 1: import"),
    ],
)  # fmt: skip
def test_a_function_that_cannot_be_had_is_one_line(write, text, name, said):
    write(text)
    assert re.match(said, fails(functions.load, name))


def test_what_the_folder_of_a_module_raises_is_said(write):
    write("import nowhere", "part/__init__.py")
    write("def f(): pass", "part/mine.py")
    assert fails(functions.load, "part.mine:f").startswith(
        "part.mine:f raised ModuleNotFoundError: No module named 'nowhere' ("
    )


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("\n  int('1x')\n", r"raised ValueError: invalid literal .*1x' \(.*mine\.py, line 2: int\('1x'\)\)$"),
        ("return torch.ones(2)[names]", r"raised \w+: .*line 1: def f\(names, model\): return torch\.ones\(2\)\[names\]\)$"),
        ("raise KeyError('a\\nb' * 10**6)", "raised KeyError: "),
        ("exit(0)", "raised SystemExit: 0 "),
        ("return None", r": expected a tensor of class embeddings \(3, 3\), got None$"),
        ("return [[1.0] * 3] * 3", r": expected a tensor of class embeddings \(3, 3\), got \["),
        ("return torch.ones(3, 4)", r": expected class embeddings of shape \(3, 3\), got \(3, 4\)$"),
        ("return torch.ones(3, 3).long()", ": expected class embeddings of floating-point numbers, got torch.int64$"),
        ("return torch.zeros(3, 3)", ": expected finite class embeddings other than zero$"),
        ("return torch.full((3, 3), torch.nan)", ": expected finite class embeddings other than zero$"),
    ],
)
def test_a_row_by_a_function_that_fails_or_returns_something_else_is_one_line(write, body, said):
    write(f"def f(names, model): {body}\nimport torch\n")
    assert re.match(f"mine:f ?{said}", fails(read, "mine:f"))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return features.nothing", r"raised AttributeError: .*nothing.* \(.*mine\.py, line 1: .*\)$"),
        ("return 5", r": expected a tensor of scores \(2, 3\), got 5$"),
        ("return torch.ones(3, 2)", r": expected scores of shape \(2, 3\) of floating-point numbers, got \(3, 2\)"),
        ("return torch.ones(2, 3).int()", r": expected scores of shape \(2, 3\) of .*, got \(2, 3\) of torch.int32$"),
        ("return torch.full((2, 3), 1e300, dtype=torch.float64)", ": expected finite scores$"),
    ],
)  # fmt: skip
def test_a_scorer_that_fails_or_returns_something_else_is_one_line(write, body, said):
    write(f"def f(features, z, settings): {body}\nimport torch\n")
    sets = scoring.scored_sets(
        EvaluateConfig(), {"baseline": torch.eye(3), "mean": torch.eye(3)}, {}, {"mine": functions.load("mine:f")}, ["baseline"]
    )
    assert list(sets["mean"].scorers) == ["plain", "mssa"]
    features = ImageFeatures(torch.ones(2, 14, 3), torch.ones(2, 14, 4, 3))
    assert re.match(f"mine:f ?{said}", fails(sets["baseline"].scorers["mine"], features, torch.eye(3)))


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("rows.mine=nothing:f", "nothing:f: there is no module nothing in"),
        ("rows.mine=no/thing:f", "rows.mine: there is no file"),
        ("scorers.mine=nothing:f", "nothing:f: there is no module nothing in"),
        ("scorers.mine=a.py", "scorers.mine: expected MODULE:FUNCTION, got 'a.py'"),
        ("scorers.mine=''", "scorers.mine: expected MODULE:FUNCTION, got ''"),
        ("scorers.plain=mine:f", "scorers.plain: expected a name of your own"),
        ("scorers.a/b=mine:f", "scorers.a/b: expected a name of your own"),
        ("scorers=5", "scorers: expected scorers.NAME=VALUE pairs, got 5"),
    ],
)
def test_the_command_refuses_what_names_no_function_before_any_image_is_read(write, run, pair, said):
    stdout, stderr = rcnn("evaluate", run, pair, code=2)
    assert f"error: {said}" in stderr
    assert "Traceback" not in stderr
    assert "in one pass" not in stdout


def test_a_function_is_kept_as_it_is_and_a_file_of_such_a_name_is_a_file(write):
    write("{}", "a:b")
    settings = config.override({}, ["rows.mine=own.part:f", "rows.file=a:b", "output=c:d"])
    assert settings.rows == {"mine": "own.part:f", "file": f"{Path.cwd()}/a:b"}
    assert settings.output == f"{Path.cwd()}/c:d"
    assert config.override(config.to_dict(settings), []) == settings


def test_a_label_of_an_own_scorer_follows_that_of_the_row():
    assert rows.label("baseline", "mine") == "class name, mine"


def test_the_example_scorer_is_what_it_says():
    features = ImageFeatures(*(F.normalize(torch.randn(s), dim=-1) for s in ((2, 5, 6), (2, 5, 12, 6))))
    z = F.normalize(torch.randn(3, 6), dim=1)
    found = own_method.ten_patches(features, z, EvaluateConfig())
    for b in range(2):
        for c in range(3):
            best = sorted((features.local_features[b, 0] @ z[c]).tolist())[-10:]
            weights = np.exp(np.array(best) * 20)
            expected = ((features.global_features[b, 0] @ z[c]).item() + weights @ best / weights.sum()) / 2
            assert found[b, c].item() == pytest.approx(expected, abs=1e-6)


def test_numpy_alone_has_the_metrics_from_scores_that_are_kept(run):
    stdout, _ = rcnn("evaluate", run, "evaluate.keep_scores=true", "evaluate.tagclip=true", *EXAMPLE)
    result, folder = Result.load(run), run / "scores_kept"
    index = json.loads((folder / "index.json").read_text())
    y = np.load(folder / "labels.npy")
    assert y.dtype == np.int8
    assert y.shape == (len(index["images"]), len(index["class_names"])) == (15, 84)
    assert index["class_names"] == result.class_names
    assert index["made_from"] == result.made_from
    measured = {(row, scorer) for row, scorers in result.rows.items() for scorer in scorers if "standardised" not in row}
    assert {(table["row"], table["scorer"]) for table in index["tables"]} == measured
    for table in index["tables"]:
        scores = np.load(folder / table["file"])
        assert scores.dtype == np.float32
        assert hashlib.sha256((folder / table["file"]).read_bytes()).hexdigest() == table["sha256"]
        assert table["label"] == result.label(table["row"], table["scorer"])
        if table["part"]:
            continue
        for task in [table["task"]] if table["task"] else index["first_column"]:
            first = index["first_column"][task]
            shown = (y[:, first:] == 1).any(1)
            value = 100 * np.mean([precision(s, t) for s, t in zip(scores[shown, first:].T, y[shown, first:].T, strict=True)])
            assert value == pytest.approx(result.rows[table["row"]][table["scorer"]][task]["mAP"].value, abs=1e-4)
    loaded = {tuple(t[k] for k in ("row", "scorer", "task", "part")): np.load(folder / t["file"]) for t in index["tables"]}
    with_parts = {key[:2] for key in loaded if key[3]}
    assert with_parts == {(row, scorer) for row, scorers in result.diagnostics.items() for scorer in scorers}
    for key in with_parts:
        parts = [loaded[*key, None, part] for part in ("global_part", "local_part")]
        np.testing.assert_allclose(loaded[*key, None, None], sum(parts) / 2, rtol=0, atol=1e-7)
    size = 4 * y.size * len(index["tables"]) + y.size
    assert f"scores to be kept: {size / 1e9:.2f} GB in {folder}" in stdout.split("in one pass")[0]  # before it starts
    assert [path.name for path in run.glob("scores*")] == ["scores_kept"]


def precision(scores, labels):
    """Average precision; tied images all have the rank of the last."""
    positive = scores[labels == 1]
    return np.mean([(positive >= s).sum() / (scores >= s).sum() for s in positive]) if len(positive) else 0


def test_scores_are_kept_on_request_only_and_a_result_without_them_is_measured_anew(run):
    rcnn("evaluate", run)
    assert not (run / "scores_kept").exists()
    before = Result.load(run).rows
    assert AGAIN not in rcnn("evaluate", run, "evaluate.keep_scores=true")[0]
    assert Result.load(run).rows == before
    for kept_or_not in ("true", "false"):
        assert AGAIN in rcnn("evaluate", run, f"evaluate.keep_scores={kept_or_not}")[0]
    (run / "scores_kept" / "labels.npy").unlink()
    assert AGAIN not in rcnn("evaluate", run, "evaluate.keep_scores=true")[0]
    assert (run / "scores_kept" / "labels.npy").is_file()


def table(scores):
    return kept.Table(scores, "..\\a b/é", "plain", "label")


def test_kept_scores_are_whole_or_those_of_before(tmp_path):
    folder, labels = tmp_path / "kept", torch.ones(3000, 2, dtype=torch.int8)
    scores = np.arange(6000, dtype=np.float32).reshape(3000, 2)
    kept.write(folder, [table(Mean(scores, -scores)), table(scores)], labels, "one", {"images": []})
    assert kept.holds(folder, "one")
    assert not kept.holds(folder, "two")
    names = sorted(path.name for path in folder.iterdir())
    assert names == ["00_---a-b--_plain.npy", "01_---a-b--_plain.npy", "index.json", "labels.npy"]
    assert not np.load(folder / names[0]).any()
    np.testing.assert_array_equal(np.load(folder / names[1]), scores)

    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        with pytest.raises(OSError, match=r"the same command goes on.*00_"):
            kept.write(folder, [table(scores)], labels, "two", {"images": []})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert kept.holds(folder, "one")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_an_index_that_was_changed_holds_no_scores(tmp_path):
    folder = tmp_path / "kept"
    kept.write(folder, [], torch.ones(1, 1, dtype=torch.int8), "one", {})
    (folder / "index.json").write_text((folder / "index.json").read_text().replace("one", "two"))
    assert not kept.holds(folder, "two")


def test_a_disk_without_room_for_scores_to_be_kept_is_named_before_the_pass(tmp_path):
    assert "need 1000000000.0 GB in" in fails(kept.require_room, tmp_path / "kept", 10**18)


def test_the_plain_scorer_of_the_table_is_unchanged_by_own_ones():
    sets = scoring.scored_sets(EvaluateConfig(), {"baseline": torch.eye(3)}, {})
    features = ImageFeatures(torch.ones(1, 14, 3), torch.ones(1, 14, 4, 3))
    assert torch.equal(
        sets["baseline"].scorers["plain"](features, torch.eye(3)).total, mssa.score(features, torch.eye(3), ()).total
    )
