"""What learning leaves behind: its state after the last epoch, the class embeddings of every epoch, and the run's rows.

All are safetensors files with a JSON text in their metadata, each written whole or not at all.
"""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rcnn.files import replace_file

EMBEDDINGS = "class_embeddings.safetensors"
VERSION = 2  # of the metadata of a run


def write(path: str | Path, tensors: dict[str, torch.Tensor], **metadata: Any) -> None:
    """Write named tensors and JSON-able metadata."""
    text = json.dumps({"order": list(tensors), **metadata})  # safetensors sorts its tensors
    data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, {"metadata": text})
    with replace_file(path) as file:
        file.write(data)


def read(path: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, metadata) that `write` wrote."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()["metadata"])
            return {name: file.get_tensor(name) for name in metadata.pop("order")}, metadata
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} is no file of this version of the project, or a cut one ({error!r}); delete it, or choose another output="
        ) from None


def read_run(folder: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """{row: (C, D) class embeddings} of a finished run, and its metadata: classes, split, weights, the method's own row."""
    path = Path(folder) / EMBEDDINGS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no finished run (there is no {path.name}); make one with python -m rcnn.train")
    rows, metadata = read(path)
    if metadata.get("version") != VERSION:
        raise ValueError(f"{path} was made by another version of this code; learn again into another folder (output=)")
    return rows, metadata


def epoch_file(folder: Path, row: str, epoch: int) -> Path:
    """Where the class embeddings of a row after an epoch are kept in the folder of a run."""
    return folder / row / "epochs" / f"{epoch:03}.safetensors"


def read_epochs(folder: Path, row: str) -> dict[int, torch.Tensor]:
    """{epoch: (C, D) class embeddings} that learning left of a row; empty if it kept none."""
    files = sorted((folder / row / "epochs").glob("*.safetensors"))
    return {int(file.stem): read(file)[0]["class_embeddings"] for file in files}
