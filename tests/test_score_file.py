"""The file of scores: reserved on the disk, checked when it is continued, removed when it is abandoned."""

import collections
import errno
import json
import os
import shutil
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from rcnn.config import EvaluateConfig
from rcnn.files import sealed, write_json
from rcnn.results import measure
from rcnn.score.score_file import PARTS, ScoredSet, ScoreFile, SparseScores

LIMITED = """
import resource, sys
from pathlib import Path
import torch
from rcnn import cli
from rcnn.score.score_file import ScoredSet, ScoreFile
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a disk that is full: files of more bytes cannot be written
sets = {"baseline": ScoredSet(torch.zeros(3, 2), {"plain": None})}
file = ScoreFile(Path(sys.argv[1]), sets, 1000, 3, 2, "identity")
cli.run(lambda: file.open(file.todo()) and 0)
"""


def small_file(folder, images=4, classes=3, rows=("baseline",), **options):
    sets = {row: ScoredSet(torch.zeros(classes, 2), {"plain": None}) for row in rows}
    return ScoreFile(folder, sets, images, classes, 2, "identity", **options)


def opened(folder, *arguments, **options):
    file = small_file(folder, *arguments, **options)
    file.open(file.todo())
    return file


def full(value, images=2):
    return np.full((1, images, 3), value, np.float32)


def whole(folder):
    """A small file with its two batches, and its raw file."""
    file = opened(folder)
    for batch in file.batches:
        file.put(batch, full(1 + batch), {})
    file.save()
    (path,) = file.folder.glob("*.scores")
    return file, path


def test_a_note_that_was_damaged_is_no_note_and_its_scores_are_made_again(tmp_path):
    file, path = whole(tmp_path)
    note = path.with_suffix(".json").read_text()
    assert small_file(tmp_path).todo() == []
    for text in ("{}", "5", "[" * 5000, note[:-9], note.replace('"0": [', '"1": ['), note.replace("0", "8")):
        path.with_suffix(".json").write_text(text)
        assert file.done() == ({}, {})
        assert small_file(tmp_path).todo() == [0, 1]


def test_a_note_about_batches_that_there_are_not_is_left_aside_for_them(tmp_path):
    file, path = whole(tmp_path)
    note = {"batches": {0: [0, 7], 77: [0, 7], -1: [0, 7]}, "broken": {2: "cut", 99: "cut"}}
    write_json(path.with_suffix(".json"), sealed(json.loads(json.dumps(note))))
    records, broken = file.done()
    assert (set(records), broken) == ({0}, {2: "cut"})


def test_too_little_disk_is_said_in_gigabytes_before_anything_is_written(monkeypatch, tmp_path):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(5e9, 4e9, 1e9))
    file = small_file(tmp_path, 100_000, 1000, [str(i) for i in range(10)])
    assert file.bytes == 4e9
    with pytest.raises(ValueError, match=r"the scores need 4\.0 GB in .*, 1\.0 GB are free") as error:
        file.open(file.todo())
    assert "evaluate.epochs=false" in str(error.value)
    assert not list(file.folder.iterdir())


def test_scores_that_are_there_need_no_room_again(monkeypatch, tmp_path):
    whole(tmp_path)
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 0))
    file = opened(tmp_path)
    file.close()
    assert (file.tables("baseline", "plain")["total"] == [[1] * 3, [1] * 3, [2] * 3, [2] * 3]).all()


