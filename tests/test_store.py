"""Scores that are kept: what is written stays, what is damaged is not believed, and files of other kinds are named."""

import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time

import numpy as np
import pytest
from hostile import at_once, irregular

from rcnn.tagging.store import Photo, Store

MINE, OTHERS = "a" * 64, "b" * 64  # identities
ODD = [b"/p/caf\xe9.jpg", "/p/猫.jpg".encode(), b"/p/\x1b\n.jpg"]


@pytest.fixture(autouse=True)
def closed(monkeypatch):
    """Close what a test leaves open."""
    with contextlib.ExitStack() as stack:
        begin = Store.__init__

        def opened(self, *arguments):
            begin(self, *arguments)
            stack.callback(self.close)

        monkeypatch.setattr(Store, "__init__", opened)
        yield


def photo(number, stamp="1 2"):
    return Photo(b"/p/%d.jpg" % number, stamp)


def scores(number):
    return np.full(3, number, np.float32)


def file(folder, identity=MINE, process=""):
    return folder / f"{identity[:16]}{process}.sqlite"


def test_scores_and_problems_come_back_as_they_were(tmp_path):
    written = {Photo(path, "5 99999999999999999999"): scores(i) for i, path in enumerate(ODD)}
    written[photo(9)] = "cannot identify image"
    Store(tmp_path, MINE, 3).put(written)
    found = Store(tmp_path, MINE, 3).get([*written, photo(10)])
    assert [row.tolist() for row in found[:3]] == [[0] * 3, [1] * 3, [2] * 3]
    assert found[3:] == ["cannot identify image", None]


def test_a_photo_of_another_size_or_time_is_another_one_and_takes_the_place_of_the_old(tmp_path):
    store = Store(tmp_path, MINE, 3)
    store.put({photo(1, "10 20"): scores(1)})
    assert store.get([photo(1, "11 20"), photo(1, "10 21")]) == [None, None]
    store.put({photo(1, "10 21"): scores(2)})
    assert store.get([photo(1, "10 20")]) == [None]
    assert store.get([photo(1, "10 21")])[0].tolist() == [2] * 3


def test_stores_of_several_identities_share_a_folder(tmp_path):
    Store(tmp_path, MINE, 3).put({photo(1): scores(1)})
    assert Store(tmp_path, OTHERS, 3).get([photo(1)]) == [None]


def test_files_of_all_processes_are_read(tmp_path):
    for rank in range(2):
        Store(tmp_path, MINE, 3, f".{rank}-of-2").put({photo(rank): scores(rank)})
    found = Store(tmp_path, MINE, 3).get([photo(0), photo(1)])
    assert [row[0] for row in found] == [0, 1]


def test_a_batch_that_fails_leaves_nothing_of_itself(tmp_path):
    store = Store(tmp_path, MINE, 3)
    store.put({photo(1): scores(1)})
    with sqlite3.connect(file(tmp_path)) as connection:
        when = f"WHEN NEW.path = x'{photo(3).path.hex()}'"
        connection.execute(f"CREATE TRIGGER t BEFORE INSERT ON photos {when} BEGIN SELECT RAISE(ABORT, ''); END")
    connection.close()
    with pytest.raises(ValueError, match="is damaged, or no file of scores"):
        store.put({photo(1, "7 7"): scores(7), photo(2): scores(2), photo(3): scores(3)})
    assert store.get([photo(1, "7 7"), photo(2), photo(3)]) == [None] * 3
    assert store.get([photo(1)])[0].tolist() == [1] * 3
    store.put({photo(2): scores(2)})
    assert store.get([photo(2)])[0].tolist() == [2] * 3


@pytest.mark.parametrize(
    "change", ["scores = zeroblob(12)", "scores = x'00'", "scores = 'text', checksum = 1", "scores = NULL", "stamp = '7 7'"]
)
def test_a_damaged_row_is_not_believed(tmp_path, change):
    store = Store(tmp_path, MINE, 3)
    store.put({photo(1): scores(1), photo(2): scores(2)})
    with sqlite3.connect(file(tmp_path)) as connection:
        connection.execute(f"UPDATE photos SET {change} WHERE path = ?", [photo(1).path])
    connection.close()
    first, second = Store(tmp_path, MINE, 3).get([photo(1), photo(2)])
    assert first is None
    assert second.tolist() == [2] * 3
    assert store.get([photo(1, "7 7")]) == [None]


def test_a_file_of_another_kind_is_named_and_left_as_it_is(tmp_path):
    with sqlite3.connect(tmp_path / "foreign") as connection:
        connection.execute("CREATE TABLE mine (x)")
    connection.close()
    Store(tmp_path / "other", OTHERS, 3)
    wrong = {
        b"no database at all" * 99: "is damaged, or no file of scores",
        (tmp_path / "foreign").read_bytes(): "is damaged, or no file of scores",
        file(tmp_path / "other", OTHERS).read_bytes(): "has scores by another model",
    }
    for data, said in wrong.items():
        for name in ("", ".1-of-2"):  # its own, and another process's
            path = file(tmp_path, process=name)
            path.write_bytes(data)
            with pytest.raises(ValueError, match=f"^{path} {said}"):
                Store(tmp_path, MINE, 3)
            assert path.read_bytes() == data
            path.unlink()


