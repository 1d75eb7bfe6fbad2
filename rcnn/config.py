"""Configuration: YAML files to frozen models and back. Unknown keys are errors; each option says what it is and shapes."""

import contextlib
import copy
import difflib
import functools
import operator
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from rcnn import functions
from rcnn.datasets import DATASETS
from rcnn.files import read_text
from rcnn.printing import UNPRINTABLE, cut, explain, short

MOST = 1 << 16  # characters of a configuration, and of a value on the command line

# What an option shapes, which decides everything else about it: what may differ between runs in one folder, which scores can
# be used again, which results can be averaged. Files are told apart by their content, never by an option that is a path.
SHAPES = {
    "learning": "the class embeddings: a run is bound to it",
    "rows": "which rows stand beside the method's own: settled when a run is learned",
    "scores": "the scores of images",
    "digits": "the last digits of these scores",
    "metrics": "what is measured, and on which images",
    "intervals": "the intervals around it",
    "corpus": "the sentences of a text corpus",
    "nothing": "speed, places, names of files",
}


def option(default: Any, text: str, shapes: str, path: bool = False, **bounds: Any) -> Any:
    """A field with its line in --help and its key of SHAPES; `path`: made absolute, so that a run can be used from anywhere."""
    return Field(default, description=text, json_schema_extra={"shapes": shapes, "path": path}, **bounds)


Positive = Annotated[int, Field(ge=1, le=10**9)]
Side = Annotated[int, Field(ge=1, le=16)]


