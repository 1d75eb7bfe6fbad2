"""The file of scores: reserved on the disk, checked when it is continued, removed when it is abandoned."""

import collections
import errno
import os
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from rcnn.score.score_file import ScoredSet, ScoreFile

LIMITED = """
import resource, sys
from pathlib import Path
import torch
from rcnn import cli
from rcnn.score.score_file import ScoredSet, ScoreFile
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # as a disk that is full: files of more bytes cannot be written
sets = {"baseline": ScoredSet(torch.zeros(3, 2), {"plain": None})}
cli.run(lambda: ScoreFile(Path(sys.argv[1]), sets, 1000, 3, 2, "identity").open() and 0)
"""


def small_file(folder, images=4, classes=3, rows=("baseline",)):
    sets = {row: ScoredSet(torch.zeros(classes, 2), {"plain": None}) for row in rows}
    return ScoreFile(folder, sets, images, classes, 2, "identity")


def test_a_note_that_was_cut_is_no_note(tmp_path):
    file = small_file(tmp_path).open()
    file.save("0-of-1-1", {0: 7}, {})
    note = (file.folder / "done.0-of-1-1.json").read_text()
    for name, text in enumerate(("{}", "5", "[" * 5000, note[:-9], note.replace('"0": 7', '"1": 7'), note.replace("7", "8"))):
        (file.folder / f"done.{name}.json").write_text(text)
    assert file.done() == ({0: {7}}, {})


def test_a_note_about_batches_that_there_are_not_is_left_aside_for_them(tmp_path):
    file = small_file(tmp_path).open()
    file.save("0-of-1-1", {0: 7, 77: 7, -1: 7}, {2: "cut", 99: "cut"})
    assert file.done() == ({0: {7}}, {2: "cut"})


def test_too_little_disk_is_said_in_gigabytes_before_anything_is_written(monkeypatch, tmp_path):
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(5e9, 4e9, 1e9))
    file = small_file(tmp_path, 100_000, 1000, [str(i) for i in range(10)])
    assert file.bytes == 4e9
    with pytest.raises(ValueError, match=r"the scores need 4\.0 GB in .*, 1\.0 GB are free") as error:
        file.open()
    assert "evaluate.epochs=false" in str(error.value)
    assert not (file.folder / "scores.f32").exists()


def test_scores_that_are_there_need_no_room_again(monkeypatch, tmp_path):
    file = small_file(tmp_path).open()
    file.put(0, np.full((1, 2, 3), 5, np.float32))
    usage = collections.namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1, 1, 0))
    assert (small_file(tmp_path).open().table[:, :2] == 5).all()


def test_a_disk_that_is_full_ends_in_one_line_before_the_first_image(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path], capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: [Errno 27] the scores need 0.0 GB, File too large: ")
    assert not list(tmp_path.glob("*/scores.f32"))


def test_all_blocks_of_the_file_are_taken_from_the_disk_before_the_first_score(tmp_path):
    file = small_file(tmp_path, 10_000, 100).open()
    assert 512 * (file.folder / "scores.f32").stat().st_blocks >= file.bytes


def test_a_disk_that_another_program_fills_is_an_error_and_not_a_signal(monkeypatch, tmp_path):
    """Where a file system cannot reserve blocks, writing is what fails."""

    def unsupported(*_):
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", unsupported)
    file = small_file(tmp_path).open()
    assert (file.folder / "scores.f32").stat().st_size == file.bytes

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(OSError, match="No space left on device"):
            file.put(0, np.ones((1, 2, 3), np.float32))
    assert file.holds(0, {file.put(0, np.ones((1, 2, 3), np.float32))})


def test_damaged_scores_are_no_scores(tmp_path):
    file = small_file(tmp_path).open()
    checksum = file.put(1, np.full((1, 2, 3), 5, np.float32))
    assert file.holds(1, {0, checksum})
    with open(file.folder / "scores.f32", "r+b") as raw:
        raw.seek(4 * 2 * 3 + 1)  # in the second batch
        raw.write(b"!")
    assert not file.holds(1, {0, checksum})


def test_the_last_batch_may_be_smaller(tmp_path):
    file = small_file(tmp_path, images=3).open()
    scores = np.arange(9, dtype=np.float32).reshape(1, 3, 3)
    assert [file.images(batch) for batch in file.batches] == [range(2), range(2, 3)]
    checksums = [file.put(0, scores[:, :2]), file.put(1, scores[:, 2:])]
    assert all(file.holds(batch, {checksum}) for batch, checksum in enumerate(checksums))
    assert (file.table == scores).all()


def test_forgotten_batches_are_scored_again_and_the_others_are_not(tmp_path):
    file = small_file(tmp_path).open()
    checksum = file.put(0, np.ones((1, 2, 3), np.float32))
    file.save("0-of-1-1", {0: checksum, 1: 7}, {2: "cut"})
    file.forget({1})
    assert file.done() == ({0: {checksum}}, {})


def test_a_file_that_was_opened_twice_is_closed_when_it_is_deleted(tmp_path):
    file = small_file(tmp_path).open().open()
    file.delete()
    assert not [name for name in os.listdir("/proc/self/fd") if "scores.f32" in os.path.realpath(f"/proc/self/fd/{name}")]


def test_scores_of_other_settings_are_removed_when_old_and_of_no_living_process(tmp_path, capsys):
    def other(name, age):
        file = small_file(tmp_path, rows=(name,)).open()
        os.utime(file.folder / "scores.f32", (time.time() - age, time.time() - age))
        return file

    day = 24 * 60 * 60
    young, living, abandoned = other("young", day - 99), other("living", day + 99), other("abandoned", day + 99)
    abandoned._close()  # as at the end of its process
    small_file(tmp_path).open()
    assert [file.folder.exists() for file in (young, living, abandoned)] == [True, True, False]
    assert capsys.readouterr().out == f"removed unfinished scores of other settings, 0.00 GB: {abandoned.folder}\n"


def test_a_pipe_in_place_of_the_scores_is_replaced_or_left_alone(tmp_path):
    file, other = small_file(tmp_path), small_file(tmp_path, rows=("other",))
    for folder in (file.folder, other.folder):
        folder.mkdir(parents=True)
        os.mkfifo(folder / "scores.f32")
    os.utime(other.folder / "scores.f32", (0, 0))
    assert (file.open().table == 0).all()
    assert other.folder.exists()
