"""Configurations: strict reading, overrides, and the way back to YAML."""

import dataclasses
import os
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rcnn import config

CONFIGS = sorted((Path(__file__).parents[1] / "configs").glob("**/*.yaml"))


@pytest.fixture
def read(tmp_path):
    """Load a configuration from YAML text."""

    def load(text="", *overrides):
        path = tmp_path / "config.yaml"
        path.write_text(text, encoding="utf-8")
        return config.load(path, overrides)

    return load


def test_an_empty_file_gives_the_defaults_of_the_paper(read):
    train = read().train
    assert (train.tokens, train.pair_weight, train.epochs, train.batch_size) == (4, 0.2, 30, 512)
    assert (train.learning_rate, train.warmup_rate, train.momentum, train.weight_decay) == (1e-4, 1e-5, 0.9, 5e-4)


def test_values_of_the_file_win_over_defaults_and_overrides_over_both(read):
    settings = read("train: {epochs: 7, tokens: 2}\nseed: 3", "train.epochs=9", "clip.model=ViT-L-14-quickgelu")
    assert (settings.train.epochs, settings.train.tokens, settings.seed) == (9, 2, 3)
    assert settings.clip.model == "ViT-L-14-quickgelu"


def test_an_override_may_hold_an_equals_sign_and_the_last_one_wins(read):
    assert read("", "output=/tmp/a=b").output == "/tmp/a=b"
    assert read("", "seed=1", "seed=2").seed == 2