class Section(BaseModel):
    """A part of a configuration: frozen, strict, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="before")
    @classmethod
    def _as_yaml_means(cls, value, info):
        """Lists become tuples; PyYAML reads 1e-4 as a string; 5.0 is a good whole number."""
        kind = cls.model_fields[info.field_name].annotation
        kinds = (kind, *get_args(kind))
        if isinstance(value, os.PathLike):
            value = os.fspath(value)
        if isinstance(value, list):
            return tuple(value)
        if isinstance(value, str) and {float, int} & set(kinds):
            with contextlib.suppress(ValueError):
                value = float(value)
        return int(value) if isinstance(value, float) and value.is_integer() and int in kinds else value

    @field_validator("*", mode="after")
    @classmethod
    def _clean(cls, value, info):
        known = cls.model_fields[info.field_name].json_schema_extra
        if value is not None and known and known["path"]:
            if isinstance(value, dict):  # of files or functions
                value = {n: p if functions.is_name(p) else _absolute(p) for n, p in value.items()}
            else:
                value = _absolute(value)
        for text in (*value, *value.values()) if isinstance(value, dict) else [value]:
            if isinstance(text, str) and (odd := UNPRINTABLE.search(text.replace("\n", ""))):
                raise ValueError(f"expected text without control characters that UTF-8 can write, not {short(odd[0])}")
        return value


def _absolute(path: str) -> str:
    if not path:  # which would be the current folder
        raise ValueError("expected a path, not an empty text")
    return os.path.abspath(os.path.expanduser(path))


class ClipConfig(Section):
    # no weights and no sizes are settled by a name: a run is bound to the fingerprint of what was loaded
    model: str | None = option("ViT-B-16-quickgelu", "open_clip's name of the ViT; null: sizes from the file", "nothing")
    pretrained: str | None = option("openai", "open_clip's tag of the weights to download", "nothing")
    weights: str | None = option(None, "file instead: OpenAI's archive, a state dict, safetensors", "nothing", path=True)
    trust_torchscript: bool = option(False, "open a TorchScript archive (a program) that OpenAI did not publish", "nothing")


class ClassesConfig(Section):
    seen: str | None = option(None, "one class name a line; 'crane [a wading bird]' settles its sense", "learning", path=True)
    unseen: str | None = option(None, "the classes that ZSL scores; they come after the seen ones", "learning", path=True)


class CorpusConfig(Section):
    path: str | None = option(None, "class descriptions, as rcnn.describe writes them", "learning", path=True)
    templates: bool = option(True, "add CLIP's 80 prompt templates to the descriptions, as the authors' code does", "learning")


class TrainConfig(Section):
    method: Literal["names", "closed_form"] = option(
        "names", "names: the paper's; closed_form: their optimum (ours)", "learning"
    )
    tokens: int = option(4, "N_c, learnable vectors per class name", "learning", ge=1, le=70)
    pair_weight: float | Literal["auto"] = option(0.2, "λ; auto: as strong as at COCO (ours)", "learning")
    epochs: int = option(30, "passes over the sentences", "learning", ge=1, le=100_000)
    batch_size: int = option(512, "sentences a step; the last incomplete batch is dropped", "learning", ge=1, le=10**7)
    learning_rate: float = option(1e-4, "of SGD, where the cosine starts", "learning", ge=0, le=1e6)
    warmup_rate: float = option(1e-5, "constant rate of the first epoch", "learning", ge=0, le=1e6)
    momentum: float = option(0.9, "of SGD", "learning", ge=0, lt=1)
    weight_decay: float = option(5e-4, "of SGD", "learning", ge=0, le=1)
    precision: Literal["float32", "bf16"] = option(
        "float32",
        "of the text tower while names are learned; bf16 is faster on GPUs, and on CPUs with instructions for it",
        "learning",
    )
    ablation: bool = option(True, "also learn names without the pair-based loss, the row CNR of Table 3", "rows")
    centring: float = option(
        0.5, "κ of the row 'centred': class-name embeddings minus κ × their mean, a control", "rows", ge=0, le=100
    )

    @field_validator("pair_weight")
    @classmethod
    def _in_bounds(cls, weight):
        if weight != "auto" and not 0 <= weight <= 1e6:
            raise ValueError("expected auto or a number from 0 to 1e6")
        return weight


class DatasetConfig(Section):
    kind: Literal[tuple(DATASETS)] = option(
        "coco", "; ".join(f"{key}: {known.title}" for key, known in DATASETS.items()), "metrics"
    )
    images: str | None = option(None, "folder of the images", "metrics", path=True)
    annotations: str | None = option(None, "file or folder with the labels; null: nothing to evaluate on", "metrics", path=True)
    allow_missing: bool = option(False, "leave out images that are missing or unreadable, and say so in every table", "metrics")
    keep_unlabelled: bool = option(False, "also use images that show none of the classes, as other papers do", "metrics")
    expected_images: dict[Literal["zsl", "gzsl"], Positive] = option(
        {}, "images with a positive label that the test set has", "metrics"
    )


LastBlock = Literal[
    "v", "vv", "kk", "qq+kk", "qk",
    "qq+residual", "v+residual", "vv+residual", "kk+residual", "qq+kk+residual", "qk+residual",
]  # fmt: skip


class EvaluateConfig(Section):
    grids: tuple[Side, ...] = option((2, 3), "MSSA: snippets on a side; [2, 3] cuts 4 and 9", "scores", max_length=8)
    temperature: float = option(1 / 20, "τ_s; the paper names none, the authors' code has 1/20", "scores", ge=1e-6, le=1e6)
    precision: Literal["auto", "float32", "bf16", "fp16"] = option("auto", "auto: fp16 on CUDA, else float32", "scores")
    batch_size: int = option(16, "images at a time", "digits", ge=1, le=100_000)
    max_pixels: int = option(
        89_478_485, "of an image file; larger JPEGs are decoded smaller, others left out", "scores", ge=224**2, le=10**10
    )
    compile: bool = option(False, "torch.compile the image tower", "digits")
    top_k: tuple[Positive, ...] = option((3, 5), "k of precision, recall and F1", "metrics", max_length=100)
    epochs: bool = option(False, "also measure the class embeddings of every epoch, in the same pass", "metrics")
    diagnostics: bool = option(False, "also measure the global and the local part alone", "metrics")
    unknown: Literal["always", "with_negatives"] = option(
        "always",
        "leave unknown labels out of average precision always, or, as the authors' code, for classes with a verified absence",
        "metrics",
    )
    classes_without_positives: Literal["zero", "excluded"] = option(
        "zero", "count 0 in mAP, as in the authors' code, or are left out; without any known label a class always is", "metrics"
    )
    standardised: bool = option(
        True, "also measure standardised scores, a control that uses statistics of the test images", "metrics"
    )
    last_blocks: tuple[LastBlock, ...] = option(
        (),
        "other last blocks than ClearCLIP's that the class name and the method are also measured with",
        "metrics",
        max_length=11,
    )
    tagclip: bool = option(False, "also measure TagCLIP, by a pass of its own over the images at their own size", "metrics")
    tagclip_background: tuple[str, ...] | None = option(
        None, "names that compete with the classes in TagCLIP; null: the data set's", "metrics", max_length=1000
    )
    bootstrap: int = option(500, "resamples of the images for 95 % intervals; 0 for none", "intervals", ge=0, le=10_000)
    keep_scores: bool = option(False, "keep the scores of all rows in RUN/scores_kept, as .npy files and a JSON", "nothing")
    workers: int = option(
        1024, "processes that decode images, on Linux: at most one a core, which torchrun's share", "nothing", ge=0, le=4096
    )
    save_every: float = option(120.0, "seconds between notes, from which a killed evaluation goes on", "nothing", ge=0, le=1e6)

    @model_validator(mode="after")
    def _compiled_with_one_last_block(self):
        if self.compile and self.last_blocks:
            raise ValueError("compile, last_blocks: expected one of them at most; what is compiled has ClearCLIP's last block")
        return self


class Config(Section):
    output: str = option("outputs/run", "folder of this run", "learning", path=True)
    cache: str = option("outputs/cache", "folder of sentence features, shared by runs", "nothing", path=True)
    seed: int = option(0, "of the starting vectors, the order of sentences, and the bootstrap", "learning", ge=0, le=2**63 - 1)
    device: str = option("auto", "auto, cpu, cuda, cuda:1, …", "nothing")
    clip: ClipConfig = Field(default_factory=ClipConfig)
    classes: ClassesConfig = Field(default_factory=ClassesConfig)
    corpus: CorpusConfig = Field(default_factory=CorpusConfig)
    train: TrainConfig = Field(default_factory=TrainConfig)
    dataset: DatasetConfig = Field(default_factory=DatasetConfig)
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig)
    rows: dict[str, str] = option(
        {},
        "rows.NAME=FILE or MODULE:FUNCTION: class embeddings or sentences from elsewhere, to measure too",
        "metrics",
        path=True,
    )
    scorers: dict[str, str] = option(
        {}, "scorers.NAME=MODULE:FUNCTION: what else scores images, for the class names and the method", "scores"
    )


class DescribeConfig(Section):
    output: str = option("outputs/corpus.json", "the corpus; its answers and a report go beside it", "nothing", path=True)
    classes: ClassesConfig = Field(default_factory=ClassesConfig)
    context: str | None = option(None, "what the list is about, to settle senses: 'animals of the savanna'", "corpus")
    model: str = option("gpt-4o-mini", "name of the model at the service; the default is the paper's", "corpus")
    base_url: str | None = option(None, "service, such as http://localhost:11434/v1; null: OpenAI", "corpus")
    temperature: float | None = option(0.7, "of sampling; null: not sent, for models that take none", "corpus", ge=0, le=100)
    max_tokens: int = option(1000, "cap of an answer; one that is cut gets twice as many, once", "corpus", ge=1, le=10**6)
    attributes: int = option(9, "visual cues an answer, in each of two styles", "corpus", ge=1, le=1000)
    attribute_rounds: int = option(3, "times each style is asked for, every time with another seed", "corpus", ge=1, le=1000)
    narrower: int = option(10, "narrower kinds an answer", "corpus", ge=1, le=1000)
    broader: int = option(3, "broader kinds an answer", "corpus", ge=1, le=1000)
    bearers: int = option(6, "phrases that show a quality, or a named place, in place of its kinds", "corpus", ge=1, le=1000)
    hierarchy_rounds: int = option(3, "times kinds are asked for", "corpus", ge=1, le=1000)
    scenes: int = option(20, "scenes an answer", "corpus", ge=1, le=1000)
    scene_rounds: int = option(1, "times scenes are asked for", "corpus", ge=1, le=1000)
    drop_listed_kinds: bool = option(False, "leave out kinds that are classes of the list themselves", "corpus")
    mode: Literal["clean", "compat"] = option("clean", "how sentences are composed; compat: as the authors do", "corpus")
    articles: Literal["paper", "english"] = option("paper", "paper: 'a owl', 'a dogs'; english: 'an owl', 'dogs'", "corpus")
    twins: tuple[str, ...] = option((), "classes that are one thing in other words, such as 'sea, mare': noted", "corpus")
    concurrency: int = option(8, "requests at a time", "nothing", ge=1, le=256)
    timeout: float = option(120.0, "seconds for one request", "nothing", gt=0, le=86_400)
    retries: int = option(
        5, "further tries after a 409, 429, 5xx, a network error or a reply that is none", "nothing", ge=0, le=100
    )
    poll: float = option(30.0, "seconds between looks at a batch", "nothing", gt=0, le=86_400)
    input_price: float | None = option(
        None, "USD for a million tokens in; null: known for gpt-4o-mini only", "nothing", ge=0, le=1e6
    )
    output_price: float | None = option(None, "USD for a million tokens out", "nothing", ge=0, le=1e6)

    @model_validator(mode="after")
    def _fit_together(self):
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("input_price, output_price: expected both or neither")
        if self.mode == "compat" and self.articles != "paper":
            raise ValueError("mode=compat: expected articles=paper, the authors' own")
        return self


AnyConfig = TypeVar("AnyConfig", Config, DescribeConfig)


def load(path: str | Path, overrides: Iterable[str] = (), cls: type[AnyConfig] = Config) -> AnyConfig:
    """The configuration in a YAML file; `overrides`, such as "train.epochs=5" with dotted keys, win over the file.

    Raises:
        FileNotFoundError, ValueError: no file, bad YAML, an unknown key (with the nearest name), a value of another type.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration {path}; the paper's are in configs/ of a checkout of the project")
    raw = _yaml(read_text(path, MOST), str(path)) or {}
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected key: value pairs, got {type(raw).__name__}")
    return override(raw, overrides, cls)


