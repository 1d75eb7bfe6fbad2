"""Open Images: labels of the official files or one line on what is wrong with them, its metrics, and the way to get it."""

import csv
import hashlib
import io
import itertools
import os
import random
import shutil
import tarfile
import threading

import download
import make_standins
import numpy as np
import prepare_openimages
import pytest
import torch
from download import Archive, untar
from hostile import at_once, irregular
from made_up import ROOT, classes
from running import rcnn
from sklearn.metrics import average_precision_score
from test_download import Server, free, tree

from rcnn import cli
from rcnn.config import DatasetConfig
from rcnn.datasets import DATASETS, openimages
from rcnn.datasets.images import read_images
from rcnn.datasets.openimages import DESCRIPTIONS, HEADER, IMAGES, LABELS
from rcnn.results.measure import measure, task_images
from rcnn.text.classes import ClassList

CLASSES = ClassList(("Crane", "Crane", "Tortoise", "Fauna"), 3, ("/m/0crane", "/m/0bird_-", "/m/011k07", "/m/035qhg"))
A, B, C, D = (f"{i:016x}" for i in (0xA, 0xB, 0xC, 0xD))
LISTED = [C, A, B, D]  # none of D's labels is of these classes
VERIFIED = [
    (A, "/m/0crane", 1), (A, "/m/0bird_-", 0), (B, "/m/0bird_-", 1), (B, "/m/0other", 1), (C, "/m/035qhg", 0),
    (C, "/m/011k07", 1), (A, "/m/035qhg", 1), (D, "/m/0other", 1), (D, "/t/other", 0),
]  # fmt: skip
EXPECTED = {A: [1, -1, 0, 1], B: [0, 1, 0, 0], C: [0, 0, 1, -1], D: [0, 0, 0, 0]}
KNOWN = [*zip(CLASSES.notes, CLASSES.names, strict=True), ("/m/0other", 'Other, "so called"'), ("/t/other", "x")]


def text(lines):
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(lines)
    return out.getvalue()


def content(**other):
    """{name: text} of the three files, with some of `other` content; None for no such file."""
    files = {
        "labels": text([HEADER, *([image, "verification", label, sign] for image, label, sign in VERIFIED)]),
        "images": text([["ImageID", "Subset", "Title"], *([name, "test", 'a "title", cut'] for name in LISTED)]),
        "known": text(KNOWN),
    } | other
    names = {"labels": LABELS, "images": IMAGES, "known": DESCRIPTIONS}
    return {names[key]: value for key, value in files.items() if value is not None}


def write(root, below="test", **other):
    """Write these files in the layout of the server, or flat; returns the folder."""
    for name, value in content(**other).items():
        path = root / ("" if name == DESCRIPTIONS else below) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(value.encode() if isinstance(value, str) else value)
    return root


def labels(root, of=CLASSES):
    names, found = openimages.labels(openimages.find(root, None, of), of)
    assert found.dtype == np.int8
    return dict(zip((name.removesuffix(".jpg") for name in names), found.tolist(), strict=True))


def read(root, images=None, of=CLASSES, **selection):
    settings = DatasetConfig(kind="openimages", annotations=root, images=images or root / "test", **selection)
    return read_images(settings, of)


def line(*fields):
    """The file of labels with one line more."""
    return content()[LABELS] + ",".join(fields) + "\n"


def test_verified_labels_are_1_and_minus_1_and_all_others_unknown_in_the_order_of_the_list_of_images(tmp_path):
    assert labels(write(tmp_path)) == EXPECTED
    assert list(labels(tmp_path)) == LISTED


@pytest.mark.parametrize("below", ["test", "."])
def test_files_are_found_in_the_layout_of_the_server_and_flat(tmp_path, below):
    assert labels(write(tmp_path, below)) == EXPECTED


def test_without_the_list_images_come_in_the_order_of_their_labels_and_that_they_are_all_is_not_verified(tmp_path):
    assert list(labels(write(tmp_path, images=None))) == [A, B, C, D]
    assert labels(tmp_path) == EXPECTED
    files = openimages.find(tmp_path, None, CLASSES)
    assert openimages.unverified(files, CLASSES) == f"that these are the images of the test set, as {IMAGES} is not there"
    del files[DESCRIPTIONS]
    assert f"; the identifiers of the classes, as {DESCRIPTIONS} is not there" in openimages.unverified(files, CLASSES)


