"""From the answers about one class to the facts its sentences are made of; what is left out is counted by reason."""

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence

from pydantic import BaseModel

from rcnn.describing.questions import Attributes, Hierarchy, Scenes
from rcnn.printing import short

# too broad to say anything, as a kind or at its end
BANNED = {"thing", "object", "entity", "substance", "matter", "sight", "subject", "scene", "place", "quality"}
# words; longer texts are prose, not phrases
LONGEST = {"narrower": 8, "broader": 5, "bearers": 8, "attributes": 24, "scenes": 40}
MOST, MOST_WORD = 400, 50  # characters of a text, and of a word in it
MARKDOWN = re.compile(r"^\s*(?:[-*•#>]+|\d+[.)])\s+|\*\*|__|`")
# what a text is that describes nothing -> how it is known
UNFIT = {
    "no answer": re.compile(
        r"(?:^|: | - )\W*(?:n/?a|nan|nil|none|null|undefined|unknown|unspecified|not (?:applicable|available|known))\W*"
        r"(?:$|: | - )",
        re.IGNORECASE,
    ),
    "address": re.compile(r"\b\w+://|\bwww\.|\b[\w-]+\.(?:com|org|net|io)\b|\w@\w+\.", re.IGNORECASE),
    "markup": re.compile(r"[<>{}\\|]|\[/?\w+\]|&#?\w+;"),  # CLIP's own tokens, <start_of_text> and <end_of_text>, too
    "about the assistant": re.compile(
        r"\b(?:as an ai|language model|i cannot|i can't|i'm sorry|here (?:is|are))\b", re.IGNORECASE
    ),
    "instruction to a language model": re.compile(
        r"\b(?:ignore|disregard|forget|override)\b.{0,40}\b(?:instructions?|prompts?|rules|messages?)\b"
        r"|\b(?:ignore|disregard|forget) (?:all |everything )?(?:the )?(?:previous|prior|above|earlier)\b"
        r"|\b(?:system|assistant|user) prompt\b|\byou are (?:now|a|an) ",
        re.IGNORECASE,
    ),
}


# what a text tower misreads, since it hardly sees more of a phrase than its nouns -> how it is known
MISREAD = {
    "negation": r"no|not|without|never|lacks?|lacking|none|neither|nor",
    "comparison": r"than|similar to|resembl\w+|compared (?:to|with)|unlike",
    "hedge": r"usually|sometimes|generally|commonly|occasionally|mostly|(?:on|in) some|some (?:have|are|with)|depending|etc",
}
MISREAD = {reason: re.compile(rf"(?<![\w-])(?:{words})(?![\w-])", re.IGNORECASE) for reason, words in MISREAD.items()}
MODAL = re.compile(r"(?:may|can|might|could)\b", re.IGNORECASE)


