"""Statistics of a text corpus, ours or the authors': sizes, lengths, repetitions, and classes that are kinds of others."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rcnn import clip
from rcnn.describing.answers import beside
from rcnn.describing.facts import FAMILIES, Facts, forms

MOST_TOKENS = 77  # that CLIP's text tower takes
Table = dict[str, Any]


def token_count(sentence: str) -> int:
    """CLIP tokens of a sentence, with the start and the end."""
    return len(clip.tokenizer().encode(sentence)) + 2


def compare(paths: Sequence[str]) -> list[str]:
    """Lines of text: the statistics of corpus files side by side, and their classes that are kinds of each other."""
    read = {path: _read(path) for path in paths}
    lines = render({path: statistics(described, facts) for path, (described, facts) in read.items()})
    for path, (_, facts) in read.items():
        if facts is None:
            lines += ["", f"{path}: {beside(path, '.about.json')} is absent; only what the sentences show is counted"]
        elif pairs := listed_kinds(facts):
            lines += ["", f"{path}: classes that are kinds of each other ({len(pairs)}):"]
            lines += [f"  {name}: {kind} ({relation})" for name, relation, kind in pairs]
    return lines


def _read(path: str) -> tuple[list[list[str]], list[tuple[str, Facts]] | None]:
    """The sentences and the facts of every class, as `statistics` takes them."""
    try:
        entries = list(json.loads(Path(path).read_text(encoding="utf-8")).values())
        names, described = [e["node_name"] for e in entries], [list(e["candidate_sentences"]) for e in entries]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path} is no text corpus") from None
    facts = read_facts(path)
    if facts is not None and [name for name, _ in facts] != names:
        raise ValueError(f"{beside(path, '.about.json')} is about other classes than {path}")
    return described, facts


def read_facts(corpus: str | Path) -> list[tuple[str, Facts]] | None:
    """(name, facts) of every class of a corpus, from the about file beside it; None where there is none.

    Raises:
        ValueError: the about file has another form.
    """
    path = beside(corpus, ".about.json")
    if not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["classes"].values()
        return [(entry["name"], Facts(**{family: entry[family] for family in FAMILIES})) for entry in entries]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path} has no facts; python -m rcnn.describe writes it anew from the answers") from None


def statistics(described: list[list[str]], facts: list[tuple[str, Facts]] | None) -> Table:
    """{line of the table: value, a number or a tuple} of the sentences and, where they are known, the facts of every class."""
    sentences = [sentence for group in described for sentence in group]
    tokens = np.array([token_count(s) for s in sentences] or [0])
    table = {
        "classes": len(described),
        "sentences": len(sentences),
        "sentences a class": _spread([len(group) for group in described]),
        "CLIP tokens: median, 95 %, longest": tuple(
            int(v) for v in (np.median(tokens), np.percentile(tokens, 95, method="higher"), tokens.max())
        ),
        f"sentences over {MOST_TOKENS} tokens": int((tokens > MOST_TOKENS).sum()),
        "sentences twice in their class": sum(len(group) - len({s.lower() for s in group}) for group in described),
        "double full stops": sum(s.endswith("..") for s in sentences),
    }
    if facts is None:
        return table
    for family in FAMILIES:
        table[f"{family} a class"] = _spread([len(f.families()[family]) for _, f in facts])
    of_kinds = sum(len(f.narrower) + len(f.broader) + len(f.narrower) * len(f.broader) for _, f in facts)
    return table | {
        "share of narrower and broader kinds": f"{100 * of_kinds / len(sentences):.0f} %" if sentences else "-",
        "labels as their own kind": sum(k.lower() in forms(name) for name, f in facts for k in (*f.narrower, *f.broader)),
        "attributes of several classes": _shared([f.attributes for _, f in facts]),
        "scenes of several classes": _shared([f.scenes for _, f in facts]),
        "kinds that are classes too": len(listed_kinds(facts)),
    }


def listed_kinds(facts: list[tuple[str, Facts]]) -> list[tuple[str, str, str]]:
    """(class, relation, kind) where the kind of a class is a class itself: it pulls the two learned names together."""
    names = [name for name, _ in facts]
    listed = {form: name for name in names for form in forms(name)} | {name.lower(): name for name in names}
    return [
        (name, relation, listed[kind.lower()])
        for name, f in facts
        for relation, kinds in (("narrower", f.narrower), ("broader", f.broader))
        for kind in kinds
        if listed.get(kind.lower(), name) != name
    ]


def _spread(values: list[int]) -> tuple[int, int, int]:
    """(least, median, most)"""
    return (min(values), int(np.median(values)), max(values)) if values else (0, 0, 0)


def _shared(families: list[list[str]]) -> int:
    """How many texts, without regard to case, are in more than one of the lists."""
    return sum(n > 1 for n in Counter(text for family in families for text in {t.lower() for t in family}).values())


def render(tables: dict[str, Table]) -> list[str]:
    """Tables of `statistics` side by side under their titles, as lines of text; "-" where a corpus has no such line."""
    rows = [["", *tables]]
    for line in max(tables.values(), key=len):
        rows.append([line, *(_text(table.get(line, "-")) for table in tables.values())])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join([r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:], strict=True))]) for r in rows]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return " / ".join(f"{v:,}" for v in (value if isinstance(value, tuple) else (value,)))
