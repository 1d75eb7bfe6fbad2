"""The corpora that ship in data/: rebuilt from their answers, complete, and written independently of the authors'."""

import json
import lzma
import os
from collections import Counter
from pathlib import Path

import pytest
from parse_corpus import parse

from rcnn import config, describe
from rcnn.describing.compose import sentences
from rcnn.describing.facts import BANNED, FAMILIES, MISREAD, MODAL, forms
from rcnn.text.classes import ClassList
from rcnn.text.corpus import load

ROOT = Path(__file__).parents[1]
DATA = ROOT / "data"
AUTHORS = Path(os.environ.get("RCNN_AUTHORS_CORPUS", DATA / "authors" / "mscoco_post_llm.json"))
SIZES = {"coco": (10, 3, 30, 20), "nuswide": (10, 3, 20, 10)}


@pytest.fixture(autouse=True)
def no_service(monkeypatch):
    """Any request would end in an error."""
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(ROOT)


@pytest.fixture(scope="module", params=SIZES)
def shipped(request):
    """(name of the data set, corpus, about file, sizes) of a shipped corpus."""
    corpus, about = (json.loads((DATA / request.param / f"corpus.{end}").read_text()) for end in ("json", "about.json"))
    return request.param, corpus, about, SIZES[request.param]


@pytest.mark.parametrize("name", SIZES)
def test_a_shipped_corpus_is_rebuilt_from_its_answers_without_a_request(name, tmp_path):
    answers = "corpus.answers.jsonl"
    (tmp_path / answers).write_bytes((DATA / name / answers).read_bytes())
    assert not describe.main([name, f"output={tmp_path}/corpus.json"])
    for file in ("corpus.json", "corpus.about.json", answers):
        assert (tmp_path / file).read_bytes() == (DATA / name / file).read_bytes()


def test_a_shipped_corpus_fits_the_class_list_of_its_configuration(shipped):
    settings = config.load(ROOT / "configs" / f"{shipped[0]}.yaml")
    classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
    assert len(load(settings.corpus.path, classes).sentences) == sum(len(e["candidate_sentences"]) for e in shipped[1].values())


def test_every_class_has_as_many_facts_as_promised_or_says_why(shipped):
    _, _, about, (narrower, broader, attributes, scenes) = shipped
    assert not about["failed"]
    for entry in about["classes"].values():
        looks = entry["visible"] and entry["kind"] != "metadata"
        assert entry["gloss"]
        assert len(entry["scenes"]) == (scenes if looks else 0), entry["name"]
        assert 2 <= len(entry["broader"]) <= broader, entry["name"]
        assert len(entry["attributes"]) == (attributes if looks else 0), entry["name"]
        assert len(entry["narrower"]) <= narrower
        assert entry["narrower"] or entry["bearers"] or not looks, entry["name"]


def test_the_facts_of_an_about_file_are_those_of_the_sentences(shipped):
    _, corpus, about, _ = shipped
    for key, entry in about["classes"].items():
        facts = {family: entry[family] for family in FAMILIES}
        assert sentences(entry["name"], **facts) == corpus[key]["candidate_sentences"]


def test_no_class_is_its_own_kind_and_no_broader_kind_is_empty(shipped):
    for entry in shipped[2]["classes"].values():
        kinds = {k.lower() for k in (*entry["narrower"], *entry["broader"])}
        assert not kinds & forms(entry["name"])
        assert not {k.lower() for k in entry["broader"]} & BANNED


def test_what_a_text_tower_misreads_is_in_no_attribute_and_few_say_may_or_can(shipped):
    attributes = [a for entry in shipped[2]["classes"].values() for a in entry["attributes"]]
    assert not [a for a in attributes for pattern in MISREAD.values() if pattern.search(a)]
    assert sum(bool(MODAL.match(a)) for a in attributes) < 0.15 * len(attributes)


def test_qualities_and_named_places_have_bearers_and_make_no_chains():
    about = json.loads((DATA / "nuswide" / "corpus.about.json").read_text())["classes"]
    found = {entry["name"]: entry for entry in about.values()}
    assert "a oregon coast." in sentences_of("oregon")
    assert not found["oregon"]["narrower"]
    assert not [s for s in sentences_of("lovely") if s.count("which is a") == 2]


def test_twins_of_nuswide_are_listed_and_words_that_only_look_alike_are_not():
    groups = json.loads((DATA / "nuswide" / "corpus.about.json").read_text())["twins"]
    found = {name: group for group in groups for name in group}
    assert found["mare"] == ["sea", "mare", "mar"]
    assert found["cat"] == ["cats", "cat"]
    assert len(groups) > 90
    assert not {"new", "news", "wood", "woods", "glass", "glasses"} & set(found)


