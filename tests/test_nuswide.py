"""NUS-WIDE's text files: tables of zeros and ones as found in the wild, files in any layout, labels in the right order."""

import os
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcnn.config import DatasetConfig
from rcnn.datasets import DATASETS, nuswide
from rcnn.datasets.images import read_images
from rcnn.files import digest
from rcnn.text.classes import ClassList

CLASSES = ClassList(("sky", "dog", "airport", "Beach"), 2)
TAGS = ["nature", "Dog", "beach", "sky"]
IMAGES = ["zebra/0003_5.jpg", "actor/0002_2.jpg", "zebra/0001_3.jpg", "actor/0001_1.jpg", "zebra/0002_4.jpg"]
TESTED = [3, 0, 4]  # lines of Imagelist.txt, in the order of TestImagelist.txt
BY_TAG = np.array([[1, 0, 1, 0], [1, 1, 1, 1], [0, 1, 0, 0], [0, 1, 1, 1], [0, 0, 1, 1]])
CHECKED = {"airport": [0, 1, 1, 0, 1], "beach": [1, 1, 0, 0, 0]}
EXPECTED = [[1, 1, -1, -1], [-1, -1, -1, 1], [1, -1, 1, -1]]  # sky and dog as tagged, airport and beach as checked
SMALL = [[0, 1], [1, 1], [1, 0]]
BLOCKS = [1, 5, 1 << 25]
OFFICIAL = {
    "TagList1k.txt": "NUS_WID_Tags",
    "AllTags1k.txt": "NUS_WID_Tags",
    "Imagelist.txt": "ImageList",
    "TestImagelist.txt": "ImageList",
    "Labels_airport.txt": "Groundtruth/AllLabels",
    "Labels_beach.txt": "Groundtruth/AllLabels",
}


def content():
    """{official name: text} of the files that CLASSES need."""
    return {
        "TagList1k.txt": TAGS,
        "AllTags1k.txt": ["\t".join(map(str, row)) + "\t" for row in BY_TAG],
        "Imagelist.txt": [name.replace("/", "\\") for name in IMAGES],
        "TestImagelist.txt": [IMAGES[i].replace("/", "\\") for i in TESTED],
        **{f"Labels_{name}.txt": map(str, values) for name, values in CHECKED.items()},
    }


def write(root, flat=False, spell=str, end="\r\n", **other):
    """Write these files, with some of `other` content; returns the folder."""
    for name, lines in (content() | {f"{key}.txt": lines for key, lines in other.items()}).items():
        path = root / ("." if flat else OFFICIAL[name]) / spell(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(f"{line}{end}" for line in lines).encode())
    return root


def labels(root, classes=CLASSES):
    names, found = nuswide.labels(nuswide.find(root, None, classes), classes)
    assert found.dtype == np.int8
    return names, found.tolist()


def read(root, images, classes=CLASSES, cache=None, **selection):
    return read_images(DatasetConfig(kind="nuswide", annotations=str(root), images=str(images), **selection), classes, cache)


@pytest.fixture
def read_small(tmp_path):
    """Read all of a file that should hold SMALL."""

    def read(text):
        path = tmp_path / "Labels_x.txt"
        path.write_bytes(text)
        return nuswide.read_table(path, 2, np.arange(3), [0, 1], 3).astype(int).tolist()

    return read


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    return tmp_path_factory.mktemp("tables") / "table.txt"


@st.composite
def written_tables(draw):
    """A table, and a file that holds it in one of the spellings that occur."""
    lines, width = draw(st.integers(0, 8)), draw(st.integers(1, 5))
    digits = draw(st.lists(st.booleans(), min_size=lines * width, max_size=lines * width))
    table = np.array(digits, bool).reshape(lines, width)
    between, trailing, end = st.sampled_from([" ", "\t", "  ", " \t"]), st.sampled_from(["", " ", "\t"]), ["\n", "\r\n"]
    text = ""
    for i, row in enumerate(table):
        text += "".join(f"{value:d}{draw(between)}" for value in row[:-1]) + f"{row[-1]:d}" + draw(trailing)
        text += draw(st.sampled_from(end if i < lines - 1 else ["", *end]))
    if not text or text.endswith("\n"):
        text += draw(st.sampled_from(["", " ", *end, "\t\r\n"]))
    return table, text.encode()


