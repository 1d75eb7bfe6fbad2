"""Class lists: reading, order, split."""

import pytest
from hostile import at_once, irregular

from rcnn.text.classes import ClassList, in_words, parse_name


@pytest.fixture
def write(tmp_path):
    def names(name, text, encoding="utf-8"):
        (tmp_path / name).write_text(text, encoding=encoding)
        return tmp_path / name

    return names


def test_seen_classes_come_first_each_group_in_the_order_of_its_file(write):
    classes = ClassList.read(write("seen.txt", "zebra\napple\n"), write("unseen.txt", "dog\nbus\n"))
    assert classes.names == ("zebra", "apple", "dog", "bus")
    assert (classes.seen, len(classes)) == (2, 4)


def test_blank_lines_comments_spaces_and_underscores_are_tidied(write):
    text = "# the seen ones\n\n  traffic_light  \n\tfire hydrant\n   # more\n"
    assert ClassList.read(write("seen.txt", text)).names == ("traffic light", "fire hydrant")


def test_a_byte_order_mark_and_windows_line_ends_are_no_part_of_a_name(write):
    classes = ClassList.read(write("seen.txt", "dog\r\ncat\r\n", encoding="utf-8-sig"))
    assert classes.names == ("dog", "cat")


def test_names_beyond_ascii_are_kept(write):
    assert ClassList.read(write("seen.txt", "café\n犬\n")).names == ("café", "犬")


def test_a_note_in_brackets_tells_homonyms_apart_and_is_no_part_of_the_name(write):
    classes = ClassList.read(write("seen.txt", "crane [a wading bird]\ncrane[a_machine]\ndog\n"), write("u.txt", "[x]\n"))
    assert classes.names == ("crane", "crane", "dog", "[x]")
    assert classes.notes == ("a wading bird", "a_machine", "", "")
    with pytest.raises(ValueError, match="listed twice: crane"):
        ClassList.read(write("seen.txt", "crane [bird]\ncrane [bird]\n"))


def test_either_group_may_be_absent(write):
    path = write("list.txt", "dog\ncat\n")
    assert ClassList.read(seen=path) == ClassList(("dog", "cat"), 2)
    assert ClassList.read(unseen=path) == ClassList(("dog", "cat"), 0)


def test_zsl_scores_the_unseen_columns_and_gzsl_all():
    assert ClassList(("a", "b", "c"), 2).tasks == {"zsl": 2, "gzsl": 0}


@pytest.mark.parametrize("seen", [0, 3])
def test_with_one_group_alone_there_is_only_gzsl(seen):
    assert ClassList(("a", "b", "c"), seen).tasks == {"gzsl": 0}


def test_a_class_listed_twice_is_named_whatever_its_case_or_group(write):
    with pytest.raises(ValueError, match=r"listed twice: dog, traffic light;"):
        ClassList.read(write("seen.txt", "dog\ntraffic_light\ncat"), write("unseen.txt", "Dog\ntraffic light"))


def test_an_empty_list_is_refused(write):
    with pytest.raises(ValueError, match="empty"):
        ClassList.read(write("seen.txt", "# nothing\n\n"))


def test_no_list_at_all_is_refused():
    with pytest.raises(ValueError, match="empty"):
        ClassList.read()


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no class list .*gone\.txt"):
        ClassList.read(tmp_path / "gone.txt")


def test_the_fingerprint_changes_with_names_order_and_split():
    lists = [(("a", "b"), 1), (("b", "a"), 1), (("a", "b"), 2), (("a", "B"), 1), (("a", "b", "c"), 1)]
    assert len({ClassList(*args).fingerprint for args in lists}) == len(lists)
    assert ClassList(("a", "b"), 1).fingerprint == ClassList(("a", "b"), 1).fingerprint


@pytest.mark.parametrize(
    ("groups", "text"),
    [
        ([["a", "b"], ["c", "d", "e"]], "a, b; c, d, e"),
        ([["a", "b", "c"], ["d", "e"]], "a, b, c; d, e"),
        ([["a", "b", "c", "d", "e", "f"]], "a, b, c, d, e, …"),
        ([["a", "b", "c", "d"], ["e", "f"]], "a, b, c, d; e, …"),
        ([["a", "b", "c", "d", "e"], ["f", "g"]], "a, b, c, d, e, …"),
    ],
)
def test_groups_of_names_are_cut_after_a_few(groups, text):
    assert in_words(groups, most=5) == text