def override(
    raw: dict, overrides: Iterable[str], cls: type[AnyConfig] = Config, values: Mapping[str, Any] | None = None
) -> AnyConfig:
    """Configuration of a nested dictionary, and what wins over it: "key=value" strings, then {dotted key: value} `values`."""
    raw, pairs = copy.deepcopy(raw), []
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"expected key=value, got {short(text)}")
        pairs.append((key, _yaml(value, f"{key}={cut(value, 60)}")))
    for key, value in [*pairs, *(values or {}).items()]:
        *sections, name = key.split(".")
        place = raw
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ValueError(f"{key}: {section} is a value, not a section")
        place[name] = value
    try:
        return cls.model_validate(raw)
    except ValidationError as error:
        raise ValueError(_explain(error.errors(include_url=False), cls)) from None


class _Loader(yaml.SafeLoader):
    """Without aliases: a few hundred bytes of aliases of aliases are gigabytes for all who look at the value."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases (*name) are not read here")
        return super().compose_node(parent, index)


def _yaml(text: str, where: str) -> Any:
    """The value of a YAML text; ValueError says `where` one is that cannot be read."""
    if len(text) > MOST:
        raise ValueError(f"{where}: expected at most {MOST:,} characters, got {len(text):,}")
    try:
        return yaml.load(text, _Loader)
    # PyYAML's constructors let these through, for such as "!!bool x", "!!timestamp x", 2024-99-99, or 2,000 brackets
    except (yaml.YAMLError, KeyError, AttributeError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ValueError(f"{where} is not YAML: {explain(error)}") from None


def _explain(errors, cls):
    """One line on what pydantic found wrong first; of a union, what any of its members would take."""
    error, keys = errors[0], [".".join(part for part in map(str, e["loc"]) if not _is_detail(part)) for e in errors]
    key = keys[0]
    if error["type"] == "extra_forbidden":
        (near,) = difflib.get_close_matches(key, known_keys(cls), 1, 0)
        return f"unknown configuration key {key}; the nearest is {near}"
    if error["type"] == "model_type":
        return f"{key}: expected a section of key: value pairs, got {short(error['input'])}"
    if error["type"] == "dict_type":
        return f"{key}: expected {key}.NAME=VALUE pairs, got {short(error['input'])}"
    message = error["msg"].removeprefix("Value error, ")
    if message.startswith("Input should be "):
        same = [e["msg"].removeprefix("Input should be ") for e, k in zip(errors, keys, strict=True) if k == key]
        message = f"expected {' or '.join(dict.fromkeys(same))}"
    return f"{key}: {message}, got {short(error['input'])}" if key else message


def _is_detail(part):
    """Whether a part of pydantic's location is a member of a union or an index, not a key."""
    return part in ("float", "int", "str") or "[" in part or part.isdigit()


