"""The table of rows: what each is called, when it is wanted, and class embeddings that come from elsewhere."""

import json
from types import SimpleNamespace

import pytest
import torch
from hostile import at_once, irregular
from safetensors.torch import save_file
from torch.nn import functional as F

from rcnn import checkpoint, config, rows
from rcnn.learn import elsewhere
from rcnn.learn.class_embeddings import mean
from rcnn.text.classes import ClassList
from rcnn.text.corpus import Corpus, EncodedCorpus, encode

CLASSES = ClassList(("Cat", "dog", "hot dog", "bird"), 3)
WIDTH = 6
SAME = {"clip": "same"}
Z = F.normalize(torch.arange(24.0).reshape(4, WIDTH).sin(), dim=1)
DEFAULTS = config.Config()
DESCRIBED = config.override({}, ["corpus.path=corpus.json"])


def keys(**train):
    """Rows that a configuration asks for."""
    settings = config.TrainConfig(**train)
    return [key for key, row in rows.ROWS.items() if row.wanted(settings)]


def test_every_row_has_a_name_of_its_own_and_known_scorers():
    names = [rows.label(row, scorer) for row, known in rows.ROWS.items() for scorer in known.scorers]
    assert all(names)
    assert len(set(names)) == len(names)
    assert all(row.label and row.scorers and set(row.scorers) <= rows.SCORERS.keys() for row in rows.ROWS.values())


def test_the_baseline_and_the_row_of_every_method_are_rows_that_are_wanted_with_it():
    assert set(rows.METHODS) == {"names", "closed_form"}
    for method, row in rows.METHODS.items():
        assert {rows.BASELINE, row} <= set(keys(method=method))


def test_rows_that_are_learned_are_wanted_as_the_configuration_says():
    unlearned = ["baseline", "centred", "templates", "mean", "mean_with_templates", "principal"]
    assert keys() == [*unlearned, "cnr", "cnr_pbl", "closed_form"]
    assert keys(ablation=False) == [*unlearned, "cnr_pbl", "closed_form"]
    for ablation in (True, False):
        assert keys(method="closed_form", ablation=ablation) == [*unlearned, "closed_form"]


def test_a_row_that_is_not_in_the_table_is_called_by_its_key_and_scored_like_the_others():
    assert [rows.label("mine"), rows.label("mine", "mssa")] == ["mine", "mine + MSSA"]
    assert [rows.label("baseline"), rows.label("baseline", "mssa")] == ["class name", "class name + MSSA"]
    for row in ("mine", *rows.ROWS):
        assert rows.scorers(row, config.EvaluateConfig()) == ["plain", "mssa"]
        assert rows.scorers(row, config.EvaluateConfig(grids=[])) == ["plain"]


@pytest.fixture
def material():
    """Made-up sentences in the shared space; what is learned is marked by its λ."""
    features = F.normalize(torch.randn(16, WIDTH, generator=torch.Generator().manual_seed(0)), dim=1)
    descriptions, templates = (EncodedCorpus(features[i : i + 8], torch.arange(8) % 4, 4) for i in (0, 8))
    return SimpleNamespace(
        settings=DESCRIBED, prompts=EncodedCorpus(Z, torch.arange(4), 4), descriptions=descriptions, templates=templates,
        weight=0.25, learn=lambda row, weight: torch.full((4, WIDTH), weight), closed_form=lambda: -Z,
    )  # fmt: skip


def test_embeddings_are_those_of_every_wanted_row_in_the_order_of_the_table(material):
    found = rows.embed(material)
    assert list(found) == list(rows.ROWS)
    assert {z.shape for z in found.values()} == {(4, WIDTH)}
    assert torch.equal(found["baseline"], Z)
    assert torch.equal(found["mean"], mean(material.descriptions))
    assert torch.equal(found["mean_with_templates"], mean(material.descriptions + material.templates))
    assert [found[row][0, 0].item() for row in ("cnr", "cnr_pbl")] == [0.0, material.weight]
    material.settings = DESCRIBED.model_copy(update={"train": config.TrainConfig(method="closed_form")})
    assert list(rows.embed(material)) == keys(method="closed_form")


@pytest.mark.parametrize("method", rows.METHODS)
def test_without_descriptions_the_rows_that_need_none_are_made_and_one_of_them_is_the_result(material, method):
    for made_of in ("learn", "closed_form", "descriptions"):
        delattr(material, made_of)  # so that another row would be an error
    material.settings = config.override({}, [f"train.method={method}"])
    assert list(rows.embed(material)) == ["baseline", "centred", "templates"]
    assert rows.method(material.settings) == "templates"
    assert rows.method(config.override({}, [f"train.method={method}", "corpus.path=x"])) == rows.METHODS[method]