def test_a_list_that_is_not_utf8_is_refused_by_its_name(write):
    with pytest.raises(ValueError, match=r"seen\.txt is not UTF-8 text: .* at byte 7"):
        ClassList.read(write("seen.txt", "dog\ncafé\n", encoding="latin-1"))


@pytest.mark.parametrize("line", ["_", " __ ", "_ [a note]"])
def test_a_line_without_a_name_is_refused_with_its_list_and_number(write, line):
    with pytest.raises(ValueError, match=r"seen\.txt, line 3: expected a class name, got '"):
        ClassList.read(write("seen.txt", f"# animals\ndog\n{line}\n"))


def test_a_list_of_all_of_imagenets_classes_with_their_meanings_is_read(write):
    lines = "".join(f"class {i} [{'a meaning in many words ' * 3}]\n" for i in range(21_841))
    assert len(ClassList.read(write("seen.txt", lines))) == 21_841


@pytest.mark.parametrize(
    "line", ["a" + "[" * 60_000, "a" + "[" * 60_000 + "]", "[" * 60_000 + "]", " " * 60_000 + "a[" * 30_000]
)
def test_a_line_of_60_kb_is_refused_in_one_short_line(write, line):
    with at_once(), pytest.raises(ValueError, match=r"seen\.txt, line 1: expected a class name, got \d\d,\d+ char") as raised:
        ClassList.read(write("seen.txt", line))
    assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    "name", ["d\0og", "\x1b[31mdog", "dog\tcat", "dog\x0ccat", "dog\u2028cat", "dog\x85cat", "god\u202e", "\u2066dog"]
)
def test_control_characters_and_changes_of_direction_in_a_name_or_a_note_are_refused_and_not_repeated(write, name):
    for line in (f"a {name} b", f"a [{name} b]"):
        with pytest.raises(
            ValueError, match=r"seen\.txt, line 2: a class name has characters that cannot be printed"
        ) as raised:
            ClassList.read(write("seen.txt", f"cat\n{line}\n"))
        assert str(raised.value).isprintable()


@pytest.mark.parametrize("name", [None, 5, b"dog", "", " ", "_", "dog\ncat", "\ud800", "d" * 201])
def test_what_is_no_name_is_refused_wherever_it_comes_from(name):
    with pytest.raises(ValueError, match="class name"):
        parse_name(name)
    if name != "_":
        with pytest.raises(ValueError, match="class name"):
            ClassList(("cat", name), 0)


def test_a_name_of_200_characters_is_taken():
    assert parse_name("d" * 200) == ("d" * 200, "")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("crane [a [wading] bird] ", ("crane", "a [wading] bird")),
        ("[[x]", ("[", "x")),
        ("dog []", ("dog", "")),
        ("[dog]", ("[dog]", "")),
        ("a] b", ("a] b", "")),
        ("a [b] c", ("a [b] c", "")),
        ("a_b[c_d]", ("a b", "c_d")),
    ],
)
def test_the_note_is_what_stands_between_the_first_bracket_and_one_at_the_end(line, expected):
    assert parse_name(line) == expected


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(write, tmp_path, ends):
    (tmp_path / "seen.txt").write_bytes(ends.join(["dog", "", "cat", ""]).encode())
    assert ClassList.read(tmp_path / "seen.txt").names == ("dog", "cat")


def test_names_that_differ_in_the_encoding_of_an_accent_alone_are_listed_twice():
    with pytest.raises(ValueError, match="listed twice: café"):
        ClassList(("caf\u00e9", "cafe\u0301"), 0)


def test_ten_thousand_names_listed_twice_make_a_short_message():
    with pytest.raises(ValueError, match="listed twice: 0, 1, ") as raised:
        ClassList(tuple(map(str, range(10_000))) * 2, 0)
    assert len(str(raised.value)) < 400


def test_a_list_that_is_no_regular_file_is_refused_at_once(tmp_path):
    for path in irregular(tmp_path, "seen.txt"):
        with at_once(), pytest.raises(ValueError, match="is not a regular file"):
            ClassList.read(path)
