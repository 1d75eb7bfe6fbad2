"""The text corpus: files that do not fit the classes are refused in words; features are computed once."""

import dataclasses
import json

import open_clip
import pytest
import torch
from hostile import at_once, irregular

from rcnn import checkpoint, clip
from rcnn.text import corpus
from rcnn.text.classes import ClassList

CLASSES = ClassList(("dog", "traffic light", "cat"), 2)
RAW = {
    "0": {"node_name": "dog", "candidate_sentences": ["a poodle, which is a dog.", "a dog, which has ears."]},
    "1": {"node_name": "traffic light", "candidate_sentences": ["a traffic light, which is a signal."]},
    "2": {"node_name": "cat", "candidate_sentences": ["a cat, which can jump.", "a tabby, which is a cat.", "a cat."]},
}


@pytest.fixture
def load(tmp_path):
    def read(raw, classes=CLASSES):
        path = tmp_path / "some_post_llm.json"
        path.write_text(raw if isinstance(raw, str) else json.dumps(raw), encoding="utf-8")
        return corpus.load(path, classes)

    return read


class Counting(torch.nn.Module):
    """A text tower that remembers how many rows it was asked to encode."""

    def __init__(self, text):
        super().__init__()
        self.text, self.positional_embedding, self.transformer = text, text.positional_embedding, text.transformer
        self.rows = []

    def encode(self, tokens, **options):
        self.rows.append(len(tokens))
        return self.text.encode(tokens, **options)


@pytest.fixture
def counted(tiny_clip):
    return dataclasses.replace(tiny_clip, text=Counting(tiny_clip.text))


def test_sentences_are_read_in_the_order_of_classes_with_their_targets(load):
    read = load(RAW)
    assert read.sentences == [s for entry in RAW.values() for s in entry["candidate_sentences"]]
    assert read.targets.tolist() == [0, 0, 1, 2, 2, 2]
    assert read.num_classes == 3


def test_entries_of_the_file_may_stand_in_any_order(load):
    shuffled = {key: RAW[key] for key in ("2", "0", "1")}
    assert load(shuffled).fingerprint == load(RAW).fingerprint


def test_an_underscore_in_a_class_name_stands_for_a_space_and_case_does_not_count(load):
    raw = RAW | {"1": RAW["1"] | {"node_name": "Traffic_Light"}}
    assert load(raw).targets.tolist() == [0, 0, 1, 2, 2, 2]


@pytest.mark.parametrize("key", ["0", "1", "2"])
def test_a_missing_class_is_named_with_what_to_run(load, key):
    raw = {k: v for k, v in RAW.items() if k != key}
    with pytest.raises(ValueError, match=rf'class {key} "{CLASSES.names[int(key)]}" is missing; python -m rcnn\.describe'):
        load(raw)


def test_classes_are_found_by_name_among_more_in_another_order(load):
    raw = {"0": RAW["2"], "1": {"node_name": "bird", "candidate_sentences": ["a bird."]}, "2": RAW["0"], "3": RAW["1"]}
    assert load(raw).fingerprint == load(RAW).fingerprint


def test_homonyms_are_told_apart_by_their_place_alone(load):
    cranes = ClassList(("crane", "crane"), 0, ("a bird", "a machine"))
    raw = {str(i): {"node_name": "crane", "candidate_sentences": [s]} for i, s in enumerate(["it flies.", "it lifts."])}
    assert load(raw, cranes).sentences == ["it flies.", "it lifts."]
    with pytest.raises(ValueError, match='class 0 "crane" is described 2 times; expected the order of the class list'):
        load({"5": raw["0"], "6": raw["1"]}, cranes)


def test_a_class_without_sentences_is_named(load):
    raw = RAW | {"1": {"node_name": "traffic light", "candidate_sentences": []}}
    with pytest.raises(ValueError, match='class 1 "traffic light" has no sentences'):
        load(raw)


@pytest.mark.parametrize("text", ["", "{", "0: dog"])
def test_a_file_that_is_not_json_is_named(load, text):
    with pytest.raises(ValueError, match=r"some_post_llm\.json is not JSON"):
        load(text)


def test_a_missing_file_is_named_with_its_key(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"gone\.json; set corpus\.path"):
        corpus.load(tmp_path / "gone.json", CLASSES)


def test_there_are_80_templates_per_class_filled_with_its_name():
    filled = corpus.templates(CLASSES)
    assert len(filled.sentences) == len(set(filled.sentences)) == 3 * 80
    assert filled.targets.bincount().tolist() == [80, 80, 80]
    assert all(CLASSES.names[c] in s for c, s in zip(filled.targets.tolist(), filled.sentences, strict=True))
    assert filled.sentences[80] == "a bad photo of a traffic light."
    assert filled.sentences[:80] == [template("dog") for template in open_clip.OPENAI_IMAGENET_TEMPLATES]


