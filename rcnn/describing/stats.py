"""Statistics of a text corpus, ours or the authors': sizes, lengths, repetitions, and classes that are kinds of others."""

from collections import Counter

import numpy as np

from rcnn import clip
from rcnn.describing.compose import parse
from rcnn.describing.facts import forms

FAMILIES = ("narrower", "broader", "attributes", "scenes")


def statistics(corpus):
    """Statistics of a corpus.

    Args:
        corpus: {"0": {"node_name": …, "candidate_sentences": […]}, …}

    Returns:
        {line of the table: value, a number or a tuple}, and the pairs (class, its broader or narrower kind, which is a class
        of the list too).
    """
    facts = {e["node_name"].replace("_", " "): parse(e["node_name"], e["candidate_sentences"]) for e in corpus.values()}
    sentences = [s for e in corpus.values() for s in e["candidate_sentences"]]
    bpe = clip.tokenizer()
    tokens = np.array([len(bpe.encode(s)) + 2 for s in sentences] or [0])
    words = Counter(a.lower() for f in facts.values() for a in set(f["attributes"]))
    places = Counter(s.lower() for f in facts.values() for s in set(f["scenes"]))
    table = {"classes": len(corpus), "sentences": len(sentences)}
    for family in FAMILIES:
        table[f"{family} a class"] = _spread([len(f[family]) for f in facts.values()])
    table["sentences a class"] = _spread([len(e["candidate_sentences"]) for e in corpus.values()])
    table |= {
        "share of narrower and broader kinds": _share(
            sum(len(f["narrower"]) + len(f["broader"]) + len(f["narrower"]) * len(f["broader"]) for f in facts.values()),
            len(sentences),
        ),
        "CLIP tokens: median, 95 %, longest": tuple(
            int(v) for v in (np.median(tokens), np.percentile(tokens, 95, method="higher"), tokens.max())
        ),
        "sentences over 77 tokens": int((tokens > 77).sum()),
        "sentences twice in their class": sum(
            len(e["candidate_sentences"]) - len({s.lower() for s in e["candidate_sentences"]}) for e in corpus.values()
        ),
        "double full stops": sum(s.endswith("..") for s in sentences),
        "labels as their own kind": sum(
            k.lower() in forms(name) for name, f in facts.items() for k in (*f["narrower"], *f["broader"])
        ),
        "attributes of several classes": sum(n > 1 for n in words.values()),
        "scenes of several classes": sum(n > 1 for n in places.values()),
    }
    pairs = listed_kinds(facts)
    table["kinds that are classes too"] = len(pairs)
    return table, pairs


def listed_kinds(facts):
    """Pairs (class, relation, kind) where the kind of a class is a class itself: what pulls two learned names together.

    Args:
        facts: {class: {"narrower": …, "broader": …}}
    """
    listed = {form: name for name in facts for form in forms(name)} | {name.lower(): name for name in facts}
    return [
        (name, relation, listed[kind.lower()])
        for name, f in facts.items()
        for relation in ("narrower", "broader")
        for kind in f[relation]
        if listed.get(kind.lower(), name) != name
    ]


def _spread(values):
    """(least, median, most)"""
    return (min(values), int(np.median(values)), max(values)) if values else (0, 0, 0)


def _share(part, whole):
    return f"{100 * part / whole:.0f} %" if whole else "-"


def render(tables):
    """The statistics of several corpora side by side, as lines of text.

    Args:
        tables: {title of the column: the table of `statistics`}
    """
    rows = [["", *tables]]
    for line in next(iter(tables.values())):
        rows.append([line, *(_text(table[line]) for table in tables.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:], strict=True))]) for r in rows]


def _text(value):
    if isinstance(value, str):
        return value
    return " / ".join(f"{v:,}" for v in (value if isinstance(value, tuple) else (value,)))
