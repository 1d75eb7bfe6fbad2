"""The rows of every table: how the class embeddings of each come about, and what turns image features into scores.

A row is added here and nowhere else: training, evaluation, report and tests read ROWS and SCORERS.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch.nn import functional as F

from rcnn import checkpoint
from rcnn.clip import Clip
from rcnn.clip.image_tower import ImageFeatures
from rcnn.config import EvaluateConfig, TrainConfig
from rcnn.learn import class_embeddings
from rcnn.learn.material import Material
from rcnn.score import mssa
from rcnn.score.mssa import Scores
from rcnn.text import corpus
from rcnn.text.classes import ClassList


@dataclass(frozen=True)
class Scorer:
    """What turns features of the views of B images and class embeddings (C, D) into Scores.

    Attributes:
        label: what it adds to the name of a row.
        score: (ImageFeatures, (C, D), EvaluateConfig) -> Scores.
        wanted: whether a configuration asks for it.
    """

    label: str
    score: Callable[[ImageFeatures, torch.Tensor, EvaluateConfig], Scores]
    wanted: Callable[[EvaluateConfig], bool] = lambda settings: True


SCORERS = {
    "plain": Scorer("", lambda features, z, s: mssa.score(features, z, (), s.temperature)),  # eq. 3-5
    "mssa": Scorer(" + MSSA", lambda features, z, s: mssa.score(features, z, s.grids, s.temperature), lambda s: bool(s.grids)),
}


@dataclass(frozen=True)
class Row:
    """One row of the comparison.

    Attributes:
        label: its name in tables.
        embed: Material -> (C, D) class embeddings.
        wanted: whether a configuration asks for it.
        scorers: keys of SCORERS.
    """

    label: str
    embed: Callable[[Material], torch.Tensor]
    wanted: Callable[[TrainConfig], bool] = lambda settings: True
    scorers: tuple[str, ...] = ("plain", "mssa")


BASELINE = "baseline"  # what the others are compared with
METHODS = {"names": "cnr_pbl", "closed_form": "closed_form"}  # train.method -> the row that is the run's result
ROWS = {
    BASELINE: Row("class name", lambda m: m.prompts.features),
    "centred": Row("class name, centred", lambda m: class_embeddings.centred(m.prompts.features, m.settings.train.centring)),
    "templates": Row("80 templates", lambda m: class_embeddings.mean(m.templates)),
    "mean": Row("descriptions, mean", lambda m: class_embeddings.mean(m.descriptions)),
    "mean_with_templates": Row("descriptions + templates, mean", lambda m: class_embeddings.mean(m.descriptions + m.templates)),
    "principal": Row("descriptions, principal direction", lambda m: class_embeddings.principal_direction(m.descriptions)),
    "cnr": Row("CNR (learned names)", lambda m: m.learn("cnr", 0.0), lambda s: s.method == "names" and s.ablation),
    "cnr_pbl": Row("CNR + PBL (learned names)", lambda m: m.learn("cnr_pbl", m.weight), lambda s: s.method == "names"),
    "closed_form": Row("closed form of CNR + PBL", lambda m: m.closed_form()),
}


def label(row: str, scorer: str = "plain") -> str:
    """Name of a row under a scorer; a row that is not in the table is shown by its key."""
    return (ROWS[row].label if row in ROWS else row) + SCORERS[scorer].label


def scorers(row: str, settings: EvaluateConfig) -> list[str]:
    """Keys of the SCORERS that a row is measured with; class embeddings from elsewhere are scored like the baseline's."""
    return [key for key in ROWS.get(row, ROWS[BASELINE]).scorers if SCORERS[key].wanted(settings)]


def embed(material: Material) -> dict[str, torch.Tensor]:
    """{row: (C, D) class embeddings} of every row that the configuration asks for."""
    return {key: row.embed(material) for key, row in ROWS.items() if row.wanted(material.settings.train)}


def read(path: str | Path, classes: ClassList, model: Callable[[], Clip], cache: str | None = None) -> torch.Tensor:
    """Class embeddings from elsewhere.

    Args:
        path: a safetensors file with one tensor (C, D) and its metadata "class_names", a JSON list in the order of the class
            list; the class_embeddings.safetensors of another run, of which the method's row is taken; or a JSON file
            {class name: [sentences]}, of which the normalised mean is taken (CuPL's form).
        classes: ClassList.
        model: () -> Clip, called if sentences must be encoded.
        cache: folder of encoded sentences.

    Returns:
        (C, D) float32 unit vectors.

    Raises:
        FileNotFoundError, ValueError: no such file, or one of other classes.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"rows: there is no file {path}")
    if path.suffix == ".json":
        sentences = corpus.from_sentences(path, classes)
        return class_embeddings.mean(corpus.encode(model(), sentences, cache))
    z, names = _read_tensor(path)
    pairs = enumerate(zip_longest(classes.names, names, fillvalue=""))
    if different := next(((i, pair) for i, pair in pairs if pair[0].lower() != pair[1].lower()), None):
        place, (ours, theirs) = different
        raise ValueError(
            f"{path}: expected the run's {len(classes)} classes in its order, found {len(names)}; "
            f"class {place} is {ours!r} in the run and {theirs!r} here"
        )
    if z.dim() != 2 or len(z) != len(classes) or not z.isfinite().all():
        raise ValueError(f"{path}: expected finite class embeddings of shape ({len(classes)}, D), got {tuple(z.shape)}")
    return F.normalize(z.float(), dim=1)


def _read_tensor(path):
    """(class embeddings, class names) of a safetensors file: one of ours, or a tensor with names."""
    try:
        with safe_open(path, framework="pt") as file:
            keys, metadata = list(file.keys()), file.metadata() or {}
            if "metadata" not in metadata:
                (key,) = keys
                return file.get_tensor(key), [str(name) for name in json.loads(metadata["class_names"])]
        rows, metadata = checkpoint.read(path)
        return rows[metadata["method"]], metadata["class_names"]
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise ValueError(
            f'{path}: expected a safetensors file of one tensor (C, D) with the metadata "class_names", a JSON list; or the '
            "class_embeddings.safetensors of a run"
        ) from None
