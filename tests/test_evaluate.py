"""Measuring a run: metrics in bounded memory, one pass that can be killed and shared, and what a result says of itself."""

import collections
import contextlib
import dataclasses
import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import draw_mini
import numpy as np
import pytest
import torch
from PIL import Image
from running import EVALUATE, ended, filled, rcnn, shared, started
from safetensors.torch import save_file
from torch.distributed.run import parse_args
from torch.nn import functional as F

from rcnn import checkpoint, datasets, evaluate, evaluation, provenance, rows, scoring
from rcnn.clip.image_tower import ImageFeatures
from rcnn.config import EvaluateConfig
from rcnn.results import measure, metrics, summary
from rcnn.results.result import Result
from rcnn.score import mssa, one_pass, views
from rcnn.score.processes import Group
from rcnn.score.score_file import Mean, Plane, ScoreFile

ROOT = Path(__file__).parents[1]
PICTURES, BATCH = 25, 2  # an odd number of batches, the last one incomplete
ENVIRONMENT = os.environ | {
    "OMP_NUM_THREADS": "1",  # the last bits depend on the number of threads
    "CUDA_VISIBLE_DEVICES": "",
    "PYTHONPATH": str(ROOT),
}
AGAIN = "is of these very settings; --again measures anew"
QUICK = ["evaluate.grids=[]", "evaluate.epochs=false"]
KILLED_AFTER_FIVE_NOTES = """
import os, signal, sys
from rcnn import cli, evaluate
from rcnn.score.score_file import ScoreFile
save = ScoreFile.save
def note_or_die(file):
    if len(file.noted.batches) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    save(file)
ScoreFile.save = note_or_die
cli.run(lambda: evaluate.main(sys.argv[1:]))
"""
ONE_IS_SLOW = """
import os, runpy, time
from rcnn.score import one_pass, score_file
rank, fill, save = int(os.environ["RANK"]), one_pass.fill, score_file.ScoreFile.save
def slow(*arguments):
    time.sleep(0.1 * rank)
    save(*arguments)
def tell(*arguments):
    clock = fill(*arguments)
    print(f"process {rank} scored {clock.images} images", flush=True)
    return clock
one_pass.fill, score_file.ScoreFile.save = tell, slow
runpy.run_module("rcnn.evaluate", run_name="__main__")
"""


def read(run):
    return Result.load(run)


def numbers(run):
    """A result without what differs between two runs of the same: the time it took, and the folder."""
    result = read(run).model_dump()
    del result["seconds"], result["config"]["output"]
    return result


def values(result):
    """{(row, scorer, task, metric): value}"""
    rows = result.rows.items()
    return {(r, v, t, n): m.value for r, vs in rows for v, ts in vs.items() for t, ms in ts.items() for n, m in ms.items()}


def table_of(stdout):
    """The lines of the rows."""
    return [line for line in stdout.splitlines() if line.startswith((" class", " 80", " desc", " closed", "*CNR"))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """With a small mini benchmark in it."""
    folder = tmp_path_factory.mktemp("evaluate")
    draw_mini.draw_benchmark(folder, PICTURES)
    return folder


@pytest.fixture(scope="module")
def learned(folder, features):
    """A run that nothing was measured with yet; to be copied."""
    settings = [
        f"output={folder}/learned", f"cache={features}", "device=cpu", "train.epochs=2", "train.batch_size=2048",
        "train.ablation=false", "dataset.kind=coco", f"dataset.images={folder}/images",
        f"dataset.annotations={folder}/instances.json", "evaluate.grids=[2]", "evaluate.bootstrap=5",
        f"evaluate.batch_size={BATCH}", "evaluate.workers=0",
    ]  # fmt: skip
    rcnn("train", "--config", "configs/mini.yaml", "--no-evaluate", *settings)
    return folder / "learned"


@pytest.fixture
def run(learned, tmp_path):
    return Path(shutil.copytree(learned, tmp_path / "run"))


@pytest.fixture(scope="module")
def measured(learned, folder):
    """(run, stdout) of an evaluation with nothing special; to be read only."""
    run = shutil.copytree(learned, folder / "measured")
    return run, rcnn("evaluate", run)[0]


@pytest.fixture(scope="module")
def uninterrupted(learned, folder):
    """What one process with one thread finds."""
    run = shutil.copytree(learned, folder / "uninterrupted")
    rcnn("evaluate", run)
    return numbers(run)


@pytest.fixture
def pictures(folder, tmp_path):
    """A copy of the pictures and their labels that a test may spoil; and the overrides that name it."""
    shutil.copytree(folder / "images", tmp_path / "images")
    path = tmp_path / "instances.json"
    content = json.loads((folder / "instances.json").read_text())

    def write(**changed):
        path.write_text(json.dumps(content | changed))
        return [f"dataset.images={tmp_path}/images", f"dataset.annotations={path}"]

    return SimpleNamespace(folder=tmp_path / "images", write=write, **content)


@pytest.fixture
def tables(monkeypatch):
    """{folder of the scores: {plane: (B, C) scores}} of the evaluations of this test, as they were when deleted."""
    found, delete = {}, ScoreFile.delete

    def keep(file):
        if file.done()[0]:
            found[file.folder] = {plane: file.plane(plane) for plane in file.planes}
        delete(file)

    monkeypatch.setattr(ScoreFile, "delete", keep)
    return found


def random_table(images=37, classes=11):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(images, classes)).astype(np.float32).round(1)  # with ties
    labels = torch.from_numpy(rng.choice([1, -1, 0], (images, classes), p=[0.2, 0.7, 0.1]).astype(np.int8))
    return scores, labels, torch.from_numpy(rng.random(images) < 0.8)


