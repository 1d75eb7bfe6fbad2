"""Where the CLIP of a configuration runs, and in which precision."""

from typing import Any

import torch

from rcnn import clip
from rcnn.config import Config

PRECISIONS = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def device(name: str) -> torch.device:
    """The device of a name such as "cuda:1", or of "auto"; ValueError if there is no such device here."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        chosen = torch.device(name)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"device: expected auto, cpu, cuda or mps, got {name!r}")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("device: there is no mps; torch finds no GPU of Apple's here; use device=cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device: there is no {name}; torch finds {torch.cuda.device_count() or 'no'} CUDA GPUs; use device=cpu"
        )
    return chosen


def load_clip(settings: Config, metadata: dict[str, Any] | None = None, precision: str = "float32") -> clip.Clip:
    """The CLIP that `settings` names; with the metadata of a run, ValueError unless the run was learned with it.

    The precision is that of the image tower: one of PRECISIONS, or "auto" for fp16 on CUDA and float32 elsewhere.
    """
    model = clip.load(**vars(settings.clip), device=device(settings.device))
    if metadata and metadata["identity"]["clip"] != model.fingerprint:
        raise ValueError(
            "clip: this run was learned with other weights, heads or another activation; "
            "python scripts/check_weights.py FILE FILE compares two files of weights"
        )
    model.image.set_precision(PRECISIONS[resolved(precision, model.device)])
    return model


def resolved(precision: str, on: torch.device) -> str:
    """One of PRECISIONS: that of "auto" on this device, or the one that was named."""
    return precision if precision != "auto" else "fp16" if on.type == "cuda" else "float32"