def test_a_disk_that_is_full_ends_in_one_line_before_the_first_image(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: [Errno 27] the scores need 0.0 GB, File too large: ")
    assert not list(tmp_path.glob("*/*.scores"))


def test_all_blocks_of_the_file_are_taken_from_the_disk_before_the_first_score(tmp_path):
    file = opened(tmp_path, 10_000, 100)
    (path,) = file.folder.glob("*.scores")
    assert 512 * path.stat().st_blocks >= file.bytes


def test_a_disk_that_another_program_fills_is_an_error_and_not_a_signal(monkeypatch, tmp_path):
    """Where a file system cannot reserve blocks, writing is what fails."""

    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    file = opened(tmp_path)
    (path,) = file.folder.glob("*.scores")
    assert path.stat().st_size == file.bytes

    def is_full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", is_full)
        with pytest.raises(OSError, match="No space left on device"):
            file.put(0, full(1), {})
    file.put(0, full(1), {})
    file.save()
    assert small_file(tmp_path).todo() == [1]


def test_damaged_scores_are_no_scores(tmp_path):
    _, path = whole(tmp_path)
    with open(path, "r+b") as raw:
        raw.seek(4 * 2 * 3 + 1)  # in the second batch
        raw.write(b"!")
    assert small_file(tmp_path).todo() == [1]


@pytest.mark.parametrize(("size", "missing"), [(4, 2), (30, 1), (0, 2)])
def test_scores_that_something_else_cut_are_known(tmp_path, size, missing):
    file, path = whole(tmp_path)
    os.truncate(path, size)
    with pytest.raises(ValueError, match=f"{missing} of 2 batches of scores in .* are not there, or not as they were written"):
        file.close()


def test_scores_that_are_cut_while_they_are_read_are_an_error_and_not_a_signal(tmp_path):
    file, path = whole(tmp_path)
    file.close()
    os.truncate(path, 30)
    with pytest.raises(ValueError, match="is shorter than it was; something else changed it; run the same command again"):
        file.tables("baseline", "plain")


def test_the_last_batch_may_be_smaller(tmp_path):
    file = opened(tmp_path, images=3)
    scores = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    assert [file.images(batch) for batch in file.batches] == [range(2), range(2, 3)]
    file.put(1, scores[:, 2:], {})
    file.put(0, scores[:, :2], {})
    file.save()
    file.close()
    assert (file.tables("baseline", "plain")["total"] == scores[0]).all()


def test_what_another_process_had_taken_of_the_disk_and_not_written_is_freed_when_it_is_gone(tmp_path):
    file = opened(tmp_path, images=1000)
    file.put(0, full(5), {})
    file.save()
    (path,) = file.folder.glob("*.scores")
    todo = small_file(tmp_path, images=1000).todo()
    assert todo == list(range(1, 500))
    other = opened(tmp_path, images=1000)
    assert path.stat().st_size == file.bytes  # whose process lives
    other._close()
    file._close()  # as at the end of its process
    opened(tmp_path, images=1000)
    assert path.stat().st_size == 2 * 3 * 4
    assert small_file(tmp_path, images=1000).todo() == todo


def test_forgotten_batches_are_scored_again_and_the_others_are_not(tmp_path):
    file = opened(tmp_path)
    file.put(0, full(1), {})
    file.put(1, full(1), {2: "cut"})
    file.save()
    assert file.done()[1] == {2: "cut"}
    file.forget({1})
    assert file.done()[1] == {}
    assert small_file(tmp_path).todo() == [1]


def test_a_file_is_closed_when_it_is_deleted(tmp_path):
    file = opened(tmp_path)
    file.delete()
    assert not [name for name in os.listdir("/proc/self/fd") if ".scores" in os.path.realpath(f"/proc/self/fd/{name}")]


def test_scores_of_other_settings_are_removed_when_old_and_of_no_living_process(tmp_path, capsys):
    def other(name, age):
        file = opened(tmp_path, rows=(name,))
        (path,) = file.folder.glob("*.scores")
        os.utime(path, (time.time() - age, time.time() - age))
        return file

    day = 24 * 60 * 60
    young, living, abandoned = other("young", day - 99), other("living", day + 99), other("abandoned", day + 99)
    abandoned._close()  # as at the end of its process
    opened(tmp_path)
    assert [file.folder.exists() for file in (young, living, abandoned)] == [True, True, False]
    assert capsys.readouterr().out == f"removed unfinished scores of other settings, 0.00 GB: {abandoned.folder}\n"


def test_a_pipe_among_the_scores_is_left_alone(tmp_path):
    file, other = small_file(tmp_path), small_file(tmp_path, rows=("other",))
    for folder in (file.folder, other.folder):
        folder.mkdir(parents=True)
        os.mkfifo(folder / "a.scores")
        (folder / "a.json").write_text("{}")
    os.utime(other.folder / "a.scores", (0, 0))
    file.open(file.todo())
    assert other.folder.exists()


def random_labels(images=90, classes=7, known=0.3):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.choice([1, -1, 0], (images, classes), p=[known / 2, known / 2, 1 - known]).astype(np.int8))


