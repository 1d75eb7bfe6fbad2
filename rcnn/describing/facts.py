"""From the answers about one class to the facts its sentences are made of; what is left out is counted by reason."""

import re
from collections import Counter
from collections.abc import Collection, Iterable

from pydantic import BaseModel

from rcnn.describing.questions import Attributes, Hierarchy, Scenes

BANNED = {"thing", "object", "entity", "substance", "matter"}  # too broad to say anything
LONGEST = {"narrower": 8, "broader": 5, "attributes": 24, "scenes": 40}  # words; longer ones are prose, not phrases
MARKDOWN = re.compile(r"^\s*(?:[-*•#>]+|\d+[.)])\s+|\*\*|__|`")
CHATTER = re.compile(r"\b(?:as an ai|language model|i cannot|i can't|i'm sorry|here (?:is|are))\b", re.IGNORECASE)


class Facts(BaseModel):
    """What is known of one class, each family in the order of the answers."""

    narrower: list[str] = []
    broader: list[str] = []
    attributes: list[str] = []
    scenes: list[str] = []

    def families(self) -> dict[str, list[str]]:
        """{family: its list}"""
        return vars(self)


FAMILIES = tuple(Facts.model_fields)


def gather(
    name: str, answers: Iterable[Attributes | Hierarchy | Scenes], describable: bool = True, listed: Collection[str] = ()
) -> tuple[Facts, Counter]:
    """Unite and clean the answers about one class; the Counter says what was left out or stands out, by reason.

    Metadata and what no photograph can show are not `describable`: their looks and narrower kinds are left out, since they
    could only be invented. So are narrower and broader kinds among the lower-case names `listed`.
    """
    raw: dict[str, list] = {family: [] for family in FAMILIES}
    for answer in answers:
        for family, items in answer:
            raw[family] += items
    raw["scenes"] = [f"{scene.name.strip()} - {scene.description.strip()}" for scene in raw["scenes"]]
    if not describable:
        raw["narrower"], raw["attributes"] = [], []
    counts, facts, own = Counter(), Facts(), forms(name)
    # the broader kinds go first: a name that is in both families is more often a broad one
    for family in ("broader", "narrower", "attributes", "scenes"):
        for text in raw[family]:
            text = " ".join(text.split())
            counts[f"{family}: markdown removed"] += bool(MARKDOWN.search(text))
            while MARKDOWN.search(text):
                text = MARKDOWN.sub("", text)
            text = text.strip(" .")
            if reason := _flaw(text, family, facts, own, listed):
                counts[f"{family}: {reason}"] += 1
                continue
            if family == "attributes" and own & set(re.findall(r"[\w-]+", text.lower())):
                counts["attributes: names the label (kept)"] += 1
            facts.families()[family].append(text)
    return facts, +counts


def _flaw(text: str, family: str, facts: Facts, own: set[str], listed: Collection[str]) -> str | None:
    """Why a text is left out, or None."""
    folded = text.lower()
    if not text or text == "-":
        return "empty"
    if CHATTER.search(text):
        return "about the assistant"
    if len(text.split()) > LONGEST[family]:
        return "too long"
    if family in ("narrower", "broader"):
        if folded in own:
            return "the label as its own kind"
        if folded in BANNED and family == "broader":
            return "banned broader kind"
        if family == "narrower" and folded in map(str.lower, facts.broader):
            return "narrower kind that is also broader"
        if folded in listed:
            return "kind that is a class of the list"
    return "duplicate" if folded in map(str.lower, facts.families()[family]) else None


def forms(name: str) -> set[str]:
    """Spellings that mean the class itself: lower case, singular and plural, spaces, hyphens or neither."""
    plain = name.lower().replace("_", " ")
    plain = {plain, plain.replace("-", " "), plain.replace(" ", "-"), plain.replace(" ", "").replace("-", "")}
    plural = {p + s for p in plain for s in ("s", "es")} | {p[:-1] + "ies" for p in plain if p.endswith("y")}
    singular = {p[:-1] for p in plain if p.endswith("s") and not p.endswith("ss")}
    return plain | plural | singular
