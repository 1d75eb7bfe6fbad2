"""What learning leaves behind: its state after the last epoch, the class embeddings of every epoch, and the run's rows.

All are safetensors files with a JSON text and a checksum in their metadata, each written whole or not at all. Reading checks
the checksum, the schema of the JSON text, and that all numbers are finite.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rcnn.files import replace_file
from rcnn.printing import explain, short

EMBEDDINGS = "class_embeddings.safetensors"
VERSION = 3  # of the metadata of a run


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Identity(BaseModel):
    """What two runs that learn the same have in common: these digests, and all options that shape learning."""

    model_config = ConfigDict(extra="allow", strict=True)

    clip: str
    corpus: str
    classes: str


class State(_Metadata):
    """Metadata of RUN/ROW/state.safetensors, what learning goes on from."""

    identity: Identity
    losses: list[float]  # mean of every epoch
    seconds: float
    sources: dict[str, str]  # file of this package -> SHA-256


class Epoch(_Metadata):
    """Metadata of the class embeddings of one epoch."""

    epoch: int
    loss: float


class Run(_Metadata):
    """Metadata of a finished run."""

    version: int
    method: str  # the row that is the run's result
    class_names: list[str]
    notes: list[str]
    seen: int = Field(ge=0)
    weights_sha256: str
    config: dict[str, Any]
    identity: Identity
    learning: dict[str, Any]
    sources: dict[str, str]


def write(path: str | Path, tensors: dict[str, torch.Tensor], **metadata: Any) -> None:
    """Write named tensors and JSON-able metadata."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"order": list(tensors), **metadata}  # safetensors sorts its tensors
    # one text, since safetensors orders several at random
    data = save(tensors, {"metadata": json.dumps({**metadata, "sha256": _checksum(tensors, metadata)})})
    with replace_file(path) as file:
        file.write(data)


def read(path: str | Path, schema: type[BaseModel] | None = None) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(tensors, metadata) that `write` wrote.

    Args:
        schema: what the metadata must be, if it is known.

    Raises:
        FileNotFoundError, ValueError: no such file; a damaged or a foreign one, or one with numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads(file.metadata()["metadata"])
            tensors = {name: file.get_tensor(name) for name in metadata["order"]}
        if metadata.pop("sha256") != _checksum(tensors, metadata):
            raise ValueError("its contents do not have its checksum")
        del metadata["order"]
        if schema:
            schema.model_validate(metadata)
        if broken := [name for name, tensor in tensors.items() if not is_finite(tensor)]:
            raise ValueError(f"{broken[0]} has numbers that are not finite")
    except (SafetensorError, KeyError, TypeError, AttributeError, ValueError, RuntimeError) as error:
        raise _not_ours(path, explain(error)) from None
    return tensors, metadata


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all numbers of a tensor are finite, found without a copy of it."""
    return not tensor.numel() or all(extreme.isfinite() for extreme in tensor.aminmax())  # both are NaN if any number is


def require(path: str | Path, tensors: dict[str, torch.Tensor], **shapes: tuple[int, ...]) -> None:
    """ValueError unless the tensors that were read from `path` are these, by name, with these shapes."""
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if found != {name: tuple(shape) for name, shape in shapes.items()}:
        raise _not_ours(path, f"expected tensors of shape {shapes}, got {short(found)}")


def _not_ours(path: str | Path, why: str) -> ValueError:
    return ValueError(
        f"{path} is damaged, or no such file of this version of the code ({why}); delete it, or choose another output="
    )


def _checksum(tensors: dict[str, torch.Tensor], metadata: dict[str, Any]) -> str:
    """SHA-256 of the metadata, and of the names, types, shapes and bytes of the tensors."""
    hashed = hashlib.sha256(json.dumps(metadata).encode())
    for name, tensor in tensors.items():
        hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        hashed.update(tensor.numpy())
    return hashed.hexdigest()


def read_run(folder: str | Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """{row: (C, D) class embeddings} of a finished run, and its metadata: classes, split, weights, the method's own row."""
    path = Path(folder) / EMBEDDINGS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no finished run (there is no {path.name}); make one with python -m rcnn.train")
    rows, metadata = read(path, Run)
    if metadata["version"] != VERSION:
        raise ValueError(f"{path} was made by another version of this code; learn again into another folder (output=)")
    if metadata["method"] not in rows:
        raise _not_ours(path, f"it has no row {short(metadata['method'])}")
    shape = len(metadata["class_names"]), *rows[metadata["method"]].shape[-1:]
    require(path, rows, **dict.fromkeys(rows, shape))
    return rows, metadata


def epoch_file(folder: Path, row: str, epoch: int) -> Path:
    """Where the class embeddings of a row after an epoch are kept in the folder of a run."""
    return folder / row / "epochs" / f"{epoch:03}.safetensors"


def read_epochs(folder: Path, row: str, shape: tuple[int, int]) -> dict[int, torch.Tensor]:
    """{epoch: (C, D) class embeddings of this shape} that learning left of a row; empty if it kept none."""
    found = {}
    for path in sorted((folder / row / "epochs").glob("*.safetensors")):
        tensors, metadata = read(path, Epoch)
        require(path, tensors, class_embeddings=shape)
        found[metadata["epoch"]] = tensors["class_embeddings"]
    return found
