"""Multi-label zero-shot recognition from class descriptions (RCNn): `from rcnn import Tagger`.

Importing this package imports nothing heavy; what it offers is imported when it is first asked for.
"""

import sys
from typing import TYPE_CHECKING, Any

from rcnn import interrupt

if TYPE_CHECKING:
    from rcnn.tagger import Tagger

__all__ = ["Tagger"]
__version__ = "0.1.0"

# Python imports this file before the module of `python -m rcnn.train …`, while sys.argv is still ["-m", …]
if sys.argv[:1] == ["-m"] and sys.orig_argv[-len(sys.argv)].partition(".")[0] == "rcnn":
    interrupt.one_line()


def __getattr__(name: str) -> Any:
    if name == "Tagger":
        from rcnn.tagger import Tagger

        return Tagger
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
