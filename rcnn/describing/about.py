"""The about file beside a corpus: where its sentences come from, and the facts about each class that they are made of."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from rcnn import config
from rcnn.describing.answers import Reply
from rcnn.describing.cost import Cost
from rcnn.describing.facts import FAMILIES, Facts
from rcnn.describing.questions import PROMPTS


def beside(corpus: str | Path, suffix: str) -> Path:
    """Path of a file that belongs to a corpus: corpus.json -> corpus<suffix>."""
    return Path(str(corpus).removesuffix(".json") + suffix)


def compile_about(
    settings: config.DescribeConfig,
    replies: list[Reply],
    cost: Cost,
    left_out: Counter,
    failed: dict[str, list[str]],
    classes: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """What the about file of a corpus holds.

    Args:
        settings: what was asked for.
        replies: all that the corpus was made of.
        cost: knows the price of their tokens.
        left_out: how many facts and sentences were left out or stand out, by reason.
        failed: {class: why}
        classes: {"0": {"name": …, its kind, sense and facts}, …}
    """
    metered = [reply for reply in replies if reply.usage]
    return {
        "models_served": dict(Counter(reply.model for reply in replies)),
        "prompt_version": PROMPTS["version"],
        "settings": config.shaping(settings, "corpus"),
        "replies": len(replies),
        "tokens_in": sum(reply.usage[0] for reply in metered),
        "tokens_out": sum(reply.usage[1] for reply in metered),
        "cost_usd": round(sum(cost.price(reply.usage, reply.batched) for reply in metered), 4) if cost.prices else None,
        "left_out_or_noted": dict(sorted(left_out.items())),
        "failed": failed,
        "classes": classes,
    }


def read_facts(corpus: str | Path) -> list[tuple[str, Facts]] | None:
    """(name, facts) of every class of a corpus, from the about file beside it.

    Args:
        corpus: path of the corpus.

    Returns:
        as many pairs as the corpus has classes, in its order; None where there is no about file.

    Raises:
        ValueError: the about file has another form.
    """
    path = beside(corpus, ".about.json")
    if not path.is_file():
        return None
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["classes"].values()
        return [(e["name"], Facts(*(list(map(str, e[family])) for family in FAMILIES))) for e in entries]
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ValueError(f"{path} has no facts; python -m rcnn.describe writes it anew from the answers") from None
