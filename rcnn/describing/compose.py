"""Sentences of a text corpus, composed from the facts a language model gave for a class (paper 3.3), and taken apart again."""

IS = ("a", "an", "used")
NOTHING = ("has", "often", "typically", "may", "can")
SCENE = "appears together with the "


def sentences(name, narrower, broader, attributes, scenes, mode="clean"):
    """All sentences of one class, in the order of the families.

    Args:
        name: the class.
        narrower, broader: names of narrower and broader kinds.
        attributes: short phrases of what it looks like.
        scenes: "Name - description" of places it is seen in.
        mode: "clean" drops stray full stops, and duplicates without regard to case (the first spelling stays); "compat"
            follows the authors' corpus to the letter, which does neither and finds the verb by a plain prefix.

    Returns:
        list of strings.
    """
    clean = mode == "clean"
    if clean:
        narrower, broader, attributes, scenes = (
            [tidy for text in family if (tidy := " ".join(text.split()).strip(" ."))]
            for family in (narrower, broader, attributes, scenes)
        )
    out = [f"a {s}, which is a {name}." for s in narrower]
    out += [f"a {name}, which is a {p}." for p in broader]
    out += [f"a {s}, which is a {name}, which is a {p}." for p in broader for s in narrower]
    out += [f"a {name}, which {CLAUSES[mode](a)}." for a in attributes]
    out += [f"a {name}, which {SCENE}{e}" for e in scenes]
    if not clean:
        return out
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


def prefix_clause(attribute):
    """The authors' rule, by prefix: "accessories" -> "is accessories", "canopy: wide" stays without a verb."""
    attribute = attribute.lower()
    if attribute.startswith(IS):
        return f"is {attribute}"
    return attribute if attribute.startswith(NOTHING) else f"has {attribute}"


def parse(name, described, mode="clean"):
    """The facts that `described`, all sentences of the class, were composed from: the inverse of `sentences`.

    Exact for the authors' corpus; where a class has no narrower kinds, the broader ones cannot be told from attributes that
    begin with "a" and are taken to be those of at most three words before all other attributes.

    Returns:
        {"narrower": …, "broader": …, "attributes": …, "scenes": …}; sentences of no known form are not in it.
    """
    which, is_name, middle = f"a {name}, which ", f", which is a {name}.", f", which is a {name}, which is a "
    crossed = [s for s in described if middle in s]
    single = [s for s in described if middle not in s]
    narrower = [s[2:].removesuffix(is_name) for s in single if s.startswith("a ") and s.endswith(is_name)]
    clauses = [s.removeprefix(which) for s in single if s.startswith(which) and not s.endswith(is_name)]
    scenes = [c.removeprefix(SCENE) for c in clauses if c.startswith(SCENE)]
    clauses = [c.removesuffix(".") for c in clauses if not c.startswith(SCENE)]
    over = {s.split(middle, 1)[1].removesuffix(".") for s in crossed}
    broader = []
    for clause in clauses:
        kind = clause.removeprefix("is a ")
        if kind == clause or kind in broader or (kind not in over if over else len(kind.split()) > 3):
            break
        broader.append(kind)
    attributes = [_attribute(clause, CLAUSES[mode]) for clause in clauses[len(broader) :]]
    return {"narrower": narrower, "broader": broader, "attributes": attributes, "scenes": scenes}


def _attribute(clause, compose):
    """The attribute that `compose` makes this clause of."""
    candidates = (clause.removeprefix("has "), clause.removeprefix("is "), clause)
    return next((a for a in candidates if compose(a) == clause), clause)


CLAUSES = {"clean": attribute_clause, "compat": prefix_clause}  # how a mode finds the verb