def whole(scores, labels, first, used, top_k, weights=None):
    """What `evaluate.measure` should find, from the whole table at once."""
    s, y = torch.from_numpy(scores)[used][:, first:], labels[used][:, first:]
    found = {"mAP": metrics.average_precision(s, y, weights).double().mean(-1)}
    for k in top_k:
        values = metrics.precision_recall_f1(*metrics.top_k_hits(s, y, k)[:2], k, weights)
        found |= zip((f"P@{k}", f"R@{k}", f"F1@{k}"), values.unbind(-1), strict=True)
    return {name: (100 * value).tolist() for name, value in found.items()}


PARTS = pytest.mark.parametrize(("columns", "images"), [(64, 4096), (1, 1), (4, 5), (11, 37), (10, 36)])


@PARTS
@pytest.mark.parametrize("first", [0, 4])
def test_metrics_are_those_of_the_whole_table_whatever_part_of_it_is_in_memory(monkeypatch, first, columns, images):
    monkeypatch.setattr(measure, "COLUMNS", columns)
    monkeypatch.setattr(measure, "IMAGES", images)
    scores, labels, used = random_table()
    found = measure.measure(scores, labels, first, used, (1, 3))
    assert found.values == pytest.approx(whole(scores, labels, first, used, (1, 3)), rel=1e-6)
    assert found.resampled == {}
    s, y = torch.from_numpy(scores)[used][:, first:], labels[used][:, first:]
    assert found.decided_by_ties == {k: int(metrics.top_k_hits(s, y, k)[2].sum()) for k in (1, 3)}
    torch.testing.assert_close(found.class_ap, metrics.average_precision(s, y))


@PARTS
def test_resampled_metrics_are_those_of_the_weighted_images(monkeypatch, columns, images):
    monkeypatch.setattr(measure, "COLUMNS", columns)
    monkeypatch.setattr(measure, "IMAGES", images)
    scores, labels, used = random_table()
    kept = int(used.sum())
    drawn = np.random.default_rng(1).multinomial(kept, np.full(kept, 1 / kept), 6)
    drawn[0] = 1  # each image once
    weights = torch.from_numpy(drawn).double()
    found = measure.measure(scores, labels, 4, used, (2,), weights)
    expected = whole(scores, labels, 4, used, (2,), weights)
    assert list(found.resampled) == list(found.values) == ["mAP", "P@2", "R@2", "F1@2"]
    for name, sampled in found.resampled.items():
        assert sampled.tolist() == pytest.approx(expected[name], rel=1e-5)
        assert sampled[0].item() == pytest.approx(found.values[name], rel=1e-5)


def test_without_k_only_average_precision_is_measured():
    scores, labels, used = random_table()
    assert list(measure.measure(scores, labels, 0, used).values) == ["mAP"]