def spelt(whole, end="\n", quote="", first=""):
    lines = whole.splitlines()
    return first + "".join(",".join(f"{quote}{field}{quote}" for field in x.split(",")) + end for x in lines)


@pytest.mark.parametrize("form", [
    {"end": "\r\n"}, {"quote": '"'}, {"first": "\ufeff"}, {"end": "\n\n"}, {"end": "\r\n", "quote": '"', "first": "\ufeff"},
])  # fmt: skip
def test_crlf_quotes_a_byte_order_mark_and_blank_lines_change_nothing(tmp_path, form):
    assert labels(write(tmp_path, labels=spelt(content()[LABELS], **form))) == EXPECTED
    assert openimages.counts(openimages.find(tmp_path, None, CLASSES)) == {"labels": len(VERIFIED)}


def test_a_last_line_without_an_end_counts(tmp_path):
    assert labels(write(tmp_path, labels=content()[LABELS].rstrip("\n"))) == EXPECTED


def test_a_label_said_twice_and_labels_of_other_classes_are_counted(tmp_path, capsys):
    assert labels(write(tmp_path, labels=line(A, "crowdsource-verification", "/m/0crane", "1"))) == EXPECTED
    assert capsys.readouterr().out == (
        f"{LABELS}: 7 labels of 4 images are used, 1 of them said twice; 3 are of 2 identifiers that are no class of the list\n"
    )


