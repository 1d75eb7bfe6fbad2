"""The file of CLIP's weights: found or downloaded, checked, and read in any of the three formats it comes in."""

import contextlib
import os
import sys
import warnings
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, BinaryIO

import open_clip
import torch
from safetensors import safe_open

from rcnn.files import must_be_regular, open_regular
from rcnn.printing import cut, short

MOST_EXPANSION = 20  # of a weights archive, whose numbers are hardly ever compressed
OPENAI_HOST = "openaipublic"  # in the addresses of the archives that OpenAI published


@cache
def published_sha256() -> frozenset[str]:
    """SHA-256 of the archives that OpenAI published; each stands in its download address."""
    models = open_clip.list_pretrained_models_by_tag("openai")
    addresses = (open_clip.get_pretrained_url(model, "openai") for model in models)
    return frozenset(address.split("/")[-2] for address in addresses if OPENAI_HOST in address)


def pretrained_source(model: str, pretrained: str | None) -> dict[str, Any]:
    """What open_clip knows of weights: addresses, activation, mean and deviation of the colours; ValueError if nothing."""
    source = open_clip.get_pretrained_cfg(model, pretrained or "")
    if not source:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"clip.pretrained: there are no weights {short(pretrained)} for {model}; there are: {tags}")
    return source


def find_weights(model: str | None, pretrained: str | None, weights: str | Path | None) -> Path:
    """Path of the weights that `load` would read, downloaded if they are nowhere yet; parameters and errors as there."""
    if not weights and not model:
        raise ValueError("clip: expected a model name or a file; set clip.weights=FILE or clip.model=NAME")
    path = Path(weights) if weights else _download(model, pretrained)
    if not path.exists():
        raise FileNotFoundError(f"clip.weights: there is no file {path}")
    must_be_regular(path)
    return path


def _download(model: str, pretrained: str | None) -> Path:
    """The first copy of the weights that can be had: OpenAI's own, then the hub's, then that of any other address."""
    source = pretrained_source(model, pretrained)
    # of an entry's two addresses open_clip asks one; which one is settled here by leaving the other out
    copies = {f"hf-hub:{source['hf_hub']}": source | {"url": ""}, source["url"]: source | {"hf_hub": ""}}
    addresses = [address for address, copy in copies.items() if copy["url"] or copy["hf_hub"]]
    addresses.sort(key=lambda address: OPENAI_HOST not in address)
    print(f"CLIP weights: {model} {pretrained} (local cache, or {', else '.join(addresses)})", file=sys.stderr)
    failures = []
    for address in addresses:
        try:
            path = Path(open_clip.download_pretrained(copies[address]))
        except Exception as error:  # urllib, the hub's client and the checksum test each raise their own kinds
            failures.append(f"\n  {address}: {' '.join(str(error).split())}")
            continue
        if failures:
            print(f"CLIP weights: taken from {address}, not from{''.join(failures)}", file=sys.stderr)
        return path
    raise FileNotFoundError(
        f"no CLIP weights: {model} ({pretrained}) could not be downloaded from{''.join(failures)}\n"
        f"  On a machine with internet fetch {' or '.join(addresses)}\n"
        f"  then set clip.weights=/path/to/{Path(source['url']).name or 'the file'}"
    )


def read_weights(path: Path, sha256: str, trust_torchscript: bool = False) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Tensors by name, and the metadata that a safetensors file may carry.

    ValueError for a damaged file, one of another kind, or an archive that OpenAI did not publish, by the `sha256` of the file,
    and that is not trusted.
    """
    if path.suffix == ".safetensors":
        with _damage_as_error(f"{path} cannot be read as safetensors, perhaps it is only half downloaded"):
            must_be_regular(path)
            with safe_open(path, framework="pt") as file:
                return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
    is_published = sha256 in published_sha256()
    with open_regular(path) as file:
        with _damage_as_error(f"{path} holds no state dict; it is a damaged archive, perhaps only half downloaded"):
            is_program = any(name.endswith("/constants.pkl") for name in _entries(file, check=not is_published))
        if is_program and not is_published and not trust_torchscript:
            raise ValueError(
                f"{path} is a TorchScript archive, a program that runs on loading, and its SHA-256 {sha256} is none "
                "that OpenAI published; if you trust its source set clip.trust_torchscript=true"
            )
        if is_program:
            with _damage_as_error(f"{path} is a damaged TorchScript archive"):
                return torch.jit.load(file, map_location="cpu").state_dict(), {}
        with _damage_as_error(f"{path} holds no state dict that loads with weights_only=True"):
            state = torch.load(file, map_location="cpu", weights_only=True)
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items()):
        raise ValueError(f"{path} holds no state dict: expected tensors by name")
    return {k.removeprefix("module."): v for k, v in state.items()}, {}


@contextlib.contextmanager
def _damage_as_error(said: str) -> Iterator[None]:
    """Whatever a library raises for a damaged file, or one of another kind, as a ValueError of one line."""
    try:
        with warnings.catch_warnings():  # torch warns of what it finds odd: OpenAI's own format, and damage
            warnings.simplefilter("ignore")
            yield
    except MemoryError:
        raise  # the file may be a good one
    except Exception as error:
        raise ValueError(f"{said}: {cut(' '.join(str(error).split()) or type(error).__name__)}") from None


def _entries(file: BinaryIO, check: bool) -> list[str]:
    """Names of what a zip archive holds, none of another file; `check` the checksums, which torch does not look at."""
    is_archive = file.read(4) == b"PK\3\4"  # by which torch tells, too
    file.seek(0)
    if not is_archive:
        return []
    with zipfile.ZipFile(file) as archive:
        if sum(entry.file_size for entry in archive.infolist()) > MOST_EXPANSION * os.fstat(file.fileno()).st_size:
            raise ValueError("its parts would expand to many times its size")
        if check and (damaged := archive.testzip()):
            raise ValueError(f"{damaged} does not have its checksum")
        names = archive.namelist()
    file.seek(0)
    return names
