"""Large files from a local server that breaks off, refuses and lies; unpacking them; and the scripts that prepare data sets."""

import contextlib
import hashlib
import itertools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import download
import prepare_coco
import prepare_nuswide
import pytest
from download import Archive, fetch, unpack

from rcnn import cli, config
from rcnn.config import DatasetConfig
from rcnn.datasets.images import read_images
from rcnn.text.classes import ClassList

ROOT = Path(__file__).resolve().parents[1]
BODY = random.Random(0).randbytes(100_000)
OTHER = random.Random(1).randbytes(len(BODY))
CHUNK = 1000
MEMBERS = {"val2014/a.jpg": b"a" * 5000, "val2014/b.jpg": b"b" * 4000, "annotations/instances_val2014.json": b"{}"}

FETCH = """
import sys
sys.path.insert(0, "scripts")
from download import Archive, fetch

url, size, md5, folder = sys.argv[1:]
fetch(Archive(url, int(size), md5, ""), folder)
"""


class Server(ThreadingHTTPServer):
    """What is served, how, and what was asked for.

    Attributes:
        files: {path: content}.
        ranges: whether Range is honoured.
        statuses: of the next answers, where not a file; None for a file.
        cuts: bytes after which the next answers break off; None for a whole answer.
        length: what is said of the length of a file; "" for the truth, None for nothing.
        hold: (bytes, Event): after so many bytes an answer waits for the event.
        asked: (path, Range or None) of every request.
        served: bytes of files sent.
    """

    daemon_threads = False  # so closing the server waits for them

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.ranges, self.statuses, self.cuts, self.hold = {}, True, iter(()), iter(()), None
        self.asked, self.served, self.length = [], 0, ""

    def archive(self, path="/file.zip", body=BODY, wanted="val2014/"):
        """Serve `body`; returns its Archive."""
        self.files[path] = body
        url = f"http://127.0.0.1:{self.server_port}{path}"
        return Archive(url, len(body), hashlib.md5(body, usedforsecurity=False).hexdigest(), wanted)

    def handle_error(self, *_):
        """Clients that hang up are part of the tests."""


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_GET(self):
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append((self.path, wanted))
        if status := next(server.statuses, None):
            return self.send_error(status)
        body, start = server.files[self.path], 0
        if wanted and server.ranges:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                return self.send_error(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        length = str(len(body) - start) if server.length == "" else server.length
        if length is not None:
            self.send_header("Content-Length", length)
        self.end_headers()
        cut = next(server.cuts, None)
        sent = body[start:] if cut is None else body[start : start + cut]
        if server.hold:
            bytes_before, event = server.hold
            self._file(sent[:bytes_before])
            event.wait(60)
            sent = sent[bytes_before:]
        self._file(sent)

    def _file(self, content):
        self.server.served += len(content)
        self.wfile.write(content)
        self.wfile.flush()


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        if server.hold:
            server.hold[1].set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def pauses(monkeypatch):
    """No proxy of the user's, small pieces, and no real pauses between tries; returns the pauses."""
    made = []
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=made.append))
    monkeypatch.setattr(download, "CHUNK", CHUNK)
    return made


def ranges(server):
    """Where the requests began, None for those without a Range."""
    return [wanted and int(wanted.removeprefix("bytes=").removesuffix("-")) for _, wanted in server.asked]


def free(monkeypatch, count):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=count))


def zipped(path, members=MEMBERS, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.mkdir("val2014")
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content, method)
    return path


