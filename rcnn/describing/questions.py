"""The questions that are asked about each class, and the form in which the answers must come (paper 3.3, Figure 2)."""

from dataclasses import dataclass
from importlib import resources
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict

from rcnn.config import DescribeConfig

PROMPTS = yaml.safe_load(resources.files(__package__).joinpath("prompts.yaml").read_text(encoding="utf-8"))


class _Strict(BaseModel):
    """No unknown and no missing field: then `model_json_schema` is what services call a strict schema."""

    model_config = ConfigDict(extra="forbid")


# the schemas of these classes are sent, and are part of the keys of the stored answers: a docstring would change them
class Triage(_Strict):
    kind: Literal["object", "living", "person", "place", "event", "activity", "property", "abstract", "metadata"]
    gloss: str
    other_senses: list[str]
    visible: bool

    @property
    def describable(self) -> bool:
        """Whether looks and scenes may be asked for: of metadata and the invisible they could only be invented."""
        return self.visible and self.kind != "metadata"


class Attributes(_Strict):
    attributes: list[str]


class Hierarchy(_Strict):
    narrower: list[str]
    broader: list[str]
    bearers: list[str]  # of a quality, or of one named place or being, which have no kinds


class Scene(_Strict):
    name: str
    description: str


class Scenes(_Strict):
    scenes: list[Scene]


SCHEMAS = {"triage": Triage, "parts": Attributes, "phrases": Attributes, "hierarchy": Hierarchy, "scenes": Scenes}


@dataclass(frozen=True)
class Question:
    """One question about one class."""

    name: str  # of the class
    family: str  # key of SCHEMAS
    round: int  # from 1; rounds ask the same with another seed
    prompt: str  # the user's message
    items: int  # entries the answer should have, for estimates

    @property
    def metadata(self) -> dict[str, Any]:
        """What people read beside the stored answer."""
        return {"class": self.name, "question": self.family, "round": self.round}


def triage(name: str, sense: str | None, identifier: str | None, settings: DescribeConfig) -> Question:
    """The first question about a class: which kind of thing it is, and in which sense, unless the user chose one.

    `identifier`: tells it from other classes of its name, if there are any.
    """
    known = [PROMPTS["context"].format(context=settings.context)] if settings.context else []
    known += [PROMPTS["sense"].format(sense=sense)] if sense else []
    known += [PROMPTS["identifier"].format(identifier=identifier)] if identifier else []
    return Question(name, "triage", 1, PROMPTS["triage"].format(name=name, known="".join(f"{k}\n" for k in known)), 1)


def descriptions(name: str, gloss: str, describable: bool, settings: DescribeConfig) -> list[Question]:
    """The questions that follow, each with the gloss, the meaning of the class; on looks and scenes only if `describable`."""
    label = PROMPTS["label"].format(name=name, gloss=gloss) + "\n"

    def ask(family, rounds, items, **sizes):
        return [Question(name, family, r + 1, label + PROMPTS[family].format(**sizes), items) for r in range(rounds)]

    s = settings
    kinds = {"narrower": s.narrower, "broader": s.broader, "bearers": s.bearers}
    looks = [q for style in ("parts", "phrases") for q in ask(style, s.attribute_rounds, s.attributes, count=s.attributes)]
    hierarchy = ask("hierarchy", s.hierarchy_rounds, s.narrower + s.broader, **kinds)
    return [*looks, *hierarchy, *ask("scenes", s.scene_rounds, s.scenes, count=s.scenes)] if describable else hierarchy