def test_a_file_with_a_damaged_page_is_named(tmp_path):
    store = Store(tmp_path, MINE, 3)
    store.put({photo(i): scores(i) for i in range(1000)})
    store.close()
    data = bytearray(file(tmp_path).read_bytes())
    data[8192:-4096] = b"\xff" * (len(data) - 12288)
    file(tmp_path).write_bytes(data)
    with pytest.raises(ValueError, match=r"is damaged, or no file of scores .*; delete it, and its photos are scored again"):
        Store(tmp_path, MINE, 3).get([photo(i) for i in range(500)])


def test_what_is_no_regular_file_is_not_opened(tmp_path):
    for number, path in enumerate(irregular(tmp_path, "x")):
        (tmp_path / str(number)).mkdir()
        file(tmp_path / str(number)).symlink_to(path)
        with at_once(), pytest.raises(ValueError, match="is not a regular file"):
            Store(tmp_path / str(number), MINE, 3)


def test_what_another_machine_kept_is_taken_over_but_for_damaged_rows(tmp_path):
    there = Store(tmp_path / "there", MINE, 3)
    there.put({photo(1): scores(1), photo(2): "broken", photo(3): scores(3)})
    with sqlite3.connect(file(tmp_path / "there")) as connection:
        connection.execute("UPDATE photos SET checksum = 1 WHERE path = ?", [photo(3).path])
    connection.close()
    here = Store(tmp_path / "here", MINE, 3)
    here.put({photo(4): scores(4)})
    here.merge(file(tmp_path / "there"))
    found = Store(tmp_path / "here", MINE, 3).get([photo(i) for i in range(1, 5)])
    assert [None if f is None else list(f) for f in found] == [[1] * 3, list("broken"), None, [4] * 3]


def test_only_a_store_of_the_same_identity_is_taken_over(tmp_path):
    Store(tmp_path / "there", OTHERS, 3).put({photo(1): scores(1)})
    here = Store(tmp_path / "here", MINE, 3)
    with pytest.raises(ValueError, match="has scores by another model, by other class embeddings or other grids"):
        here.merge(file(tmp_path / "there", OTHERS))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        here.merge(tmp_path / "nowhere")
    assert here.get([photo(1)]) == [None]


WRITER = """
import sys
import numpy as np
from rcnn.tagging.store import Photo, Store

folder, first, last = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
store = Store(folder, "a" * 64, 3)
for batch in range(first, last):
    store.put({Photo(b"/p/%d.jpg" % (10 * batch + i), "1 2"): np.full(3, batch, np.float32) for i in range(10)})
    print(batch, flush=True)
"""


def writer(folder, first, last, before=""):
    command = [sys.executable, "-c", before + WRITER, folder, str(first), str(last)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_several_processes_that_begin_a_store_at_once_lose_nothing(tmp_path):
    processes = [writer(tmp_path, 40 * i, 40 * i + 40) for i in range(4)]
    assert [(process.communicate(timeout=60)[1], process.returncode) for process in processes] == [("", 0)] * 4
    found = Store(tmp_path, MINE, 3).get([photo(i) for i in range(1600)])
    assert [f[0] for f in found] == [i // 10 for i in range(1600)]


def test_a_killed_process_loses_at_most_its_last_batch_and_leaves_no_half_one(tmp_path):
    with writer(tmp_path, 0, 10**6) as process:
        time.sleep(0.5)
        said = process.stdout.readline()
        process.send_signal(signal.SIGKILL)
        said = [said, *process.stdout][-1]
    count = int(said) + 1 if said.endswith("\n") else int(said)
    found = Store(tmp_path, MINE, 3).get([photo(i) for i in range(10 * count + 20)])
    kept = [f is not None for f in found]
    assert kept[: 10 * count] == [True] * 10 * count
    assert sum(kept[10 * count :]) in (0, 10)


def test_a_full_disk_is_one_line_and_what_was_kept_stays(tmp_path):
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"  # as a disk that is full
    with writer(tmp_path, 0, 10**4, limit) as process:
        *_, last = process.stdout
        error = process.stderr.read().splitlines()[-1]
    assert error.startswith(f"OSError: {file(tmp_path)}: ")
    assert error.endswith("; what was kept stays, and the same command goes on")
    assert all(f is not None for f in Store(tmp_path, MINE, 3).get([photo(i) for i in range(10 * int(last))]))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        Store(tmp_path / "file", MINE, 3)
    if os.getuid():
        tmp_path.chmod(0o500)
        with pytest.raises(OSError, match="unable to open database file"):
            Store(tmp_path, MINE, 3)