@pytest.fixture
def write(tmp_path):
    """Write class embeddings as another project might; returns the path."""

    def call(names=CLASSES.names, z=Z, **tensors):
        path = tmp_path / "mine.safetensors"
        metadata = None if names is None else {"class_names": names if isinstance(names, str) else json.dumps(names)}
        save_file({"anything": z, **tensors}, path, metadata)
        return path

    return call


def read(path, model=None, cache=None, fingerprint="same"):
    def load():
        return pytest.fail("the CLIP is not needed") if model is None else model

    return elsewhere.read(path, CLASSES, WIDTH, fingerprint, load, cache)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_class_embeddings_of_a_file_become_unit_vectors_in_float32(write, dtype):
    found = read(write(z=3 * Z.to(dtype)))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, Z)


def test_class_names_of_a_file_may_differ_in_case(write):
    torch.testing.assert_close(read(write([name.upper() for name in CLASSES.names])), Z)


def test_of_another_run_the_row_of_its_method_is_taken(tmp_path):
    path = tmp_path / checkpoint.EMBEDDINGS
    for method, expected in (("cnr_pbl", Z), ("baseline", -Z)):
        checkpoint.write(path, {"baseline": -Z, "cnr_pbl": Z}, method=method, class_names=CLASSES.names, identity=SAME)
        torch.testing.assert_close(read(path), expected)


def test_class_embeddings_of_a_run_with_another_clip_are_refused(tmp_path):
    path = tmp_path / checkpoint.EMBEDDINGS
    checkpoint.write(path, {"cnr_pbl": Z}, method="cnr_pbl", class_names=CLASSES.names, identity=SAME)
    with pytest.raises(ValueError, match="learned with another CLIP, so its class embeddings lie in another space"):
        read(path, fingerprint="other")


def test_sentences_of_every_class_become_their_normalised_mean(tiny_clip, tmp_path):
    sentences = {
        "bird": ["a bird with wings."], "hot_dog": ["a sausage.", "a bun."], "CAT": ["a cat sleeps."], "dog": ["a dog."],
        "fish": ["a fish."],
    }  # fmt: skip
    (path := tmp_path / "cupl.json").write_text(json.dumps(sentences))
    found = read(path, tiny_clip, tmp_path / "cache")
    features = encode(
        tiny_clip, Corpus(["a cat sleeps.", "a dog.", "a sausage.", "a bun.", "a bird with wings."], torch.arange(5), 5)
    ).features
    expected = [features[0], features[1], F.normalize(features[2] + features[3], dim=0), features[4]]
    torch.testing.assert_close(found, torch.stack(expected))
    assert len(list((tmp_path / "cache").iterdir())) == 1


def fails(path, error=ValueError):
    with pytest.raises(error) as raised:
        read(path)
    (line,) = str(raised.value).splitlines()
    assert str(path) in line
    return line


@pytest.mark.parametrize(
    ("names", "difference"),
    [
        (["cat", "dog", "bird", "hot dog"], "found 4; class 2 is 'hot dog' in the run and 'bird' here"),
        (["dog", "cat", "hot dog", "bird"], "found 4; class 0 is 'Cat' in the run and 'dog' here"),
        (["cat", "dog", "hot dog"], "found 3; class 3 is 'bird' in the run and '' here"),
        (["cat", "dog", "hot dog", "bird", "fish"], "found 5; class 4 is '' in the run and 'fish' here"),
    ],
)
def test_the_first_class_that_differs_is_named(write, names, difference):
    assert fails(write(names)).endswith(f"expected the run's 4 classes in its order, {difference}")


def test_the_first_class_that_differs_is_named_for_another_run_too(tmp_path):
    path = tmp_path / checkpoint.EMBEDDINGS
    names = ["cat", "fish", "hot dog", "bird"]
    checkpoint.write(path, {"cnr_pbl": Z}, method="cnr_pbl", class_names=names, identity={"clip": None})
    assert "class 1 is 'dog' in the run and 'fish' here" in fails(path)


@pytest.mark.parametrize("shape", [(3, WIDTH), (5, WIDTH), (4, WIDTH + 1), (24,), (4, 2, 3), ()])
def test_class_embeddings_of_another_shape_are_refused(write, shape):
    line = fails(write(z=torch.ones(shape)))
    assert line.endswith(f"expected class embeddings of shape (4, {WIDTH}), got {shape}")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0])