BAD = {  # what is written, and the end of the one line
    "a cut line": ({"labels": content()[LABELS][:-5]}, f"{LABELS}: line 10: expected 4 fields, got 3; perhaps"),
    "a field more": ({"labels": line(A, "x", "/m/0crane", "1", "")}, "line 11: expected 4 fields, got 5; perhaps"),
    "another header": (
        {"labels": content()[LABELS].replace("Source", "Origin")},
        "line 1: expected the header ImageID,Source,LabelName,Confidence, got 'ImageID,Origin,LabelName,Confidence'",
    ),
    "no header": ({"labels": ""}, "line 0: expected the header ImageID,Source,LabelName,Confidence, got ''"),
    "a confidence between": (
        {"labels": line(A, "machine", "/m/0crane", "0.7")}, "line 11: expected the Confidence 0 or 1 of people, got '0.7'",
    ),
    "no confidence": ({"labels": line(A, "x", "/m/0crane", "")}, "line 11: expected the Confidence 0 or 1 of people, got ''"),
    "no label": ({"labels": line(A, "x", "", "1")}, "line 11: LabelName: expected an identifier such as /m/011k07, got ''"),
    "no identifier": (
        {"labels": line(A, "x", "Crane", "1")}, "line 11: LabelName: expected an identifier such as /m/011k07, got 'Crane'",
    ),
    "no image": ({"labels": line("", "x", "/m/0crane", "1")}, f"line 11: image '' is not in TREE/test/{IMAGES}"),
    "no image, without the list": (
        {"labels": line("", "x", "/m/0crane", "1"), "images": None}, "line 11: ImageID: expected 16 hexadecimal digits, got ''",
    ),
    "an image that leads out": (
        {"labels": line("../../0123456789", "x", "/m/0crane", "1"), "images": None},
        "line 11: ImageID: expected 16 hexadecimal digits, got '../../0123456789'",
    ),
    "an image that is not there": (
        {"labels": line("f" * 16, "x", "/m/0crane", "1")}, f"line 11: image 'ffffffffffffffff' is not in TREE/test/{IMAGES}",
    ),
    "a contradiction": (
        {"labels": line(B, "x", "/m/0bird_-", "0")},
        f"{LABELS}: image {B} has the label /m/0bird_- both as 1 and as 0; take one of the lines away",
    ),
    "NUL": ({"labels": line(A, "x", "/m/0cr\0ne", "1")}, r"identifier such as /m/011k07, got '/m/0cr\x00ne'"),
    "a quote that does not end": ({"labels": line(A, '"x', "/m/0crane", "1")}, "unexpected end of data"),
    "no UTF-8": ({"labels": line(A, "x", "/m/0crane", "1").encode() + b"\xff\xfe"}, "can't decode byte 0xff"),
    "an image listed twice": ({"images": f"ImageID\n{A}\n{B}\n{C}\n{D}\n{A}\n"}, f"{IMAGES} names {A} more than once"),
    "a foreign list": ({"images": "id,url\n"}, f"{IMAGES}: line 1: expected the header ImageID, got 'id,url'"),
    "a cut list of classes": ({"known": text(KNOWN)[:20]}, f"{DESCRIPTIONS}: line 2: expected 2 fields, got 1; perhaps"),
    "an unknown class": (
        {"known": text(KNOWN[1:])}, f"1 of 4 classes have no identifier, or not one alone, that TREE/{DESCRIPTIONS} knows: "
        "Crane [/m/0crane]; expected lines such as 'Tortoise [/m/011k07]' in the class lists",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_bad_files_end_in_one_line(tmp_path, what):
    written, said = BAD[what]
    with pytest.raises(ValueError, match=r".") as told:
        labels(write(tmp_path, **written))
    assert said.replace("TREE", str(tmp_path)) in str(told.value)
    assert "\n" not in str(told.value)


def test_a_file_cut_anywhere_is_refused_or_has_fewer_labels_than_the_official_one(tmp_path):
    whole, refused = content()[LABELS], 0
    for length in range(0, len(whole) - 1, 3):
        write(tmp_path, labels=whole[:length])
        try:
            labels(tmp_path)
        except ValueError:
            refused += 1
        else:
            assert openimages.counts(openimages.find(tmp_path, None, CLASSES))["labels"] < len(VERIFIED)
    assert refused > 0.9 * len(whole) / 3


def test_the_official_files_name_so_many_images_and_labels(tmp_path):
    assert DATASETS["openimages"].counts == {"test images": 125_436, "labels": 1_667_399}
    write(tmp_path)
    for name in (A, B, C):
        (tmp_path / "test" / f"{name}.jpg").touch()
    assert read(tmp_path).counts == {"test images": 4, "labels": len(VERIFIED)}


@pytest.mark.parametrize("name", [LABELS, IMAGES, DESCRIPTIONS])
def test_pipes_folders_and_devices_in_place_of_a_file_are_refused_at_once(tmp_path, name):
    for i, thing in enumerate(irregular(tmp_path, "x")):
        root = write(tmp_path / str(i))
        path = root / ("" if name == DESCRIPTIONS else "test") / name
        path.unlink()
        path.symlink_to(thing)
        with at_once(), pytest.raises(ValueError, match="is not a regular file"):
            read(root)


def test_a_file_that_is_far_too_large_is_refused_unread(tmp_path):
    with open(write(tmp_path) / "test" / LABELS, "r+b") as file:
        file.truncate(1 << 40)
    with at_once(), pytest.raises(ValueError, match="more than 268,435,456 bytes"):
        read(tmp_path)


def test_classes_without_an_identifier_are_found_by_a_name_that_only_one_has(tmp_path):
    names = ClassList(("crane", "tortoise", "fauna"), 2, ("/m/0bird_-", "", ""))
    assert labels(write(tmp_path), names) == {image: [x[1], x[2], x[3]] for image, x in EXPECTED.items()}
    with pytest.raises(
        ValueError, match=r"2 of 3 classes .*: Crane \(/m/0crane or /m/0bird_-\), dragon; expected lines such as"
    ):
        labels(tmp_path, ClassList(("Crane", "dragon", "Fauna"), 2))
    with pytest.raises(ValueError, match=r"1 of 1 classes .*: Crane \[a wading bird\]; expected"):
        labels(tmp_path, ClassList(("Crane",), 0, ("a wading bird",)))
    with pytest.raises(ValueError, match=r"^1 identifiers stand for two classes of the list each: /m/011k07$"):
        labels(tmp_path, ClassList(("Tortoise", "turtle"), 1, ("", "/m/011k07")))
    (tmp_path / DESCRIPTIONS).unlink()
    with pytest.raises(
        ValueError, match=rf"2 of 3 .* and there is no {DESCRIPTIONS} in which to look them up: tortoise, fauna;"
    ):
        labels(tmp_path, names)


def test_every_class_that_ships_has_an_identifier_of_its_own_and_112_names_occur_more_than_once_but_for_capitals():
    shipped = classes("openimages")
    assert (len(shipped), shipped.seen) == (7586, 7186)
    assert openimages.identifiers({}, shipped) == list(shipped.notes)
    count = {name: len(list(same)) for name, same in itertools.groupby(sorted(map(str.lower, shipped.names)))}
    assert sum(n > 1 for n in count.values()) == 112


def test_images_without_a_known_positive_are_left_out_and_missing_ones_named(tmp_path):
    write(tmp_path)
    for name in (A, B):
        (tmp_path / "test" / f"{name}.jpg").touch()
    with pytest.raises(FileNotFoundError, match=rf"^1 of 3 images are missing .*\n  .*{C}\.jpg\n(.|\n)*prepare_openimages\.py"):
        read(tmp_path)
    found = read(tmp_path, allow_missing=True)
    assert [path.stem for path in found.paths] == [A, B]
    assert (found.left_out, found.missing, found.unverified) == (1, (str(tmp_path / "test" / f"{C}.jpg"),), "")
    assert found.labels.tolist() == [EXPECTED[A], EXPECTED[B]]
    assert task_images(found.labels, CLASSES.seen).tolist() == [True, False]


@pytest.mark.parametrize("place", ["", "test"])
def test_images_may_lie_in_the_folder_or_in_test_below_it(tmp_path, place):
    images = tmp_path / "images"
    (images / "test").mkdir(parents=True)
    for name in (A, B, C):
        (images / place / f"{name}.jpg").touch()
    assert [path.parent for path in read(write(tmp_path / "oi"), images).paths] == [images / place] * 3


def test_ap_and_top_k_with_unknown_labels_equal_scikit_learn_and_numpy(tmp_path):
    """On labels of stand-ins, all 7,586 classes, as the evaluation measures them."""
    shipped = classes("openimages")
    half = ClassList(shipped.names, 4000, shipped.notes)  # so that ZSL has labels of all three kinds
    make_standins.openimages(tmp_path, 30, half)
    y = read(tmp_path, of=half).labels
    scores = np.random.default_rng(0).normal(size=y.shape).astype(np.float32) + y.numpy() * np.float32(3)
    for first in half.tasks.values():
        used = task_images(y, first)
        found = measure(scores, y, first, used, (10, 20))
        s, t = scores[used.numpy()][:, first:], y.numpy()[used.numpy()][:, first:]
        assert 0 < (t == -1).sum() < (t == 0).sum()
        positive = np.flatnonzero((t == 1).any(0))
        expected = [average_precision_score(t[known, c] == 1, s[known, c]) for c in positive for known in [t[:, c] != 0]]
        np.testing.assert_allclose(found.class_ap[positive], expected, atol=1e-6)
        for k in (10, 20):
            best = np.argsort(-s, axis=1)[:, :k]
            hits = (np.take_along_axis(t, best, 1) == 1).sum()
            p, r = hits / (k * len(t)), hits / (t == 1).sum()
            assert [found.values[f"{x}@{k}"] for x in ("P", "R", "F1")] == pytest.approx(
                [100 * p, 100 * r, 200 * p * r / (p + r)]
            )


def packed(path, members):
    """A tar.gz file of {name: content, or what a TarInfo has}."""
    with tarfile.open(path, "w:gz") as archive:
        for name, value in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(value, dict):
                info.__dict__.update(value) if "size" in value else [setattr(info, k, v) for k, v in value.items()]
                value = b""
            info.size = len(value)
            archive.addfile(info, io.BytesIO(value))
    return path


PHOTOS = {f"test/{name}.jpg": random.Random(name).randbytes(3000) for name in (A, B, C, D)}


def test_images_of_a_tar_file_are_unpacked_into_one_folder_whatever_folder_they_are_packed_in(tmp_path):
    inner = {
        "test": {"type": tarfile.DIRTYPE},
        "test/README": b"x",
        **{name.replace("test/", "./a/b/"): v for name, v in PHOTOS.items()},
    }
    untar(packed(tmp_path / "test.tar.gz", inner), tmp_path / "test", ".jpg")
    assert tree(tmp_path / "test") == {name.removeprefix("test/"): value for name, value in PHOTOS.items()}


def test_an_interrupted_unpacking_of_a_tar_file_leaves_no_half_file_and_is_continued(tmp_path, monkeypatch):
    path, copy, done = packed(tmp_path / "test.tar.gz", PHOTOS), shutil.copyfileobj, []

    def interrupted(source, target, length):
        if len(done) == 2:
            target.write(source.read(100))
            raise KeyboardInterrupt
        done.append(copy(source, target, length))

    monkeypatch.setattr(shutil, "copyfileobj", interrupted)
    with pytest.raises(KeyboardInterrupt):
        untar(path, tmp_path / "test", ".jpg")
    monkeypatch.setattr(shutil, "copyfileobj", copy)
    assert {file.stat().st_size for file in (tmp_path / "test").iterdir()} == {3000}
    first = tmp_path / "test" / f"{A}.jpg"
    os.utime(first, ns=(0, 0))
    (tmp_path / "test" / f"{B}.jpg").write_bytes(b"cut")
    untar(path, tmp_path / "test", ".jpg")
    assert first.stat().st_mtime_ns == 0
    assert tree(tmp_path / "test") == {name.removeprefix("test/"): value for name, value in PHOTOS.items()}


@pytest.mark.parametrize("name", ["../x.jpg", "test/../../x.jpg", "/x.jpg"])
def test_a_member_of_a_tar_file_that_leads_out_is_refused(tmp_path, name):
    with pytest.raises(ValueError, match="leads out of"):
        untar(packed(tmp_path / "test.tar.gz", {name: b"x"}), tmp_path / "in" / "test", ".jpg")
    assert list(tree(tmp_path)) == ["test.tar.gz"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.GNUTYPE_SPARSE])
def test_a_member_of_a_tar_file_that_is_no_plain_file_is_refused(tmp_path, kind):
    path = packed(tmp_path / "test.tar.gz", {"test/x.jpg": {"type": kind, "linkname": "/etc/passwd"}})
    with at_once(), pytest.raises(ValueError, match=r"is no whole tar\.gz file \(.*\); delete it and run again"):
        untar(path, tmp_path / "test", ".jpg")
    assert list(tree(tmp_path)) == ["test.tar.gz"]


def test_a_tar_file_that_is_cut_or_changed_is_refused_in_one_line_and_leaves_no_half_file(tmp_path):
    whole = packed(tmp_path / "test.tar.gz", PHOTOS).read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole) - 8, 499)]
    cuts = len(damaged)
    damaged += [whole[:i] + bytes([whole[i] ^ 255]) + whole[i + 1 :] for i in range(0, len(whole), 997)]
    for i, data in enumerate([*damaged, b"no archive"]):
        (tmp_path / "test.tar.gz").write_bytes(data)
        folder = tmp_path / str(i)
        told = ""
        try:
            untar(tmp_path / "test.tar.gz", folder, ".jpg")
        except ValueError as error:
            told = str(error)
        assert "\n" not in told
        assert told or i >= cuts  # a changed byte may be one of a header that says nothing
        assert {path.stat().st_size for path in folder.glob("*")} <= {3000}