@pytest.mark.parametrize("part", ["total", "parts"])
@pytest.mark.parametrize("unknown", ["always", "with_negatives"])
@pytest.mark.parametrize("settings", [EvaluateConfig(), EvaluateConfig(classes_without_positives="excluded")])
def test_scores_at_known_labels_alone_give_the_metrics_of_all_scores(tmp_path, part, settings, unknown):
    labels, rng = random_labels(), np.random.default_rng(1)
    labels[:, 5] = labels[:, 5].abs()  # no absent one
    labels[:, 6] = 0
    scores = rng.integers(-8, 9, (90, 7)).astype(np.float32) / 8  # with ties, and exact means of parts
    classes = SimpleNamespace(tasks={"zsl": 4, "gzsl": 0})
    as_absent = {}
    if unknown == "with_negatives":
        of = {task: measure.task_images(labels, first) for task, first in classes.tasks.items()}
        as_absent = {task: measure.positive_or_unknown(labels, classes.tasks[task], used) for task, used in of.items()}
        assert as_absent["zsl"][5]
    known = measure.known_labels(labels, classes.tasks, (2, 5), as_absent)
    assert len(known.columns) == (labels != 0).sum() + (len(as_absent) > 0) * (labels[:, 5] == 0).sum()
    in_parts = ("plain",) if part == "parts" else ()
    sets = {row: ScoredSet(torch.zeros(7, 2), {"plain": None}, in_parts) for row in ("sparse", "whole")}
    file = ScoreFile(tmp_path, sets, 90, 7, 2, "identity", known, {("whole", "plain")})
    kept = {"total": scores, "global_part": scores - 0.5, "local_part": scores + 0.5}
    file.open(file.todo())
    for batch in file.batches:
        images = file.images(batch)
        file.put(batch, np.stack([kept[p.part][images.start : images.stop] for p in file.planes]), {})
    file.save()
    file.close()
    sparse, table = (file.tables(row, "plain") for row in sets)
    assert isinstance(sparse["total"], SparseScores)
    np.testing.assert_array_equal(table["total"][:], scores)
    assert set(sparse) == set(table) == (set(kept) if in_parts else {"total"})
    for task, first in classes.tasks.items():
        used = measure.task_images(labels, first)
        weights = measure.image_weights(int(used.sum()), 20, [0])
        given = labels, first, used, (2, 5), weights, settings, as_absent.get(task)
        found, expected = measure.measure(sparse["total"], *given), measure.measure(scores, *given)
        assert found.values == expected.values
        assert found.decided_by_ties == expected.decided_by_ties
        np.testing.assert_array_equal(found.class_ap, expected.class_ap)
        for name, values in expected.resampled.items():
            np.testing.assert_array_equal(found.resampled[name], values)
        for name in in_parts and PARTS:
            assert (
                measure.measure(sparse[name], labels, first, used).values
                == measure.measure(kept[name], labels, first, used).values
            )


def test_the_files_of_sparse_labels_grow_with_the_labels_and_not_with_the_classes(tmp_path):
    sizes = []
    for classes in (1000, 4000):
        labels = torch.zeros(50, classes, dtype=torch.int8)
        labels[:, :10] = 1
        sizes.append(small_file(tmp_path, 50, classes, known=measure.known_labels(labels, {"gzsl": 0}, (3, 5), {})).bytes)
    assert sizes[0] == sizes[1] == 50 * (10 * 4 + 4 * 8)
