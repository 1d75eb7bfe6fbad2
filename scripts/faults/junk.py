"""Values that nobody expects in JSON."""

import json
import math
from collections.abc import Iterator
from typing import Any

DEEP = "nested 100,000 deep"  # stands for such a list
JUNK = [
    None, True, 5, -1, 0.5, 10**400, math.inf, math.nan, "", "x", "😀", "\x1b[2J", "\u202ex", "\ud800", [], {}, [[]], ["x"],
    {"x": 1}, "a" * 100_000, DEEP,
]  # fmt: skip


def dump(value: Any) -> bytes:
    """JSON, also of what is none."""
    return json.dumps(value).replace(json.dumps(DEEP), "[" * 100_000 + "]" * 100_000).encode()


def places(tree: Any) -> Iterator[tuple[Any, Any, tuple]]:
    """(container, key, path) of every value in JSON."""
    waiting = [(tree, ())]
    while waiting:
        container, path = waiting.pop()
        for key in container if isinstance(container, dict) else range(len(container)):
            yield container, key, (*path, key)
            if isinstance(container[key], dict | list):
                waiting.append((container[key], (*path, key)))
