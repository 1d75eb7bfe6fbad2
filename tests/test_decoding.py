"""Images that kill, exhaust or disturb the process that decodes them, and processes that are killed."""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from rcnn.config import EvaluateConfig
from rcnn.score import decoding, reading, views
from rcnn.score.views import batches

ROOT = Path(__file__).parents[1]
GRIDS = (2,)


@pytest.fixture
def pictures(tmp_path):
    """Ten small pictures of noise, as files."""
    rng = np.random.default_rng(0)
    for i in range(10):
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), np.uint8)).save(tmp_path / f"{i}.png")
    return sorted(tmp_path.iterdir())


@pytest.fixture(autouse=True)
def two_cores(monkeypatch):
    monkeypatch.setattr("rcnn.score.views.available_cores", lambda: 2)


@pytest.fixture
def deadly(tmp_path, monkeypatch):
    """A file whose format kills the process that decodes it; this process is spared."""
    here = os.getpid()

    def kill(*_):
        assert os.getpid() != here
        os.kill(os.getpid(), signal.SIGKILL)

    Image.init()
    monkeypatch.setattr(Image, "ID", [*Image.ID, "DEADLY"])
    monkeypatch.setitem(Image.OPEN, "DEADLY", (kill, lambda start: start.startswith(b"deadly")))
    path = tmp_path / "deadly" / "x.jpg"
    path.parent.mkdir()
    path.write_bytes(b"deadly, and more than 16 bytes")
    return path


def read(images, batch_size=3, workers=2, **options):
    """(indices, pixels, broken) of all images together."""
    found = list(batches(images, 16, GRIDS, batch_size, workers, **options))
    pixels = [batch.pixels for batch in found if batch.indices]
    indices = [i for batch in found for i in batch.indices]
    return indices, torch.cat(pixels) if pixels else None, {i: why for batch in found for i, why in batch.broken.items()}


def only_reason(image, **options):
    (reason,) = read([image], **options)[2].values()
    return reason


def test_processes_give_the_batches_that_this_process_gives(pictures):
    here, there = (list(batches(pictures, 16, GRIDS, 3, workers)) for workers in (0, 2))
    assert [batch.indices for batch in here] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]
    for one, other in zip(here, there, strict=True):
        assert one.indices == other.indices
        assert one.pixels.equal(other.pixels)
    assert len(batches(pictures, 16, GRIDS, 3, 2)) == 4
    assert list(batches([], 16, GRIDS, 3, 2)) == []


def test_an_image_that_kills_its_process_is_named_and_all_others_come_in_order(pictures, deadly):
    for place in (0, 4, 9):
        images = [*pictures[:place], deadly, *pictures[place:]]
        indices, pixels, broken = read(images)
        assert broken == {place: "the process that decoded it was killed: it took more than 10 s, or the memory ran short"}
        assert indices == [i for i in range(11) if i != place]
        assert pixels.equal(read(pictures, workers=0)[1])


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_an_image_that_takes_for_ever_is_named_and_all_others_come(monkeypatch):
    def decode(index):
        while index == 1:
            pass
        return np.full((1, 2, 2, 3), index, np.uint8)

    monkeypatch.setattr(decoding, "SECONDS", 0.2)
    found = list(decoding.Batches(decode, 5, (1, 2, 2, 3), batch_size=2, workers=2))
    assert [batch.indices for batch in found] == [[0], [2, 3], [4]]
    assert found[0].broken == {1: decoding.KILLED}
    assert found[1].pixels.flatten(1)[:, 0].tolist() == [2, 3]


def test_images_that_kill_their_process_one_after_the_other_are_all_named(pictures, deadly):
    indices, pixels, broken = read([deadly, pictures[0], deadly, deadly, deadly, pictures[1]], batch_size=2)
    assert (indices, list(broken)) == ([1, 5], [0, 2, 3, 4])
    assert pixels.equal(read(pictures[:2], workers=0)[1])


def test_a_handful_of_images_with_one_that_kills_its_process_is_no_exception(pictures, deadly):
    assert [list(part) for part in read([pictures[0], deadly], batch_size=8)[::2]] == [[0], [1]]


def test_processes_that_are_killed_from_outside_lose_no_image(pictures):
    found = []
    for batch in batches(pictures * 3, 16, GRIDS, 3, 2):
        found.append(batch)
        for process in multiprocessing.active_children():
            process.kill()
    assert [i for batch in found for i in batch.indices] == list(range(30))
    assert torch.cat([batch.pixels for batch in found]).equal(read(pictures * 3, workers=0)[1])


