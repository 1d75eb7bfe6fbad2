"""The frozen CLIP: both towers, and what is known of them."""

import hashlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
from pydantic import BaseModel, PositiveInt, ValidationError

from rcnn.clip.image_tower import ImageEncoder, ImageFeatures, normalise
from rcnn.clip.text_tower import TextEncoder
from rcnn.clip.towers import HEAD_WIDTH, build, sizes
from rcnn.clip.transformer import ACTIVATIONS
from rcnn.clip.weights import find_weights, pretrained_source, published_sha256, read_weights
from rcnn.files import digest, file_sha256
from rcnn.printing import short

MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
# settings of open_clip models that the towers here implement; a model with any other one is refused
VISION_SETTINGS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
MODEL_SETTINGS = {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
IMAGE_SIZES, TEXT_SIZES = ("image_size", "width", "layers", "patch"), ("width", "layers", "embed_dim")
TEXT_SETTINGS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}


class Computed(BaseModel):
    """How weights are computed with, which their shapes do not say: open_clip knows it, or the file's metadata says it."""

    activation: Literal[tuple(ACTIVATIONS)] = "quick_gelu"
    vision_heads: PositiveInt | None = None
    text_heads: PositiveInt | None = None
    model: str | None = None  # the name of the file's CLIP


@dataclass(frozen=True)
class Clip:
    """Both towers, float32, frozen, in evaluation mode; and what a result file says of them."""

    text: TextEncoder
    image: ImageEncoder
    model: str
    sha256: str  # of the weights file
    tensors_sha256: str  # of the towers' weights in float32, whatever file they came from
    mean: tuple[float, float, float]  # of the colour channels, in [0, 1]
    std: tuple[float, float, float]
    scale: float = 100.0  # exp(logit_scale), which no feature depends on; read by TagCLIP alone

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that features depend on: the weights, and how they are computed with."""
        first = [tower.transformer["resblocks"][0] for tower in (self.text, self.image)]
        computed = [[block.attn.heads, block.activation.__name__] for block in first]
        return digest([self.tensors_sha256, computed, self.mean, self.std])

    @property
    def device(self) -> torch.device:
        return self.text.positional_embedding.device

    def encode_views(self, pixels: torch.Tensor) -> ImageFeatures:
        """Views of B images, (B, V, S, S, 3) uint8, to ImageFeatures (B, V, D) and (B, V, N, D)."""
        return _by_view(self.image(self._images(pixels)), pixels)

    def encode_views_by(self, pixels: torch.Tensor, last_blocks: Iterable[str]) -> dict[str, ImageFeatures]:
        """The same by each of several last blocks, see `ImageEncoder.last_block`; the blocks before run once."""
        x = self.image.trunk(self._images(pixels))
        return {key: _by_view(self.image.last_block(x, key), pixels) for key in last_blocks}

    def _images(self, pixels):
        return normalise(pixels.to(self.device).flatten(0, 1), self.mean, self.std)  # (B·V, 3, S, S)


def _by_view(features, pixels):
    return ImageFeatures(*(f.unflatten(0, pixels.shape[:2]) for f in features))  # (B·V, …) -> (B, V, …)


def load(
    model: str | None = "ViT-B-16-quickgelu",
    pretrained: str | None = "openai",
    weights: str | Path | None = None,
    trust_torchscript: bool = False,
    device: str | torch.device = "cpu",
) -> Clip:
    """Load a CLIP ViT.

    Args:
        model: a name of open_clip ("ViT-B-16-quickgelu"), or None to take every size from the file `weights`.
        pretrained: open_clip's tag of the weights; they are downloaded unless `weights` names a file.
        weights: a local file: OpenAI's TorchScript archive, a state dict of torch, or safetensors.
        trust_torchscript: open a TorchScript archive although its SHA-256 is none that OpenAI published. Such an
            archive is a program: loading it runs it.

    Raises:
        FileNotFoundError: no such file, or the weights could not be downloaded; says what to fetch and where to put it.
        ValueError: an unknown or unsupported model, weights that do not fit it, or the wrong activation.
    """
    named, expected = _named_model(model) if model else ({}, None)
    source = pretrained_source(model, pretrained) if model and (pretrained or not weights) else {}
    path = find_weights(model, pretrained, weights)
    sha256 = file_sha256(path)
    state, metadata = read_weights(path, sha256, trust_torchscript)
    try:
        computed = Computed.model_validate(named | metadata)
    except ValidationError as error:
        wrong = error.errors(include_url=False)[0]
        raise ValueError(f"{path}: its metadata says {wrong['loc'][0]}={short(wrong['input'])}: {wrong['msg']}") from None
    trained_with_quick_gelu = source.get("quick_gelu", False) or sha256 in published_sha256()
    if trained_with_quick_gelu and computed.activation != "quick_gelu":
        raise ValueError(
            f"clip.model: {model} computes GELU, but these weights were trained with QuickGELU and would give wrong "
            f"features; use clip.model={model}-quickgelu, or set clip.pretrained=null if the file is not of {pretrained}"
        )
    try:
        image_sizes, text_sizes = sizes(state)
        found = *(image_sizes[key] for key in IMAGE_SIZES), *(text_sizes[key] for key in TEXT_SIZES)
        if expected not in (None, found):
            raise ValueError(
                f"the weights are not a {model}: expected image size, vision width, layers, patch, text width, layers, "
                f"embedding size {expected}, got {found}; set clip.model to the right name, or to null to trust the file"
            )
        image, text = build(state, computed.activation, computed.vision_heads, computed.text_heads)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    tensors_sha256 = _tensors_sha256(image, text)
    for tower in (image, text):
        tower.to(device).eval().requires_grad_(False)
    mean, std = (tuple(source.get(key, default)) for key, default in (("mean", MEAN), ("std", STD)))
    return Clip(text, image, model or computed.model or path.stem, sha256, tensors_sha256, mean, std, _scale(state, path))


def _named_model(model: str) -> tuple[dict[str, Any], tuple[int, ...]]:
    """What open_clip says of a model: what a file's metadata may say too, and the sizes of its towers."""
    config = open_clip.get_model_config(model) if ":" not in model else None  # hub addresses are files, not models
    if config is None:
        raise ValueError(f"clip.model: open_clip knows no model {short(model)}; see open_clip.list_models()")
    vision, text = config["vision_cfg"], config["text_cfg"]
    odd = set(vision) - VISION_SETTINGS | set(text) - TEXT_SETTINGS | set(config) - MODEL_SETTINGS
    if odd or not isinstance(vision["layers"], int):
        raise ValueError(f"clip.model: {model} is not a plain CLIP ViT ({', '.join(sorted(odd)) or 'it is a ResNet'})")
    named = {
        "activation": "quick_gelu" if config.get("quick_gelu") else "gelu",
        "vision_heads": vision["width"] // vision.get("head_width", HEAD_WIDTH),
        "text_heads": text["heads"],
    }
    image_sizes = [vision[key] for key in ("image_size", "width", "layers", "patch_size")]  # as in IMAGE_SIZES and TEXT_SIZES
    return named, (*image_sizes, text["width"], text["layers"], config["embed_dim"])


def _scale(state: dict[str, torch.Tensor], path: Path) -> float:
    """What cosines are multiplied by before a softmax; CLIP learns at most 100."""
    if "logit_scale" not in state:
        return Clip.scale
    logit = state["logit_scale"]
    if logit.numel() != 1 or not -20 <= logit.item() <= 20:
        raise ValueError(f"{path}: logit_scale: expected one number from -20 to 20, got {short(logit.flatten()[:3].tolist())}")
    return math.exp(logit.item())


def _tensors_sha256(*towers: torch.nn.Module) -> str:
    """SHA-256 of all tensors: equal for the copies of the same weights in other formats and precisions."""
    hashed = hashlib.sha256()
    for tower in towers:
        for name, tensor in sorted(tower.state_dict().items()):
            hashed.update(name.encode())
            hashed.update(tensor.contiguous().numpy())
    return hashed.hexdigest()
