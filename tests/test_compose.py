"""Sentences composed from the facts of a class."""

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from parse_corpus import parse

from rcnn.describing import english
from rcnn.describing.compose import attribute_clause, prefix_clause, sentences


@pytest.mark.parametrize(
    ("attribute", "clause"),
    [
        ("a mammal", "is a mammal"),
        ("an animal", "is an animal"),
        ("used for sitting", "is used for sitting"),
        ("has four legs", "has four legs"),
        ("often striped", "often striped"),
        ("typically red", "typically red"),
        ("may have horns", "may have horns"),
        ("can fly", "can fly"),
        ("whiskers on the face", "has whiskers on the face"),
        ("Four Legs", "has four legs"),
        ("Can fly", "can fly"),
        # words that only begin like one of the above
        ("canopy of leaves", "has canopy of leaves"),
        ("antlers", "has antlers"),
        ("arms and legs", "has arms and legs"),
        ("maybe a tail", "has maybe a tail"),
        ("hash marks", "has hash marks"),
        ("a", "is a"),
    ],
)
def test_the_first_word_of_an_attribute_decides_its_verb(attribute, clause):
    assert attribute_clause(attribute) == clause


def test_families_come_in_the_order_of_the_paper():
    assert sentences(
        "dog",
        narrower=["poodle", "pug"],
        broader=["mammal", "animal"],
        attributes=["Floppy ears", "can bark"],
        scenes=["Park - on the grass", "Home - by the fire"],
    ) == [
        "a poodle, which is a dog.",
        "a pug, which is a dog.",
        "a dog, which is a mammal.",
        "a dog, which is a animal.",
        "a poodle, which is a dog, which is a mammal.",
        "a pug, which is a dog, which is a mammal.",
        "a poodle, which is a dog, which is a animal.",
        "a pug, which is a dog, which is a animal.",
        "a dog, which has floppy ears.",
        "a dog, which can bark.",
        "a dog, which appears together with the Park - on the grass",
        "a dog, which appears together with the Home - by the fire",
    ]


def test_full_stops_and_spaces_around_facts_are_dropped():
    assert sentences("cat", ["tabby."], [" pet. "], ["soft fur.."], ["Sofa - asleep."]) == [
        "a tabby, which is a cat.",
        "a cat, which is a pet.",
        "a tabby, which is a cat, which is a pet.",
        "a cat, which has soft fur.",
        "a cat, which appears together with the Sofa - asleep",
    ]


def test_duplicates_that_differ_in_case_are_dropped_and_the_first_spelling_stays():
    assert sentences("dog", ["German Shepherd", "german shepherd", "pug"], [], [], []) == [
        "a German Shepherd, which is a dog.",
        "a pug, which is a dog.",
    ]
    assert sentences("dog", [], [], ["Ears", "ears", "EARS."], []) == ["a dog, which has ears."]


def test_a_sentence_of_two_families_appears_once():
    assert sentences("dog", ["dog"], ["dog"], ["a dog"], []).count("a dog, which is a dog.") == 1


def test_a_class_without_facts_has_no_sentences():
    assert sentences("dog", [], [], [], []) == []


facts = st.lists(st.text(max_size=6), max_size=3)


@given(st.text(min_size=1, max_size=6), facts, facts, facts, facts)
def test_there_are_no_duplicates_and_every_sentence_names_the_class(name, narrower, broader, attributes, scenes):
    made = sentences(name, narrower, broader, attributes, scenes)
    assert len({sentence.lower() for sentence in made}) == len(made)
    assert all(sentence.strip() and name in sentence for sentence in made)


letters = st.text("abcdefgh", min_size=1, max_size=6)


@given(*[st.lists(letters, max_size=3, unique=True) for _ in range(4)])
def test_distinct_facts_give_one_sentence_each_and_one_per_pair_of_kinds(narrower, broader, attributes, scenes):
    attributes = [f"has {a}" for a in attributes]
    made = sentences("zebra", narrower, broader, attributes, scenes)
    assert len(made) == len(narrower) * (1 + len(broader)) + len(broader) + len(attributes) + len(scenes)
    assert sum(s.startswith("a zebra, which appears together with the ") for s in made) == len(scenes)
    assert sum(s.count("which is a") == 2 for s in made) == len(narrower) * len(broader)


@given(facts, facts)
def test_facts_are_left_alone(narrower, scenes):
    before = list(narrower), list(scenes)
    sentences("dog", narrower, [], [], scenes)
    assert (narrower, scenes) == before


