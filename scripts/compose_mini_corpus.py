#!/usr/bin/env python
"""Compose the mini benchmark's text corpus from its facts: data/mini/facts.jsonl -> data/mini/corpus.json.

The facts were written for this project, class by class (data/mini/README.md); the sentences follow from them.
"""

import json
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from rcnn.describing.compose import sentences
from rcnn.files import write_json
from rcnn.text.classes import ClassList

DATA = ROOT / "data" / "mini"


def corpus() -> dict[str, dict]:
    """{"0": {"node_name": …, "candidate_sentences": […]}, …}"""
    facts = {f.pop("name"): f for f in map(json.loads, (DATA / "facts.jsonl").read_text().splitlines())}
    names = ClassList.read(DATA / "seen.txt", DATA / "unseen.txt").names
    return {str(i): {"node_name": n, "candidate_sentences": sentences(n, **facts[n])} for i, n in enumerate(names)}


if __name__ == "__main__":
    write_json(DATA / "corpus.json", corpus())