@given(written_tables(), st.integers(1, 60), st.data())
def test_a_table_in_any_spelling_and_any_block_size_is_the_table_written(scratch, written, block, data):
    table, text = written
    scratch.write_bytes(text)
    some = [st.lists(st.integers(0, n - 1), max_size=6) if n else st.just([]) for n in table.shape]
    rows, columns = np.array(data.draw(some[0]), int), data.draw(some[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nuswide, "BLOCK", block)
        read = nuswide.read_table(scratch, table.shape[1], rows, columns, len(table))
    assert read.dtype == bool
    np.testing.assert_array_equal(read, table[rows][:, np.array(columns, int)])


def test_a_table_as_numpy_writes_it_is_the_table_that_numpy_reads(scratch):
    table = np.random.default_rng(0).integers(0, 2, (300, 40))
    np.savetxt(scratch, table, "%d")
    read = nuswide.read_table(scratch, 40, np.arange(300), range(40), 300)
    np.testing.assert_array_equal(read, np.loadtxt(scratch, dtype=int))


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("character", [b"2", b"x", b"-", b",", b"\0", "é".encode()])
def test_a_foreign_character_is_refused_and_shown_with_its_file(read_small, monkeypatch, block, character):
    monkeypatch.setattr(nuswide, "BLOCK", block)
    shown = repr(chr(character[0]))
    with pytest.raises(ValueError, match=rf"Labels_x\.txt: expected only 0 and 1, got {re.escape(shown)}"):
        read_small(b"0 1\n1 " + character + b"\n1 0\n")


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("row", ["1", "0 1 1"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_that_is_too_short_or_too_long_is_named_by_its_number(read_small, monkeypatch, block, number, row, end):
    monkeypatch.setattr(nuswide, "BLOCK", block)
    lines = ["0 1", "1 1", "1 0"]
    lines[number - 1] = row
    entries = len(row.split())
    with pytest.raises(ValueError, match=rf"Labels_x\.txt: line {number} has {entries} entries, expected 2"):
        read_small("".join(line + end for line in lines).encode())


@pytest.mark.parametrize("block", BLOCKS)
def test_a_file_cut_anywhere_is_refused_unless_nothing_is_lost(read_small, monkeypatch, block):
    monkeypatch.setattr(nuswide, "BLOCK", block)
    whole = b"0 1 \r\n1 1 \r\n1 0 \r\n"
    for length in range(whole.rindex(b"0") + 1):
        with pytest.raises(ValueError, match="perhaps it was cut"):
            read_small(whole[:length])
    for length in range(whole.rindex(b"0") + 1, len(whole) + 1):
        assert read_small(whole[:length]) == SMALL


@pytest.mark.parametrize("block", BLOCKS)
def test_too_few_lines_are_counted(read_small, monkeypatch, block):
    monkeypatch.setattr(nuswide, "BLOCK", block)
    with pytest.raises(ValueError, match=r"Labels_x\.txt has 2 lines, Imagelist\.txt names 3 images"):
        read_small(b"0 1\n1 1\n")


@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_too_many_lines_are_refused(read_small, monkeypatch, block, end):
    monkeypatch.setattr(nuswide, "BLOCK", block)
    with pytest.raises(ValueError, match=r"Labels_x\.txt has more than 3 lines"):
        read_small(b"0 1\n1 1\n1 0\n0 0" + end)


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("spell", [str, str.lower, str.upper])
def test_files_are_found_in_the_official_subfolders_or_flat_in_any_case(tmp_path, flat, spell):
    found = nuswide.find(write(tmp_path, flat, spell), None, CLASSES)
    assert found == {name.lower(): tmp_path / ("" if flat else OFFICIAL[name]) / spell(name) for name in OFFICIAL}


def test_files_of_similar_names_are_not_taken(tmp_path):
    write(tmp_path)
    for other in ("NUS_WID_Tags/AllTags81.txt", "ImageList/TrainImagelist.txt", "Groundtruth/A/Labels_airport_Train.txt"):
        (tmp_path / other).parent.mkdir(exist_ok=True)
        (tmp_path / other).write_text("not this")
    assert labels(tmp_path)[1] == EXPECTED


@pytest.mark.parametrize("spelling", ["Flickr", "./Flickr", "Flickr/../Flickr"])
def test_the_image_folder_is_not_searched(tmp_path, monkeypatch, spelling):
    write(tmp_path)
    decoy = tmp_path / "Flickr" / "actor" / "Labels_beach.txt"
    decoy.parent.mkdir(parents=True)
    decoy.write_text("not this")
    monkeypatch.chdir(tmp_path)
    for annotations, folder in ((tmp_path, tmp_path / spelling), (Path(), spelling)):
        assert nuswide.find(annotations, folder, CLASSES)["labels_beach.txt"].parent.name == "AllLabels"
    (tmp_path / "Groundtruth" / "AllLabels" / "Labels_beach.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"labels_beach\.txt"):
        nuswide.find(tmp_path, tmp_path / spelling, CLASSES)


def test_missing_files_are_counted_and_named(tmp_path):
    write(tmp_path, flat=True)
    for name in ("AllTags1k.txt", "Labels_beach.txt"):
        (tmp_path / name).unlink()
    with pytest.raises(FileNotFoundError, match=r"2 of the 6 text files .*: alltags1k\.txt, labels_beach\.txt; get"):
        nuswide.find(tmp_path, None, CLASSES)


def test_a_folder_that_is_not_there_misses_all_files(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"6 of the 6 .*nowhere \(dataset\.annotations\)"):
        nuswide.find(tmp_path / "nowhere", tmp_path, CLASSES)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", " \r\n"])
def test_seen_labels_are_tags_and_unseen_ones_are_checked_in_the_order_of_the_test_list(tmp_path, end):
    assert labels(write(tmp_path, end=end)) == ([IMAGES[i] for i in TESTED], EXPECTED)


@pytest.mark.parametrize("seen", [0, 2])
def test_all_classes_may_be_seen_or_unseen(tmp_path, seen):
    classes = ClassList(("beach", "airport"), 0) if not seen else ClassList(("beach", "dog"), 2)
    expected = np.stack([CHECKED["beach"], CHECKED["airport"]], 1) if not seen else BY_TAG[:, [2, 1]]
    assert labels(write(tmp_path), classes)[1] == (2 * expected[TESTED] - 1).tolist()


@pytest.mark.parametrize("windows", ["Imagelist", "TestImagelist"])
def test_one_list_may_have_windows_separators_and_the_other_not(tmp_path, windows):
    lists = {"Imagelist": IMAGES, "TestImagelist": [IMAGES[i] for i in TESTED]}
    lists[windows] = [name.replace("/", "\\") for name in lists[windows]]
    assert labels(write(tmp_path, **lists)) == ([IMAGES[i] for i in TESTED], EXPECTED)


def test_a_byte_order_mark_in_the_lists_is_skipped(tmp_path):
    lists = {"TagList1k": ["\ufeffnature", *TAGS[1:]], "Imagelist": ["\ufeff" + IMAGES[0], *IMAGES[1:]]}
    assert labels(write(tmp_path, **lists))[1] == EXPECTED


def test_a_seen_class_without_a_tag_is_named(tmp_path):
    classes = ClassList(("sky", "unicorn", "airport"), 2)
    with pytest.raises(ValueError, match=r"TagList1k\.txt: there is no tag for 1 classes: unicorn$"):
        labels(write(tmp_path), classes)


def test_a_test_image_that_is_not_in_the_list_of_all_is_named(tmp_path):
    write(tmp_path, TestImagelist=[IMAGES[0], "zebra/0009_9.jpg"])
    with pytest.raises(
        ValueError, match=r"1 images of .*TestImagelist\.txt are not in Imagelist\.txt, such as 'zebra/0009_9\.jpg'"
    ):
        labels(tmp_path)


@pytest.mark.parametrize("name", ["AllTags1k", "Labels_airport"])
def test_a_table_that_ends_before_the_list_of_images_is_named(tmp_path, name):
    write(tmp_path, **{name: list(content()[f"{name}.txt"])[:-1]})
    with pytest.raises(ValueError, match=rf"{name}\.txt has 4 lines, Imagelist\.txt names 5 images"):
        labels(tmp_path)


def test_a_tag_list_shorter_than_the_table_is_wide_is_refused(tmp_path):
    write(tmp_path, TagList1k=TAGS[1:])
    with pytest.raises(ValueError, match=r"AllTags1k\.txt: line 1 has 4 entries, expected 3"):
        labels(tmp_path)


@pytest.fixture
def dataset(tmp_path):
    """The text files with the images of the test list under them, the first without a label: (folder, folder of images)."""
    tags = BY_TAG.copy()
    tags[TESTED[0]] = 0
    write(tmp_path, AllTags1k=[" ".join(map(str, row)) for row in tags])
    for i in TESTED:
        path = tmp_path / "Flickr" / IMAGES[i]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path, tmp_path / "Flickr"


def test_test_images_with_a_label_are_read_with_their_paths(dataset):
    found = read(*dataset)
    assert found.paths == [dataset[1] / IMAGES[i] for i in TESTED[1:]]
    assert found.labels.tolist() == EXPECTED[1:]
    assert (found.left_out, found.missing) == (1, ())


def test_options_of_the_selection_are_passed_on(dataset):
    assert len(read(*dataset, keep_unlabelled=True).paths) == 3
    (dataset[1] / IMAGES[4]).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 2 images are missing"):
        read(*dataset)
    assert read(*dataset, allow_missing=True).paths == [dataset[1] / IMAGES[0]]


def test_labels_without_a_positive_one_are_refused_with_their_folder(dataset):
    root, images = dataset
    write(root, AllTags1k=["0 0 0 0"] * 5)
    with pytest.raises(ValueError, match=f"^{re.escape(str(root))}: no image has a positive label"):
        read(root, images, ClassList(("sky", "dog"), 2))


def test_an_image_name_that_leaves_the_folder_is_refused(dataset):
    root, _ = dataset
    write(root, Imagelist=["..\\secret.jpg", *IMAGES[1:]], TestImagelist=["..\\secret.jpg"])
    with pytest.raises(ValueError, match=r"'\.\./secret\.jpg' leads out of the image folder"):
        read(*dataset)


def test_labels_are_parsed_once_for_the_same_files_and_classes(dataset, monkeypatch):
    root, images = dataset
    cache, parsed, parse = root / "cache", [], nuswide.labels
    monkeypatch.setattr(nuswide, "labels", lambda *args: parsed.append(1) or parse(*args))
    first, again = (read(*dataset, cache=cache) for _ in range(2))
    assert len(parsed) == 1
    assert again.paths == first.paths
    assert again.labels.equal(first.labels)
    swapped = ClassList((*reversed(CLASSES.names[:2]), *CLASSES.names[2:]), 2)
    assert read(root, images, swapped, cache).labels.equal(first.labels[:, [1, 0, 2, 3]])
    by_tag, checked = (read(root, images, ClassList(("dog", "Beach", "airport"), seen), cache) for seen in (2, 1))
    assert by_tag.labels.tolist() == [[-1, 1, -1], [-1, 1, 1]]
    assert checked.labels.tolist() == [[-1, 1, -1], [-1, -1, 1]]
    assert len(parsed) == 4
    write(root, Labels_airport=["0"] * 5)
    os.utime(root / "Groundtruth" / "AllLabels" / "Labels_airport.txt", ns=(0, 0))
    assert (read(*dataset, cache=cache).labels[:, 2] == -1).all()


REPEATED = {
    "Test_Tags1k.dat": [" ".join(map(str, BY_TAG[i])) for i in TESTED],
    **{f"TrainTestLabels/Labels_{name}_Test.txt": [values[i] for i in TESTED] for name, values in CHECKED.items()},
}


def repeat(root, **other):
    """Write the files that repeat the labels of the test images, with some of `other` content."""
    (root / "TrainTestLabels").mkdir()
    for name, lines in (REPEATED | other).items():
        (root / name).write_text("".join(f"{line}\n" for line in lines))
    return root


def shuffled(lines):
    return [lines[i] for i in (1, 3, 2, 0, 4)]


def test_labels_that_are_repeated_for_the_test_images_are_verified(dataset):
    root, images = dataset
    before = read(root, images, cache=root / "cache")
    assert before.unverified == (
        "that labels and images are in the same order, as 3 files are not there: "
        "test_tags1k.dat, labels_airport_test.txt, labels_beach_test.txt"
    )
    tags = ["0 0 0 0", *REPEATED["Test_Tags1k.dat"][1:]]
    found = read(repeat(root, **{"Test_Tags1k.dat": tags}), images, cache=root / "cache")
    assert found.unverified == ""
    assert found.labels.equal(before.labels)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("Imagelist", r"Test_Tags1k\.dat: 1 of 3"),
        ("AllTags1k", r"Test_Tags1k\.dat: 2 of 3"),
        ("Labels_airport", r"Labels_airport_Test\.txt: 1 of 3"),
    ],
)
def test_shuffled_lines_are_refused_where_the_test_images_have_labels_of_their_own(tmp_path, name, said):
    write(tmp_path, **{name: shuffled(list(content()[f"{name}.txt"]))})
    labels(tmp_path)
    with pytest.raises(ValueError, match=rf"{said} test images have other labels .* not in the same order"):
        labels(repeat(tmp_path))


def test_a_shuffled_image_list_is_refused_by_the_checked_labels_alone(tmp_path):
    write(tmp_path, Imagelist=shuffled(IMAGES))
    repeat(tmp_path)
    (tmp_path / "Test_Tags1k.dat").unlink()
    with pytest.raises(ValueError, match=r"Labels_airport_Test\.txt: 1 of 3 test images"):
        labels(tmp_path)


def test_a_cut_test_list_is_refused_where_the_test_images_have_labels_of_their_own(tmp_path):
    write(tmp_path, TestImagelist=[IMAGES[i] for i in TESTED[:-1]])
    with pytest.raises(ValueError, match=r"Test_Tags1k\.dat has more than 2 lines, as many as TestImagelist\.txt names images"):
        labels(repeat(tmp_path))


def test_images_and_tags_are_counted_to_be_compared_with_the_official_numbers(dataset, monkeypatch):
    root, _ = dataset
    monkeypatch.setattr(nuswide, "TAGS", digest([tag.lower() for tag in TAGS]))
    assert read(*dataset).counts == {"test images": 3, "images in all": 5, "tags in the official order": 4}
    write(root, TestImagelist=[IMAGES[i] for i in TESTED[:2]], TagList1k=TAGS[::-1])
    assert read(*dataset).counts == {"test images": 2, "images in all": 5, "tags in the official order": 0}
    assert DATASETS["nuswide"].counts.keys() == read(*dataset).counts.keys()


@pytest.mark.parametrize("target", [".", "ImageList", "Groundtruth"])
def test_a_folder_that_links_to_itself_is_searched_once(tmp_path, target):
    write(tmp_path)
    (tmp_path / "Groundtruth" / "again").symlink_to(tmp_path / target)
    assert labels(tmp_path)[1] == EXPECTED


def test_a_linked_folder_is_searched(tmp_path):
    write(tmp_path / "elsewhere")
    (tmp_path / "here").mkdir()
    for name in ("NUS_WID_Tags", "ImageList", "Groundtruth"):
        (tmp_path / "here" / name).symlink_to(tmp_path / "elsewhere" / name)
    assert labels(tmp_path / "here")[1] == EXPECTED


def test_a_search_of_a_whole_disk_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr(nuswide, "FOLDERS", 3)
    with pytest.raises(ValueError, match="has more than 3 folders"):
        labels(write(tmp_path))


@pytest.mark.parametrize("name", ["TagList1k.txt", "AllTags1k.txt", "Labels_beach.txt", "Test_Tags1k.dat"])
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_a_list_or_a_table_that_is_no_regular_file_is_named(tmp_path, name, what):
    path = repeat(write(tmp_path, flat=True)) / name
    path.unlink()
    os.mkfifo(path) if what == "pipe" else path.symlink_to("/dev/zero")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))} is not a regular file"):
        nuswide.find(tmp_path, None, CLASSES)


