"""Statistics of a text corpus, ours or the authors': sizes, lengths, repetitions, and classes that are kinds of others."""

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from rcnn.clip.tokens import encode
from rcnn.describing.answers import beside
from rcnn.describing.facts import FAMILIES, MODAL, Facts, forms
from rcnn.files import read_json
from rcnn.printing import cut
from rcnn.text import corpus

MOST_TOKENS = 77  # that CLIP's text tower takes


class _Described(BaseModel):
    """A class in an about file."""

    name: str
    narrower: list[str]
    broader: list[str]
    bearers: list[str] = []  # which files of before version 2 lack
    attributes: list[str]
    scenes: list[str]


def token_count(sentence: str) -> int:
    """CLIP tokens of a sentence, with the start and the end; one too many for what CLIP does not take at all."""
    try:
        return len(encode(sentence))
    except ValueError:  # far too long, or with a token of CLIP's own
        return MOST_TOKENS + 1


def compare(paths: Sequence[str]) -> list[str]:
    """Lines of text: the statistics of corpus files side by side, and their classes that are kinds of each other."""
    tables, notes = {}, []
    for path in paths:
        entries, facts = corpus.read(path).values(), read_facts(path)
        if facts is None:
            notes += ["", f"{path}: {beside(path, '.about.json')} is absent; only what the sentences show is counted"]
        elif [name for name, _ in facts] != [entry.node_name for entry in entries]:
            raise ValueError(f"{beside(path, '.about.json')} is about other classes than {path}")
        elif pairs := listed_kinds(facts):
            notes += ["", f"{path}: classes that are kinds of each other ({len(pairs)}):"]
            notes += [cut(f"  {name}: {kind} ({relation})") for name, relation, kind in pairs]
        tables[path] = statistics([entry.candidate_sentences for entry in entries], facts)
    longest = max(tables.values(), key=len)
    rows = [["", *tables], *([line, *(table.get(line, "-") for table in tables.values())] for line in longest)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join([r[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(r[1:], widths[1:], strict=True))]) for r in rows]
    return lines + notes


def read_facts(path: str | Path) -> list[tuple[str, Facts]] | None:
    """(name, facts) of every class, from the about file beside a corpus; None without one, ValueError if it has no facts."""
    path = beside(path, ".about.json")
    if not path.exists():
        return None
    raw = read_json(path)
    try:
        entries = TypeAdapter(dict[str, _Described]).validate_python(raw["classes"]).values()
        return [(entry.name, Facts(**entry.model_dump(include=set(FAMILIES)))) for entry in entries]
    except (ValidationError, TypeError, KeyError):
        raise ValueError(f"{path} has no facts; python -m rcnn.describe writes it anew from the answers") from None


def statistics(described: list[list[str]], facts: list[tuple[str, Facts]] | None) -> dict[str, str]:
    """{line of the table: value} of the sentences and, where they are known, the facts of every class."""
    sentences = [sentence for group in described for sentence in group]
    tokens = np.array([token_count(s) for s in sentences] or [0])
    most = np.percentile(tokens, 95, method="higher")
    table = {
        "classes": _text(len(described)),
        "sentences": _text(len(sentences)),
        "sentences a class": _spread(described),
        "CLIP tokens: median, 95 %, longest": _text(np.median(tokens), most, tokens.max()),
        f"sentences over {MOST_TOKENS} tokens": _text((tokens > MOST_TOKENS).sum()),
        "sentences twice in their class": _text(sum(len(group) - len({s.lower() for s in group}) for group in described)),
        "double full stops": _text(sum(s.endswith("..") for s in sentences)),
    }
    if facts is None:
        return table
    for family in FAMILIES:
        table[f"{family} a class"] = _spread([f.families()[family] for _, f in facts])
    of_kinds = sum(len(f.narrower) + len(f.broader) + len(f.narrower) * len(f.broader) for _, f in facts)
    names = {name.lower() for name, _ in facts}
    own = sum(k.lower() in forms(name) for name, f in facts for k in (*f.narrower, *f.broader))
    return table | {
        "share of narrower and broader kinds": f"{100 * of_kinds / len(sentences):.0f} %" if sentences else "-",
        "labels as their own kind": _text(own),
        "attributes of several classes": _shared([f.attributes for _, f in facts]),
        "scenes of several classes": _shared([f.scenes for _, f in facts]),
        "scenes that name another class": _text(
            sum(_names_another(name, scene, names) for name, f in facts for scene in f.scenes)
        ),
        "attributes with may or can": _text(sum(bool(MODAL.match(a)) for _, f in facts for a in f.attributes)),
        "kinds that are classes too": _text(len(listed_kinds(facts))),
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


def _names_another(name: str, scene: str, names: set[str]) -> bool:
    """Whether a scene has another class's name among its words, or its plural."""
    words = re.findall(r"[\w'-]+", scene.lower())
    runs = {" ".join(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1)}
    runs |= {run[:-1] for run in runs if run.endswith("s")}
    return bool((runs & names) - forms(name))


def _spread(groups: list[list[str]]) -> str:
    """The least, median and greatest length."""
    lengths = [len(group) for group in groups] or [0]
    return _text(min(lengths), np.median(lengths), max(lengths))


def _shared(groups: list[list[str]]) -> str:
    """How many texts, without regard to case, are in more than one of the groups."""
    return _text(sum(n > 1 for n in Counter(text for group in groups for text in {t.lower() for t in group}).values()))


def _text(*values: float) -> str:
    return " / ".join(f"{int(value):,}" for value in values)