@pytest.mark.parametrize("batches_read", [1, 4])
def test_no_process_is_left_when_the_images_are_read_or_left(pictures, batches_read):
    source = iter(batches(pictures, 16, GRIDS, 3, 2))
    for _ in range(batches_read):
        next(source)
    assert len(multiprocessing.active_children()) == 2
    source.close()
    assert multiprocessing.active_children() == []


SLOW = """
import sys, time
import numpy as np
from rcnn import cli
from rcnn.score.decoding import Batches

def decode(index):
    time.sleep(0.1)
    return np.zeros((1, 4, 4, 3), np.uint8)

def main():
    for _ in Batches(decode, 10_000, (1, 4, 4, 3), 2, workers=2):
        print("a batch", flush=True)

cli.run(main)
"""


@pytest.fixture
def slow():
    """A command in a process group of its own that has decoded its first batch; its output ends when its last process does."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": ROOT, "start_new_session": True}
    with subprocess.Popen([sys.executable, "-c", SLOW], **options) as process:
        assert process.stdout.readline() == "a batch\n"
        yield process
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_processes_end_when_the_one_that_started_them_is_killed(slow):
    slow.kill()
    slow.communicate(timeout=20)
    assert slow.returncode == -signal.SIGKILL


def test_ctrl_c_is_one_line_and_leaves_no_process(slow):
    os.killpg(slow.pid, signal.SIGINT)
    _, stderr = slow.communicate(timeout=20)
    assert (slow.returncode, stderr) == (130, "interrupted\n")


def test_a_broken_file_is_reported_and_the_images_around_it_come(pictures):
    pictures[4].write_bytes(pictures[4].read_bytes()[:300])
    for workers in (0, 2):
        indices, _, broken = read(pictures, workers=workers)
        assert (indices, list(broken)) == ([0, 1, 2, 3, 5, 6, 7, 8, 9], [4])


def not_regular(folder, kind):
    """Something that is named like an image and is none."""
    path = folder / "x.jpg"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to({"device": "/dev/zero", "dangling link": folder / "nowhere", "link loop": path}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("pipe", "not a regular file"),
        ("device", "not a regular file"),
        ("folder", "not a regular file"),
        ("dangling link", "No such file"),
        ("link loop", "Too many levels of symbolic links"),
    ],
)
def test_what_is_no_regular_file_is_never_read(tmp_path, kind, said):
    assert said in only_reason(not_regular(tmp_path, kind))


def jpeg(path, size, **options):
    """A JPEG of one colour after the other."""
    Image.linear_gradient("L").convert("RGB").resize(size).save(path, quality=90, **options)
    return path


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_a_jpeg_with_too_many_pixels_is_decoded_at_the_largest_fraction_that_has_not(tmp_path, limit, monkeypatch):
    path, decoded = jpeg(tmp_path / "large.jpg", (404, 800)), []
    monkeypatch.setattr(reading, "to_rgb", lambda image: decoded.append(image.size) or image)
    fraction = 2**limit
    reading.read_rgb(path, 16, max_pixels=404 * 800 // fraction**2 + 400)
    whole = reading.read_rgb(path, 16, max_pixels=404 * 800)
    assert decoded == [(-(-404 // fraction), 800 // fraction), (404, 800)]
    assert whole.size == (404, 800)


def test_an_image_within_the_limit_is_decoded_in_full_and_a_larger_one_looks_nearly_the_same(tmp_path):
    path = jpeg(tmp_path / "large.jpg", (400, 800))
    whole, limited, smaller = (read([path], max_pixels=limit)[1] for limit in (10**9, 320_000, 319_999))
    assert whole.equal(limited)
    assert not whole.equal(smaller)
    assert (whole.int() - smaller.int()).abs().max() < 8


@pytest.mark.parametrize(("name", "options"), [("x.png", {}), ("x.jpg", {"progressive": True}), ("x.webp", {}), ("x.gif", {})])
def test_other_images_with_too_many_pixels_are_refused_with_the_limit_and_its_option(tmp_path, name, options):
    path = jpeg(tmp_path / name, (1000, 800), **options)
    expected = "1,000 by 800 pixels are more than the 799,999 that evaluate.max_pixels allows"
    assert only_reason(path, max_pixels=799_999) == expected
    assert read([path], max_pixels=800_000)[2] == {}


def test_an_eighth_of_a_jpeg_may_still_be_too_large(tmp_path):
    path = jpeg(tmp_path / "x.jpg", (800, 800))
    assert read([path], max_pixels=10_000)[2] == {}
    assert "800 by 800 pixels" in only_reason(path, max_pixels=9_999)


def test_a_strip_counts_with_the_width_that_it_is_resized_to(tmp_path):
    Image.new("L", (1, 70_000)).save(tmp_path / "strip.png")
    assert read([tmp_path / "strip.png"], max_pixels=16 * 70_000)[2] == {}
    assert "1 by 70,000 pixels" in only_reason(tmp_path / "strip.png", max_pixels=16 * 70_000 - 1)


@pytest.mark.parametrize("workers", [0, 2])
def test_pillows_own_limit_neither_warns_nor_decides_and_stays_as_it_was(pictures, monkeypatch, workers):
    for limit in (1000, 500):  # the pictures have 1200 pixels: Pillow warns of them, and refuses them
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        with warnings.catch_warnings(record=True) as shown:
            assert len(read(pictures, workers=workers)[0]) == 10
            assert "30 pixels" in only_reason(pictures[0], workers=workers, max_pixels=1199)
        assert (shown, Image.MAX_IMAGE_PIXELS) == ([], limit)


def test_threads_that_read_at_once_leave_limit_warnings_and_stderr_as_they_were(pictures, tmp_path, capfd):
    tiff = tmp_path / "x.tif"
    Image.open(pictures[0]).save(tiff, compression="tiff_lzw")
    before = Image.MAX_IMAGE_PIXELS, warnings.filters[:]
    threads = [threading.Thread(target=read, args=([*pictures, tiff] * 5,), kwargs={"workers": 0}) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"still here\n")
    assert (Image.MAX_IMAGE_PIXELS, warnings.filters[:]) == before
    assert capfd.readouterr().err == "still here\n"


def noisy_tiff(folder, kind):
    """A TIFF of which libtiff writes to stderr, and whether it can be read nonetheless."""
    path = folder / "x.tif"
    noise = np.random.default_rng(0).integers(0, 256, (60, 80), np.uint8)
    fax = kind == "bad code"
    image = Image.fromarray(noise).convert("1") if fax else Image.fromarray(noise)
    image.save(path, compression="group4" if fax else "tiff_adobe_deflate")
    data = bytearray(path.read_bytes())
    start = int.from_bytes(data[4:8], "little")  # of the directory: a count, then tags of 12 bytes each
    tags = {int.from_bytes(data[at : at + 2], "little"): at for at in range(start + 2, start + 2 + 12 * data[start], 12)}
    strip = int.from_bytes(data[tags[273] + 8 : tags[273] + 12], "little")
    if kind == "strip counts":
        data[tags[279] + 4] = 2
    else:
        data[strip + 20 : strip + 60] = bytes(40)
    path.write_bytes(data)
    return path, fax


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("kind", ["bad code", "strip counts", "bad data"])
def test_what_libtiff_writes_to_stderr_by_itself_is_not_seen(tmp_path, capfd, kind, workers):
    path, readable = noisy_tiff(tmp_path, kind)
    with Image.open(path) as image, contextlib.suppress(OSError):
        image.load()
    assert capfd.readouterr().err != ""
    _, _, broken = read([path], workers=workers)
    assert len(broken) == (not readable)
    assert all("\n" not in reason for reason in broken.values())
    assert capfd.readouterr().err == ""


READ = """
import sys
from rcnn.score.reading import read_rgb, reason