def test_there_is_one_plain_prompt_per_class():
    prompts = corpus.prompts(CLASSES)
    assert prompts.sentences == ["a photo of a dog.", "a photo of a traffic light.", "a photo of a cat."]
    assert prompts.targets.tolist() == [0, 1, 2]


def test_a_sum_of_corpora_keeps_each_sentence_with_its_class(load):
    both = load(RAW) + corpus.templates(CLASSES)
    assert len(both.sentences) == len(both.targets) == 6 + 240
    assert (both.sentences[2], both.targets[2].item()) == ("a traffic light, which is a signal.", 1)
    assert (both.sentences[-1], both.targets[-1].item()) == (open_clip.OPENAI_IMAGENET_TEMPLATES[-1]("cat"), 2)


def test_the_fingerprint_changes_with_any_sentence_and_any_target(load):
    read = load(RAW)
    others = [
        dataclasses.replace(read, sentences=[*read.sentences[:-1], "a cat"]),
        dataclasses.replace(read, targets=torch.tensor([0, 1, 1, 2, 2, 2])),
        dataclasses.replace(read, sentences=read.sentences[::-1]),
    ]
    assert len({c.fingerprint for c in [read, *others]}) == 4


def encode(model, sentences, cache=None):
    """Features of sentences whose classes do not matter."""
    return corpus.encode(model, corpus.Corpus(sentences, torch.zeros(len(sentences), dtype=torch.int64), 1), cache).features


def test_features_are_those_of_each_sentence_and_equal_ones_are_encoded_once(counted):
    sentences = ["a dog.", "a cat.", "a dog.", "a dog."]
    features = encode(counted, sentences)
    torch.testing.assert_close(features, counted.text.text.encode(clip.tokenize(sentences)), rtol=0, atol=1e-6)
    assert counted.text.rows == [2]


def test_features_are_cached_on_disk_and_not_encoded_again(counted, tmp_path):
    sentences = ["a dog.", "a cat.", "a dog."]
    first = encode(counted, sentences, tmp_path / "cache")
    again = encode(counted, sentences, tmp_path / "cache")
    assert counted.text.rows == [2]
    assert torch.equal(first, again)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".safetensors"]


def test_features_of_other_sentences_or_other_weights_are_encoded_anew(counted, tmp_path):
    encode(counted, ["a dog.", "a cat."], tmp_path)
    encode(counted, ["a dog.", "a cap."], tmp_path)
    encode(dataclasses.replace(counted, tensors_sha256="2" * 64), ["a dog.", "a cat."], tmp_path)
    assert counted.text.rows == [2, 2, 2]


def test_a_sentence_that_is_too_long_is_named_even_among_cached_ones(counted, tmp_path):
    with pytest.raises(ValueError, match="shorten it: 'dog dog"):
        encode(counted, ["a dog.", " ".join(["dog"] * 80)], tmp_path)
    assert counted.text.rows == []


@pytest.mark.parametrize(
    "entry",
    [
        [],
        {"node_name": "cat"},
        {"node_name": "cat", "candidate_sentences": "abc"},
        {"node_name": "cat", "candidate_sentences": [5]},
    ],
)
def test_an_entry_of_another_form_is_refused_with_its_class(tmp_path, entry):
    path = tmp_path / "corpus.json"
    path.write_text(json.dumps({"0": entry}))
    with pytest.raises(ValueError, match='class 0: expected "node_name"'):
        corpus.load(path, ClassList(("cat",), 0))


def test_a_damaged_cache_file_is_made_anew(tiny_clip, tmp_path):
    expected = encode(tiny_clip, ["a cat."], tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    assert torch.equal(encode(tiny_clip, ["a cat."], tmp_path), expected)
    assert torch.equal(encode(tiny_clip, ["a cat."], tmp_path), expected)


def test_a_sum_of_encoded_corpora_is_the_encoded_sum(counted, load):
    both = load(RAW) + corpus.prompts(CLASSES)
    one, other = corpus.encode(counted, load(RAW)), corpus.encode(counted, corpus.prompts(CLASSES))
    total = one + other
    assert len(total) == len(both.sentences)
    assert torch.equal(total.targets, both.targets)
    torch.testing.assert_close(total.features, corpus.encode(counted, both).features, rtol=0, atol=1e-6)


def test_sentences_of_another_form_are_found_by_class_name(tmp_path):
    path = tmp_path / "cupl.json"
    path.write_text(
        json.dumps({"Cat": ["a cat."], "zebra": ["stripes."], "dog": ["ears.", "a tail."], "traffic_light": ["red."]})
    )
    read = corpus.from_sentences(path, CLASSES)
    assert read.sentences == ["ears.", "a tail.", "red.", "a cat."]
    assert read.targets.tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "expected JSON {class name: "),
        ("{", "is not JSON, perhaps only half written"),
        ('{"dog": ["a dog."], "cat": []}', "no sentences for 2 of 3 classes: traffic light, cat"),
        ('{"dog": "a dog.", "cat": ["x"], "traffic light": ["y"]}', "expected a list of sentences"),
    ],
)
def test_sentences_of_another_form_that_do_not_fit_are_refused(tmp_path, text, said):
    (tmp_path / "cupl.json").write_text(text)
    with pytest.raises(ValueError, match=said):
        corpus.from_sentences(tmp_path / "cupl.json", CLASSES)


