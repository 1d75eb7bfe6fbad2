"""The text corpus: sentences and the class each describes, and their features (paper 3.3)."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import open_clip
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from tqdm import tqdm

from rcnn import clip
from rcnn.files import replace_file


@dataclass(frozen=True)
class Corpus:
    sentences: list  # M strings
    targets: torch.Tensor  # (M,) class of each
    classes: int

    @property
    def fingerprint(self):
        """SHA-256 of all sentences and their classes."""
        return hashlib.sha256(json.dumps([self.targets.tolist(), self.sentences]).encode()).hexdigest()

    def __add__(self, other):
        return Corpus(self.sentences + other.sentences, torch.cat([self.targets, other.targets]), self.classes)


def load(path, classes):
    """Descriptions of every class from a `<dataset>_post_llm.json`.

    Args:
        path: JSON {"0": {"node_name": …, "candidate_sentences": […]}, …}, keys in the order of the class list.
        classes: ClassList.

    Returns:
        Corpus

    Raises:
        FileNotFoundError, ValueError: no file, no JSON, or not these classes in this order.
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
    sentences, targets = [], []
    if not isinstance(raw, dict):
        raise ValueError(f'{path}: expected {{"0": {{"node_name": …, "candidate_sentences": […]}}, …}}')
    for i, name in enumerate(classes.names):
        entry = raw.get(str(i))
        if entry is None:
            raise ValueError(f'{path}: class {i} "{name}" is missing; expected {len(classes)} classes, found {len(raw)}')
        if not _is_entry(entry):
            raise ValueError(f'{path}: class {i} "{name}": expected "node_name" and a list of "candidate_sentences"')
        found = entry["node_name"].replace("_", " ")
        if found.lower() != name.lower():
            raise ValueError(
                f'{path}: class {i} is "{found}", the class list has "{name}" there; both must be in the same order'
            )
        if not entry["candidate_sentences"]:
            raise ValueError(f'{path}: class {i} "{name}" has no sentences')
        sentences += entry["candidate_sentences"]
        targets += [i] * len(entry["candidate_sentences"])
    if len(raw) > len(classes):
        raise ValueError(f"{path}: expected {len(classes)} classes, found {len(raw)}")
    return Corpus(sentences, torch.tensor(targets), len(classes))


def _is_entry(entry):
    if not isinstance(entry, dict) or not isinstance(entry.get("node_name"), str):
        return False
    sentences = entry.get("candidate_sentences")
    return isinstance(sentences, list) and all(isinstance(s, str) and s.strip() for s in sentences)


def templates(classes):
    """The 80 ImageNet templates of CLIP filled with every class name."""
    filled = [template(name) for name in classes.names for template in open_clip.OPENAI_IMAGENET_TEMPLATES]
    targets = torch.arange(len(classes)).repeat_interleave(len(open_clip.OPENAI_IMAGENET_TEMPLATES))
    return Corpus(filled, targets, len(classes))


def prompts(classes):
    """CLIP's plain prompt, "a photo of a {class}.", for every class."""
    return Corpus([f"a photo of a {name}." for name in classes.names], torch.arange(len(classes)), len(classes))


def _cached(path):
    """Stored features; None where there are none, or only a damaged file."""
    try:
        return load_file(path)["features"]
    except (FileNotFoundError, SafetensorError, KeyError):
        return None


def features(model, sentences, cache=None):
    """Text features of sentences; each distinct sentence is encoded once, ever.

    Args:
        model: Clip.
        sentences: list of M strings.
        cache: folder to keep the features in, under a name made of the weights' and the sentences' SHA-256; or None.

    Returns:
        (M, D) float32 unit vectors on the CPU.
    """
    distinct = {s: i for i, s in enumerate(dict.fromkeys(sentences))}
    key = hashlib.sha256(json.dumps([model.fingerprint, *distinct]).encode()).hexdigest()[:32]
    path = Path(cache) / f"text_{key}.safetensors" if cache else None
    encoded = _cached(path) if path else None
    if encoded is None:
        tokens = clip.tokenize(list(distinct), len(model.text.positional_embedding))
        encoded = model.text.encode(tokens, progress=lambda groups: tqdm(groups, "encode sentences", delay=2))
        if path:
            with replace_file(path) as file:
                file.write(save({"features": encoded}))
    return encoded[[distinct[s] for s in sentences]]
