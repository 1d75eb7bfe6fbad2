"""The scores that an evaluation kept, read back and checked."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np

from rcnn.files import file_sha256, read_json, unseal
from rcnn.results.result import Result
from rcnn.score.kept import INDEX


class KeptScores:
    """The tables of a run and what they are of; a FileNotFoundError or ValueError says how to make what is not there."""

    def __init__(self, run: str | Path, result: Result):
        self._folder = Path(run) / "scores_kept"
        self._again = f"python -m rcnn.evaluate {shlex.quote(str(run))} evaluate.keep_scores=true"
        path = self._folder / INDEX
        if not path.is_file():
            raise FileNotFoundError(f"{run} has kept no scores of its images, which this figure needs: {self._again}")
        self._index = unseal(path, read_json(path))
        if self._index.get("made_from") != result.made_from:
            raise ValueError(f"{self._folder} is not of {run}/result.json, which was measured later: {self._again}")
        self.images: list[str] = self._index["images"]
        self.tasks: dict[str, int] = self._index["first_column"]
        self.readable = np.ones(len(self.images), bool)
        self.readable[self._index["unreadable"]] = False
        self.labels = self._load(self._index["labels"])  # (B, C) int8 in {1, -1, 0 = unknown}

    def scores(self, row: str, scorer: str) -> np.ndarray:
        """(B, C) float32, mapped from the file."""
        what = {"row": row, "scorer": scorer, "part": None}
        (table,) = (table for table in self._index["tables"] if what.items() <= table.items())
        return self._load(table)

    def _load(self, entry: dict[str, Any]) -> np.ndarray:
        path = self._folder / entry["file"]
        if file_sha256(path) != entry["sha256"]:
            raise ValueError(f"{path} is damaged, or was changed; delete {self._folder}, then {self._again}")
        return np.load(path, mmap_mode="r")
