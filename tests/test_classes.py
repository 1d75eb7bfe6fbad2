"""Class lists: reading, order, split."""

import pytest

from rcnn.text.classes import ClassList, in_words


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