def refused(read, path, classes=CLASSES):
    with at_once(), pytest.raises(ValueError) as raised:  # noqa: PT011
        read(path, classes)
    (line,) = str(raised.value).splitlines()
    assert str(path) in line
    assert len(line) < 600
    return line


LISTS = {"dog": ["a dog."], "cat": ["a cat."], "traffic light": ["red."]}


@pytest.mark.parametrize(
    ("sentence", "said"),
    [
        (5, "found 5 at "),
        (None, "found None at "),
        (["a cat."], "found ['a cat.'] at "),
        (" \n", "found ' \\n' at "),
        ("a \ud800 cat", r"found 'a \ud800 cat' at "),
        (float("nan"), "found nan at "),
        (10**400, "found 1000"),
    ],
)
def test_a_sentence_that_is_none_is_refused_with_its_place_in_both_forms_of_file(tmp_path, sentence, said):
    (path := tmp_path / "corpus.json").write_text(
        json.dumps(RAW | {"2": {"node_name": "cat", "candidate_sentences": ["a cat.", sentence]}})
    )
    line = refused(corpus.load, path)
    assert "class 2: expected" in line
    assert said in line
    assert "at candidate_sentences.1 (" in line
    path.write_text(json.dumps(LISTS | {"cat": ["a cat.", sentence]}))
    line = refused(corpus.from_sentences, path)
    assert "class cat: expected a list of sentences" in line
    assert said in line
    assert "at 1 (" in line


@pytest.mark.parametrize(
    "text", ["null", "5", "[" * 100_000, '{"0":' * 100_000, "NaN", '"' + "a" * 1_200_000 + '"', "9" * 400, "9" * 5000]
)
def test_json_that_is_no_corpus_is_refused_in_one_short_line(tmp_path, text):
    (path := tmp_path / "corpus.json").write_text(text)
    refused(corpus.load, path)
    refused(corpus.from_sentences, path)


def test_many_wrong_entries_and_names_of_any_length_are_refused_in_one_short_line(tmp_path):
    (path := tmp_path / "corpus.json").write_text(json.dumps(dict.fromkeys(map(str, range(10**5)), 5)))
    assert "class 0: expected" in refused(corpus.load, path)
    path.write_text(json.dumps({"a" * 10**6: {"node_name": 5}}))
    refused(corpus.load, path)
    refused(corpus.from_sentences, path, ClassList(tuple(map(str, range(10_000))), 0))


def test_a_file_that_is_not_utf8_is_refused_by_its_name(tmp_path):
    (path := tmp_path / "corpus.json").write_bytes(json.dumps(RAW).replace("cat", "café").encode("latin-1"))
    assert "is not UTF-8 text" in refused(corpus.load, path)
    assert "is not UTF-8 text" in refused(corpus.from_sentences, path)


def test_a_class_whose_sentences_are_given_twice_is_refused(tmp_path):
    (path := tmp_path / "cupl.json").write_text(json.dumps(LISTS | {"Traffic_Light": ["green."]}))
    assert "'Traffic_Light' twice" in refused(corpus.from_sentences, path)


def test_a_corpus_that_is_no_regular_file_is_refused_at_once(tmp_path):
    for path in irregular(tmp_path, "corpus.json"):
        assert "is not a regular file" in refused(corpus.load, path)
        assert "is not a regular file" in refused(corpus.from_sentences, path)


@pytest.mark.parametrize(
    "sentence", ["a dog<end_of_text> is a cat", "a &lt;START_of_text&gt; b", "&amp;lt;end_of_text&amp;gt;"]
)
def test_a_sentence_with_tokens_of_clips_own_is_refused_before_it_is_encoded(counted, sentence):
    with pytest.raises(ValueError, match=r"holds <(end|start)_of_text>, a token of CLIP's own; remove it"):
        encode(counted, ["a dog.", sentence])
    assert counted.text.rows == []


def test_weights_that_give_features_that_are_no_numbers_are_refused_and_not_cached(state, tiny_clip, tmp_path):
    text = clip.build(state | {"text_projection": torch.full((128, 64), 3e38)})[1]
    with pytest.raises(ValueError, match="features that are not finite; its weights are damaged"):
        encode(dataclasses.replace(tiny_clip, text=text), ["a dog."], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_cache_file_that_holds_something_else_is_made_anew(tiny_clip, tmp_path):
    expected = encode(tiny_clip, ["a cat."], tmp_path)
    (path,) = tmp_path.iterdir()
    checkpoint.write(path, {"class_vectors": torch.ones(2)})
    assert torch.equal(encode(tiny_clip, ["a cat."], tmp_path), expected)