@pytest.mark.parametrize("other", ["0\r\n" * 5, "1\r\n" * 4])
def test_two_files_of_the_same_name_must_not_differ(tmp_path, other):
    write(tmp_path)
    first, second = tmp_path / "Groundtruth/AllLabels/Labels_beach.txt", tmp_path / "NUS_WID_Tags/labels_BEACH.txt"
    second.write_bytes(first.read_bytes())
    os.utime(second, ns=(0, 0))
    assert labels(tmp_path)[1] == EXPECTED
    second.write_bytes(other.encode())
    with pytest.raises(ValueError, match=f"{first} and {second} differ"):
        labels(tmp_path)


@pytest.mark.parametrize("name", ["Imagelist", "TestImagelist", "TagList1k"])
def test_what_a_list_names_twice_is_refused(tmp_path, name):
    lines = list(content()[f"{name}.txt"])
    twice = lines[0].replace("\\", "/").upper() if name == "TagList1k" else lines[0].replace("\\", "/")
    with pytest.raises(ValueError, match=rf"{name}\.txt names '{twice.lower()}' more than once"):
        labels(write(tmp_path, **{name: [*lines, twice]}))


@pytest.mark.parametrize("name", ["Imagelist", "TestImagelist", "TagList1k", "AllTags1k", "Labels_beach"])
@pytest.mark.parametrize("junk", [b"\xff\xfe\0\x81" * 999, b"\0" * 999, b"0" * 99_999, b"\x1b[31m\xe2\x80\xae", b"[" * 99_999])
def test_junk_in_place_of_any_file_is_one_short_line(tmp_path, name, junk):
    (path,) = write(tmp_path).rglob(f"{name}.txt")
    path.write_bytes(junk)
    with pytest.raises(ValueError, match=r"^[^\n\0\x1b\u202e]{,500}$"):
        labels(tmp_path)


@pytest.mark.parametrize("line", [b"0", b" ", b"0 1 ", b"\0"])
def test_a_line_without_an_end_is_not_read_whole(read_small, monkeypatch, line):
    monkeypatch.setattr(nuswide, "BLOCK", 10)
    monkeypatch.setattr(nuswide, "LINE", 100)
    with pytest.raises(ValueError, match=r"Labels_x\.txt has a line of more than 100 bytes, expected 2 times 0 or 1"):
        read_small(b"0 1\n1 1\n" + line * 200)
