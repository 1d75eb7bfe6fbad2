"""From the answers about one class to the facts its sentences are made of; what is left out is counted by reason."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import field

from pydantic.dataclasses import dataclass

from rcnn.describing.questions import Attributes, Hierarchy, Scenes

BANNED = {"thing", "object", "entity", "substance", "matter"}  # too broad to say anything
LONGEST = {"narrower": 8, "broader": 5, "attributes": 24, "scenes": 40}  # words; longer ones are prose, not phrases
MARKDOWN = re.compile(r"^\s*(?:[-*•#>]+|\d+[.)])\s+|\*\*|__|`")
CHATTER = re.compile(r"\b(?:as an ai|language model|i cannot|i can't|i'm sorry|here (?:is|are))\b", re.IGNORECASE)


@dataclass
class Facts:
    """What is known of one class, each family a list of strings in the order of the answers."""

    narrower: list[str] = field(default_factory=list)
    broader: list[str] = field(default_factory=list)
    attributes: list[str] = field(default_factory=list)
    scenes: list[str] = field(default_factory=list)

    def families(self) -> dict[str, list[str]]:
        """{family: its list}"""
        return vars(self)


FAMILIES = tuple(Facts().families())


def gather(
    name: str,
    answers: Iterable[tuple[str, Attributes | Hierarchy | Scenes]],
    describable: bool = True,
    listed: Collection[str] = (),
) -> tuple[Facts, Counter]:
    """Unite and clean the answers about one class.

    Args:
        name: the class.
        answers: (family of the question, its validated answer) in the order of the questions.
        describable: False for metadata and what no photograph can show: then looks and narrower kinds are left out, since
            they could only be invented.
        listed: lower-case names; narrower and broader kinds among them are left out.

    Returns:
        Facts, and a Counter of what was left out or stands out, by reason.
    """
    raw = Facts()
    for family, answer in answers:
        if family in ("parts", "phrases"):
            raw.attributes += answer.attributes
        elif family == "hierarchy":
            raw.narrower += answer.narrower
            raw.broader += answer.broader
        elif family == "scenes":
            raw.scenes += [f"{s.name.strip()} - {s.description.strip()}" for s in answer.scenes]
    if not describable:
        raw.narrower, raw.attributes = [], []
    counts, facts = Counter(), Facts()
    own = forms(name)
    # the broader kinds go first: a name that is in both families is more often a broad one
    for family in ("broader", "narrower", "attributes", "scenes"):
        kept, taken = facts.families()[family], set()
        for text in raw.families()[family]:
            clean, reason = _clean(text, family, counts)
            folded = clean.lower()
            if not reason and family in ("narrower", "broader"):
                if folded in own:
                    reason = "the label as its own kind"
                elif folded in BANNED and family == "broader":
                    reason = "banned broader kind"
                elif family == "narrower" and folded in {b.lower() for b in facts.broader}:
                    reason = "narrower kind that is also broader"
                elif folded in listed:
                    reason = "kind that is a class of the list"
            if not reason and folded in taken:
                reason = "duplicate"
            if reason:
                counts[f"{family}: {reason}"] += 1
                continue
            if family == "attributes" and own & set(re.findall(r"[\w-]+", folded)):
                counts["attributes: names the label (kept)"] += 1
            taken.add(folded)
            kept.append(clean)
    return facts, counts


def forms(name: str) -> set[str]:
    """Spellings that mean the class itself: lower case, singular and plural, spaces, hyphens or neither."""
    plain = name.lower().replace("_", " ")
    plain = {plain, plain.replace("-", " "), plain.replace(" ", "-"), plain.replace(" ", "").replace("-", "")}
    plural = {p + s for p in plain for s in ("s", "es")} | {p[:-1] + "ies" for p in plain if p.endswith("y")}
    singular = {p[:-1] for p in plain if p.endswith("s") and not p.endswith("ss")}
    return plain | plural | singular


def _clean(text: str, family: str, counts: Counter) -> tuple[str, str | None]:
    """The text on one line without markdown and final stops, and why it must be left out, or None."""
    clean = " ".join(text.split())
    if MARKDOWN.search(clean):
        counts[f"{family}: markdown removed"] += 1
        while MARKDOWN.search(clean):
            clean = MARKDOWN.sub("", clean)
    clean = clean.strip(" .")
    if not clean or clean == "-":
        return clean, "empty"
    if CHATTER.search(clean):
        return clean, "about the assistant"
    return clean, "too long" if len(clean.split()) > LONGEST[family] else None
