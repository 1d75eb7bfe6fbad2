"""Looking at folders and at what commands leave behind."""

import csv
import io
import json
import math
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy


def copy(source: Path, target: Path) -> None:
    """A folder with pipes, links and times as they are."""
    subprocess.run(["cp", "-a", source, target], check=True)


def remove(folder: Path) -> None:
    """Delete a folder that may have unreadable parts."""
    subprocess.run(["chmod", "-R", "u+rwX", folder], stderr=subprocess.DEVNULL, check=False)
    shutil.rmtree(folder)


def numbers(root: Path) -> dict[str, Any]:
    """What a result file says of images and rows."""
    result = json.loads((root / "run" / "result.json").read_bytes())
    return {key: result[key] for key in ("rows", "class_ap", "diagnostics", "epochs", "images", "class_names")}


def embeddings(run: Path) -> dict[str, list]:
    """The rows of a run."""
    found = safetensors.numpy.load_file(run / "class_embeddings.safetensors")
    return {name: array.tolist() for name, array in found.items()}


def tags(form: str, out: str) -> dict[str, list[tuple[str, float]]]:
    """{name of a file: its tags}, of what was printed in a format."""
    found: dict[str, list[tuple[str, float]]] = {}
    if form == "json":
        for entry in json.loads(out):
            found[Path(entry["image"]).name] = [(t["class"], t["score"]) for t in entry["tags"]]
    elif form == "csv":
        for image, _, name, score in list(csv.reader(io.StringIO(out)))[1:]:
            found.setdefault(Path(image).name, []).append((name, float(score)))
    else:
        for line in filter(None, out.split("\n")):
            image, *rest = re.split(r"\s{2,}", line)
            found[Path(image).name] = [(t.rpartition(" ")[0], float(t.rpartition(" ")[2])) for t in rest]
    return found


def alike(found: dict, good: dict) -> str | None:
    """What differs in the tags of unharmed images."""
    for image, expected in good.items():
        if image not in found:
            return f"the unharmed {image} has no tags"
        if [name for name, _ in found[image]] != [name for name, _ in expected]:
            return f"the unharmed {image} has other tags"
        if not all(abs(a - b) < 1e-3 for (_, a), (_, b) in zip(found[image], expected, strict=True)):
            return f"the unharmed {image} has other scores"
    return None


def finite(folder: Path) -> str | None:
    """What is not finite in the tensors that a run left."""
    for path in sorted(folder.rglob("*.safetensors")):
        for name, array in safetensors.numpy.load_file(path).items():
            if not np.isfinite(array).all():
                return f"{path.relative_to(folder)}: {name} is not finite"
    return None


def finite_tags(row: list[tuple[str, float]]) -> bool:
    return all(math.isfinite(score) for _, score in row)