def test_a_tar_file_without_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"test\.tar\.gz has no \.jpg"):
        untar(packed(tmp_path / "test.tar.gz", {"README": b"x"}), tmp_path / "test", ".jpg")


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A server with small files in place of the official ones, and the folder that they come to."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(download, "time", type("time", (), {"sleep": lambda _: None}))
    shipped = classes("openimages")
    rows = [[image, "verification", shipped.notes[j], 1] for j, image in enumerate([A, B, C, D])]
    bodies = {
        LABELS: text([HEADER, *rows]).encode(), DESCRIPTIONS: text(zip(shipped.notes, shipped.names, strict=True)).encode(),
        IMAGES: text([["ImageID"], *([name] for name in LISTED)]).encode(),
        "test.tar.gz": packed(tmp_path / "x.tar.gz", PHOTOS).read_bytes(),
    }  # fmt: skip
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        at = f"http://127.0.0.1:{server.server_port}"
        server.files = {f"/{name}": body for name, body in bodies.items()}
        made = {
            name: Archive(f"{at}/{name}", len(body), sha256=hashlib.sha256(body).hexdigest()) for name, body in bodies.items()
        }
        monkeypatch.setattr(prepare_openimages, "FILES", (made[LABELS], made[DESCRIPTIONS], Archive(f"{at}/{IMAGES}", None)))
        monkeypatch.setattr(prepare_openimages, "IMAGES", made["test.tar.gz"])
        yield server
        server.shutdown()
        thread.join()


