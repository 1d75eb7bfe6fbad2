"""Configuration: YAML files to frozen dataclasses and back. Unknown keys are errors; every field says what it is."""

import copy
import dataclasses
import difflib
import json
import math
import os
import typing
from dataclasses import dataclass, field
from pathlib import Path

import yaml


def option(default, text, path=False):
    """A field with its line in --help; `path`: made absolute on reading, so that a run can be used from anywhere."""
    return field(default=default, metadata={"help": text, "path": path})


def _at_least(key, least, value):
    for v in value if isinstance(value, tuple) else (value,):
        if v < least:
            raise ValueError(f"{key}: expected at least {least}, got {v}")


@dataclass(frozen=True)
class ClipConfig:
    model: str | None = option("ViT-B-16-quickgelu", "open_clip's name of the ViT; null takes all sizes from the weights file")
    pretrained: str | None = option("openai", "open_clip's tag of the weights to download")
    weights: str | None = option(None, "local file instead: OpenAI's archive, a state dict, or safetensors", path=True)
    trust_torchscript: bool = option(False, "open a TorchScript archive (a program) that OpenAI did not publish")


@dataclass(frozen=True)
class ClassesConfig:
    seen: str | None = option(None, "text file, one class name a line; 'crane [a wading bird]' settles its sense", path=True)
    unseen: str | None = option(None, "text file of the classes that ZSL scores; they come after the seen ones", path=True)


@dataclass(frozen=True)
class CorpusConfig:
    path: str | None = option(None, "class descriptions, <dataset>_post_llm.json", path=True)
    templates: bool = option(True, "add CLIP's 80 prompt templates to the descriptions, as the authors' code does")


@dataclass(frozen=True)
class TrainConfig:
    method: str = option("names", "names: learn class names (the paper); closed_form: the optimum over free vectors (ours)")
    tokens: int = option(4, "N_c, learnable vectors per class name")
    pair_weight: float = option(0.2, "λ of the pair-based loss")
    epochs: int = option(30, "passes over the sentences")
    batch_size: int = option(512, "sentences a step; the last incomplete batch is dropped")
    learning_rate: float = option(1e-4, "of SGD, where the cosine starts")
    warmup_rate: float = option(1e-5, "constant rate of the first epoch")
    momentum: float = option(0.9, "of SGD")
    weight_decay: float = option(5e-4, "of SGD")
    centring: float = option(0.5, "κ of the row 'centred': class-name embeddings minus κ × their mean, a control")
    ablation: bool = option(True, "also learn names without the pair-based loss, the row CNR of Table 3")
    amp: bool = option(False, "bfloat16 text tower on CUDA; float32 otherwise")

    def __post_init__(self):
        if self.method not in ("names", "closed_form"):
            raise ValueError(f"train.method: expected names or closed_form, got {self.method!r}")
        for key in ("tokens", "epochs", "batch_size"):
            _at_least(f"train.{key}", 1, getattr(self, key))
        for key in ("pair_weight", "learning_rate", "warmup_rate", "momentum", "weight_decay"):
            _at_least(f"train.{key}", 0, getattr(self, key))


@dataclass(frozen=True)
class DatasetConfig:
    kind: str = option("coco", "coco: a COCO annotation file; nuswide: its text files; mini: as coco, drawn first if absent")
    images: str | None = option(None, "folder of the images", path=True)
    annotations: str | None = option(None, "COCO annotation file, or folder of NUS-WIDE's lists; null: learn only", path=True)
    allow_missing: bool = option(False, "leave out images that are missing or unreadable, and say so in every table")
    keep_unlabelled: bool = option(False, "also use images that show none of the classes, as some papers do; this one does not")
    expected_images: tuple[int, ...] = option((), "images with a positive label there should be: ZSL, GZSL; a warning if not")
    count: int = option(1000, "mini: pictures to draw")

    def __post_init__(self):
        if self.kind not in ("coco", "nuswide", "mini"):
            raise ValueError(f"dataset.kind: expected coco, nuswide or mini, got {self.kind!r}")
        if len(self.expected_images) not in (0, 2):
            raise ValueError("dataset.expected_images: expected two numbers, of ZSL and GZSL")
        _at_least("dataset.count", 1, self.count)

    def expected(self, task):
        """Images with a positive label that the test set of a task should have, or None."""
        return dict(zip(("zsl", "gzsl"), self.expected_images, strict=False)).get(task)


