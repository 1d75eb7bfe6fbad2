"""From the sentences of a corpus back to the facts they were composed of: all there is of the authors' corpus."""

from rcnn.describing.compose import CLAUSES, SCENE


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
