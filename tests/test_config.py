"""Configurations: strict reading, overrides, and the way back to YAML."""

import os
import re
import typing
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from rcnn import config
from rcnn.datasets import DATASETS
from rcnn.printing import cut

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
        ("evaluate: {grid: 5}", "evaluate.grid", "evaluate.grids"),
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
        "corpus: {templates: 1}",
        'corpus: {templates: "true"}',
        "train: {precision: fp16}",
        "train: {method: 3}",
        "output: null",
        "clip: {weights: 5}",
        "evaluate: {grids: 2}",
        "evaluate: {grids: null}",
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
    assert read("evaluate: {grids: [2]}").evaluate.grids == (2,)
    assert read("", "evaluate.grids=[]", "evaluate.top_k=[10, 20]").evaluate == config.EvaluateConfig(grids=(), top_k=(10, 20))


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


HUGE = "9" * 400


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ("train.momentum=5", "train.momentum: expected less than 1, got 5"),
        ("train.momentum=1", "train.momentum: expected less than 1"),
        ("train.pair_weight=1e38", "train.pair_weight: expected auto or a number from 0 to 1e6"),
        ("train.learning_rate=1e30", "train.learning_rate: expected less than or equal to 1000000, got 1e\\+30"),
        ("train.weight_decay=1e300", "train.weight_decay: expected less than or equal to 1"),
        ("evaluate.bootstrap=100000000", "evaluate.bootstrap: expected less than or equal to 10000"),
        ("evaluate.temperature=1e-300", "evaluate.temperature: expected greater than or equal to"),
        (f"seed={HUGE}", "seed: expected less than or equal to"),
        (f"train.learning_rate={HUGE}", "train.learning_rate: expected a valid number"),
        (f"seed={HUGE * 20}", "seed=9+ … 9+ is not YAML"),
        ("seed=" + "1:" * 20_000 + "1", "seed: expected"),
        ("seed=!!bool x", "seed=!!bool x is not YAML"),
        ("seed=!!timestamp x", "seed=!!timestamp x is not YAML"),
        ("seed=2024-99-99", "is not YAML: month must be in 1..12"),
        ("seed=" + "[" * 2000 + "]" * 2000, "is not YAML: RecursionError"),
        ('output="a\\0b"', "output: expected text without control characters"),
        ('output="\\ud83d"', "output: expected text without control characters that UTF-8 can write"),
        ("output=caf\udce9", "is not YAML: "),
        ("classes.seen=" + "x" * 70_000, "expected at most 65,536 characters"),
    ],
    ids=lambda text: ascii(cut(text, 40)),
)
def test_a_hostile_value_is_refused_in_one_short_line_that_names_its_option(read, pair, message):
    with pytest.raises(ValueError, match=message) as refused:
        read("", pair)
    assert len(str(refused.value)) < 500


def test_aliases_of_aliases_are_refused_before_anything_looks_at_their_value(read):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 8)]  # 10^8 entries
    with pytest.raises(ValueError, match=r"config\.yaml is not YAML: .*aliases .* are not read here$"):
        read("\n".join(lines))


@pytest.mark.parametrize(
    "text", ["1: 2", "? [a]\n: 2", "null: 5", "train: {1: 2}", "- 5", "train: " + "{a: " * 300 + "}" * 300]
)
def test_keys_that_are_no_text_are_refused(read, text):
    with pytest.raises(ValueError, match=r"."):
        read(text)


def test_a_configuration_that_is_not_utf_8_or_no_regular_file_is_refused_by_its_name(tmp_path):
    (tmp_path / "latin.yaml").write_bytes("output: caf\u00e9".encode("latin-1"))
    with pytest.raises(ValueError, match=r"latin\.yaml is not UTF-8 text"):
        config.load(tmp_path / "latin.yaml")
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(FileNotFoundError, match=r"there is no configuration .*pipe\.yaml"):
        config.load(tmp_path / "pipe.yaml")
    with pytest.raises(FileNotFoundError, match="there is no configuration /dev/zero"):
        config.load("/dev/zero")


def test_emoji_in_a_path_survive_pairs_values_and_the_way_to_yaml_and_back(read, tmp_path):
    for settings in (read("", "output=/r😀"), read("output: /r😀"), config.override({}, [], values={"output": Path("/r😀")})):
        assert settings.output == "/r😀"
        (tmp_path / "written.yaml").write_text(yaml.safe_dump(config.to_dict(settings)), encoding="utf-8")
        assert config.load(tmp_path / "written.yaml") == settings


def test_the_configuration_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        config.Config().seed = 1


CHOICES = {
    "articles": ["paper"],  # the other one does not go with mode=compat
    "twins": [(), ("sea, mare",)],
    "kind": list(DATASETS),
    "expected_images": [{}, {"zsl": 3, "gzsl": 5}],
    "input_price": [None],
    "output_price": [None],
    "compile": [False],  # goes with no other last blocks
    "last_blocks": [(), ("vv",), ("qq+residual", "v")],
}