@dataclass(frozen=True)
class EvaluateConfig:
    counts: tuple[int, ...] = option((2, 3), "MSSA: snippets on a side; [2, 3] cuts 4 and 9")
    temperature: float = option(1 / 20, "τ_s of the softmax over patches; the paper names none, the authors' code has 1/20")
    top_k: tuple[int, ...] = option((3, 5), "k of precision, recall and F1")
    bootstrap: int = option(500, "resamples of the images for 95 % intervals; 0 for none")
    epochs: bool = option(True, "also measure the class embeddings of every epoch, in the same pass")
    diagnostics: bool = option(True, "also measure the global and the local part alone")
    precision: str = option("auto", "of the image tower: float32, bf16, fp16; auto: fp16 on CUDA, float32 elsewhere")
    compile: bool = option(False, "torch.compile the image tower")
    batch_size: int = option(16, "images at a time")
    workers: int = option(2, "processes that decode images")
    save_every: float = option(120.0, "seconds between notes of what is done; a killed evaluation goes on from the last")

    def __post_init__(self):
        for key, least in (("counts", 1), ("top_k", 1), ("bootstrap", 0), ("batch_size", 1), ("workers", 0)):
            _at_least(f"evaluate.{key}", least, getattr(self, key))
        if self.precision not in ("auto", "float32", "bf16", "fp16"):
            raise ValueError(f"evaluate.precision: expected auto, float32, bf16 or fp16, got {self.precision!r}")
        if self.temperature <= 0:
            raise ValueError(f"evaluate.temperature: expected more than 0, got {self.temperature}")


@dataclass(frozen=True)
class Config:
    output: str = option("outputs/run", "folder of this run", path=True)
    cache: str = option("outputs/cache", "folder of sentence features, shared by runs", path=True)
    seed: int = option(0, "of the starting vectors, the order of sentences, and the bootstrap")
    device: str = option("auto", "auto, cpu, cuda, cuda:1, …")
    clip: ClipConfig = field(default_factory=ClipConfig)
    classes: ClassesConfig = field(default_factory=ClassesConfig)
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    dataset: DatasetConfig = field(default_factory=DatasetConfig)
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)


@dataclass(frozen=True)
class DescribeConfig:
    output: str = option("outputs/corpus.json", "the corpus; its answers and a report on it go beside it", path=True)
    classes: ClassesConfig = field(default_factory=ClassesConfig)
    context: str | None = option(None, "what the list is about, to settle senses: 'animals of the savanna'")
    model: str = option("gpt-4o-mini", "name of the model at the service; the default is the paper's")
    base_url: str | None = option(None, "service, such as http://localhost:11434/v1; null: OpenAI")
    temperature: float | None = option(0.7, "of sampling; null: not sent, for models that take none")
    max_tokens: int = option(1000, "cap of an answer; one that is cut is asked for once more with twice as many")
    attributes: int = option(9, "visual cues an answer, in each of two styles")
    attribute_rounds: int = option(3, "times each style is asked for, every time with another seed")
    narrower: int = option(10, "narrower kinds an answer")
    broader: int = option(3, "broader kinds an answer")
    hierarchy_rounds: int = option(3, "times kinds are asked for")
    scenes: int = option(20, "scenes an answer")
    scene_rounds: int = option(1, "times scenes are asked for")
    drop_listed_kinds: bool = option(False, "leave out kinds that are classes of the list, which pull learned names together")
    mode: str = option("clean", "how sentences are composed: clean, or compat with the authors' corpus")
    concurrency: int = option(8, "requests at a time")
    timeout: float = option(120.0, "seconds for one request")
    retries: int = option(5, "further tries after a 409, 429, 5xx, a network error or a reply that is none")
    poll: float = option(30.0, "seconds between looks at a batch")
    input_price: float | None = option(None, "USD for a million tokens in; null: known for gpt-4o-mini only")
    output_price: float | None = option(None, "USD for a million tokens out")

    def __post_init__(self):
        counts = ("attributes", "narrower", "broader", "scenes", "attribute_rounds", "hierarchy_rounds", "scene_rounds")
        for key in (*counts, "max_tokens", "concurrency"):
            _at_least(key, 1, getattr(self, key))
        for key in ("retries", "temperature", "input_price", "output_price"):
            if getattr(self, key) is not None:
                _at_least(key, 0, getattr(self, key))
        if self.mode not in ("clean", "compat"):
            raise ValueError(f"mode: expected clean or compat, got {self.mode!r}")
        if self.timeout <= 0 or self.poll <= 0:
            raise ValueError("timeout, poll: expected more than 0 seconds")
        if (self.input_price is None) != (self.output_price is None):
            raise ValueError("input_price, output_price: expected both or neither")