try:
    print(read_rgb(sys.argv[1], 9).size)
except Exception as error:
    print(reason(error))
"""


def test_a_tiff_is_read_where_stderr_is_closed(pictures, tmp_path):
    Image.open(pictures[0]).save(tmp_path / "x.tif", compression="tiff_lzw")
    command = ["sh", "-c", 'exec "$@" 2>&-', "sh", sys.executable, "-c", READ, tmp_path / "x.tif"]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    assert ended.stdout == "(40, 30)\n"


def test_what_pillow_warns_of_or_logs_is_not_seen(pictures, tmp_path):
    Image.open(pictures[0]).save(tmp_path / "x.tif")
    data = (tmp_path / "x.tif").read_bytes()
    samples = b"\x15\x01\x03\x00\x01\x00\x00\x00"  # the tag of samples per pixel, and that it has one value
    for change in (b"\xff\xff", b"\x03\x00\xff"):
        assert samples in data
        at = data.index(samples) + len(samples)
        (tmp_path / "x.tif").write_bytes(data[:at] + change + data[at + len(change) :])
        command = [sys.executable, "-W", "error", "-c", READ, tmp_path / "x.tif"]
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert (len(ended.stdout.splitlines()), ended.stderr) == (1, "")


MEMORY = """
import resource, sys
import numpy as np
from rcnn.score.reading import read_rgb

def peak(image):
    read_rgb(image, 64, upright=True).resize((64, 64))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

