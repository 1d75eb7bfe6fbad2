"""Files are replaced whole or not at all, and only regular ones are read."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile import at_once

from rcnn.files import open_regular, read_bytes, read_json, read_text, replace_file, sealed, sweep, unseal, write_json

OLD, NEW = b"the old content\n" * 1000, b"the new content\n" * 1000

WRITER = """
import sys
from rcnn.files import replace_file

with replace_file(sys.argv[1]) as file:
    file.write(b"the new content\\n" * 500)
    file.flush()
    print("half", flush=True)
    sys.stdin.read()
    file.write(b"the new content\\n" * 500)
"""


def writer(path):
    """A process that waits in the middle of writing `path`."""
    command = [sys.executable, "-c", WRITER, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parents[1])
    assert process.stdout.readline() == b"half\n"
    return process


@pytest.fixture
def path(tmp_path):
    (tmp_path / "result.bin").write_bytes(OLD)
    return tmp_path / "result.bin"


def test_a_block_that_ends_well_replaces_the_file_and_leaves_no_other(path):
    with replace_file(path) as file:
        file.write(NEW)
        assert path.read_bytes() == OLD
    assert path.read_bytes() == NEW
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_raises_leaves_the_old_file_and_no_other(path, error):
    def fail():
        with replace_file(path) as file:
            file.write(NEW[:100])
            raise error

    with pytest.raises(error):
        fail()
    assert path.read_bytes() == OLD
    assert list(path.parent.iterdir()) == [path]


def test_a_block_that_raises_makes_no_new_file(tmp_path):
    def fail():
        with replace_file(tmp_path / "new.bin") as file:
            file.write(NEW)
            raise ValueError("no more")

    with pytest.raises(ValueError, match="no more"):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_folders_on_the_way_are_made(tmp_path):
    with replace_file(tmp_path / "a" / "b" / "c.bin") as file:
        file.write(NEW)
    assert (tmp_path / "a" / "b" / "c.bin").read_bytes() == NEW


def test_a_process_killed_in_the_middle_of_writing_leaves_the_old_file_whole(path):
    with writer(path) as process:
        process.kill()
    assert process.returncode == -9
    assert path.read_bytes() == OLD
    (half,) = set(path.parent.iterdir()) - {path}
    assert half.read_bytes() == NEW[: len(NEW) // 2]  # so it was in the middle
    with replace_file(path) as file:
        file.write(NEW)
    assert path.read_bytes() == NEW


def test_a_process_that_is_not_killed_writes_the_whole_file(path):
    with writer(path) as process:
        process.communicate(b"")
    assert process.returncode == 0
    assert path.read_bytes() == NEW
    assert list(path.parent.iterdir()) == [path]


def test_json_keeps_the_order_of_keys_and_letters_beyond_ascii(tmp_path):
    value = {"zeta": [1, 2.5, None], "alpha": {"café": "犬"}}
    write_json(tmp_path / "value.json", value)
    text = (tmp_path / "value.json").read_text(encoding="utf-8")
    assert list(json.loads(text)) == ["zeta", "alpha"]
    assert json.loads(text) == value
    assert "café" in text
    assert text.endswith("}\n")


def test_a_value_that_is_no_json_leaves_the_old_file(path):
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_bytes() == OLD


def test_what_is_no_regular_file_is_refused_at_once_by_its_name(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(ValueError, match=f"^{path} is not a regular file$"):
            open_regular(path)
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(OSError, match="symbolic links"):
        open_regular(tmp_path / "loop")


def test_a_file_that_is_too_large_or_no_utf_8_or_no_json_is_refused_by_its_name(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbfabc")
    assert (read_bytes(path, 6), read_text(path)) == (b"\xef\xbb\xbfabc", "abc")
    for read, content, message in (
        (lambda path: read_bytes(path, 2), b"abc", "has more than 2 bytes"),
        (read_text, b"caf\xe9", "is not UTF-8 text: unexpected end of data at byte 3"),
        (read_json, b"{", "is not JSON"),
        (read_json, b"[" * 100_000, "nested too deeply"),
        (read_json, b"9" * 5000, "cannot be read: Exceeds the limit"),
        (read_json, b'{"a": 1, "b": {"c": 1, "c": 2}}', "cannot be read: 'c' is there twice"),
    ):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"^{path} .*{message}"):
            read(path)


def test_a_key_that_is_there_twice_is_found_in_linear_time(tmp_path):
    path = tmp_path / "many.json"
    path.write_text("{" + "".join(f'"{i}": 0, ' for i in range(100_000)) + '"99999": 1}')
    with at_once(), pytest.raises(ValueError, match="'99999' is there twice"):
        read_json(path)


def test_a_sealed_value_that_was_changed_is_refused(tmp_path):
    value = {"a": [1, 2.5, None], "b": "é"}
    kept = json.loads(json.dumps(sealed(value)))
    assert unseal("x.json", kept) == value
    for changed in (kept | {"b": "e"}, kept | {"c": 1}, {"a": 1}, {}, 5, None, [kept]):
        with pytest.raises(ValueError, match=r"^x\.json is damaged, or was changed"):
            unseal("x.json", changed)


def test_temporary_files_are_removed_when_old_and_of_no_living_process(path):
    with writer(path) as process:
        process.kill()
    (abandoned,) = set(path.parent.iterdir()) - {path}
    living, own = path.parent / f".result.bin.{os.getpid()}.rcnn", path.parent / f".notes.{process.pid}"
    for file in (living, own):
        file.write_bytes(b"")
    sweep(path.parent, path.parent / "nowhere")
    assert abandoned.exists()  # it is young
    for file in path.parent.iterdir():
        os.utime(file, (time.time() - 90_000, time.time() - 90_000))
    sweep(path.parent)
    assert set(path.parent.iterdir()) == {path, living, own}