def load(path, overrides=(), cls=Config):
    """Read a configuration.

    Args:
        path: YAML file.
        overrides: "key=value" strings with dotted keys, such as "train.epochs=5"; they win over the file.
        cls: Config or DescribeConfig.

    Returns:
        an instance of `cls`.

    Raises:
        FileNotFoundError, ValueError: no file, bad YAML, an unknown key (with the nearest name), a value of another type.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration {path}; see configs/")
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected key: value pairs, got {type(raw).__name__}")
    return override(raw, overrides, cls)


def override(raw, overrides, cls=Config):
    """Configuration of a nested dictionary and "key=value" strings that win over it."""
    raw = copy.deepcopy(raw)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"expected key=value, got {text!r}")
        *sections, name = key.split(".")
        place = raw
        for section in sections:
            place = place.setdefault(section, {})
            if not isinstance(place, dict):
                raise ValueError(f"{key}: {section} is a value, not a section")
        try:
            place[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{text}: the value is not YAML: {error}") from None
    return from_dict(cls, raw)


def from_dict(cls, raw, prefix="", root=None):
    """Build the dataclass `cls` from nested dictionaries, strictly; `root` is the whole that it is a section of."""
    root = root or cls
    if not isinstance(raw, dict):
        raise ValueError(f"{prefix.rstrip('.')}: expected a section of key: value pairs, got {raw!r}")
    fields, types = {f.name: f for f in dataclasses.fields(cls)}, typing.get_type_hints(cls)
    values = {}
    for name, value in raw.items():
        if name not in fields:
            near = difflib.get_close_matches(prefix + str(name), known_keys(root), 1, 0)
            raise ValueError(f"unknown configuration key {prefix}{name}; the nearest is {near[0]}")
        if dataclasses.is_dataclass(types[name]):
            values[name] = from_dict(types[name], value, f"{prefix}{name}.", root)
        else:
            values[name] = _coerce(value, types[name], prefix + name)
    config = cls(**values)
    paths = {n: getattr(config, n) for n, f in fields.items() if f.metadata.get("path") and getattr(config, n)}
    return dataclasses.replace(config, **{n: os.path.abspath(os.path.expanduser(value)) for n, value in paths.items()})


def options(cls=Config, prefix=""):
    """(dotted key, field) of every option."""
    for f in dataclasses.fields(cls):
        inner = typing.get_type_hints(cls)[f.name]
        if dataclasses.is_dataclass(inner):
            yield from options(inner, f"{prefix}{f.name}.")
        else:
            yield prefix + f.name, f


def known_keys(cls=Config):
    """All dotted keys."""
    return [key for key, _ in options(cls)]


def describe(cls=Config):
    """One line per key with its default, for --help."""
    lines = []
    for key, f in options(cls):
        default = list(f.default) if isinstance(f.default, tuple) else f.default
        pair = f"{key}={yaml.safe_dump(default, default_flow_style=True).splitlines()[0]}"
        lines.append(f"  {pair:36} {f.metadata['help']}")
    return lines


def to_dict(config):
    """Plain nested dictionaries with lists for tuples, ready for JSON or YAML."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def _coerce(value, kind, key):
    """`value` as the field's type; PyYAML reads 1e-4 as a string."""
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise ValueError(f"{key}: expected a list, got {value!r}")
        return tuple(_coerce(v, typing.get_args(kind)[0], key) for v in value)
    allowed = typing.get_args(kind) or (kind,)
    if value is None and type(None) in allowed:
        return None
    target = next(t for t in allowed if t is not type(None))
    try:
        if target is float and not isinstance(value, bool) and math.isfinite(float(value)):
            return float(value)
        if target is int and isinstance(value, float) and value.is_integer():
            return int(value)
    except (TypeError, ValueError):
        pass
    if isinstance(value, target) and not (target is int and isinstance(value, bool)):
        return value
    raise ValueError(f"{key}: expected {target.__name__}, got {value!r}")
