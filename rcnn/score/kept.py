"""Scores that are kept: one .npy file for each table, one with the labels, and a JSON that says what they are of.

NumPy alone reads them: nothing of this package is needed to compute other metrics from them.
"""

import contextlib
import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from rcnn.files import read_json, sealed, unseal, write_json
from rcnn.score.score_file import Mean

IMAGES = 1024  # that are in memory at a time
INDEX = "index.json"


class Table(NamedTuple):
    """(B, C) scores and what they are of."""

    scores: np.ndarray | Mean
    row: str
    scorer: str
    label: str
    task: str | None = None  # for scores that differ by task
    part: str | None = None  # one of score_file.PARTS, whose mean is the total, the table without a part


def require_room(folder: Path, size: int) -> None:
    """Say how much will be kept; ValueError if the disk has no room for it."""
    print(f"scores to be kept: {size / 1e9:.2f} GB in {folder}")
    if size > (free := shutil.disk_usage(folder.parent).free):
        raise ValueError(f"the scores to be kept need {size / 1e9:.1f} GB in {folder}, {free / 1e9:.1f} GB are free")


def holds(folder: Path, made_from: str) -> bool:
    """Whether the folder holds the scores of a result."""
    with contextlib.suppress(OSError, ValueError, AttributeError, TypeError, KeyError):
        found = unseal(folder / INDEX, read_json(folder / INDEX))
        files = [found["labels"]["file"], *(table["file"] for table in found["tables"])]
        return found["made_from"] == made_from and all((folder / file).is_file() for file in files)
    return False


def write(folder: Path, tables: Iterable[Table], labels: torch.Tensor, made_from: str, facts: Mapping[str, Any]) -> None:
    """Write the folder, whole or not at all; what it held before is replaced.

    Args:
        tables: of the scores, which are copied a block of images at a time.
        labels: (B, C) in {1, -1, 0 = unknown}.
        made_from: of the result.
        facts: JSON-able; what else the index says.
    """
    partial = folder.with_name(f"{folder.name}.partial")
    _remove(partial)
    partial.mkdir(parents=True)
    try:
        shape, listed = tuple(labels.shape), []
        for i, table in enumerate(tables):
            words = filter(None, (table.row, table.scorer, table.task, table.part))
            file = f"{i:02}_{'_'.join(re.sub(r'[^A-Za-z0-9-]', '-', word)[:60] for word in words)}.npy"
            checksum = _save(partial / file, table.scores, shape, "<f4")
            listed.append({"file": file, **table._asdict(), "sha256": checksum})
            del listed[-1]["scores"]
        of_labels = {"file": "labels.npy", "sha256": _save(partial / "labels.npy", labels.numpy(), shape, "|i1")}
        write_json(partial / INDEX, sealed({"made_from": made_from, **facts, "labels": of_labels, "tables": listed}))
        _remove(folder)
        partial.rename(folder)
    except BaseException:
        _remove(partial)
        raise


def _save(path, table, shape, kind):
    """Write a table as .npy; the SHA-256 of the file."""
    hashed = hashlib.sha256()
    try:
        with open(path, "wb") as file:
            np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
            file.flush()
            hashed.update(path.read_bytes())  # which has the header alone
            for start in range(0, shape[0], IMAGES):
                block = np.ascontiguousarray(table[start : start + IMAGES], kind)
                file.write(block)
                hashed.update(block)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}; the same command goes on", str(path)) from None
    return hashed.hexdigest()


def _remove(folder):
    if folder.is_symlink() or folder.is_file():
        folder.unlink()
    elif folder.exists():
        shutil.rmtree(folder)