def prepare(capsys, root, *options, code=0):
    """What the script prints: (stdout, stderr)."""
    with pytest.raises(SystemExit) as ended:
        cli.run(lambda: prepare_openimages.main(["--root", str(root), *map(str, options)]))
    told = capsys.readouterr()
    assert (ended.value.code or 0) == code, told
    return told


def test_prepare_states_sizes_downloads_checks_unpacks_and_lists_what_is_missing(official, tmp_path, capsys):
    root = tmp_path / "root"
    told, _ = prepare(capsys, root)
    assert told.startswith(f"{LABELS}: 0.0000 GB, to be checked; 0.0000 GB are there\n")
    assert f"{IMAGES}: its size and checksum are not known; 0.0000 GB are there\n" in told
    assert told.endswith(
        f"4 images are in {root}; 0 without a verified positive label are not needed\nnext: bash scripts/openimages.sh\n"
    )
    assert set(tree(root)) == {LABELS, DESCRIPTIONS, IMAGES, *PHOTOS}
    asked = len(official.asked)
    (root / "test" / f"{C}.jpg").unlink()
    told, _ = prepare(capsys, root, code=1)
    assert told.endswith(
        f"1 are missing:\n  {root}/test/{C}.jpg\nto download all of them anew, move {root}/test away and run again\n"
    )
    assert len(official.asked) == asked


