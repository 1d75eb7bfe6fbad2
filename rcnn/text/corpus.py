"""The text corpus: sentences and the class each describes, and their features (paper 3.3)."""

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save

from rcnn import clip
from rcnn.files import digest, replace_file
from rcnn.progress import progress
from rcnn.text.classes import ClassList


@dataclass(frozen=True)
class Corpus:
    """M sentences.

    Attributes:
        sentences: M strings.
        targets: (M,) int64, class of each.
        num_classes: C.
    """

    sentences: list[str]
    targets: torch.Tensor
    num_classes: int

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all sentences and their classes."""
        return digest([self.targets.tolist(), self.sentences])

    def __add__(self, other: "Corpus") -> "Corpus":
        return Corpus(self.sentences + other.sentences, torch.cat([self.targets, other.targets]), self.num_classes)


@dataclass(frozen=True)
class EncodedCorpus:
    """A corpus in the shared space: what class embeddings are made of.

    Attributes:
        features: (M, D) float32 unit vectors on the CPU.
        targets: (M,) int64, class of each.
        num_classes: C.
    """

    features: torch.Tensor
    targets: torch.Tensor
    num_classes: int

    def __len__(self) -> int:
        return len(self.targets)

    def __add__(self, other: "EncodedCorpus") -> "EncodedCorpus":
        features, targets = (torch.cat(pair) for pair in ((self.features, other.features), (self.targets, other.targets)))
        return EncodedCorpus(features, targets, self.num_classes)


def load(path: str | Path | None, classes: ClassList) -> Corpus:
    """Descriptions of every class from a corpus file; it may describe more classes than the list has.

    Args:
        path: JSON {"0": {"node_name": …, "candidate_sentences": […]}, …}, the authors' `<dataset>_post_llm.json`.
        classes: ClassList. A class is described by the entry at its place, if that bears its name, or else by the one entry
            of its name.

    Raises:
        FileNotFoundError, ValueError: no file, no JSON, or a class without a description.
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
            raise ValueError(
                f'{path}: class {key}: expected "node_name" and a list of "candidate_sentences", none of them empty'
            )
        named[_folded(entry["node_name"])].append(entry)
    sentences, targets = [], []
    for i, name in enumerate(classes.names):
        found = named[_folded(name)]
        if str(i) in raw and raw[str(i)] in found:
            found = [raw[str(i)]]
        if not found:
            raise ValueError(
                f'{path}: class {i} "{name}" is missing among {len(raw)} classes; python -m rcnn.describe with the same '
                "class list and output asks for what is missing alone"
            )
        if len(found) > 1:
            raise ValueError(
                f'{path}: class {i} "{name}" is described {len(found)} times; bring the corpus into the list\'s order'
            )
        sentences += found[0]["candidate_sentences"]
        targets += [i] * len(found[0]["candidate_sentences"])
    return Corpus(sentences, torch.tensor(targets), len(classes))


def _folded(name):
    return name.replace("_", " ").lower()


def _is_entry(entry):
    if not isinstance(entry, dict) or not isinstance(entry.get("node_name"), str):
        return False
    sentences = entry.get("candidate_sentences")
    return isinstance(sentences, list) and bool(sentences) and all(isinstance(s, str) and s.strip() for s in sentences)


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
    targets = torch.arange(len(classes)).repeat_interleave(torch.tensor([len(sentences) for sentences in chosen]))
    return Corpus([s for sentences in chosen for s in sentences], targets, len(classes))


def templates(classes: ClassList) -> Corpus:
    """The 80 ImageNet templates of CLIP filled with every class name."""
    filled = [template(name) for name in classes.names for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    targets = torch.arange(len(classes)).repeat_interleave(len(open_clip.OPENAI_IMAGENET_TEMPLATES))
    return Corpus(filled, targets, len(classes))


def prompts(classes: ClassList) -> Corpus:
    """CLIP's plain prompt, "a photo of a {class}.", for every class."""
    return Corpus([f"{clip.CONTEXT} {name}." for name in classes.names], torch.arange(len(classes)), len(classes))


def encode(model: clip.Clip, corpus: Corpus, cache: str | Path | None = None) -> EncodedCorpus:
    """Text features of a corpus; each distinct sentence is encoded once, ever.

    Args:
        model: Clip.
        corpus: Corpus.
        cache: folder to keep the features in, under a digest of the weights and the sentences; or None.
    """
    distinct = {s: i for i, s in enumerate(dict.fromkeys(corpus.sentences))}
    path = Path(cache) / f"text_{digest([model.fingerprint, *distinct])[:32]}.safetensors" if cache else None
    features = _cached(path) if path else None
    if features is None:
        tokens = clip.tokenize(list(distinct), len(model.text.positional_embedding))
        features = model.text.encode(tokens, progress=lambda groups: progress(groups, "encode sentences"))
        if path:
            with replace_file(path) as file:
                file.write(save({"features": features}))
    return EncodedCorpus(features[[distinct[s] for s in corpus.sentences]], corpus.targets, corpus.num_classes)


def _cached(path):
    """Stored features; None where there are none, or only a damaged file."""
    try:
        return load_file(path)["features"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None