def test_a_mean_of_two_tables_is_measured_like_the_table_of_their_means():
    scores, labels, used = random_table()
    other = scores[::-1].copy()
    expected = measure.measure((scores + other) / 2, labels, 4, used, (2,))
    assert measure.measure(Mean(scores, other), labels, 4, used, (2,)).values == expected.values


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Five files of noise."""
    folder, rng = tmp_path_factory.mktemp("noise"), np.random.default_rng(2)
    paths = [folder / f"{i}.png" for i in range(5)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


def random_sets(settings, rows, epochs, classes=7, seed=3):
    generator = torch.Generator().manual_seed(seed)
    random = [F.normalize(torch.randn(classes, 64, generator=generator), dim=1) for _ in (*rows, *epochs)]
    return scoring.scored_sets(
        settings, dict(zip(rows, random, strict=False)), dict(zip(epochs, random[len(rows) :], strict=True))
    )


@pytest.mark.parametrize("diagnostics", [True, False])
def test_every_table_is_what_scoring_its_set_alone_gives(tmp_path, tiny_clip, noise, diagnostics):
    settings = EvaluateConfig(grids=(2,), temperature=0.1, batch_size=2, workers=0, diagnostics=diagnostics)
    sets = random_sets(settings, ["baseline", "mean"], [0])
    file = filled(ScoreFile(tmp_path, sets, 5, 7, 2, "identity"), tiny_clip, noise, sets, settings)
    features = tiny_clip.encode_views(torch.stack([views.views(Image.open(path), 224, (2,)) for path in noise]))
    for name, scorers in (("baseline", ("plain", "mssa")), ("mean", ("plain", "mssa")), ("epoch/0", ("mssa",))):
        for scorer in scorers:
            grids = (2,) if scorer == "mssa" else ()
            expected = mssa.score(features, sets[name].class_embeddings, grids, 0.1)
            np.testing.assert_allclose(file.tables(name, scorer)["total"][:], expected.total.numpy(), rtol=0, atol=2e-6)
            for part in sets[name].parts(scorer):
                found = file.plane(Plane(name, scorer, part))
                np.testing.assert_allclose(found, getattr(expected, part).numpy(), rtol=0, atol=2e-6)
    assert len(file.planes) == (2 * 2 * 2 if diagnostics else 2 * 2) + 1
    assert len({file.plane(p).tobytes() for p in file.planes}) == len(file.planes)


def test_epochs_are_measured_as_the_method_is_and_the_parts_only_on_demand(tmp_path):
    def planes(grids):
        settings = EvaluateConfig(grids=grids, diagnostics=False)
        return ScoreFile(tmp_path, random_sets(settings, ["a"], [0]), 1, 1, 1, "identity").planes

    assert planes((2,)) == [Plane("a", "plain", "total"), Plane("a", "mssa", "total"), Plane("epoch/0", "mssa", "total")]
    assert planes(()) == [Plane("a", "plain", "total"), Plane("epoch/0", "plain", "total")]


def test_classes_whose_embeddings_coincide_up_to_rounding_tie_exactly(tmp_path, tiny_clip, noise):
    settings = EvaluateConfig(grids=(), batch_size=2, workers=0)
    z = F.normalize(torch.randn(5, 64, generator=torch.Generator().manual_seed(4)), dim=1)
    z[3] = F.normalize(z[1] + 1e-7, dim=0)
    sets = scoring.scored_sets(settings, {"baseline": z}, {})
    file = filled(ScoreFile(tmp_path, sets, 5, 5, 2, "identity"), tiny_clip, noise, sets, settings)
    assert one_pass.coinciding(z) == [0, 1, 2, 1, 4]
    total = file.tables("baseline", "plain")["total"]
    assert (total[:, 3] == total[:, 1]).all()
    assert len(np.unique(total[0])) == 4


class Colours:
    """Stands in for a Clip: the features of a view are its mean colour and its pixels."""

    device, image = torch.device("cpu"), SimpleNamespace(image_size=4)

    def encode_views(self, pixels):
        x = pixels.float() + 1
        return ImageFeatures(F.normalize(x.mean((2, 3)), dim=-1), F.normalize(x.flatten(2, 3), dim=-1))


class Together(Group):
    """One of several processes that begin at once; each finds what the others find."""

    def everyone(self, value):
        return [value] * self.world


class Pass:
    """A pass over `count` small pictures, two at a time, that counts how often each is decoded."""

    settings = EvaluateConfig(grids=(), temperature=0.1, batch_size=BATCH, workers=0, save_every=0, diagnostics=False)
    sets: ClassVar = scoring.scored_sets(settings, {"baseline": torch.eye(3)}, {})

    def __init__(self, folder, monkeypatch, count):
        self.paths, self.decoded = [folder / f"{i}.png" for i in range(count)], collections.Counter()
        for i, path in enumerate(self.paths):
            Image.new("RGB", (4, 4), (10 * i, 255 - 10 * i, 7 * i)).save(path)
        self.file = ScoreFile(folder / "scores", self.sets, count, 3, BATCH, "identity")
        self.dies_at, load = None, one_pass.batches

        def batches(paths, *arguments, **options):
            for i, batch in enumerate(load(paths, *arguments, **options)):
                if i == self.dies_at:
                    raise KeyboardInterrupt
                self.decoded.update(self.paths.index(path) for path in paths[i * BATCH : (i + 1) * BATCH])
                yield batch

        monkeypatch.setattr(one_pass, "batches", batches)

    def fill(self, world=1, dies_at=None):
        shares = [self.file.todo(Together(rank, world, rank)) for rank in range(world)]
        for todo in shares:
            self.dies_at = dies_at
            self.file.open(todo)
            with contextlib.nullcontext() if dies_at is None else pytest.raises(KeyboardInterrupt):
                one_pass.fill(self.file, todo, Colours(), self.paths, self.sets, self.settings)
        return shares

    def is_whole(self, but=()):
        self.file.close()
        read = [i for i in range(len(self.paths)) if i not in but]
        pixels = torch.stack([views.views(Image.open(self.paths[i]), 4) for i in read])
        expected = mssa.score(Colours().encode_views(pixels), torch.eye(3), (), 0.1).total
        return np.allclose(self.file.tables("baseline", "plain")["total"][read], expected.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("count", "world"), [(12, 2), (13, 2), (10, 2), (9, 3), (3, 3)])
def test_processes_score_every_image_once(monkeypatch, tmp_path, count, world):
    whole_pass = Pass(tmp_path, monkeypatch, count)
    shares = whole_pass.fill(world)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert whole_pass.decoded == dict.fromkeys(range(count), 1)
    assert whole_pass.is_whole()


def test_a_pass_that_is_interrupted_again_and_again_scores_every_image_once(monkeypatch, tmp_path):
    whole_pass = Pass(tmp_path, monkeypatch, 13)
    for dies_at in (2, 2, 2, None, None):
        whole_pass.fill(dies_at=dies_at)
    batches, broken = whole_pass.file.done()
    assert (set(batches), broken) == (set(range(7)), {})
    assert whole_pass.decoded == dict.fromkeys(range(13), 1)
    assert whole_pass.is_whole()


@pytest.mark.parametrize(("before", "after"), [(2, 3), (3, 1), (1, 2)])
def test_another_number_of_processes_shares_what_an_interrupted_pass_has_left(monkeypatch, tmp_path, before, after):
    whole_pass = Pass(tmp_path, monkeypatch, 25)
    whole_pass.fill(before, dies_at=2)
    done = len(whole_pass.file.done()[0])
    assert done == 2 * before
    shares = whole_pass.fill(after)
    assert sum(map(len, shares)) == 13 - done
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    assert whole_pass.decoded == dict.fromkeys(range(25), 1)
    assert whole_pass.is_whole()


def test_what_could_not_be_read_is_remembered_when_a_pass_goes_on(monkeypatch, tmp_path):
    whole_pass = Pass(tmp_path, monkeypatch, 13)
    for i in (2, 9, 12):
        whole_pass.paths[i].write_bytes(b"not a picture")
    whole_pass.fill(dies_at=2)
    assert set(whole_pass.file.done()[1]) == {2}
    whole_pass.fill()
    batches, broken = whole_pass.file.done()
    assert set(batches) == set(range(7))
    assert set(broken) == {2, 9, 12}
    assert all("cannot identify image" in why for why in broken.values())
    assert whole_pass.is_whole(but=broken)


def test_evaluate_ends_in_one_line_when_there_is_too_little_disk(monkeypatch, run):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 0))
    _, stderr = rcnn("evaluate", run, code=2)
    assert stderr.splitlines()[-1].startswith("error: the scores need 0.0 GB")
    assert not (run / "result.json").exists()


@contextlib.contextmanager
def unreadable(paths):
    """The files spoiled, with the size and the time they had."""
    before = {path: (path.read_bytes(), path.stat()) for path in paths}

    def write(path, data):
        path.write_bytes(data)
        os.utime(path, ns=(before[path][1].st_atime_ns, before[path][1].st_mtime_ns))

    try:
        for path, (data, _) in before.items():
            write(path, b"x" * len(data))
        yield
    finally:
        for path, (data, _) in before.items():
            write(path, data)


def test_an_evaluation_that_was_killed_goes_on_where_it_was_to_the_identical_result(run, folder, uninterrupted):
    assert ended(started(KILLED_AFTER_FIVE_NOTES, run, "evaluate.save_every=0")) == [-signal.SIGKILL]
    (note,) = (run / "scores").glob("*/*.json")
    assert list(json.loads(note.read_text())["batches"]) == ["0", "1", "2", "3", "4"]
    assert not (run / "result.json").exists()
    scores = np.memmap(note.with_suffix(".scores"), np.float32, "r+")
    scores = scores[: scores.size // PICTURES * PICTURES].reshape(PICTURES, -1)
    assert scores[: 6 * BATCH].all()
    scores[5 * BATCH :] = np.nan  # a batch that was not noted may be half written
    scores.flush()
    done = sorted((folder / "images").iterdir())[: 5 * BATCH]
    with unreadable(done):
        rcnn("evaluate", run)
    assert numbers(run) == uninterrupted
    assert not (run / "scores").exists()


def test_a_disk_that_fills_meanwhile_is_one_line_and_the_same_command_goes_on(monkeypatch, run, uninterrupted):
    write, written = os.write, []

    def full(file, data):
        if len(data) > 4 * 84 * BATCH:  # scores of a batch
            written.append(len(data))
        if len(written) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(file, data)

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        _, stderr = rcnn("evaluate", run, "evaluate.save_every=0", code=2)
    (line,) = (line for line in stderr.splitlines() if line.startswith("error: "))
    assert line.startswith(f"error: [Errno 28] No space left on device; the same command goes on: '{run}/scores/")
    assert "Traceback" not in stderr
    assert list((run / "scores").glob("*/*.json"))
    rcnn("evaluate", run)
    assert numbers(run) == uninterrupted


def test_scores_that_were_damaged_after_a_kill_are_made_again(run, uninterrupted):
    assert ended(started(KILLED_AFTER_FIVE_NOTES, run, "evaluate.save_every=0")) == [-signal.SIGKILL]
    (path,) = (run / "scores").glob("*/*.scores")
    with open(path, "r+b") as file:
        file.seek(4 * 84 * BATCH)  # in the second batch
        file.write(b"damage")
    rcnn("evaluate", run)
    assert numbers(run) == uninterrupted


@pytest.mark.parametrize("damage", [lambda data: b"5", lambda data: data.replace(b'"value": ', b'"value": 1', 1)])
def test_a_result_that_was_damaged_or_changed_does_not_count_as_done(run, measured, damage):
    data = (measured[0] / "result.json").read_bytes()
    (run / "result.json").write_bytes(damage(data))
    stdout, _ = rcnn("evaluate", run)
    assert AGAIN not in stdout
    assert values(read(run)) == values(read(measured[0]))


def test_two_processes_share_the_images_and_find_what_one_finds(run, uninterrupted, tmp_path):
    script = tmp_path / "one_is_slow.py"  # rcnn.evaluate; the first process has to wait for the second
    script.write_text(ONE_IS_SLOW)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--", script, run]
    stdout = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout
    assert numbers(run) == uninterrupted
    assert sorted(re.findall(r"process \d scored \d+ images", stdout)) == [
        "process 0 scored 13 images",
        "process 1 scored 12 images",
    ]
    assert stdout.count("result file:") == 1
    assert not (run / "scores").exists()


def test_two_machines_without_a_common_folder_find_what_one_process_finds(learned, folder, uninterrupted, tmp_path):
    runs = [shutil.copytree(learned, tmp_path / f"machine{i}" / "run") for i in range(2)]
    assert shared(EVALUATE, *([run, f"cache={run.parent}/cache"] for run in runs), machines=2) == [0, 0]
    result = numbers(runs[0])
    result["config"]["cache"] = uninterrupted["config"]["cache"]
    assert result == uninterrupted
    assert not (runs[1] / "result.json").exists()
    assert not any((run / "scores").exists() for run in runs)


def test_two_processes_that_were_killed_are_continued_by_one(run, uninterrupted):
    given = [run, "evaluate.save_every=0"]
    assert shared(KILLED_AFTER_FIVE_NOTES, given, given) == [-signal.SIGKILL] * 2
    notes = [json.loads(path.read_text())["batches"] for path in (run / "scores").glob("*/*.json")]
    assert len(notes) == 2
    assert 6 <= sum(map(len, notes)) < 13
    rcnn("evaluate", run)
    assert numbers(run) == uninterrupted


def test_machines_with_other_images_are_refused(monkeypatch, run):
    monkeypatch.setattr(Group, "everyone", lambda group, value: [value, "another"] if isinstance(value, str) else [value])
    _, stderr = rcnn("evaluate", run, code=2)
    assert stderr.endswith(
        "error: the machines differ in their copies of the run, in the images that they find, or in the labels\n"
    )


def test_torchrun_understands_the_command_that_the_help_tells():
    torchrun, *words = re.search(r"`(torchrun [^`]+)`", evaluate.__doc__)[1].split()
    arguments = parse_args(words)
    assert torchrun == "torchrun"
    assert (arguments.module, arguments.training_script) == (True, "rcnn.evaluate")
    assert arguments.training_script_args == ["RUN"]


def test_the_scores_are_deleted_after_success(measured):
    run, _ = measured
    assert (run / "result.json").exists()
    assert not (run / "scores").exists()


def test_the_same_command_does_not_measure_again(monkeypatch, measured):
    run, stdout = measured
    before = (run / "result.json").read_bytes()
    monkeypatch.setattr(one_pass, "fill", None)
    again, _ = rcnn("evaluate", run)
    assert AGAIN in again
    assert AGAIN not in stdout
    assert table_of(again) == table_of(stdout)
    assert (run / "result.json").read_bytes() == before


def test_another_option_or_label_is_measured_anew_and_nothing_else(run, pictures):
    def again(*overrides):
        return AGAIN in rcnn("evaluate", run, *where, *QUICK, *overrides)[0]

    where = pictures.write()
    assert not again()
    assert again()
    assert not again("evaluate.top_k=[1]")
    assert {n for n in read(run).rows["baseline"]["plain"]["gzsl"] if n != "mAP"} == {"P@1", "R@1", "F1@1"}
    assert again("evaluate.top_k=[1]")
    before = read(run)
    where = pictures.write(annotations=pictures.annotations[1:])
    assert not again("evaluate.top_k=[1]")
    after = read(run)
    assert after.made_from != before.made_from
    assert after.images.tasks != before.images.tasks


def test_again_measures_anew_to_the_same_numbers(run, measured, tables):
    shutil.copy(measured[0] / "result.json", run)
    written = (run / "result.json").stat().st_mtime_ns
    rcnn("evaluate", run)
    assert (run / "result.json").stat().st_mtime_ns == written
    rcnn("evaluate", run, "--again")
    assert len(tables) == 1  # the images were scored
    assert (run / "result.json").stat().st_mtime_ns > written
    assert values(read(run)) == values(read(measured[0]))


@contextlib.contextmanager
def interrupted_after_its_first_note(monkeypatch):
    """An evaluation in here ends as by Ctrl-C once it has noted what is done; yields the folders of the scores."""
    folders, save = [], ScoreFile.save

    def stop(file, *arguments):
        save(file, *arguments)
        folders.append(file.folder)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ScoreFile, "save", stop)
        yield folders


def test_again_forgets_the_scores_and_the_result_so_that_a_plain_call_continues(monkeypatch, run, measured):
    shutil.copy(measured[0] / "result.json", run)
    with interrupted_after_its_first_note(monkeypatch):
        rcnn("evaluate", run, "--again", "evaluate.save_every=0", code=130)
    assert not (run / "result.json").exists()
    stdout, _ = rcnn("evaluate", run)
    assert AGAIN not in stdout
    assert values(read(run)) == values(read(measured[0]))


def test_scores_of_other_code_are_not_continued(monkeypatch, run):
    known = provenance.sources
    with interrupted_after_its_first_note(monkeypatch) as folders:
        rcnn("evaluate", run, "evaluate.save_every=0", code=130)
        monkeypatch.setattr(provenance, "sources", lambda parts: known(parts) | {"score/mssa.py": "0" * 64})
        rcnn("evaluate", run, "evaluate.save_every=0", code=130)
    assert len(set(folders)) == 2


def test_a_result_of_other_code_is_shown_with_the_names_of_the_changed_files(run, measured):
    result = read(measured[0])
    result.model_copy(update={"sources": result.sources | {"score/mssa.py": "0" * 64}}).save(run / "result.json")
    stdout, _ = rcnn("evaluate", run)
    assert AGAIN in stdout
    assert "WARNING: the code has changed since: score/mssa.py; --again measures anew" in stdout
    assert "WARNING" not in rcnn("evaluate", measured[0])[0]


def test_what_a_killed_evaluation_did_in_other_batches_is_not_taken_over(monkeypatch, run, measured):
    with interrupted_after_its_first_note(monkeypatch):
        rcnn("evaluate", run, "evaluate.save_every=0", code=130)
    assert list(run.glob("scores/*/*.json"))
    rcnn("evaluate", run, f"evaluate.batch_size={BATCH + 3}")
    assert values(read(run)) == pytest.approx(values(read(measured[0])), rel=1e-6)


def test_a_result_that_is_cut_or_of_other_settings_is_none(measured, tmp_path):
    path, text = tmp_path / "result.json", (measured[0] / "result.json").read_text()
    made_from = read(measured[0]).made_from
    assert evaluation.finished(path, made_from) is None
    path.write_text(text)
    assert evaluation.finished(path, made_from) == read(measured[0])
    assert evaluation.finished(path, "other") is None
    path.write_text(text[:-100])
    assert evaluation.finished(path, made_from) is None


def test_the_last_epoch_is_measured_to_be_what_the_method_is(measured):
    result = read(measured[0])
    assert [point["epoch"] for point in result.epochs] == [0, 1]
    first, last = result.epochs
    for task, metrics_of in result.rows["cnr_pbl"]["mssa"].items():
        values = {name: metric.value for name, metric in metrics_of.items()}
        assert last[task] == pytest.approx(values, rel=1e-6)
        assert first[task] != pytest.approx(values, rel=1e-6)


def test_the_best_epoch_on_the_test_images_is_told_beside_the_result(measured):
    run, stdout = measured
    result = read(run)
    for task in ("zsl", "gzsl"):
        best = result.best_on_test[task]
        assert best["F1@3"] == max(point[task]["F1@3"] for point in result.epochs)
        assert best == {"epoch": best["epoch"], **result.epochs[int(best["epoch"])][task]}
        assert f" {task.upper()}, epoch {best['epoch']:.0f}: mAP {best['mAP']:.1f}, F1@3 {best['F1@3']:.1f}, F1@5" in stdout


@pytest.mark.parametrize(
    ("top_k", "zsl", "gzsl"),
    [((5, 3), 4, 0), ((5,), 2, 7), ((), 7, 2), ((9,), 7, 2)],
)
def test_the_best_epoch_has_the_best_f1_at_the_smallest_k_in_each_task(top_k, zsl, gzsl):
    points = [
        {"epoch": 0, "zsl": {"mAP": 1, "F1@3": 1, "F1@5": 1}, "gzsl": {"mAP": 1, "F1@3": 9, "F1@5": 1}},
        {"epoch": 2, "zsl": {"mAP": 2, "F1@3": 2, "F1@5": 9}, "gzsl": {"mAP": 9, "F1@3": 2, "F1@5": 2}},
        {"epoch": 4, "zsl": {"mAP": 3, "F1@3": 9, "F1@5": 3}, "gzsl": {"mAP": 3, "F1@3": 3, "F1@5": 3}},
        {"epoch": 7, "zsl": {"mAP": 9, "F1@3": 4, "F1@5": 4}, "gzsl": {"mAP": 4, "F1@3": 4, "F1@5": 9}},
    ]
    best = measure.best_on_test(points, top_k)
    assert {task: entry["epoch"] for task, entry in best.items()} == {"zsl": zsl, "gzsl": gzsl}
    assert best["zsl"] == next({"epoch": p["epoch"], **p["zsl"]} for p in points if p["epoch"] == zsl)


def test_without_epochs_there_is_no_curve_and_no_best_epoch(run, measured):
    stdout, _ = rcnn("evaluate", run, "evaluate.epochs=false")
    result, full = read(run), read(measured[0])
    assert result.epochs == []
    assert result.best_on_test == {}
    assert "best epoch" in measured[1]
    assert "best epoch" not in stdout
    assert values(result) == pytest.approx(values(full), rel=1e-6)


def test_missing_and_unreadable_pictures_can_be_left_out_as_if_they_had_never_been(run, pictures, learned, tmp_path):
    missing, cut = (pictures.folder / f"{i:05}.jpg" for i in (3, 5))
    missing.unlink()
    cut.write_bytes(cut.read_bytes()[:200])
    stdout, _ = rcnn("evaluate", run, *pictures.write(), "dataset.allow_missing=true")
    result = read(run)
    counted = result.images.model_dump(exclude={"tasks", "unverified"})
    assert counted == {"used": PICTURES - 2, "missing": 1, "unreadable": 1, "left_out_without_labels": 0}
    assert result.images.tasks["gzsl"].images == PICTURES - 2
    assert "1 missing and 1 unreadable images were left out." in stdout
    never = shutil.copytree(learned, tmp_path / "never")
    others = [image for image in pictures.images if image["file_name"] not in (missing.name, cut.name)]
    ids = {image["id"] for image in others}
    where = pictures.write(images=others, annotations=[a for a in pictures.annotations if a["image_id"] in ids])
    stdout, _ = rcnn("evaluate", never, *where)
    assert "left out" not in stdout
    assert values(result) == pytest.approx(values(read(never)), rel=1e-6)
    assert result.images.tasks == read(never).images.tasks


def test_pictures_that_show_none_of_the_classes_are_left_out_or_kept_on_demand(run, pictures):
    where = [*pictures.write(annotations=[a for a in pictures.annotations if a["image_id"] > 4]), *QUICK]
    stdout, _ = rcnn("evaluate", run, *where)
    without = read(run)
    assert (without.images.used, without.images.left_out_without_labels) == (PICTURES - 4, 4)
    assert "were kept" not in stdout
    stdout, _ = rcnn("evaluate", run, *where, "dataset.keep_unlabelled=true")
    kept = read(run)
    assert (kept.images.used, kept.images.left_out_without_labels) == (PICTURES, 0)
    assert {task.images for task in kept.images.tasks.values()} == {PICTURES}
    assert "images without a positive label were kept" in stdout
    ratio = values(kept)["baseline", "plain", "gzsl", "P@3"] / values(without)["baseline", "plain", "gzsl", "P@3"]
    assert ratio == pytest.approx((PICTURES - 4) / PICTURES)  # as many hits in more images


def test_another_number_of_images_than_expected_makes_a_result_incomparable(run, measured):
    zsl, gzsl = (task.images for task in read(measured[0]).images.tasks.values())
    said = f"GZSL: {gzsl} images have a positive label, 1,234 were expected"
    stdout, _ = rcnn("evaluate", run, f"dataset.expected_images={{zsl: {zsl}, gzsl: 1234}}", *QUICK)
    assert f"NOT COMPARABLE with the paper: {said}." in stdout
    assert said in read(run).doubts
    assert said not in read(measured[0]).doubts
    assert not read(run).comparable


def test_a_result_on_the_papers_classes_and_test_set_is_comparable(monkeypatch, run, measured):
    result = read(measured[0])
    assert "the class list is not the paper's" in result.doubts
    assert any("the paper's own rows imply 1.208" in doubt for doubt in result.doubts)
    per_image = {task: found.positives_per_image for task, found in result.images.tasks.items()}
    paper = dataclasses.replace(
        datasets.DATASETS["coco"], class_names_sha256=result.class_fingerprint, positives_per_image=per_image
    )
    monkeypatch.setitem(datasets.DATASETS, "coco", paper)
    assert any(doubt.startswith("the backbone is None (None), the paper's is") for doubt in result.doubts)
    monkeypatch.setattr(summary, "BACKBONE", (None, None))
    rcnn("evaluate", run, *QUICK)
    assert (read(run).comparable, read(run).doubts) == (True, [])


def test_classes_that_cannot_be_told_apart_are_named_with_the_images_that_a_tie_decides(run, folder):
    rows, metadata = checkpoint.read_run(run)
    names = metadata["class_names"]
    z = rows["baseline"].clone()
    z[1:] = z[1]  # all but the first class coincide
    save_file({"z": z}, folder / "same.safetensors", {"class_names": json.dumps(names)})
    stdout, _ = rcnn("evaluate", run, *QUICK, f"rows.same={folder}/same.safetensors")
    result = read(run)
    assert result.coinciding["same"] == [names[1:]]
    assert "baseline" not in result.coinciding
    assert result.decided_by_ties["same"]["plain"]["gzsl"]["3"] == PICTURES
    assert f"same: 83 of 84 classes share their class embedding: {names[1]}, {names[2]}" in stdout
    assert f"Ties decide the hits among the top 3 in up to {PICTURES} of {PICTURES} images (same, GZSL)" in stdout


def test_class_embeddings_from_elsewhere_are_measured_like_any_row(run, measured, folder):
    rows, metadata = checkpoint.read_run(run)
    names = json.dumps(metadata["class_names"])
    save_file({"z": rows["mean"]}, folder / "mine.safetensors", {"class_names": names})
    cupl = {name: [f"a photo of a {name}."] for name in metadata["class_names"]}
    (folder / "cupl.json").write_text(json.dumps(cupl))
    pairs = [f"rows.mine={folder}/mine.safetensors", f"rows.cupl={folder}/cupl.json", f"rows.other={learned_file(run)}"]
    stdout, _ = rcnn("evaluate", run, *pairs)
    found = values(read(run))
    for mine, known in (("mine", "mean"), ("cupl", "baseline"), ("other", "cnr_pbl")):
        for (row, *rest), value in found.items():
            if row == known:
                assert found[mine, *rest] == pytest.approx(value, rel=1e-5)
    assert {key: value for key, value in found.items() if key[0] in metadata["config"]} == {}
    assert " mine + MSSA" in stdout
    assert values(read(measured[0])).items() <= {k: pytest.approx(v, rel=1e-9) for k, v in found.items()}.items()


def learned_file(run):
    return run / checkpoint.EMBEDDINGS


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("rows.mine=nowhere.json", "rows.mine: there is no file"),
        ("rows.mean=pyproject.toml", "rows.mean: expected a name of your own"),
        ("train.centring=0.9", "train.centring: this was settled when the run was learned"),
        ("output=elsewhere", "output: this was settled when the run was learned"),
        ("evaluate.grid=[]", "unknown configuration key evaluate.grid; the nearest is evaluate.grids"),
    ],
)
def test_evaluate_explains_what_it_cannot_take(run, pair, said):
    _, stderr = rcnn("evaluate", run, pair, code=2)
    assert f"error: {said}" in stderr


def test_evaluate_takes_every_pair_that_agrees_with_what_the_run_was_learned_with(run):
    rcnn("evaluate", run, *QUICK, "train.epochs=2", f"output={run}", "train.ablation=false")


def test_average_precision_of_every_class_is_stored(measured):
    result = read(measured[0])
    for row, scorers in result.class_ap.items():
        for scorer, tasks in scorers.items():
            for task, ap in tasks.items():
                assert len(ap) == (84 if task == "gzsl" else 84 - result.seen)
                assert sum(ap) / len(ap) == pytest.approx(result.rows[row][scorer][task]["mAP"].value, abs=1e-3)


def test_bfloat16_scores_are_near_and_never_mixed_with_those_of_float32(monkeypatch, run, tables):
    rcnn("evaluate", run, *QUICK, "evaluate.precision=float32")
    stdout, _ = rcnn("evaluate", run, *QUICK, "evaluate.precision=bf16")
    assert AGAIN not in stdout
    assert len(tables) == 2  # folders of scores: one precision does not go on in the scores of another
    exact, near = (np.stack(list(by_plane.values())) for by_plane in tables.values())
    assert 0 < np.abs(near - exact).max() < 2e-2
    assert read(run).config["evaluate"]["precision"] == "bf16"
    monkeypatch.setattr(one_pass, "fill", None)
    assert AGAIN in rcnn("evaluate", run, *QUICK, "evaluate.precision=bf16")[0]


def test_a_result_is_of_the_labels_in_the_annotation_file(measured, run, tables):
    rcnn("evaluate", run, *QUICK)
    (scores,) = tables.values()
    labels = torch.from_numpy(labels_of(run, checkpoint.read_run(run)[1]["class_names"]))
    parts = [torch.from_numpy(scores[Plane("mean", "plain", part)]) for part in ("global_part", "local_part")]
    ap = metrics.average_precision(sum(parts) / 2, labels)
    assert (labels == 1).any(1).all()
    assert read(measured[0]).rows["mean"]["plain"]["gzsl"]["mAP"].value == pytest.approx(100 * ap.mean().item())


def labels_of(run, names):
    content = json.loads(Path(read(run).config["dataset"]["annotations"]).read_text())
    name = {category["id"]: category["name"] for category in content["categories"]}
    labels = np.full((len(content["images"]), len(names)), -1, np.int8)
    for annotation in content["annotations"]:
        labels[annotation["image_id"] - 1, names.index(name[annotation["category_id"]])] = 1
    return labels


def test_a_scorer_whose_total_is_no_mean_of_parts_is_measured_by_its_total(monkeypatch, run, measured):
    def negated(features, z, settings):
        scores = mssa.score(features, z, (), settings.temperature)
        return scores._replace(total=-scores.total)

    monkeypatch.setitem(rows.SCORERS, "plain", rows.Scorer("", negated, has_parts=False))
    rcnn("evaluate", run, *QUICK)
    assert "plain" not in read(run).diagnostics.get("mean", {})
    found, known = (values(read(folder))["mean", "plain", "gzsl", "mAP"] for folder in (run, measured[0]))
    assert found < known


def test_a_run_that_other_code_has_learned_is_named_as_such(monkeypatch, run):
    known = provenance.sources
    monkeypatch.setattr(provenance, "sources", lambda parts: known(parts) | {"learn/losses.py": "0" * 64})
    stdout, _ = rcnn("evaluate", run, *QUICK)
    assert "WARNING: the code has changed since this run was learned: learn/losses.py" in stdout


def test_other_last_blocks_are_rows_of_the_result_and_leave_the_other_rows_as_they_are(run, measured):
    stdout, _ = rcnn("evaluate", run, "evaluate.last_blocks=[vv,qk+residual]")
    result, known = read(run), values(read(measured[0]))
    found = values(result)
    others = {"mssa/vv", "mssa/qk+residual"}
    assert {key: value for key, value in found.items() if key[1] not in others} == known
    assert {row for row, scorer, *_ in found if scorer in others} == {"baseline", "cnr_pbl", "closed_form"}
    assert list(result.rows["baseline"])[-1] == "mssa"
    assert set(result.diagnostics["baseline"]) == {"plain", "mssa"}
    assert " class name + MSSA, last block qk+residual " in stdout


@pytest.fixture(scope="module")
def of_two_seeds(learned, folder):
    """Two runs that differ in the seed alone, and what each is found to be when it is measured by itself."""
    other = folder / "other_seed"
    settings = ["output=" + str(other), "seed=1"]
    metadata = checkpoint.read_run(learned)[1]["config"]
    (folder / "other_seed.yaml").write_text(json.dumps(metadata))
    rcnn("train", "--config", folder / "other_seed.yaml", "--no-evaluate", *settings)
    alone = []
    for run in (learned, other):
        copy = shutil.copytree(run, folder / f"alone_{run.name}")
        rcnn("evaluate", copy)
        alone.append(numbers(copy))
    return (learned, other), alone


def test_several_runs_are_measured_in_one_pass_to_what_each_is_by_itself(monkeypatch, of_two_seeds, tmp_path, tables):
    runs = [shutil.copytree(run, tmp_path / run.name) for run in of_two_seeds[0]]
    looked_at, over = [], one_pass.over
    monkeypatch.setattr(one_pass, "over", lambda file, paths, *rest: looked_at.append(len(paths)) or over(file, paths, *rest))
    stdout, _ = rcnn("evaluate", *runs)
    assert len(looked_at) == 1
    assert [numbers(run) for run in runs] == of_two_seeds[1]
    assert all(f"result file: {run / 'result.json'}" in stdout for run in runs)
    (table,) = tables.values()
    shared = [plane for plane in table if plane.name == "baseline"]
    assert shared
    assert not [plane for plane in table if plane.name == "1/baseline"]  # which both have
    assert [plane for plane in table if plane.name == "1/cnr_pbl"]
    stdout, _ = rcnn("evaluate", *reversed(runs))
    assert stdout.count(AGAIN) == 2
    assert len(looked_at) == 1


def test_of_several_runs_only_those_without_a_result_are_measured(of_two_seeds, tmp_path):
    runs = [shutil.copytree(run, tmp_path / run.name) for run in of_two_seeds[0]]
    rcnn("evaluate", runs[0])
    stdout, _ = rcnn("evaluate", *runs)
    assert stdout.count(AGAIN) == stdout.count("result file: ") == 1
    assert [numbers(run) for run in runs] == of_two_seeds[1]


def test_runs_that_one_pass_cannot_measure_are_refused_with_what_differs(of_two_seeds, tmp_path):
    runs = [shutil.copytree(run, tmp_path / run.name) for run in of_two_seeds[0]]
    tensors, metadata = checkpoint.read(runs[1] / checkpoint.EMBEDDINGS)
    metadata["config"]["evaluate"]["temperature"] = 0.5
    checkpoint.write(runs[1] / checkpoint.EMBEDDINGS, tensors, **metadata)
    _, stderr = rcnn("evaluate", *runs, code=2)
    assert stderr.endswith("differ in evaluate.temperature; one pass cannot measure both\n")
    _, stderr = rcnn("evaluate", runs[0], runs[0], code=2)
    assert stderr == "error: a run is named twice\n"
    rcnn("evaluate", *runs, "evaluate.temperature=0.5", "evaluate.epochs=false")
    assert read(runs[0]).config["evaluate"]["temperature"] == 0.5


@pytest.mark.parametrize("unknown", ["always", "with_negatives"])
def test_where_labels_are_unknown_few_scores_are_kept_and_the_metrics_are_those_of_all(monkeypatch, run, tables, unknown):
    read_images, before = evaluate.read_images, []

    def partly_known(*arguments):
        images = read_images(*arguments)
        images = dataclasses.replace(images, paths=images.paths[:9], labels=images.labels[:9])
        hidden = torch.rand(images.labels.shape, generator=torch.Generator().manual_seed(0)) < 0.8
        return dataclasses.replace(images, labels=images.labels.masked_fill(hidden & (images.labels == -1), 0))

    monkeypatch.setattr(evaluate, "read_images", partly_known)
    for keep in ("false", "true"):
        rcnn("evaluate", run, f"evaluate.keep_scores={keep}", "evaluate.tagclip=true", f"evaluate.unknown={unknown}")
        found = numbers(run)
        del found["config"]["evaluate"]["keep_scores"]
        before.append(found)
    assert before[0] == before[1]
    assert before[0]["classes"]["gzsl"]["positive_or_unknown"] > 0
    few, of_tags, *_ = tables.values()
    assert {isinstance(table, np.ndarray) for table in of_tags.values()} == {False}
    whole = {(plane.name, plane.scorer) for plane, table in few.items() if isinstance(table, np.ndarray)}
    assert whole == {("baseline", "mssa"), ("cnr_pbl", "mssa")}  # of which standardised scores are measured