class Option(NamedTuple):
    """One leaf of a configuration."""

    key: str  # dotted
    default: Any
    text: str  # of --help
    shapes: str  # key of SHAPES
    path: bool


def options(cls: type[Section] = Config, prefix: str = "") -> Iterator[Option]:
    """Every option of a configuration."""
    for name, field in cls.model_fields.items():
        if field.default_factory:
            yield from options(field.default_factory, f"{prefix}{name}.")
        else:
            yield Option(prefix + name, field.default, field.description, **field.json_schema_extra)


def known_keys(cls: type[Section] = Config) -> list[str]:
    """All dotted keys."""
    return [known.key for known in options(cls)]


def describe(cls: type[Section] = Config, but: Iterable[str] = ()) -> list[str]:
    """One line per key with its default, for --help; without those that shape `but` (keys of SHAPES)."""
    lines = []
    for known in (o for o in options(cls) if o.shapes not in but):
        default = list(known.default) if isinstance(known.default, tuple) else known.default
        pair = f"{known.key}={yaml.safe_dump(default, default_flow_style=True).splitlines()[0]}"
        lines.append(f"  {pair:36} {known.text}")
    return lines


def to_dict(settings: Section) -> dict:
    """Plain nested dictionaries with lists for tuples, ready for JSON or YAML."""
    return settings.model_dump(mode="json")


def shaping(settings: Section, *what: str) -> dict[str, Any]:
    """{dotted key: plain value} of the options that shape `what` (keys of SHAPES), paths aside."""
    plain = to_dict(settings)
    return {o.key: _value(plain, o.key) for o in options(type(settings)) if o.shapes in what and not o.path}


def changed(before: Section, after: Section, *what: str) -> list[str]:
    """Dotted keys of the options that shape `what`, paths as well, in which two configurations differ."""
    one, other = to_dict(before), to_dict(after)
    return [o.key for o in options(type(before)) if o.shapes in what and _value(one, o.key) != _value(other, o.key)]


def _value(plain, key):
    return functools.reduce(operator.getitem, key.split("."), plain)