def tree(folder):
    """{relative name: content} of all files under a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_whole_download_is_the_file_and_leaves_nothing_else(server, tmp_path):
    path = fetch(server.archive(), tmp_path / "new" / "folder")
    assert path == tmp_path / "new" / "folder" / "file.zip"
    assert tree(tmp_path) == {"new/folder/file.zip": BODY}
    assert server.asked == [("/file.zip", None)]


def test_a_file_that_is_there_and_right_is_not_downloaded(server, tmp_path):
    (tmp_path / "file.zip").write_bytes(BODY)
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert not server.asked


@pytest.mark.parametrize("cut", [1, CHUNK - 1, CHUNK, 12_345, len(BODY) - 1])
def test_a_download_that_breaks_off_goes_on_in_the_same_call_and_fetches_nothing_twice(server, tmp_path, cut):
    server.cuts = iter([cut])
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, cut]
    assert server.served == len(BODY)
    assert list(tree(tmp_path)) == ["file.zip"]


def test_a_download_may_break_off_any_number_of_times_while_bytes_come(server, tmp_path, pauses):
    server.cuts = itertools.repeat(len(BODY) // (4 * download.TRIES))
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert len(server.asked) == 4 * download.TRIES
    assert server.served == len(BODY)
    assert not pauses


def test_a_connection_that_brings_nothing_at_first_is_tried_again_after_a_pause(server, tmp_path, pauses):
    server.cuts = iter([0, 0, 700, 0])
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, None, None, 700, 700]
    assert server.served == len(BODY)
    assert len(pauses) == 3
    assert pauses[0] < pauses[1] > pauses[2] == pauses[0]


def test_a_download_that_broke_off_for_good_goes_on_in_a_later_call_and_fetches_nothing_twice(server, tmp_path):
    server.cuts, server.statuses = iter([54_321]), itertools.chain([None], itertools.repeat(503))
    with pytest.raises(ConnectionError, match=r"54,321 of 100,000 bytes are there; run again to go on"):
        fetch(server.archive(), tmp_path)
    assert tree(tmp_path) == {"file.zip.part": BODY[:54_321]}
    server.statuses = iter(())
    asked = len(server.asked)
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert ranges(server)[asked:] == [54_321]
    assert server.served == len(BODY)
    assert list(tree(tmp_path)) == ["file.zip"]


def test_all_bytes_of_an_earlier_call_are_only_checked(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(BODY)
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert not server.asked


def test_a_server_that_cannot_resume_is_asked_for_the_whole_file(server, tmp_path):
    server.ranges, server.cuts = False, iter([60_000])
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, 60_000]
    assert server.served == 60_000 + len(BODY)


def test_a_part_that_a_server_cannot_resume_is_replaced_and_not_prolonged(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(OTHER[:60_000])
    server.ranges = False
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY


def test_a_server_that_cannot_resume_and_always_breaks_off_is_given_up(server, tmp_path):
    server.ranges, server.cuts = False, itertools.repeat(60_000)
    with pytest.raises(ConnectionError, match=r"the connection broke off\), 60,000 of 100,000 bytes"):
        fetch(server.archive(), tmp_path)
    assert len(server.asked) == 1 + download.TRIES


@pytest.mark.parametrize("content", [OTHER, BODY[:-1] + b"!"], ids=["other", "last byte"])
def test_wrong_content_is_kept_under_another_name_with_both_sums_and_downloaded_anew(server, tmp_path, content):
    archive = server.archive()
    server.files["/file.zip"] = content
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    with pytest.raises(ValueError, match=f"MD5 {found} and {len(content):,} bytes, expected {archive.md5} and 100,000"):
        fetch(archive, tmp_path)
    assert tree(tmp_path) == {"file.zip.wrong": content}
    server.files["/file.zip"] = BODY
    assert fetch(archive, tmp_path).read_bytes() == BODY
    assert ranges(server) == [None, None]


@pytest.mark.parametrize(
    ("name", "content"),
    [("file.zip", OTHER), ("file.zip", BODY[:-1]), ("file.zip.part", OTHER[:30_000]), ("file.zip.part", BODY + b"!")],
    ids=["other", "too short", "part of another", "too long a part"],
)
def test_a_wrong_file_from_before_is_set_aside_so_that_the_next_call_starts_anew(server, tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"it is kept as .*file\.zip\.wrong; run again"):
        fetch(server.archive(), tmp_path)
    assert list(tree(tmp_path)) == ["file.zip.wrong"]
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY


def test_a_killed_process_is_continued_where_it_was(server, tmp_path):
    archive = server.archive(body=random.Random(2).randbytes(3 << 20))
    server.hold = (5 << 19, threading.Event())
    arguments = [archive.url, str(archive.size), archive.md5, str(tmp_path)]
    process = subprocess.Popen([sys.executable, "-c", FETCH, *arguments], cwd=ROOT, stderr=subprocess.DEVNULL)
    part, patience = tmp_path / "file.zip.part", time.monotonic() + 60
    while not (part.exists() and part.stat().st_size) and process.poll() is None and time.monotonic() < patience:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    server.hold[1].set()
    have = part.stat().st_size
    assert 0 < have <= 5 << 19
    assert part.read_bytes() == server.files["/file.zip"][:have]
    assert fetch(archive, tmp_path).read_bytes() == server.files["/file.zip"]
    assert ranges(server) == [None, have]


@pytest.mark.parametrize("status", [403, 404, 410])
def test_a_refusal_stops_at_once_and_says_what_to_do_by_hand(server, tmp_path, pauses, status):
    server.statuses = iter([status])
    with pytest.raises(ConnectionError) as told:
        fetch(server.archive(), tmp_path)
    assert len(server.asked) == 1
    assert not pauses
    assert server.archive().url in str(told.value)
    assert f"fetch it by hand, put it into {tmp_path} and run again" in str(told.value)
    assert not tree(tmp_path)


def test_a_404_names_the_reason(server, tmp_path):
    server.statuses = iter([404])
    with pytest.raises(ConnectionError, match=r"could not be downloaded \(.*Not Found\), 0 of 100,000 bytes"):
        fetch(server.archive(), tmp_path)


def test_a_refusal_leaves_the_part_as_it_is(server, tmp_path):
    (tmp_path / "file.zip.part").write_bytes(BODY[:70_000])
    server.statuses = iter([404])
    with pytest.raises(ConnectionError, match=r"70,000 of 100,000 bytes"):
        fetch(server.archive(), tmp_path)
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert ranges(server) == [70_000, 70_000]


def test_a_server_error_is_tried_again(server, tmp_path, pauses):
    server.statuses = iter([500])
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY
    assert len(server.asked) == 2
    assert len(pauses) == 1


def test_a_server_that_stays_in_error_is_given_up_after_some_tries(server, tmp_path, pauses):
    server.statuses = itertools.repeat(503)
    with pytest.raises(ConnectionError, match=r"Service Unavailable.*by hand"):
        fetch(server.archive(), tmp_path)
    assert len(server.asked) == download.TRIES
    assert len(pauses) == download.TRIES - 1


def test_a_refused_connection_is_one_clear_line(tmp_path, pauses):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # and nobody listens
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/file.zip"
        with pytest.raises(ConnectionError, match="refused") as told:
            fetch(Archive(url, len(BODY), "0" * 32, ""), tmp_path)
    assert type(told.value) is ConnectionError
    assert url in str(told.value)
    assert "by hand" in str(told.value)
    assert "\n" not in str(told.value)
    assert len(pauses) == download.TRIES - 1


def test_too_little_disk_is_said_before_anything_is_fetched(server, tmp_path, monkeypatch):
    free(monkeypatch, len(BODY) - 1)
    with pytest.raises(ValueError, match=r"file\.zip needs .* GB in .*, .* GB are free"):
        fetch(server.archive(), tmp_path)
    assert not server.asked
    assert not tree(tmp_path)


def test_only_what_is_still_to_come_has_to_fit_on_the_disk(server, tmp_path, monkeypatch):
    (tmp_path / "file.zip.part").write_bytes(BODY[:40_000])
    free(monkeypatch, len(BODY) - 40_001)
    with pytest.raises(ValueError, match=r"file\.zip needs"):
        fetch(server.archive(), tmp_path)
    free(monkeypatch, len(BODY) - 40_000)
    assert fetch(server.archive(), tmp_path).read_bytes() == BODY


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_only_wanted_members_are_unpacked(tmp_path, method):
    path = zipped(tmp_path / "val2014.zip", method=method)
    unpack(path, "val2014/", tmp_path)
    assert tree(tmp_path / "val2014") == {"a.jpg": b"a" * 5000, "b.jpg": b"b" * 4000}
    assert not (tmp_path / "annotations").exists()
    unpack(path, "annotations/instances_val2014.json", tmp_path)
    assert tree(tmp_path / "annotations") == {"instances_val2014.json": b"{}"}


def test_members_that_are_there_in_full_size_are_left_alone_and_truncated_ones_replaced(tmp_path):
    path = zipped(tmp_path / "val2014.zip")
    unpack(path, "val2014/", tmp_path)
    whole, cut = tmp_path / "val2014" / "a.jpg", tmp_path / "val2014" / "b.jpg"
    os.utime(whole, ns=(0, 0))
    cut.write_bytes(b"b" * 3999)
    unpack(path, "val2014/", tmp_path)
    assert whole.stat().st_mtime_ns == 0
    assert cut.read_bytes() == b"b" * 4000


def test_an_interrupted_unpacking_leaves_no_half_file_and_is_continued(tmp_path, monkeypatch):
    path, copy, done = zipped(tmp_path / "val2014.zip"), shutil.copyfileobj, []

    def interrupted(source, target, length):
        if done:
            target.write(source.read(100))
            raise KeyboardInterrupt
        done.append(copy(source, target, length))

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        unpack(path, "val2014/", tmp_path)
    monkeypatch.setattr(shutil, "copyfileobj", copy)
    assert tree(tmp_path / "val2014") == {"a.jpg": b"a" * 5000}
    os.utime(tmp_path / "val2014" / "a.jpg", ns=(0, 0))
    unpack(path, "val2014/", tmp_path)
    assert tree(tmp_path / "val2014") == {"a.jpg": b"a" * 5000, "b.jpg": b"b" * 4000}
    assert (tmp_path / "val2014" / "a.jpg").stat().st_mtime_ns == 0


def test_what_is_missing_of_an_archive_has_to_fit_on_the_disk(tmp_path, monkeypatch):
    path = zipped(tmp_path / "val2014.zip")
    free(monkeypatch, 8999)
    with pytest.raises(ValueError, match=r"unpacking val2014\.zip needs"):
        unpack(path, "val2014/", tmp_path)
    assert not (tmp_path / "val2014").exists()
    free(monkeypatch, 9000)
    unpack(path, "val2014/", tmp_path)
    (tmp_path / "val2014" / "b.jpg").unlink()
    free(monkeypatch, 4000)
    unpack(path, "val2014/", tmp_path)
    free(monkeypatch, 0)
    unpack(path, "val2014/", tmp_path)


@pytest.mark.parametrize("damage", [lambda _: BODY, lambda _: b"", lambda whole: whole[:-30], lambda whole: whole[:1000]])
def test_a_file_that_is_no_whole_zip_is_named(tmp_path, damage):
    path = zipped(tmp_path / "val2014.zip", method=zipfile.ZIP_STORED)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"val2014\.zip is no whole zip file \(.*\); delete it and run again"):
        unpack(path, "val2014/", tmp_path)
    assert list(tree(tmp_path)) == ["val2014.zip"]


def test_a_member_with_a_changed_byte_is_not_written(tmp_path):
    path = zipped(tmp_path / "val2014.zip", method=zipfile.ZIP_STORED)
    path.write_bytes(path.read_bytes().replace(b"bbbb", b"bbbc", 1))
    with pytest.raises(ValueError, match=r"is no whole zip file .*b\.jpg"):
        unpack(path, "val2014/", tmp_path)
    assert tree(tmp_path / "val2014") == {"a.jpg": b"a" * 5000}


@pytest.mark.parametrize("name", ["val2014/../../x", "val2014/../x", "val2014/deeper/../../../x", "/ROOT/x"])
def test_a_member_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    name, folder = name.replace("/ROOT", str(tmp_path)), tmp_path / "inner" / "folder"
    folder.mkdir(parents=True)
    path = zipped(tmp_path / "val2014.zip", {name: b"x"})
    with pytest.raises(ValueError, match="leads out of"):
        unpack(path, "" if name.startswith("/") else "val2014/", folder)
    assert list(tree(tmp_path)) == ["val2014.zip"]


def with_link(archive):
    link = zipfile.ZipInfo("val2014/x.jpg")
    link.create_system, link.external_attr = 3, 0o120777 << 16
    archive.writestr(link, "/etc/passwd")


def with_lzma(archive):
    archive.writestr(zipfile.ZipInfo("val2014/x.jpg"), b"x", zipfile.ZIP_LZMA)


@pytest.mark.parametrize("add", [with_link, with_lzma])
def test_a_member_that_is_a_link_or_compressed_in_an_unusual_way_is_refused(tmp_path, add):
    with zipfile.ZipFile(tmp_path / "val2014.zip", "w") as archive:
        add(archive)
    with pytest.raises(ValueError, match=r"is no whole zip file \(member 'val2014/x\.jpg' is no plain file"):
        unpack(tmp_path / "val2014.zip", "val2014/", tmp_path)
    assert list(tree(tmp_path)) == ["val2014.zip"]


def test_a_member_that_holds_more_than_it_says_is_not_written(tmp_path):
    path = zipped(tmp_path / "val2014.zip", {"val2014/a.jpg": b"a" * 1_000_000})
    sizes = (1_000_000).to_bytes(4, "little")
    assert path.read_bytes().count(sizes) == 2
    path.write_bytes(path.read_bytes().replace(sizes, (50).to_bytes(4, "little")))
    with pytest.raises(ValueError, match=r"is no whole zip file .*a\.jpg"):
        unpack(path, "val2014/", tmp_path)
    assert list(tree(tmp_path)) == ["val2014.zip"]


def test_a_zip_file_with_any_changed_byte_is_unpacked_as_it_was_or_refused_in_one_line(tmp_path):
    members = {"val2014/é.jpg": bytes(range(99)), "val2014/b.jpg": b"b" * 500}
    whole, generator = zipped(tmp_path / "a.zip", members).read_bytes(), random.Random(0)
    for i in range(len(whole)):
        folder = tmp_path / str(i)
        (tmp_path / "a.zip").write_bytes(whole[:i] + bytes([whole[i] ^ generator.randrange(1, 256)]) + whole[i + 1 :])
        with contextlib.suppress(ValueError):
            unpack(tmp_path / "a.zip", "val2014/", folder)
        assert set(tree(folder).values()) <= set(members.values())


@pytest.mark.parametrize("name", ["file.zip", "file.zip.part"])
def test_a_pipe_in_place_of_a_download_is_refused_at_once(server, tmp_path, name):
    os.mkfifo(tmp_path / name)
    waiting = threading.Timer(10, (tmp_path / name).write_bytes, [b""])  # ends a wait for somebody to write into it
    waiting.start()
    with pytest.raises(ValueError, match=rf"{re.escape(name)} is not a regular file"):
        fetch(server.archive(), tmp_path)
    waiting.cancel()


@pytest.mark.parametrize("length", ["9" * 500, "-1", "x", "1e5", "0"])
def test_a_length_that_is_none_is_a_failed_try(server, tmp_path, length):
    server.length = length
    with pytest.raises(ConnectionError, match=r"the server offers .{1,210} bytes, 100000 were expected|broke off"):
        fetch(server.archive(), tmp_path)


def test_a_server_that_sends_without_end_is_cut_off_at_the_size_of_the_archive(server, tmp_path):
    archive = server.archive()
    server.files["/file.zip"] = BODY + OTHER
    server.length = None
    assert fetch(archive, tmp_path).read_bytes() == BODY


@pytest.fixture
def archives(server, tmp_path):
    """Archives.zip of annotations and of images at the server, as prepare_coco downloads them."""
    both = zipped(tmp_path / "both.zip").read_bytes()
    (tmp_path / "both.zip").unlink()
    wanted = {"/annotations.zip": "annotations/instances_val2014.json", "/val2014.zip": "val2014/"}
    return [server.archive(name, both, prefix) for name, prefix in wanted.items()]


def test_prepare_coco_unpacks_and_removes_the_archives(archives, server, tmp_path):
    prepare_coco.download(archives, tmp_path / "coco")
    assert tree(tmp_path / "coco") == MEMBERS
    assert [path for path, _ in server.asked] == ["/annotations.zip", "/val2014.zip"]


def test_prepare_coco_does_nothing_the_second_time(archives, server, tmp_path):
    prepare_coco.download(archives, tmp_path)
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    server.statuses = itertools.repeat(404)
    prepare_coco.download(archives, tmp_path)
    assert len(server.asked) == 2
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_prepare_coco_keeps_the_archives_if_asked(archives, tmp_path):
    prepare_coco.download(archives, tmp_path, keep=True)
    assert set(tree(tmp_path)) == {*MEMBERS, "annotations.zip", "val2014.zip"}


def test_prepare_coco_unpacks_the_rest_where_an_earlier_call_was_killed_while_unpacking(archives, server, tmp_path):
    prepare_coco.download(archives, tmp_path, keep=True)
    (tmp_path / "val2014" / "b.jpg").unlink()
    prepare_coco.download(archives, tmp_path)
    assert tree(tmp_path) == MEMBERS
    assert len(server.asked) == 2


def test_prepare_coco_downloads_nothing_where_a_folder_was_linked(archives, coco, server, tmp_path):
    prepare_coco.link(coco, tmp_path / "root")
    prepare_coco.download(archives, tmp_path / "root")
    assert not server.asked
    assert sorted(p.name for p in (tmp_path / "root").iterdir()) == ["annotations", "val2014"]


def test_prepare_coco_goes_on_with_the_archive_that_failed(archives, server, tmp_path):
    server.statuses, server.cuts = iter([None, None, 404]), iter([None, 300])
    with pytest.raises(ConnectionError):
        prepare_coco.download(archives, tmp_path)
    assert set(tree(tmp_path)) == {"annotations/instances_val2014.json", "val2014.zip.part"}
    prepare_coco.download(archives, tmp_path)
    assert tree(tmp_path) == MEMBERS
    assert server.asked[3:] == [("/val2014.zip", "bytes=300-")]


def test_prepare_coco_unpacks_what_was_put_there_by_hand(archives, server, tmp_path):
    for archive in archives:
        (tmp_path / archive.name).write_bytes(server.files[f"/{archive.name}"])
    prepare_coco.download(archives, tmp_path)
    assert tree(tmp_path) == MEMBERS
    assert not server.asked


def test_prepare_coco_does_not_take_an_archive_that_could_not_be_unpacked_for_done(server, tmp_path):
    archive = server.archive()  # no zip file
    for _ in range(2):
        with pytest.raises(ValueError, match="no whole zip file"):
            prepare_coco.download([archive], tmp_path)


def test_prepare_coco_as_a_command_downloads_to_the_root_that_is_given(archives, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare_coco, "ARCHIVES", archives)
    prepare_coco.main(["--root", str(tmp_path / "coco"), "--keep"])
    assert set(tree(tmp_path / "coco")) == {*MEMBERS, "annotations.zip", "val2014.zip"}
    assert f"MS-COCO is in {tmp_path / 'coco'}" in capsys.readouterr().out


def test_the_official_archives_are_unpacked_to_where_the_configuration_looks(monkeypatch):
    monkeypatch.chdir(ROOT)
    dataset = config.load("configs/coco.yaml").dataset
    annotations, images = (ROOT / "downloads" / "coco" / archive.wanted for archive in prepare_coco.ARCHIVES)
    assert (Path(dataset.annotations), Path(dataset.images)) == (annotations, images)


@pytest.fixture
def coco(tmp_path):
    """A folder as somebody has it who uses MS-COCO already."""
    for name, content in MEMBERS.items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return tmp_path / "mine"


def test_link_shows_the_images_and_annotations_of_a_folder(coco, tmp_path):
    prepare_coco.link(coco, tmp_path / "root")
    links = {p.name: p.readlink() for p in (tmp_path / "root").iterdir()}
    assert links == {"val2014": coco / "val2014", "annotations": coco / "annotations"}
    assert (tmp_path / "root" / "annotations" / "instances_val2014.json").read_bytes() == b"{}"


def test_link_takes_a_folder_that_is_named_from_here(coco, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    prepare_coco.link("mine", tmp_path / "root" / "deeper")
    assert (tmp_path / "root" / "deeper" / "val2014" / "a.jpg").read_bytes() == b"a" * 5000


def test_link_replaces_old_links_even_dangling_ones_and_not_what_they_point_to(coco, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "x.jpg").touch()
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "val2014").symlink_to(tmp_path / "old")
    (tmp_path / "root" / "annotations").symlink_to(tmp_path / "nowhere")
    for _ in range(2):
        prepare_coco.link(coco, tmp_path / "root")
        assert (tmp_path / "root" / "val2014").readlink() == coco / "val2014"
        assert (tmp_path / "root" / "annotations").readlink() == coco / "annotations"
    assert (tmp_path / "old" / "x.jpg").exists()
    assert tree(coco) == MEMBERS


@pytest.mark.parametrize("name", ["val2014", "annotations"])
def test_link_refuses_a_real_folder_and_leaves_it_as_it_is(coco, tmp_path, name):
    real = tmp_path / "root" / name / "x"
    real.parent.mkdir(parents=True)
    real.write_bytes(b"mine")
    with pytest.raises(ValueError, match=f"{name} exists already and is not a link; move it away"):
        prepare_coco.link(coco, tmp_path / "root")
    assert real.read_bytes() == b"mine"
    assert not real.parent.is_symlink()


def test_link_of_the_root_to_itself_leaves_the_real_folders(coco):
    prepare_coco.link(coco, coco)
    assert tree(coco) == MEMBERS
    assert not any(p.is_symlink() for p in coco.iterdir())


@pytest.mark.parametrize("name", ["val2014", "annotations"])
def test_link_says_which_folder_is_missing(coco, tmp_path, name):
    shutil.rmtree(coco / name)
    with pytest.raises(FileNotFoundError, match=f"there is no folder {coco / name}; expected val2014/ and annotations/"):
        prepare_coco.link(coco, tmp_path / "root")


def test_link_says_that_the_annotation_file_is_missing(coco, tmp_path):
    (coco / "annotations" / "instances_val2014.json").rename(coco / "annotations" / "instances_val2017.json")
    with pytest.raises(FileNotFoundError, match=f"there is no {coco}/annotations/instances_val2014.json"):
        prepare_coco.link(coco, tmp_path / "root")


def test_a_link_to_itself_is_replaced_in_the_root_and_refused_in_the_folder(coco, tmp_path):
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "val2014").symlink_to("val2014")
    prepare_coco.link(coco, tmp_path / "root")
    assert (tmp_path / "root" / "val2014").readlink() == coco / "val2014"
    shutil.rmtree(coco / "val2014")
    (coco / "val2014").symlink_to("val2014")
    with pytest.raises(FileNotFoundError, match=f"there is no folder {coco / 'val2014'}"):
        prepare_coco.link(coco, tmp_path / "root")


def test_prepare_coco_as_a_command_links_a_folder_and_downloads_nothing(coco, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(prepare_coco, "download", None)
    prepare_coco.main(["--folder", str(coco), "--root", str(tmp_path / "root")])
    assert tree(tmp_path / "root" / "val2014") == tree(coco / "val2014")
    assert "next: bash coco.sh" in capsys.readouterr().out


CLASSES = ClassList.read(ROOT / "data" / "nuswide" / "seen.txt", ROOT / "data" / "nuswide" / "unseen.txt")


@pytest.fixture
def nus(tmp_path):
    """A small NUS-WIDE as it is unpacked: three images, of which image i has tag i and the checked class i."""
    folder, images = tmp_path / "nus", ["actor/0001_1.jpg", "zoos/0002_2.jpg", "zoos/0003_3.jpg"]
    seen, unseen = CLASSES.names[: CLASSES.seen], CLASSES.names[CLASSES.seen :]
    files = {
        "NUS_WID_Tags/TagList1k.txt": seen,
        "NUS_WID_Tags/AllTags1k.txt": ["\t".join(str(int(c == i)) for c in range(len(seen))) for i in range(3)],
        "ImageList/Imagelist.txt": [name.replace("/", "\\") for name in images],
        "ImageList/TestImagelist.txt": images[1:],
        **{f"Groundtruth/AllLabels/Labels_{n}.txt": [str(int(c == i)) for i in range(3)] for c, n in enumerate(unseen)},
    }
    for name, lines in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(f"{line}\n" for line in lines))
    for name in images:
        (folder / "Flickr" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "Flickr" / name).touch()
    return folder


def prepare(nus, root, code=0):
    """What the script does as a command."""
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: prepare_nuswide.main(["--folder", str(nus), "--root", str(root)]))
    assert (ended.value.code or 0) == code


def test_prepare_nuswide_links_what_the_reader_needs(nus, tmp_path, capsys):
    root = tmp_path / "root"
    prepare(nus, root)
    assert "85 text files and the images of NUS-WIDE are linked" in capsys.readouterr().out
    assert all(p.is_symlink() and p.resolve().is_relative_to(nus) for p in root.iterdir())
    found = read_images(DatasetConfig(kind="nuswide", annotations=str(root), images=str(root / "Flickr")), CLASSES)
    assert found.paths == [root / "Flickr" / "zoos" / name for name in ("0002_2.jpg", "0003_3.jpg")]
    assert [row.nonzero().flatten().tolist() for row in found.labels == 1] == [[i, CLASSES.seen + i] for i in (1, 2)]


def test_prepare_nuswide_replaces_old_links(nus, tmp_path):
    root = tmp_path / "root"
    root.mkdir()
    (root / "Flickr").symlink_to(tmp_path)
    (root / "Imagelist.txt").symlink_to(tmp_path / "nowhere")
    for _ in range(2):
        prepare(nus, root)
        assert (root / "Flickr").resolve() == nus / "Flickr"
        assert (root / "Imagelist.txt").resolve() == nus / "ImageList" / "Imagelist.txt"


def test_prepare_nuswide_links_the_files_by_which_the_order_is_verified(nus, tmp_path):
    tables = {"NUS_WID_Tags/Test_Tags1k.dat": (nus / "NUS_WID_Tags/AllTags1k.txt").read_text().split("\n")[1:3]}
    for c, name in enumerate(CLASSES.names[CLASSES.seen :]):
        tables[f"Groundtruth/TrainTestLabels/Labels_{name}_Test.txt"] = [str(int(c == i)) for i in (1, 2)]
    for name, lines in tables.items():
        (nus / name).parent.mkdir(exist_ok=True)
        (nus / name).write_text("\n".join(lines))
    prepare(nus, root := tmp_path / "root")
    settings = DatasetConfig(kind="nuswide", annotations=str(root), images=str(root / "Flickr"))
    assert read_images(settings, CLASSES).unverified == ""
    (nus / "NUS_WID_Tags/Test_Tags1k.dat").write_text("\n".join(reversed(tables["NUS_WID_Tags/Test_Tags1k.dat"])))
    with pytest.raises(ValueError, match=r"Test_Tags1k\.dat: 2 of 2 test images have other labels"):
        read_images(settings, CLASSES)


@pytest.mark.parametrize("what", [os.mkfifo, Path.touch])
def test_prepare_nuswide_refuses_what_is_no_folder(tmp_path, capsys, what):
    what(tmp_path / "nus")
    prepare(tmp_path / "nus", tmp_path / "root", code=2)
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("name", ["Flickr", "AllTags1k.txt"])
def test_prepare_nuswide_refuses_what_is_no_link_and_leaves_it_as_it_is(nus, tmp_path, capsys, name):
    real = tmp_path / "root" / name
    real.mkdir(parents=True)
    prepare(nus, tmp_path / "root", code=2)
    assert f"error: {real} exists already and is not a link; move it away" in capsys.readouterr().err
    assert real.is_dir()
    assert not real.is_symlink()


def test_prepare_nuswide_says_where_the_images_should_be(nus, tmp_path, capsys):
    shutil.rmtree(nus / "Flickr")
    prepare(nus, tmp_path / "root", code=2)
    assert f"error: there is no folder {nus / 'Flickr'}" in capsys.readouterr().err
    assert not (tmp_path / "root").exists()


def test_prepare_nuswide_names_the_text_files_that_are_missing_and_links_nothing(nus, tmp_path, capsys):
    (nus / "NUS_WID_Tags" / "AllTags1k.txt").unlink()
    (nus / "Groundtruth" / "AllLabels" / "Labels_zebra.txt").unlink()
    prepare(nus, tmp_path / "root", code=2)
    assert "2 of the 85 text files" in (told := capsys.readouterr().err)
    assert "alltags1k.txt, labels_zebra.txt" in told
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("script", [prepare_coco, prepare_nuswide])
def test_help_teaches(script, capsys):
    with contextlib.suppress(SystemExit):
        script.main(["--help"])
    assert f"python scripts/{script.__name__}.py" in capsys.readouterr().out