before = peak(np.zeros((8, 8, 3), np.uint8))
print((peak(sys.argv[1]) - before) / 3000**2)
"""


@pytest.mark.parametrize(("mode", "most"), [("I;16", 8), ("I", 10), ("RGBA", 9), ("RGB", 5)])
def test_memory_while_an_image_is_read_is_bounded_by_its_pixels(tmp_path, mode, most):
    path = tmp_path / ("x.tif" if mode == "I" else "x.png")
    (Image.new(mode, (3000, 3000), 20_000) if mode.startswith("I") else Image.new(mode, (3000, 3000))).save(path)
    ended = subprocess.run([sys.executable, "-c", MEMORY, path], cwd=ROOT, capture_output=True, text=True, check=True)
    assert float(ended.stdout) < most  # bytes a pixel


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I"])
def test_greys_of_more_than_eight_bits_keep_bits_8_to_15(mode):
    values = np.random.default_rng(0).integers(0, 1 << 16, (20, 30))
    values[0, :4] = 0, 255, 256, 65535
    if mode == "I":
        values[1, :4] = -1, -70_000, 65_536, 2**31 - 1
    kind = {"I;16": "<u2", "I;16B": ">u2", "I": "<i4"}[mode]
    image = Image.frombytes(mode, (30, 20), values.astype(kind).tobytes())
    assert np.array_equal(np.asarray(reading.to_rgb(image))[:, :, 1], (values >> 8).clip(0, 255))


@pytest.mark.parametrize("orientation", range(10))
def test_photographs_are_turned_as_pillow_turns_them(pictures, tmp_path, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.open(pictures[0]).save(tmp_path / "turned.png", exif=exif)
    with Image.open(tmp_path / "turned.png") as image:
        expected = ImageOps.exif_transpose(image)
    assert np.array_equal(reading.read_rgb(tmp_path / "turned.png", 16, upright=True), expected)


@pytest.mark.parametrize(
    "entry",  # of the tag "orientation": its type, count and value
    [b"\0\2\0\0\0\2" + b"6\0\0\0", b"\0\7\0\0\0\4" + bytes(4), b"\0\5\0\xff\xff\xff" + b"\xff" * 4],
    ids=["text", "bytes", "beyond the end"],
)
def test_exif_data_of_a_wrong_type_or_damaged_turn_nothing(pictures, tmp_path, entry):
    exif = b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12" + entry + bytes(4)
    for length in (len(exif), 20, 9):
        Image.open(pictures[0]).save(tmp_path / "x.jpg", exif=exif[:length])
        assert reading.read_rgb(tmp_path / "x.jpg", 16, upright=True).size == (40, 30)


def test_an_image_that_was_given_is_left_as_it_is(pictures):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(pictures[0])
    image.info["exif"] = exif.tobytes()
    before = np.asarray(image).copy()
    read([image], upright=True, workers=0)
    assert image.size == (40, 30)
    assert np.array_equal(image, before)


def test_a_reason_is_one_printable_line(tmp_path):
    path = tmp_path / "a\nb\x1b[31m.jpg"
    path.write_bytes(b"no image")
    assert only_reason(path) == "cannot identify image: it is damaged, or of no known format"
    assert only_reason(tmp_path / "c\nd\x1b[31m.jpg").isprintable()
    assert len(reading.reason(ValueError("x" * 10**6))) < 250
    assert reading.reason(MemoryError()) == "MemoryError"


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (np.zeros((0, 4, 3), np.uint8), "it has no pixels"),
        (Image.new("L", (5, 0)), "it has no pixels"),
        (None, "expected a path, a PIL image or an array, got NoneType"),
        (b"x.jpg", "expected a path, a PIL image or an array, got bytes"),
        ("a\0b", "embedded null byte"),
    ],
)
def test_what_is_no_image_is_reported(image, said):
    assert only_reason(image, workers=0) == said


def test_postscript_named_like_a_photograph_is_given_to_no_program(tmp_path, monkeypatch):
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\nsleep 100\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n{} loop\n")
    with pytest.raises(Image.UnidentifiedImageError):
        reading.read_rgb(photo, 16)
    assert not (tmp_path / "ran").exists()


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores are given to processes on Linux")
def test_processes_of_torchrun_share_the_cores_that_they_may_use(monkeypatch):
    monkeypatch.undo()
    for name in ("TORCHELASTIC_RUN_ID", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(9)))
    assert views.available_cores() == 9
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert views.available_cores() == 9  # torchrun did not start this process
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    assert views.available_cores() == 2
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "64")
    assert views.available_cores() == 1


@pytest.mark.skipif(sys.platform != "linux", reason="processes are forked")
def test_by_default_there_is_a_process_for_every_core_and_never_one_without_a_batch(pictures):
    default = EvaluateConfig().workers
    for count, batch_size, expected in ((10, 3, 2), (3, 3, 1), (1000, 3, 2)):
        assert views.processes(default, count, batch_size) == expected
    source = iter(batches(pictures, 16, GRIDS, 3, default))
    next(source)
    assert len(multiprocessing.active_children()) == 2
    source.close()
