"""Sentences of a text corpus, composed from the facts a language model gave for a class (paper 3.3)."""

IS = ("a", "an", "used")
NOTHING = ("has", "often", "typically", "may", "can")


def sentences(name, narrower, broader, attributes, scenes):
    """All sentences of one class, in the order of the families, without duplicates.

    Args:
        name: the class.
        narrower, broader: names of narrower and broader kinds.
        attributes: short phrases of what it looks like.
        scenes: "Name - description" of places it is seen in.

    Returns:
        list of strings. Duplicates are found without regard to case; the first spelling stays.
    """
    narrower, broader, attributes, scenes = (
        [clean for text in family if (clean := " ".join(text.split()).strip(" ."))]
        for family in (narrower, broader, attributes, scenes)
    )
    out = [f"a {s}, which is a {name}." for s in narrower]
    out += [f"a {name}, which is a {p}." for p in broader]
    out += [f"a {s}, which is a {name}, which is a {p}." for p in broader for s in narrower]
    out += [f"a {name}, which {attribute_clause(a)}." for a in attributes]
    out += [f"a {name}, which appears together with the {e}" for e in scenes]
    first = {}
    for sentence in out:
        first.setdefault(sentence.lower(), sentence)
    return list(first.values())


def attribute_clause(attribute):
    """The attribute with the verb it needs, decided by its first word: "a …" -> "is a …", "can …", "ears" -> "has ears"."""
    attribute = attribute.lower()
    first = attribute.split(maxsplit=1)[0] if attribute else ""
    if first in IS:
        return f"is {attribute}"
    return attribute if first in NOTHING else f"has {attribute}"
