"""The rows of every table: how the class embeddings of each come about, and what turns image features into scores.

A row is added here and nowhere else: training, evaluation, report and tests read ROWS and SCORERS.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from rcnn.clip.image_tower import ImageFeatures
from rcnn.config import Config, EvaluateConfig, TrainConfig
from rcnn.learn import class_embeddings
from rcnn.learn.material import Material
from rcnn.score import mssa
from rcnn.score.mssa import Scores


@dataclass(frozen=True)
class Scorer:
    """What turns features of the views of B images and class embeddings (C, D) into Scores."""

    label: str  # what it adds to the name of a row
    score: Callable[[ImageFeatures, torch.Tensor, EvaluateConfig], Scores]
    wanted: Callable[[EvaluateConfig], bool] = lambda settings: True  # whether a configuration asks for it
    has_parts: bool = True  # whether the total is the mean of a global and a local part, which diagnostics show


SCORERS = {
    "plain": Scorer("", lambda features, z, settings: mssa.score(features, z, (), settings.temperature)),  # eq. 3-5
    "mssa": Scorer(  # eq. 9-10
        " + MSSA",
        lambda features, z, settings: mssa.score(features, z, settings.grids, settings.temperature),
        lambda settings: bool(settings.grids),
    ),
}


@dataclass(frozen=True)
class Row:
    """One row of the comparison."""

    label: str  # its name in tables
    embed: Callable[[Material], torch.Tensor]  # its (C, D) class embeddings
    wanted: Callable[[TrainConfig], bool] = lambda settings: True  # whether a configuration asks for it
    scorers: tuple[str, ...] = ("plain", "mssa")  # keys of SCORERS
    from_names: bool = False  # whether class names are enough for it, without descriptions


BASELINE = "baseline"  # what the others are compared with
METHODS = {"names": "cnr_pbl", "closed_form": "closed_form"}  # train.method -> the row that is the run's result
ROWS = {
    BASELINE: Row("class name", lambda m: m.prompts.features, from_names=True),
    "centred": Row(
        "class name, centred",
        lambda m: class_embeddings.centred(m.prompts.features, m.settings.train.centring),
        from_names=True,
    ),
    "templates": Row("80 templates", lambda m: class_embeddings.mean(m.templates), from_names=True),
    "mean": Row("descriptions, mean", lambda m: class_embeddings.mean(m.descriptions)),
    "mean_with_templates": Row("descriptions + templates, mean", lambda m: class_embeddings.mean(m.descriptions + m.templates)),
    "principal": Row("descriptions, principal direction", lambda m: class_embeddings.principal_direction(m.descriptions)),
    "cnr": Row("CNR (learned names)", lambda m: m.learn("cnr", 0.0), lambda s: s.method == "names" and s.ablation),
    "cnr_pbl": Row("CNR + PBL (learned names)", lambda m: m.learn("cnr_pbl", m.weight), lambda s: s.method == "names"),
    "closed_form": Row("closed form of CNR + PBL", lambda m: m.closed_form()),
}

TAGCLIP = {  # rows of a pass of their own, by the field of TagScores, and their names in tables
    "tagclip_patch": "TagCLIP, best patch alone",
    "tagclip_refined": "TagCLIP, refined once",
    "tagclip_masked": "TagCLIP, no re-identification",
    "tagclip": "TagCLIP",
}


def label(row: str, scorer: str = "plain") -> str:
    """Name of a row under a scorer; those that are not in the tables are shown by their keys."""
    if row in TAGCLIP:
        return TAGCLIP[row]
    known = scorer.partition("/")[0] in SCORERS
    return (ROWS[row].label if row in ROWS else row) + (of_key(scorer).label if known else f", {scorer}")


def of_key(scorer: str) -> Scorer:
    """The Scorer of a key of SCORERS, or of one such as "mssa/vv": the same with features of another last block."""
    key, _, last_block = scorer.partition("/")
    if not last_block:
        return SCORERS[key]
    return replace(SCORERS[key], label=f"{SCORERS[key].label}, last block {last_block}", has_parts=False)


def scorers(row: str, settings: EvaluateConfig) -> list[str]:
    """Keys of the scorers that a row is measured with, see `of_key`; those from elsewhere are scored like the others.

    The last is the one that counts. The class name and the methods come with it by other last blocks as well, as controls.
    """
    if row in TAGCLIP:
        return ["plain"]
    *others, last = [key for key in ROWS.get(row, ROWS[BASELINE]).scorers if SCORERS[key].wanted(settings)]
    last_blocks = settings.last_blocks if row in (BASELINE, *METHODS.values()) else ()
    return [*others, *(f"{last}/{last_block}" for last_block in last_blocks), last]


def method_scorer(settings: EvaluateConfig) -> str:
    """Key of the scorer of the paper's method: with MSSA, unless the configuration has no grids."""
    return scorers(BASELINE, settings)[-1]


def embed(material: Material) -> dict[str, torch.Tensor]:
    """{row: (C, D) class embeddings} of every row that the configuration asks for, and has the descriptions for."""
    s = material.settings
    return {key: row.embed(material) for key, row in ROWS.items() if row.wanted(s.train) and (s.corpus.path or row.from_names)}


def method(settings: Config) -> str:
    """Key of the row that is the run's result: the method's, or without descriptions the best that class names alone give."""
    return METHODS[settings.train.method] if settings.corpus.path else "templates"