def leaf(name, field):
    """Values of one option's type."""
    if name in CHOICES:
        return st.sampled_from(CHOICES[name])
    words = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), max_size=12)
    if field.json_schema_extra["path"]:
        words = words.map(os.path.abspath)
    bounds = {key: getattr(known, key) for known in field.metadata for key in ("ge", "le", "lt") if hasattr(known, key)}
    low, high = bounds.get("ge", 1), bounds.get("le", bounds.get("lt", 1e6))
    number = st.floats(low, high, exclude_max="lt" in bounds)
    kinds = {int: st.integers(int(low), int(high)), float: number, bool: st.booleans(), str: words}
    kinds |= {known | None: st.none() | values for known, values in kinds.items()}
    kinds |= {
        float | typing.Literal["auto"]: number | st.just("auto"),
        dict[str, str]: st.dictionaries(words, words, max_size=2),
        tuple[str, ...] | None: st.none() | st.lists(words, max_size=4).map(tuple),
    }
    if typing.get_origin(field.annotation) is typing.Literal:
        return st.sampled_from(typing.get_args(field.annotation))
    return kinds.get(field.annotation, st.lists(st.integers(1, 16), max_size=4).map(tuple))


def instances(cls):
    return st.builds(
        cls,
        **{
            name: instances(field.default_factory) if field.default_factory else leaf(name, field)
            for name, field in cls.model_fields.items()
        },
    )


@given(instances(config.Config) | instances(config.DescribeConfig))
def test_a_configuration_written_as_yaml_is_read_back_unchanged(tmp_path_factory, settings):
    path = tmp_path_factory.getbasetemp() / "written.yaml"
    path.write_text(yaml.safe_dump(config.to_dict(settings), sort_keys=False), encoding="utf-8")
    assert config.load(path, cls=type(settings)) == settings


def test_to_dict_is_plain_and_keeps_the_order_of_the_fields():
    plain = config.to_dict(config.Config())
    assert list(plain) == list(config.Config.model_fields)
    assert plain["evaluate"]["grids"] == [2, 3]
    assert yaml.safe_load(yaml.safe_dump(plain)) == plain


def leaves(cls, prefix=""):
    """{dotted key: field}"""
    out = {}
    for name, field in cls.model_fields.items():
        out |= leaves(field.default_factory, f"{prefix}{name}.") if field.default_factory else {prefix + name: field}
    return out


@pytest.mark.parametrize("cls", [config.Config, config.DescribeConfig])
def test_help_has_one_line_for_every_key_with_its_meaning(cls):
    lines = config.describe(cls)
    assert len(lines) == len(leaves(cls)) == len(set(config.known_keys(cls)))
    for key, field in leaves(cls).items():
        (line,) = [line for line in lines if line.startswith(f"  {key}=")]
        assert line.endswith(f" {field.description}")
        assert len(field.description) > 5


@pytest.mark.parametrize("cls", [config.Config, config.DescribeConfig])
def test_every_option_says_what_it_shapes(cls):
    assert {option.shapes for option in config.options(cls)} <= set(config.SHAPES)


def test_shaping_gives_the_options_that_shape_a_thing_without_paths():
    settings = config.override({}, ["train.tokens=2", "output=x", "evaluate.grids=[2]"])
    learning, scores = config.shaping(settings, "learning"), config.shaping(settings, "scores", "digits")
    assert learning["train.tokens"] == 2
    assert {"output", "corpus.path", "train.centring", "evaluate.grids", "device"}.isdisjoint(learning)
    assert scores["evaluate.grids"] == [2]
    assert {"evaluate.batch_size", "evaluate.precision"} <= set(scores)
    assert "evaluate.workers" not in scores


def test_changed_names_the_options_that_differ_paths_as_well():
    before, after = config.override({}, []), config.override({}, ["train.tokens=2", "corpus.path=x", "evaluate.workers=9"])
    assert config.changed(before, after, "learning") == ["corpus.path", "train.tokens"]
    assert config.changed(before, after, "nothing") == ["evaluate.workers"]


def test_rows_from_elsewhere_are_named_one_by_one(read, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert read("", "rows.mine=a.json", "rows.yours=b.safetensors").rows == {
        "mine": str(tmp_path / "a.json"),
        "yours": str(tmp_path / "b.safetensors"),
    }


@pytest.mark.parametrize("value", ["auto", 0.0, 0.2])
def test_the_pair_weight_is_a_number_or_auto(read, value):
    assert read("", f"train.pair_weight={value}").train.pair_weight == value


@pytest.mark.parametrize(
    ("pair", "said"),
    [
        ("train.pair_weight=-1", "train.pair_weight: expected auto or a number from 0 to 1e6, got -1"),
        ("train.pair_weight=automatic", "train.pair_weight: expected "),
        ("train.epochs=0", "train.epochs: expected greater than or equal to 1, got 0"),
        ("evaluate.grids=[2, 0]", "evaluate.grids: expected greater than or equal to 1, got 0"),
        ("evaluate.temperature=.inf", "evaluate.temperature: expected a finite number"),
        ("dataset.kind=zip", "dataset.kind: expected 'coco', 'nuswide', 'openimages' or 'mini', got 'zip'"),
        ("dataset.expected_images.zls=1", "dataset.expected_images.zls: expected 'zsl' or 'gzsl', got 'zls'"),
    ],
)
def test_a_value_out_of_bounds_is_refused_with_its_key(read, pair, said):
    with pytest.raises(ValueError, match=f"^{re.escape(said)}"):
        read("", pair)


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