class Facts(BaseModel):
    """What is known of one class, each family in the order of the answers."""

    narrower: list[str] = []
    broader: list[str] = []
    bearers: list[str] = []
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

    Metadata and what no photograph can show are not `describable`: all but their broader kinds is left out, since it could
    only be invented. So are narrower and broader kinds among the lower-case names `listed`.
    """
    raw: dict[str, list] = {family: [] for family in FAMILIES}
    for answer in answers:
        for family, items in answer:
            raw[family] += items
    scenes = [(scene.name.strip(), scene.description.strip()) for scene in raw["scenes"]]
    raw["scenes"] = [f"{name} - {description}" if name and description else "" for name, description in scenes]
    if not describable:
        raw = {family: raw[family] if family == "broader" else [] for family in FAMILIES}
    counts, facts, own = Counter(), Facts(), forms(name)
    taken: dict[str, set[str]] = {family: set() for family in FAMILIES}  # in lower case
    # the broader kinds go first: a name that is in both families is more often a broad one
    for family in ("broader", "narrower", "bearers", "attributes", "scenes"):
        for text in raw[family]:
            text = " ".join(text.split())
            if len(text) > MOST:
                counts[f"{family}: too long"] += 1
                continue
            counts[f"{family}: markdown removed"] += bool(MARKDOWN.search(text))
            while MARKDOWN.search(text):
                text = MARKDOWN.sub("", text)
            text = text.strip(" .")
            if reason := _flaw(text, family, taken, own, listed):
                counts[f"{family}: {reason}"] += 1
                continue
            if family == "attributes":
                counts["attributes: names the label (kept)"] += bool(own & set(re.findall(r"[\w-]+", text.lower())))
                counts["attributes: may or can (kept)"] += bool(MODAL.match(text))
            facts.families()[family].append(text)
            taken[family].add(text.lower())
    return facts, +counts


def _flaw(text: str, family: str, taken: dict[str, set[str]], own: set[str], listed: Collection[str]) -> str | None:
    """Why a text is left out, or None."""
    folded = text.lower()
    if reason := unfit(text):
        return reason
    if len(text.split()) > LONGEST[family]:
        return "too long"
    if family == "attributes" and (reason := next((r for r, pattern in MISREAD.items() if pattern.search(text)), None)):
        return reason
    if family == "bearers" and not any(re.search(rf"\b{re.escape(form)}\b", folded) for form in own):
        return "bearer without the label"
    if family in ("narrower", "broader"):
        if folded in own:
            return "the label as its own kind"
        if family == "broader" and folded.split()[-1] in BANNED:
            return "vague broader kind"
        if family == "narrower" and folded in taken["broader"]:
            return "narrower kind that is also broader"
        if folded in listed:
            return "kind that is a class of the list"
    return "duplicate" if folded in taken[family] else None


def unfit(text: str) -> str | None:
    """Why a text that a language model wrote describes nothing, whatever was asked; None if it may."""
    if text.strip() in ("", "-"):
        return "empty"
    if len(text) > MOST or max(map(len, text.split()), default=0) > MOST_WORD:
        return "too long"
    if not text.isprintable() or "\ufffd" in text:
        return "control characters"
    plain = unicodedata.normalize("NFKC", text)  # which full-width brackets become
    return next((reason for reason, pattern in UNFIT.items() if pattern.search(plain)), None)


def forms(name: str) -> set[str]:
    """Spellings that mean the class itself: lower case, singular and plural, spaces, hyphens or neither."""
    plain = name.lower().replace("_", " ")
    plain = {plain, plain.replace("-", " "), plain.replace(" ", "-"), plain.replace(" ", "").replace("-", "")}
    plural = {p + s for p in plain for s in ("s", "es")} | {p[:-1] + "ies" for p in plain if p.endswith("y")}
    singular = {p[:-1] for p in plain if p.endswith("s") and not p.endswith("ss")}
    return plain | plural | singular


def twins(senses: Mapping[str, tuple[str, str]], known: Iterable[str] = ()) -> list[list[str]]:
    """Groups of classes that mean one thing in other words; nothing is invented to separate them.

    Args:
        senses: {class: (kind, gloss)}; spellings and plurals of each other are twins if the kind is one and the glosses share
            a word ("glass" and "glasses" do not).
        known: further groups, such as "sea, mare, mar".

    Raises:
        ValueError: a known twin is no class.
    """
    spelled = {name.lower(): name for name in senses}
    alike = ((name, spelled[form]) for name in senses for form in forms(name) if spelled.get(form, name) != name)
    groups: list[Sequence[str]] = [pair for pair in alike if _one_sense(*(senses[name] for name in pair))]
    for line in known:
        groups.append([part.strip() for part in line.split(",")])
        if missing := [name for name in groups[-1] if name not in senses]:
            raise ValueError(f"twins: {short(missing[0])} of {short(line)} is no class of the list")
    united: dict[str, set[str]] = {}  # the group of each twin
    for group in groups:
        whole = set().union(*(united.get(name, {name}) for name in group))
        united |= dict.fromkeys(whole, whole)
    order = {name: i for i, name in enumerate(senses)}
    distinct = {id(group): sorted(group, key=order.get) for group in united.values()}
    return sorted((group for group in distinct.values() if len(group) > 1), key=lambda group: order[group[0]])


def _one_sense(one: tuple[str, str], other: tuple[str, str]) -> bool:
    """Whether two senses are of one kind and their glosses share a word of four letters, whatever its ending."""
    stems = [{word[:5] for word in re.findall(r"\w{4,}", gloss.lower())} for _, gloss in (one, other)]
    return one[0] == other[0] and bool(stems[0] & stems[1])