def test_prepare_goes_on_where_a_server_broke_off_and_fetches_nothing_twice(official, tmp_path, capsys):
    root = tmp_path / "root"
    official.cuts = iter([100, None, None, None, None, 5000])
    prepare(capsys, root)
    assert official.asked == [  # the list of images once for its size alone
        (f"/{LABELS}", None), (f"/{LABELS}", "bytes=100-"), (f"/{DESCRIPTIONS}", None), (f"/{IMAGES}", None),
        (f"/{IMAGES}", None), ("/test.tar.gz", None), ("/test.tar.gz", "bytes=5000-"),
    ]  # fmt: skip
    assert tree(root / "test") == {name.removeprefix("test/"): value for name, value in PHOTOS.items()}


def test_prepare_refuses_an_archive_that_is_not_the_official_one_and_keeps_it_aside(official, tmp_path, capsys):
    official.files["/test.tar.gz"] = official.files["/test.tar.gz"][:-1] + b"x"
    _, told = prepare(capsys, tmp_path / "root", code=2)
    (line,) = told.splitlines()
    assert line.startswith("error: test.tar.gz has SHA-256 ")
    assert "run again to download it anew" in line
    assert (tmp_path / "root" / "test.tar.gz.wrong").exists()
    assert not (tmp_path / "root" / "test").exists()


def test_prepare_says_in_one_line_that_a_server_refuses(official, tmp_path, capsys):
    official.statuses = itertools.repeat(404)
    _, told = prepare(capsys, tmp_path / "root", code=2)
    (line,) = told.splitlines()
    assert f"{LABELS} could not be downloaded (Not Found)" in line
    official.statuses = iter([None, None, 404])
    _, told = prepare(capsys, tmp_path / "root", code=2)
    assert f"{IMAGES} could not be downloaded (Not Found); run again, or fetch it by hand" in told


def test_prepare_says_what_the_disk_lacks_before_anything_is_fetched(official, tmp_path, capsys, monkeypatch):
    needed = sum(archive.size for archive in (*prepare_openimages.FILES[:2], *[prepare_openimages.IMAGES] * 2))
    free(monkeypatch, needed - 1)
    _, told = prepare(capsys, tmp_path / "root", code=2)
    assert "Open Images needs another 0.0 GB" in told
    assert not official.asked
    free(monkeypatch, needed)
    prepare(capsys, tmp_path / "root")