@pytest.mark.parametrize(
    ("text", "key", "nearest"),
    [
        ("train: {epoch: 5}", "train.epoch", "train.epochs"),
        ("sed: 1", "sed", "seed"),
        ("clip: {weight: x}", "clip.weight", "clip.weights"),
        ("evaluate: {topk: [3]}", "evaluate.topk", "evaluate.top_k"),
        ("evaluate: {count: 5}", "evaluate.count", "evaluate.counts"),  # and not dataset.count: the section counts
        ("zzz: 1", "zzz", r"[a-z_.]+"),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(read, text, key, nearest):
    with pytest.raises(ValueError, match=f"unknown configuration key {key}; the nearest is {nearest}$"):
        read(text)


def test_an_unknown_key_of_an_override_is_refused_with_the_nearest_name(read):
    with pytest.raises(ValueError, match=r"unknown configuration key train\.lerning_rate; the nearest is train\.learning_rate"):
        read("", "train.lerning_rate=1")


@pytest.mark.parametrize("text", ["1e-4", "0.0001", "1.0e-4", '"1e-4"'])
def test_every_spelling_of_1e_4_is_a_float(read, text):
    assert read(f"train: {{learning_rate: {text}}}").train.learning_rate == 1e-4
    assert read("", f"train.learning_rate={text}").train.learning_rate == 1e-4


def test_a_whole_number_is_taken_for_a_float_and_a_whole_float_for_an_int(read):
    settings = read("train: {pair_weight: 1, epochs: 5.0}").train
    assert (type(settings.pair_weight), settings.pair_weight) == (float, 1.0)
    assert (type(settings.epochs), settings.epochs) == (int, 5)


@pytest.mark.parametrize(
    "text",
    [
        "train: {epochs: many}",
        "train: {epochs: 1.5}",
        "train: {epochs: true}",
        "train: {epochs: null}",
        "train: {epochs: [1]}",
        "train: {learning_rate: fast}",
        "train: {learning_rate: true}",
        "train: {amp: 1}",
        'train: {amp: "true"}',
        "train: {method: 3}",
        "output: null",
        "clip: {weights: 5}",
        "evaluate: {counts: 2}",
        "evaluate: {counts: null}",
        "evaluate: {top_k: [3, x]}",
    ],
)
def test_a_value_of_another_type_is_refused_with_its_key(read, text):
    (section,) = yaml.safe_load(text)
    value = yaml.safe_load(text)[section]
    key = f"{section}.{next(iter(value))}" if isinstance(value, dict) else section
    with pytest.raises(ValueError, match=f"^{key}: expected "):
        read(text)


@pytest.mark.parametrize("text", ["train: 5", "train: [1]", "train:"])
def test_a_section_that_is_none_is_refused(read, text):
    with pytest.raises(ValueError, match="train: expected a section"):
        read(text)


def test_lists_become_tuples_and_may_be_empty(read):
    assert read("evaluate: {counts: [2]}").evaluate.counts == (2,)
    assert read("", "evaluate.counts=[]", "evaluate.top_k=[10, 20]").evaluate == dataclasses.replace(
        config.EvaluateConfig(), counts=(), top_k=(10, 20)
    )


def test_null_is_taken_where_there_may_be_nothing(read):
    settings = read("clip: {model: null}", "clip.pretrained=null")
    assert settings.clip.model is None
    assert settings.clip.pretrained is None


def test_paths_become_absolute_and_names_stay(read, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    settings = read("{output: runs/a, clip: {weights: ../w.pt, model: ViT-B-16}, classes: {seen: seen.txt}}")
    assert settings.output == str(tmp_path / "runs" / "a")
    assert settings.clip.weights == str(tmp_path.parent / "w.pt")
    assert settings.classes.seen == str(tmp_path / "seen.txt")
    assert settings.clip.model == "ViT-B-16"


@pytest.mark.parametrize("text", ["[1, 2]", "just words", "5"])
def test_a_file_without_keys_is_refused(read, text):
    with pytest.raises(ValueError, match="expected key: value pairs"):
        read(text)


def test_a_file_that_is_not_yaml_is_refused_by_name(read):
    with pytest.raises(ValueError, match=r"config\.yaml is not YAML"):
        read("train: {epochs: 5")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no configuration .*gone\.yaml"):
        config.load(tmp_path / "gone.yaml")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.epochs", "expected key=value"),
        ("seed.deep=1", "seed is a value, not a section"),
        ("train.epochs={", "not YAML"),
        ("train=5", "train: expected a section"),
    ],
)
def test_a_bad_override_is_refused_in_words(read, override, message):
    with pytest.raises(ValueError, match=message):
        read("seed: 1", override)


def test_the_configuration_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.Config().seed = 1


CHOICES = {
    "method": ["names", "closed_form"],
    "kind": ["coco", "nuswide", "mini"],
    "precision": ["auto", "float32", "bf16", "fp16"],
    "mode": ["clean", "compat"],
    "expected_images": [(), (3, 5)],
    "input_price": [None],
    "output_price": [None],
}


def leaf(field, kind):
    """Values of one option's type."""
    if field.name in CHOICES:
        return st.sampled_from(CHOICES[field.name])
    whole, number = st.integers(1, 2**63), st.floats(1e-9, 1e300)
    words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
    if field.metadata["path"]:
        words = words.map(lambda w: os.path.abspath(w) if w else w)
    kinds = {int: whole, float: number, bool: st.booleans(), str: words}
    kinds |= {known | None: st.none() | values for known, values in kinds.items()}
    return kinds.get(kind, st.lists(whole, max_size=4).map(tuple))


def instances(cls):
    types = typing.get_type_hints(cls)
    return st.builds(
        cls,
        **{
            f.name: instances(types[f.name]) if dataclasses.is_dataclass(types[f.name]) else leaf(f, types[f.name])
            for f in dataclasses.fields(cls)
        },
    )


@given(instances(config.Config) | instances(config.DescribeConfig))
def test_a_configuration_written_as_yaml_is_read_back_unchanged(tmp_path_factory, settings):
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(yaml.safe_dump(config.to_dict(settings), sort_keys=False), encoding="utf-8")
    assert config.load(path, cls=type(settings)) == settings


def test_to_dict_is_plain_and_keeps_the_order_of_the_fields():
    plain = config.to_dict(config.Config())
    assert list(plain) == [f.name for f in dataclasses.fields(config.Config)]
    assert plain["evaluate"]["counts"] == [2, 3]
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain


def test_help_has_one_line_for_every_key_with_its_meaning():
    lines = config.describe()
    options = {f"{s.name}.{f.name}": f for s in dataclasses.fields(config.Config) for f in _fields(s)}
    options |= {f.name: f for f in dataclasses.fields(config.Config) if "help" in f.metadata}
    assert len(lines) == len(options) == len(set(config.known_keys()))
    for key, field in options.items():
        (line,) = [line for line in lines if line.startswith(f"  {key}=")]
        assert line.endswith(f" {field.metadata['help']}")
        assert len(field.metadata["help"]) > 5


def _fields(section):
    return dataclasses.fields(section.default_factory) if section.default_factory is not dataclasses.MISSING else ()


def test_help_shows_defaults():
    lines = "\n".join(config.describe())
    assert "  train.epochs=30 " in lines
    assert "  clip.weights=null " in lines
    assert "  train.ablation=true " in lines


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_configuration_of_the_project_loads_and_survives_the_way_to_yaml_and_back(path, tmp_path):
    kind = config.DescribeConfig if path.parent.name == "describe" else config.Config
    settings = config.load(path, cls=kind)
    copy = tmp_path / "copy.yaml"
    copy.write_text(yaml.safe_dump(config.to_dict(settings)), encoding="utf-8")
    assert config.load(copy, cls=kind) == settings
