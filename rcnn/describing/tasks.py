"""What is asked about each class, in which form the answers must come, and what to do with an answer that is no good."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from rcnn.describing import answers

PROMPTS = yaml.safe_load(Path(__file__).with_name("prompts.yaml").read_text(encoding="utf-8"))
CAPS = ("max_tokens", "max_completion_tokens")
COMPLAINTS = 2  # how often an invalid answer or a refusal is sent back
TOKENS_AN_ITEM = {"triage": 80, "parts": 10, "phrases": 11, "hierarchy": 5, "scenes": 26}  # of answers, for estimates


class _Strict(BaseModel):
    """No unknown and no missing field: then `model_json_schema` is what services call a strict schema."""

    model_config = ConfigDict(extra="forbid")


class Triage(_Strict):
    kind: Literal["object", "living", "person", "place", "event", "activity", "property", "abstract", "metadata"]
    gloss: str
    other_senses: list[str]
    visible: bool


class Attributes(_Strict):
    attributes: list[str]


class Hierarchy(_Strict):
    narrower: list[str]
    broader: list[str]


class Scene(_Strict):
    name: str
    description: str


class Scenes(_Strict):
    scenes: list[Scene]


SCHEMAS = {"triage": Triage, "parts": Attributes, "phrases": Attributes, "hierarchy": Hierarchy, "scenes": Scenes}


@dataclass(frozen=True)
class Service:
    """Where requests go, and the sampling that is part of them."""

    model: str
    base_url: str | None = None  # None: OpenAI
    temperature: float | None = 0.7  # None: not sent, for models that take none
    max_tokens: int = 1000  # cap of an answer


@dataclass(frozen=True)
class Task:
    """One question about one class.

    Attributes:
        name: the class.
        family: key of SCHEMAS.
        round: from 1; rounds ask the same with another seed.
        prompt: the user's message.
        items: entries the answer should have, for estimates.
    """

    name: str
    family: str
    round: int
    prompt: str
    items: int

    @property
    def about(self):
        """What people read beside the stored answer."""
        return {"class": self.name, "task": self.family, "round": self.round}


@dataclass(frozen=True)
class Failure:
    """Why a task has no answer."""

    why: str


def triage(name, context=None, sense=None):
    """The first task of a class.

    Args:
        name: the class.
        context: what the class list is about, or None.
        sense: the meaning the user chose, or None.
    """
    known = [PROMPTS["context"].format(context=context)] if context else []
    known += [PROMPTS["sense"].format(sense=sense)] if sense else []
    return Task(name, "triage", 1, PROMPTS["triage"].format(name=name, known="".join(f"{k}\n" for k in known)), 1)


def descriptions(name, gloss, describable, plan):
    """The tasks that follow.

    Args:
        name: the class.
        gloss: its meaning; it goes into every prompt.
        describable: False where nothing can be seen (metadata, invisible ideas): looks are not asked for.
        plan: object with attributes, attribute_rounds, narrower, broader, hierarchy_rounds, scenes, scene_rounds.
    """
    label = PROMPTS["label"].format(name=name, gloss=gloss) + "\n"

    def ask(family, rounds, items, **sizes):
        return [Task(name, family, r + 1, label + PROMPTS[family].format(**sizes), items) for r in range(rounds)]

    looks = [t for f in ("parts", "phrases") for t in ask(f, plan.attribute_rounds, plan.attributes, count=plan.attributes)]
    kinds = {"narrower": plan.narrower, "broader": plan.broader}
    return [
        *(looks if describable else []),
        *ask("hierarchy", plan.hierarchy_rounds, sum(kinds.values()), **kinds),
        *ask("scenes", plan.scene_rounds, plan.scenes, count=plan.scenes),
    ]


def body(task, service, messages, cap):
    """JSON body of the request."""
    # OpenAI's newer models refuse max_tokens; local servers know no other name
    limit = CAPS[0] if service.base_url else CAPS[1]
    schema = {"name": task.family, "strict": True, "schema": SCHEMAS[task.family].model_json_schema()}
    return {
        "model": service.model,
        "messages": messages,
        "response_format": {"type": "json_schema", "json_schema": schema},
        "seed": task.round,
        limit: cap,
        **({} if service.temperature is None else {"temperature": service.temperature}),
    }


def advance(task, service, store):
    """Follow the exchange about `task` through the stored replies.

    A cut answer is asked for once more with a doubled cap; a refusal or an invalid answer is sent back with a complaint.

    Args:
        task: Task.
        service: Service.
        store: Answers.

    Returns:
        (next body to send, keys so far) where a reply is missing; (the answer, keys), a pydantic object, at the end of a
        good exchange; (Failure, keys) at the end of a bad one.
    """
    messages = [{"role": "system", "content": PROMPTS["system"]}, {"role": "user", "content": task.prompt}]
    cap, complaints, keys = service.max_tokens, 0, []
    while True:
        request = body(task, service, messages, cap)
        # the cap shapes only answers that are cut: with it in the key, raising it would ask everything anew
        shaping = {k: v for k, v in request.items() if k not in CAPS} | {"cap": cap // service.max_tokens}
        keys.append(answers.key(service.base_url, shaping))
        reply = store.get(keys[-1])
        if reply is None:
            return request, keys
        if reply.finish == "length":
            if cap > service.max_tokens:
                return Failure(f"the answer was cut at {cap} tokens; raise max_tokens"), keys
            cap *= 2
            continue
        answer = read(task.family, reply)
        if not isinstance(answer, Failure) or complaints == COMPLAINTS:
            return answer, keys
        complaints += 1
        messages += [
            {"role": "assistant", "content": reply.text or reply.refusal or "(no answer)"},
            {"role": "user", "content": PROMPTS["complaint"].format(why=answer.why)},
        ]


def read(family, reply):
    """The validated answer in a reply, or Failure."""
    if reply.refusal:
        return Failure(f"the model refused: {reply.refusal[:200]}")
    if reply.finish == "content_filter":
        return Failure("the service's content filter withheld it")
    if not reply.text:
        return Failure("it is empty")
    try:
        return SCHEMAS[family].model_validate_json(reply.text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        return Failure(f"it does not fit the JSON schema: {place + ': ' if place else ''}{first['msg']}")


def estimate(request, task):
    """Roughly the tokens (in, out) of a request."""
    return len(json.dumps(request)) // 4, TOKENS_AN_ITEM[task.family] * task.items