def sentences_of(name):
    corpus = json.loads((DATA / "nuswide" / "corpus.json").read_text()).values()
    return next(entry["candidate_sentences"] for entry in corpus if entry["node_name"] == name)


def test_no_two_classes_have_the_same_scene(shipped):
    scenes = [s.split(" - ", 1)[1] for e in shipped[2]["classes"].values() for s in e["scenes"]]
    assert len(scenes) - len({s.lower() for s in scenes}) <= len(scenes) // 1000


@pytest.mark.parametrize(("name", "sense"), [("mouse", "computer"), ("tie", "neck"), ("remote", "hand"), ("orange", "fruit")])
def test_cocos_ambiguous_classes_have_the_everyday_sense(name, sense):
    about = json.loads((DATA / "coco" / "corpus.about.json").read_text())["classes"]
    assert sense in next(entry["gloss"] for entry in about.values() if entry["name"] == name)


@pytest.mark.parametrize("name", ["nikon", "explore", "bravo", "copyright"])
def test_metadata_has_no_invented_looks(name):
    about = json.loads((DATA / "nuswide" / "corpus.about.json").read_text())["classes"]
    entry = next((e for e in about.values() if e["name"] == name), None)
    assert entry is None or (entry["kind"], entry["attributes"], entry["narrower"]) == ("metadata", [], [])


def test_all_80_classes_of_coco_are_described(tmp_path):
    answers = (DATA / "coco" / "corpus.answers.jsonl").read_bytes()
    (tmp_path / "all.answers.jsonl").write_bytes(answers)
    assert not describe.main(["coco", "classes.seen=data/coco/all.txt", "classes.unseen=null", f"output={tmp_path}/all.json"])
    assert len(json.loads((tmp_path / "all.json").read_text())) == 80


def test_open_images_answers_describe_every_class_and_a_sample_composes_without_a_request(tmp_path):
    """All 7,586 take a minute; a name that is there twice is asked for by its identifier."""
    packed = lzma.decompress((DATA / "openimages" / "corpus.answers.jsonl.xz").read_bytes())
    assert len(packed) < 20e6
    lines = [line for part in ("seen", "unseen") for line in (DATA / "openimages" / f"{part}.txt").read_text().splitlines()]
    asked = {json.loads(line)["class"] for line in packed.splitlines()}
    assert {line.rpartition(" [")[0] for line in lines if line.endswith("]")} <= asked
    shared = Counter(line.rpartition(" [")[0].lower() for line in lines)
    homonyms = [line for line in lines if line.startswith(("Bat [", "Orange ["))]
    assert len(homonyms) == 4
    sample = [line for line in lines[::40] if shared[line.rpartition(" [")[0].lower()] == 1]
    names = tmp_path / "names.txt"
    names.write_text("\n".join([*sample, *homonyms]) + "\n")
    (tmp_path / "corpus.answers.jsonl.xz").write_bytes((DATA / "openimages" / "corpus.answers.jsonl.xz").read_bytes())
    keys = ["classes.seen=null", f"classes.unseen={names}", f"output={tmp_path}/corpus.json"]
    assert not describe.main(["openimages", *keys])
    about = json.loads((tmp_path / "corpus.about.json").read_text())["classes"].values()
    glosses = {entry["gloss"] for entry in about if entry["name"] in ("Bat", "Orange")}
    assert len(glosses) == 4
    for entry in about:
        looks = entry["visible"] and entry["kind"] != "metadata"
        assert len(entry["attributes"]) >= 9 or not looks, entry["name"]
        assert 5 <= len(entry["scenes"]) <= 8 or not looks, entry["name"]
        assert 1 <= len(entry["broader"]) <= 3, entry["name"]


@pytest.mark.skipif(not AUTHORS.is_file(), reason="the authors' corpus is not here; RCNN_AUTHORS_CORPUS can name it")
def test_no_long_phrase_and_no_scene_is_shared_with_the_authors_corpus():
    def phrases(facts):
        attributes = {a.lower().strip(" .") for f in facts for a in f["attributes"]}
        return {a for a in attributes if len(a.split()) > 4}, {
            s.split(" - ", 1)[-1].lower().strip(" .") for f in facts for s in f["scenes"]
        }

    authors = json.loads(AUTHORS.read_text()).values()
    theirs = phrases([parse(e["node_name"], e["candidate_sentences"], "compat") for e in authors])
    for name in SIZES:
        ours = phrases(json.loads((DATA / name / "corpus.about.json").read_text())["classes"].values())
        for mine, other in zip(ours, theirs, strict=True):
            assert not mine & other
