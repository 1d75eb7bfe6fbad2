"""The text corpus: sentences and the class each describes, and their features (paper 3.3)."""

import contextlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import open_clip
import torch
from pydantic import BaseModel, FailFast, Field, TypeAdapter, ValidationError

from rcnn import checkpoint, clip, provenance
from rcnn.files import digest, read_json
from rcnn.printing import cut, short
from rcnn.progress import progress
from rcnn.text.classes import ClassList

Sentences = Annotated[list[Annotated[str, Field(pattern=r"\S")]], FailFast()]  # not blank, and without lone surrogates


class Entry(BaseModel):
    """One class of a corpus file."""

    node_name: str
    candidate_sentences: Sentences


ENTRY, SENTENCES = TypeAdapter(Entry), TypeAdapter(Sentences)


@dataclass(frozen=True)
class Corpus:
    """M sentences that describe C classes."""

    sentences: list[str]
    targets: torch.Tensor  # (M,) int64, class of each
    num_classes: int

    @classmethod
    def of(cls, by_class: Sequence[Sequence[str]]) -> "Corpus":
        """From the sentences of every class."""
        targets = torch.arange(len(by_class)).repeat_interleave(torch.tensor([len(sentences) for sentences in by_class]))
        return cls([s for sentences in by_class for s in sentences], targets, len(by_class))

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all sentences and their classes."""
        return digest([self.targets.tolist(), self.sentences])

    def __add__(self, other: "Corpus") -> "Corpus":
        return Corpus(self.sentences + other.sentences, torch.cat([self.targets, other.targets]), self.num_classes)


@dataclass(frozen=True)
class EncodedCorpus:
    """A corpus in the shared space: what class embeddings are made of."""

    features: torch.Tensor  # (M, D) float32 unit vectors on the CPU
    targets: torch.Tensor  # (M,) int64, class of each
    num_classes: int

    def __len__(self) -> int:
        return len(self.targets)

    def __add__(self, other: "EncodedCorpus") -> "EncodedCorpus":
        features, targets = (torch.cat(pair) for pair in ((self.features, other.features), (self.targets, other.targets)))
        return EncodedCorpus(features, targets, self.num_classes)


def load(path: str | Path | None, classes: ClassList) -> Corpus:
    """Descriptions of every class from a corpus file; it may describe more classes than the list has.

    The file is JSON {"0": {"node_name": …, "candidate_sentences": […]}, …}, the authors' `<dataset>_post_llm.json`. A class is
    described by the entry at its place, if that bears its name, or else by the one entry of its name; ValueError without one.
    """
    if not path:
        raise ValueError("corpus.path: expected the class descriptions, got null")
    entries, named = read(path), defaultdict(list)
    for entry in entries.values():
        named[_folded(entry.node_name)].append(entry)
    by_class = []
    for i, name in enumerate(classes.names):
        own, found = entries.get(str(i)), named[_folded(name)]
        if own and _folded(own.node_name) == _folded(name):
            found = [own]
        if len(found) > 1:
            raise ValueError(
                f'{path}: class {i} "{name}" is described {len(found)} times; expected the order of the class list'
            )
        if not found or not found[0].candidate_sentences:
            raise ValueError(
                f'{path}: class {i} "{name}" {"has no sentences" if found else "is missing"}; python -m rcnn.describe with the '
                f"same class list and output={path} asks for what is missing, and for nothing else"
            )
        by_class.append(found[0].candidate_sentences)
    return Corpus.of(by_class)


def read(path: str | Path) -> dict[str, Entry]:
    """The classes of a corpus file by their keys; FileNotFoundError or ValueError if it is none."""
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"there is no text corpus {path}; set corpus.path, or make one: python -m rcnn.describe")
    raw, form = read_json(path), 'expected "node_name" and a list of "candidate_sentences"'
    if not isinstance(raw, dict):
        raise ValueError(f'{path}: expected {{"0": {{"node_name": …, "candidate_sentences": […]}}, …}}, got {short(raw)}')
    return {key: _valid(ENTRY, entry, f"{path}: class {cut(key)}: {form}") for key, entry in raw.items()}


def _valid(form: TypeAdapter, value: Any, expected: str) -> Any:
    """`value`, as pydantic reads it; ValueError that names the place where it is of another form."""
    try:
        return form.validate_python(value)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        place = ".".join(map(str, wrong["loc"]))
        raise ValueError(f"{expected}; found {short(wrong['input'])}{place and f' at {place}'} ({wrong['msg']})") from None


def _folded(name):
    return name.replace("_", " ").lower()


def from_sentences(path: str | Path, classes: ClassList) -> Corpus:
    """Sentences a class from {class name: [sentences]}, the form of CuPL and others; it may hold more classes than the list."""
    raw, named = read_json(path), {}
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: expected JSON {{class name: [sentences]}}, got {short(raw)}")
    for name, sentences in raw.items():
        if (folded := _folded(name)) in named:
            raise ValueError(f"{path} has sentences for {short(name)} twice, perhaps in capital letters")
        named[folded] = sentences
    if missing := [name for name in classes.names if not named.get(_folded(name))]:
        raise ValueError(f"{path} has no sentences for {len(missing)} of {len(classes)} classes: {cut(', '.join(missing))}")
    form = "expected a list of sentences for every class"
    return Corpus.of([_valid(SENTENCES, named[_folded(name)], f"{path}: class {name}: {form}") for name in classes.names])


def templates(classes: ClassList) -> Corpus:
    """The 80 ImageNet templates of CLIP filled with every class name."""
    return Corpus.of([[template(name) for template in open_clip.OPENAI_IMAGENET_TEMPLATES] for name in classes.names])


def prompts(classes: ClassList) -> Corpus:
    """CLIP's plain prompt, "a photo of a {class}.", for every class."""
    return Corpus.of([[f"{clip.CONTEXT} {name}."] for name in classes.names])


def encode(model: clip.Clip, corpus: Corpus, cache: str | Path | None = None) -> EncodedCorpus:
    """Text features of a corpus; each distinct sentence is encoded once, and with a folder `cache` to keep them, once ever."""
    distinct = {s: i for i, s in enumerate(dict.fromkeys(corpus.sentences))}
    # of the weights, the sentences, and the code that encodes them
    key = digest([model.fingerprint, provenance.sources(("clip",)), *distinct])[:32]
    path = Path(cache) / f"text_{key}.safetensors" if cache else None
    features = _cached(path, len(distinct)) if path else None
    if features is None:
        tokens = clip.tokenize(list(distinct), len(model.text.positional_embedding))
        features = model.text.encode(tokens, progress=lambda groups: progress(groups, "encode sentences"))
        if not checkpoint.is_finite(features):
            raise ValueError(
                f"clip: the text tower of {model.model} gives features that are not finite; its weights are damaged"
            )
        if path:
            checkpoint.write(path, {"features": features})
    return EncodedCorpus(features[[distinct[s] for s in corpus.sentences]], corpus.targets, corpus.num_classes)


def _cached(path, count):
    """Stored features of so many sentences; None where there are none, or only a damaged file."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        features = checkpoint.read(path)[0].get("features")
        return features if features is not None and len(features) == count else None