def test_class_embeddings_that_are_not_finite_or_zero_are_refused(write, value):
    z = Z.clone()
    z[2] = value
    assert "expected finite class embeddings other than zero" in fails(write(z=z))


@pytest.mark.parametrize("names", [None, "cat, dog", "5", "null"])
def test_a_file_without_a_list_of_class_names_is_refused(write, names):
    assert 'the metadata "class_names", a JSON list' in fails(write(names))


@pytest.mark.parametrize("names", [[1, 2, 3, 4], {"Cat": 1}, ["\ud800"] * 4, "[" * 100_000, "9" * 5000, json.dumps([None] * 4)])
def test_names_that_are_no_list_of_texts_are_refused_in_one_short_line(write, names):
    assert 'the metadata "class_names", a JSON list' in (line := fails(write(names)))
    assert len(line) < 700


def test_a_name_of_any_length_is_refused_in_one_short_line(write):
    assert len(fails(write(["\x1b" * 10**6, "dog", "hot dog", "bird"]))) < 700


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64])
def test_class_embeddings_of_other_than_floating_point_numbers_are_refused(write, dtype):
    line = fails(write(z=torch.ones(4, WIDTH).to(dtype)))
    assert line.endswith(f"expected class embeddings of floating-point numbers, got {dtype}")


@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1e30])
def test_class_embeddings_whose_length_float32_cannot_hold_are_refused(write, scale):
    assert "expected finite class embeddings other than zero" in fails(write(z=scale * Z))


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"epoch": 3, "losses": [1.0], "identity": SAME},  # a state
        {"method": "cnr_pbl", "class_names": 5, "identity": SAME},
        {"method": "cnr_pbl", "class_names": [1, 2, 3, 4], "identity": SAME},
        {"method": ["cnr_pbl"], "class_names": CLASSES.names, "identity": SAME},
        {"method": "cnr_pbl", "class_names": CLASSES.names, "identity": "same"},
        {"method": "cnr_pbl", "class_names": CLASSES.names},
    ],
)
def test_a_state_or_a_run_with_other_facts_in_place_of_embeddings_is_refused(tmp_path, facts):
    checkpoint.write(tmp_path / "a.safetensors", {"cnr_pbl": Z}, **facts)
    assert "or the class_embeddings.safetensors of a run (" in fails(tmp_path / "a.safetensors")


@pytest.mark.parametrize("name", ["a.safetensors", "a.json"])
def test_rows_from_what_is_no_regular_file_are_refused_at_once(tmp_path, name):
    for path in irregular(tmp_path, name):
        with at_once():
            assert fails(path) == f"{path} is not a regular file"


def test_a_file_of_several_tensors_is_refused(write):
    assert "expected a safetensors file of one tensor (C, D)" in fails(write(other=-Z))


def test_a_run_whose_method_is_not_among_its_rows_is_refused(tmp_path):
    path = tmp_path / checkpoint.EMBEDDINGS
    checkpoint.write(path, {"baseline": Z}, method="cnr_pbl", class_names=CLASSES.names)
    assert "class_embeddings.safetensors of a run" in fails(path)


@pytest.mark.parametrize("content", [b"", b"not a tensor", b"\xff" * 100])
def test_a_file_that_is_no_safetensors_file_is_refused(tmp_path, content):
    (path := tmp_path / "mine.safetensors").write_bytes(content)
    assert "expected a safetensors file" in fails(path)


def test_a_cut_safetensors_file_is_refused(write):
    path = write()
    path.write_bytes(path.read_bytes()[:-5])
    assert "expected a safetensors file" in fails(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"cat": ["a"], "dog": ["b"]}', "has no sentences for 2 of 4 classes: hot dog, bird"),
        ('{"cat": ["a"], "dog": ["b"], "hot dog": [], "bird": ["d"]}', "has no sentences for 1 of 4 classes: hot dog"),
        ('{"cat": ["a"], "dog": "b", "hot dog": ["c"], "bird": ["d"]}', "expected a list of sentences for every class"),
        ('{"cat": ["a"], "dog": [3], "hot dog": ["c"], "bird": ["d"]}', "expected a list of sentences for every class"),
        ('["cat", "dog"]', "expected JSON {class name: [sentences]}"),
        ("5", "expected JSON {class name: [sentences]}"),
        ('{"cat": ', "is not JSON, perhaps only half written"),
        ("", "is not JSON, perhaps only half written"),
    ],
)
def test_sentences_that_do_not_describe_every_class_are_refused_before_the_clip_is_loaded(tmp_path, content, said):
    (path := tmp_path / "cupl.json").write_text(content)
    assert said in fails(path)
