"""From answers to facts: what is united, mended, left out, and counted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rcnn.describing.facts import Facts, forms, gather, twins
from rcnn.describing.questions import Attributes, Hierarchy, Scene, Scenes


def hierarchy(narrower=(), broader=(), bearers=()):
    return Hierarchy(narrower=list(narrower), broader=list(broader), bearers=list(bearers))


def looks(*attributes):
    return Attributes(attributes=list(attributes))


def test_rounds_are_united_in_their_order_and_duplicates_counted():
    rounds = [hierarchy(["pug", "Poodle"], ["pet"]), hierarchy(["poodle", "beagle"], ["mammal", "Pet"])]
    facts, counts = gather("dog", rounds)
    assert facts == Facts(narrower=["pug", "Poodle", "beagle"], broader=["pet", "mammal"])
    assert counts == {"narrower: duplicate": 1, "broader: duplicate": 1}


def test_scenes_become_a_name_and_a_description():
    facts, _ = gather("dog", [Scenes(scenes=[Scene(name="Park ", description=" on the grass.")])])
    assert facts.scenes == ["Park - on the grass"]


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (hierarchy(["dogs"]), "narrower: the label as its own kind"),
        (hierarchy([], ["Dog."]), "broader: the label as its own kind"),
        (hierarchy([], ["entity"]), "broader: vague broader kind"),
        (hierarchy(["one two three four five six seven eight nine"]), "narrower: too long"),
        (hierarchy(["  "]), "narrower: empty"),
        (looks(" ".join(["word"] * 25)), "attributes: too long"),
        (looks("As an AI, no photograph comes to mind"), "attributes: about the assistant"),
        (looks("Here are nine short cues"), "attributes: about the assistant"),
    ],
)
def test_what_says_nothing_is_left_out_and_counted(answer, reason):
    facts, counts = gather("dog", [answer])
    assert facts == Facts()
    assert counts == {reason: 1}


def test_a_kind_that_is_both_narrower_and_broader_stays_the_broader_one():
    facts, counts = gather("dog", [hierarchy(["pet", "pug"], ["Pet"])])
    assert facts == Facts(narrower=["pug"], broader=["Pet"])
    assert counts == {"narrower: narrower kind that is also broader": 1}


def test_markdown_is_taken_off_and_counted():
    facts, counts = gather("dog", [looks("- **ears:** floppy", "1. wet `nose`", "snake_case __tail__", "* # fur")])
    assert facts.attributes == ["ears: floppy", "wet nose", "snake_case tail", "fur"]
    assert counts == {"attributes: markdown removed": 4}


def test_attributes_that_name_the_label_are_noted_but_kept():
    facts, counts = gather("dog", [looks("long tail", "typical dog ears", "hotdog shape")])
    assert len(facts.attributes) == 3
    assert counts == {"attributes: names the label (kept)": 1}


def test_metadata_keeps_broader_kinds_only():
    scenes = Scenes(scenes=[Scene(name="A", description="b")])
    answers = [hierarchy(["nikon d80"], ["brand"]), looks("black body"), scenes]
    facts, _ = gather("nikon", answers, describable=False)
    assert facts == Facts(broader=["brand"])


def test_kinds_that_are_classes_themselves_are_left_out_on_demand():
    facts, counts = gather("animal", [hierarchy(["Dog", "newt"], ["pet"])], listed={"dog", "animal"})
    assert facts == Facts(narrower=["newt"], broader=["pet"])
    assert counts == {"narrower: kind that is a class of the list": 1}


def test_the_time_for_a_hundred_thousand_facts_grows_no_faster_than_their_number():
    many = [f"cue {i}" for i in range(100_000)]
    facts, counts = gather("dog", [looks(*many), looks(*many), hierarchy(many, many)])
    assert len(facts.attributes) == len(facts.broader) == 100_000
    assert counts["attributes: duplicate"] == counts["narrower: narrower kind that is also broader"] == 100_000


@pytest.mark.parametrize(
    "text", ["flowers: forget-me-not above a pond", "coin slot: metal slit with instruction plate", "soft & warm"]
)
def test_ordinary_descriptions_are_no_instructions_and_no_markup(text):
    assert gather("dog", [looks(text)]) == (Facts(attributes=[text]), {})


def test_the_spellings_of_a_label_cover_number_and_hyphens():
    assert {"hot-dog", "hotdog", "hot dogs", "hot dog"} <= forms("Hot dog")
    assert "cherries" in forms("cherry")
    assert "cloud" in forms("clouds")
    assert "glas" not in forms("glass")


@given(st.lists(st.text(max_size=12), max_size=6), st.lists(st.text(max_size=12), max_size=6))
def test_facts_are_tidy_distinct_and_nothing_vanishes_uncounted(kinds, attributes):
    facts, counts = gather("dog", [hierarchy(kinds, kinds), looks(*attributes)])
    for texts in facts.families().values():
        assert len({t.lower() for t in texts}) == len(texts)
        assert all(t == " ".join(t.split()).strip(" .") and t for t in texts)
    left_out = sum(n for reason, n in counts.items() if not reason.endswith(("(kept)", "removed")))
    assert left_out + sum(map(len, facts.families().values())) == 2 * len(kinds) + len(attributes)


SENSES = {
    "photo": ("metadata", "a tag that means a photograph"),
    "dog": ("living", "a canine kept as a pet"),
    "dogs": ("living", "several canines together"),
    "glass": ("object", "a transparent brittle material"),
    "glasses": ("object", "two lenses worn before the eyes"),
    "new": ("property", "just made or bought"),
    "news": ("event", "what was just made known"),
    "mar": ("place", "the Spanish word for the sea"),
    "sea": ("place", "the expanse of salt water"),
}


def test_twins_are_spellings_of_one_sense_and_those_that_are_named():
    assert twins(SENSES) == [["dog", "dogs"]]
    assert twins(SENSES, ["sea, mar"]) == [["dog", "dogs"], ["mar", "sea"]]
    assert twins(SENSES, ["sea, mar", "mar, photo"]) == [["photo", "mar", "sea"], ["dog", "dogs"]]


def test_a_twin_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="'ocean' of 'sea, ocean' is no class"):
        twins(SENSES, ["sea, ocean"])
