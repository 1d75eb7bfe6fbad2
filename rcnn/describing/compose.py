"""Sentences of a text corpus, composed from the facts a language model gave for a class (paper 3.3)."""

from collections.abc import Sequence

from rcnn.describing import english

IS = ("a", "an", "used")
NOTHING = ("has", "often", "typically", "may", "can")
SCENE = "appears together with the "


def sentences(
    name: str,
    narrower: list[str],
    broader: list[str],
    attributes: list[str],
    scenes: list[str],
    bearers: Sequence[str] = (),
    mode: str = "clean",
    articles: str = "paper",
) -> list[str]:
    """All sentences of one class, in the order of the families; a scene is "Name - description".

    A quality, or one named place, has bearers in place of narrower kinds, phrases with its name: "a red fire engine.". No chain
    of kinds is made of them.

    The mode "clean" drops stray full stops, and duplicates without regard to case (the first spelling stays); "compat" follows
    the authors' corpus to the letter, which does neither and finds the verb by a plain prefix.

    With the articles "paper" every phrase gets "a" and every label is one ("a owl", "a dogs, which is a animal"); with
    "english" it is as people say it, by spelling alone ("an owl", "dogs, which are animals").
    """
    clean = mode == "clean"
    if clean:
        narrower, broader, attributes, scenes, bearers = (
            [tidy for text in family if (tidy := " ".join(text.split()).strip(" ."))]
            for family in (narrower, broader, attributes, scenes, bearers)
        )
    clauses = [*(f"{CLAUSES[mode](text)}." for text in attributes), *(SCENE + scene for scene in scenes)]
    a, which, label, parents = "a {}".format, "which is", f"a {name}", [f"a {p}" for p in broader]
    if articles == "english":
        a = english.with_article
        label, parents = name if bearers and not narrower else a(name), [a(p) for p in broader]
        if english.is_plural(name):
            which, label, parents = "which are", name, [english.plural(p) for p in broader]
            clauses = [english.plural_verb(clause) for clause in clauses]
    kinds = [a(s) for s in narrower]
    out = [f"{kind}, {which} {label}." for kind in kinds]
    out += [f"{label}, {which} {parent}." for parent in parents]
    out += [f"{a(bearer)}." for bearer in bearers]
    out += [f"{kind}, {which} {label}, {which} {parent}." for parent in parents for kind in kinds]
    out += [f"{label}, which {clause}" for clause in clauses]
    if not clean:
        return out
    first = {}
    for sentence in out:
        first.setdefault(sentence.lower(), sentence)
    return list(first.values())


def attribute_clause(attribute: str) -> str:
    """The attribute with the verb it needs, decided by its first word: "a …" -> "is a …", "can …", "ears" -> "has ears"."""
    attribute = attribute.lower()
    first = attribute.split(maxsplit=1)[0] if attribute else ""
    if first in IS:
        return f"is {attribute}"
    return attribute if first in NOTHING else f"has {attribute}"


def prefix_clause(attribute: str) -> str:
    """The authors' rule, by prefix: "accessories" -> "is accessories", "canopy: wide" stays without a verb."""
    attribute = attribute.lower()
    if attribute.startswith(IS):
        return f"is {attribute}"
    return attribute if attribute.startswith(NOTHING) else f"has {attribute}"


CLAUSES = {"clean": attribute_clause, "compat": prefix_clause}  # how a mode finds the verb