@pytest.mark.parametrize("below", ["test", "."])
def test_prepare_links_the_images_of_a_folder_and_downloads_only_label_files_that_it_lacks(official, tmp_path, capsys, below):
    mine = tmp_path / "mine"
    (mine / below).mkdir(parents=True)
    for name, value in PHOTOS.items():
        (mine / below / name.removeprefix("test/")).write_bytes(value)
    (mine / LABELS).write_bytes(official.files[f"/{LABELS}"])
    told, _ = prepare(capsys, tmp_path / "root", "--folder", mine)
    assert "4 images are in" in told
    assert "test.tar.gz" not in told
    assert {path for path, _ in official.asked} == {f"/{DESCRIPTIONS}", f"/{IMAGES}"}
    assert (tmp_path / "root" / "test").readlink() == (mine / below).resolve()
    assert (tmp_path / "root" / LABELS).is_symlink()


def test_prepare_writes_nothing_into_a_linked_folder_though_a_download_was_begun(official, tmp_path, capsys):
    mine, root = tmp_path / "mine", tmp_path / "root"
    for folder in (mine, root):
        folder.mkdir()
    (mine / f"{A}.jpg").write_bytes(PHOTOS[f"test/{A}.jpg"])
    (root / "test.tar.gz.part").write_bytes(official.files["/test.tar.gz"][:1000])
    told, _ = prepare(capsys, root, "--folder", mine, code=1)
    assert "3 are missing:\n" in told
    assert "/test.tar.gz" not in {path for path, _ in official.asked}
    assert list(tree(mine)) == [f"{A}.jpg"]


def test_prepare_goes_on_unpacking_where_it_was_killed(official, tmp_path, capsys):
    root = tmp_path / "root"
    prepare(capsys, root, "--keep")
    assert (root / "test.tar.gz").exists()
    (root / "test" / f"{B}.jpg").unlink()
    asked = len(official.asked)
    prepare(capsys, root)
    assert len(official.asked) == asked
    assert set(tree(root)) == {LABELS, DESCRIPTIONS, IMAGES, *PHOTOS}


def test_help_of_the_script_teaches(capsys):
    with pytest.raises(SystemExit):
        prepare_openimages.main(["--help"])
    assert "python scripts/prepare_openimages.py --folder" in capsys.readouterr().out


def test_prepare_refuses_a_folder_without_images_and_labels_of_another_release(official, tmp_path, capsys):
    (tmp_path / "mine").mkdir()
    _, told = prepare(capsys, tmp_path / "root", "--folder", tmp_path / "mine", code=2)
    assert told == f"error: there are no images (*.jpg) in {tmp_path}/mine or its folder test\n"
    (tmp_path / "mine" / f"{A}.jpg").touch()
    (tmp_path / "mine" / LABELS).write_text("ImageID,Source,LabelName,Confidence\n")
    _, told = prepare(capsys, tmp_path / "root", "--folder", tmp_path / "mine", code=2)
    assert f"error: {LABELS} has SHA-256 " in told
    assert (tmp_path / "mine" / LABELS).exists()


def test_the_configuration_looks_where_the_script_puts_what_the_reader_wants():
    assert [archive.name for archive in prepare_openimages.FILES] == [LABELS, DESCRIPTIONS, IMAGES]
    text = (ROOT / "configs" / "openimages.yaml").read_text(encoding="utf-8")
    assert "images: downloads/openimages/test\n" in text
    assert "annotations: downloads/openimages " in text


def test_data_check_says_that_there_are_no_descriptions_and_goes_on(tmp_path):
    shipped = classes("openimages")
    make_standins.openimages(tmp_path, 3, shipped)
    clip = ["clip.model=null", "clip.pretrained=null", f"clip.weights={ROOT}/data/mini/clip.safetensors"]
    told, _ = rcnn(
        "data", "check", "--config", ROOT / "configs" / "openimages.yaml", *clip, "corpus.path=null",
        f"dataset.images={tmp_path}/test", f"dataset.annotations={tmp_path}", f"cache={tmp_path}/cache",
    )  # fmt: skip
    assert "ok       text corpus: none (corpus.path is null): only the rows that need no descriptions are made" in told
    assert "3 test images; EXPECTED 125,436" in told
    assert torch.is_tensor(read(tmp_path, of=shipped).labels)
