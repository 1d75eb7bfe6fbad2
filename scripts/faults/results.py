"""Looking at folders and at what commands leave behind."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from faults.trial import Outcome, Setting


def copy(source: Path, target: Path) -> None:
    """A folder with pipes, links and times as they are."""
    subprocess.run(["cp", "-a", source, target], check=True)


def remove(path: Path) -> None:
    """Delete a file, or a folder that may have unreadable parts."""
    if not path.is_dir() or path.is_symlink():
        return path.unlink()
    subprocess.run(["chmod", "-R", "u+rwX", path], stderr=subprocess.DEVNULL, check=False)
    return shutil.rmtree(path)


def result(command: Sequence[str], root: Path, out: str) -> Any:
    """What a command is there for, to be compared."""
    if command[0] in ("evaluate", "report"):  # a report shows some of the numbers, and vouches for all
        found = json.loads((root / "run" / "result.json").read_bytes())
        numbers = {key: found[key] for key in ("rows", "class_ap", "diagnostics", "epochs", "images", "class_names")}
        return numbers | {"report": out if command[0] == "report" else None}
    if command[0] == "train":
        run = root / ("other" if "output=other" in command else "run")
        vectors = safetensors.numpy.load_file(run / "class_embeddings.safetensors")
        return {name: array.tolist() for name, array in vectors.items()}
    if command[0] == "describe":
        return None if "stats" in command else (root / "names.corpus.json").read_bytes()
    if command[0] == "predict":
        return tags(command[command.index("--format") + 1], out)
    return json.loads(out)


def tags(form: str, out: str) -> dict[str, list]:
    """{name of a file: its tags}; of a table only the unharmed files, since other names may have two blanks."""
    found: dict[str, list] = {}
    if form == "json":
        return {Path(e["image"]).name: [[tag["class"], tag["score"]] for tag in e["tags"]] for e in json.loads(out)}
    if form == "csv":
        for image, _, name, score in list(csv.reader(io.StringIO(out)))[1:]:
            found.setdefault(Path(image).name, []).append([name, float(score)])
    for image, row in re.findall(r"^photos/(good-\S+) +(.*)$", out, re.M) if form == "table" else ():
        found[image] = [[name, float(score)] for name, _, score in (tag.rpartition(" ") for tag in row.split("  "))]
    return found


def difference(command: Sequence[str], found: Any, good: Any) -> str | None:
    """How a result is another than the unharmed one. Of tags: those of unharmed images, to what batches round."""
    if command[0] not in ("predict", "tag"):
        return None if found == good else "the result is another"
    for image, row in good.items():
        if image not in found:
            return f"the unharmed {image} has no tags"
        if [name for name, _ in found[image]] != [name for name, _ in row]:
            return f"the unharmed {image} has other tags"
        if not all(abs(a - b) < 1e-3 for (_, a), (_, b) in zip(found[image], row, strict=True)):
            return f"the unharmed {image} has other scores"
    return None


def finite(setting: Setting, outcome: Outcome) -> str | None:
    """A judge: what is printed, and left as the vectors of a run, are finite numbers, also where learning was refused."""
    for path in sorted((setting.root / "other").rglob("*.safetensors")):
        for name, array in safetensors.numpy.load_file(path).items():
            if not np.isfinite(array).all():
                return f"{path.relative_to(setting.root)}: {name} is not finite, exit code {outcome.code}"
    if outcome.code < 2 and re.search(r"(?<![\w./=])(nan|inf|infinity)(?![\w/])", outcome.out, re.I):
        return "prints numbers that are none"
    return None
