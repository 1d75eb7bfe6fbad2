"""Text from elsewhere is shown on one line, without what a terminal acts upon, and shortly."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from rcnn.printing import LINE, LINES, MOST, UNPRINTABLE, explain, lossless, message, printable, short

ANY_TEXT = st.text(st.characters(exclude_categories=[]))  # with control characters and lone surrogates


def test_control_characters_directions_and_surrogates_are_escaped_and_letters_are_not():
    assert printable("caf\udce9 \x1b[31m \u202e \x00\n é 犬 😀 \\") == r"caf\udce9 \x1b[31m \u202e \x00\n é 犬 😀 \\"[:-1]


@given(ANY_TEXT)
def test_a_name_that_is_shown_can_be_had_back(name):
    shown = lossless(name)
    assert not UNPRINTABLE.search(shown)
    shown.encode()  # UTF-8 can write it
    escapes = r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|([nrt\\]))"
    plain = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\"}
    assert re.sub(escapes, lambda m: plain[m[3]] if m[3] else chr(int(m[1] or m[2], 16)), shown) == name


def test_a_value_of_any_size_is_shown_in_some_two_hundred_characters():
    nested = "x" * 1000
    for _ in range(7):
        nested = [nested] * 10  # 10^7 entries for all who look at them
    for value in ("x" * 10**6, list(range(10**5)), nested, {"a" * 500: nested}, 10**4000, 10**5000, b"x" * 999):
        assert 3 < len(short(value)) <= MOST + 3


@given(ANY_TEXT)
def test_a_message_has_bounded_lines_without_control_characters(text):
    lines = message(text * 50).split("\n")
    assert len(lines) <= LINES + 1
    assert not any(UNPRINTABLE.search(line) for line in lines)


def test_a_long_message_is_cut_in_its_lines_and_their_number():
    assert max(map(len, message("x" * 10**6).split("\n"))) <= LINE + 3
    assert message("a\n" * 1000).splitlines()[-1] == "…"
    assert message("a\n" * 5) == "a\n" * 5


def test_an_error_is_explained_by_its_place_or_its_kind_and_shortly():
    with pytest.raises(ValidationError) as error:
        TypeAdapter(dict[str, list[int]]).validate_python({"a": [1, "x" * 1000]})
    assert explain(error.value).startswith("a.1: Input should be a valid integer")
    assert explain(KeyError("metadata")) == "KeyError: 'metadata'"
    assert len(explain(ValueError("x" * 1000))) <= MOST + 3
