"""The text corpus: sentences and the class each describes, and their features (paper 3.3)."""

import contextlib
import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch

from rcnn import checkpoint, clip, provenance
from rcnn.files import digest
from rcnn.progress import progress
from rcnn.text.classes import ClassList


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
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no text corpus {path}; set corpus.path, or make one: python -m rcnn.describe")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f'{path}: expected {{"0": {{"node_name": …, "candidate_sentences": […]}}, …}}')
    named = defaultdict(list)
    for key, entry in raw.items():
        if not _is_entry(entry):
            raise ValueError(f'{path}: class {key}: expected "node_name" and a list of "candidate_sentences"')
        named[_folded(entry["node_name"])].append(entry)
    by_class = []
    for i, name in enumerate(classes.names):
        found = named[_folded(name)]
        if str(i) in raw and raw[str(i)] in found:
            found = [raw[str(i)]]
        if len(found) > 1:
            raise ValueError(
                f'{path}: class {i} "{name}" is described {len(found)} times; expected the order of the class list'
            )
        if not found or not found[0]["candidate_sentences"]:
            raise ValueError(
                f'{path}: class {i} "{name}" {"has no sentences" if found else "is missing"}; python -m rcnn.describe with the '
                f"same class list and output={path} asks for what is missing, and for nothing else"
            )
        by_class.append(found[0]["candidate_sentences"])
    return Corpus.of(by_class)


def _folded(name):
    return name.replace("_", " ").lower()


def _is_entry(entry):
    if not isinstance(entry, dict) or not isinstance(entry.get("node_name"), str):
        return False
    sentences = entry.get("candidate_sentences")
    return isinstance(sentences, list) and all(isinstance(s, str) and s.strip() for s in sentences)


def from_sentences(path: str | Path, classes: ClassList) -> Corpus:
    """Sentences a class from {class name: [sentences]}, the form of CuPL and others; it may hold more classes than the list."""
    try:
        raw = json.loads(Path(path).read_text(encoding="utf-8"))
        named = {_folded(name): sentences for name, sentences in raw.items()}
    except (ValueError, AttributeError):
        raise ValueError(f"{path}: expected JSON {{class name: [sentences]}}") from None
    if missing := [name for name in classes.names if not named.get(_folded(name))]:
        raise ValueError(f"{path} has no sentences for {len(missing)} of {len(classes)} classes: {', '.join(missing[:10])}")
    chosen = [named[_folded(name)] for name in classes.names]
    if not all(isinstance(sentences, list) and all(isinstance(s, str) for s in sentences) for sentences in chosen):
        raise ValueError(f"{path}: expected a list of sentences for every class")
    return Corpus.of(chosen)


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
    features = _cached(path) if path else None
    if features is None:
        tokens = clip.tokenize(list(distinct), len(model.text.positional_embedding))
        features = model.text.encode(tokens, progress=lambda groups: progress(groups, "encode sentences"))
        if path:
            checkpoint.write(path, {"features": features})
    return EncodedCorpus(features[[distinct[s] for s in corpus.sentences]], corpus.targets, corpus.num_classes)


def _cached(path):
    """Stored features; None where there are none, or only a damaged file."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        return checkpoint.read(path)[0]["features"]