@pytest.mark.parametrize(
    ("attribute", "clause"),
    [
        ("A tail", "is a tail"),
        ("accessories", "is accessories"),
        ("used up", "is used up"),
        ("canopy: wide", "canopy: wide"),
        ("hash marks", "hash marks"),
        ("handle", "has handle"),
        ("mayfly wings", "mayfly wings"),
        ("typically, red", "typically, red"),
    ],
)
def test_compat_finds_the_verb_by_a_prefix_as_the_authors_do(attribute, clause):
    assert prefix_clause(attribute) == clause


def test_compat_keeps_full_stops_and_duplicates():
    made = sentences("fork", ["fork", "fork"], [], ["tines.", "tines."], ["Table - set."], mode="compat")
    assert made == [
        "a fork, which is a fork.",
        "a fork, which is a fork.",
        "a fork, which has tines..",
        "a fork, which has tines..",
        "a fork, which appears together with the Table - set.",
    ]


@given(*[st.lists(letters, max_size=4, unique=True) for _ in range(4)], st.sampled_from(["clean", "compat"]))
def test_sentences_can_be_taken_apart_again(narrower, broader, attributes, scenes, mode):
    # without narrower kinds, "a zebra, which is a b." may be a broader kind or an attribute
    attributes = attributes if narrower else [f"x{a}" for a in attributes]
    made = {"narrower": narrower, "broader": broader, "attributes": attributes, "scenes": scenes}
    assert parse("zebra", sentences("zebra", **made, mode=mode), mode) == made


def test_facts_are_found_in_sentences_of_every_form():
    facts = {
        "narrower": ["pug"],
        "broader": ["pet", "animal"],
        "attributes": ["a small pet", "an eager friend", "used to leads", "can bark", "has a tail", "ears", "is soft"],
        "scenes": ["Park - on the grass"],
    }
    assert parse("dog", sentences("dog", **facts)) == facts


AUTHORS = Path(os.environ.get("RCNN_AUTHORS_CORPUS", "data/authors/mscoco_post_llm.json"))


@pytest.mark.skipif(not AUTHORS.is_file(), reason="the authors' corpus is not here; RCNN_AUTHORS_CORPUS can name it")
def test_compat_composes_the_authors_corpus_byte_for_byte_from_its_facts():
    text = AUTHORS.read_text()
    made = {
        key: {"node_name": name, "candidate_sentences": sentences(name, **parse(name, described, "compat"), mode="compat")}
        for key, entry in json.loads(text).items()
        for name, described in [(entry["node_name"], entry["candidate_sentences"])]
    }
    assert json.dumps(made, indent=4) == text


def test_english_articles_follow_sound_and_number():
    assert sentences("owl", ["eagle owl", "owls of the snow"], ["animal"], ["round eyes"], [], articles="english") == [
        "an eagle owl, which is an owl.",
        "owls of the snow, which is an owl.",
        "an owl, which is an animal.",
        "an eagle owl, which is an owl, which is an animal.",
        "owls of the snow, which is an owl, which is an animal.",
        "an owl, which has round eyes.",
    ]


def test_the_verbs_of_a_plural_label_agree_with_it():
    made = sentences(
        "dogs", ["pack of dogs"], ["animal"], ["wet noses", "has fur", "a pack"], ["Park - at play"], articles="english"
    )
    assert made == [
        "a pack of dogs, which are dogs.",
        "dogs, which are animals.",
        "a pack of dogs, which are dogs, which are animals.",
        "dogs, which have wet noses.",
        "dogs, which have fur.",
        "dogs, which are a pack.",
        "dogs, which appear together with the Park - at play",
    ]


def test_a_quality_or_a_named_place_has_no_article_in_english():
    made = sentences("oregon", [], ["state"], ["tall firs"], [], bearers=["oregon coast", "oregon dunes"], articles="english")
    assert made == ["oregon, which is a state.", "an oregon coast.", "oregon dunes.", "oregon, which has tall firs."]


@pytest.mark.parametrize(
    ("phrase", "written"),
    [
        ("hour", "an hour"), ("unicorn", "a unicorn"), ("umbrella", "an umbrella"), ("european city", "a european city"),
        ("uniform", "a uniform"), ("one-way sign", "a one-way sign"), ("MRI scanner", "an MRI scanner"),
        ("8-bit game", "an 8-bit game"), ("bus", "a bus"), ("glass", "a glass"), ("lens", "a lens"), ("people", "people"),
        ("the sea", "the sea"), ("used car", "a used car"),
    ],
)  # fmt: skip
def test_the_article_of_english_words(phrase, written):
    assert english.with_article(phrase) == written


@pytest.mark.parametrize(
    ("phrase", "many"),
    [("city", "cities"), ("toy", "toys"), ("church", "churches"), ("woman", "women"), ("body of water", "bodies of water"),
     ("bus", "buses"), ("sheep", "sheep"), ("vehicles", "vehicles")],
)  # fmt: skip
def test_the_plural_of_english_words(phrase, many):
    assert english.plural(phrase) == many
