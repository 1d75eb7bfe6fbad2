"""The frozen CLIP: its two towers, built from the tensors of a weights file."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch

from rcnn.clip.image_tower import ImageEncoder, ImageFeatures, normalise
from rcnn.clip.text_tower import TextEncoder
from rcnn.clip.tokens import tokenizer
from rcnn.clip.transformer import ACTIVATIONS
from rcnn.clip.weights import find_weights, pretrained_source, published_sha256, read_weights
from rcnn.files import digest, file_sha256

HEAD_WIDTH = 64  # of every ViT that OpenAI published; other widths come from open_clip's config or the file's metadata
MEAN, STD = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
# settings of open_clip models that the towers here implement; a model with any other one is refused
VISION_SETTINGS = {"image_size", "layers", "width", "patch_size", "head_width", "mlp_ratio"}
TEXT_SETTINGS = {"context_length", "vocab_size", "width", "heads", "layers", "mlp_ratio"}


@dataclass(frozen=True)
class Clip:
    """Both towers, float32, frozen, in evaluation mode; and what a result file says of them."""

    text: TextEncoder
    image: ImageEncoder
    model: str
    sha256: str  # of the weights file
    mean: tuple[float, float, float]  # of the colour channels, in [0, 1]
    std: tuple[float, float, float]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of all that features depend on: the weights, and how they are computed with."""
        first = [tower.transformer["resblocks"][0] for tower in (self.text, self.image)]
        computed = [[block.attn.heads, block.activation.__name__] for block in first]
        return digest([self.sha256, computed, self.mean, self.std])

    @property
    def device(self) -> torch.device:
        return self.text.positional_embedding.device

    def encode_views(self, pixels: torch.Tensor) -> ImageFeatures:
        """Views of B images, (B, V, S, S, 3) uint8, to ImageFeatures (B, V, D) and (B, V, N, D)."""
        images = normalise(pixels.to(self.device).flatten(0, 1), self.mean, self.std)  # (B·V, 3, S, S)
        # (B·V, …) -> (B, V, …)
        return ImageFeatures(*(f.unflatten(0, pixels.shape[:2]) for f in self.image(images)))


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
        device: where the towers go.

    Raises:
        FileNotFoundError: no such file, or the weights could not be downloaded; says what to fetch and where to put it.
        ValueError: an unknown or unsupported model, weights that do not fit it, or the wrong activation.
    """
    config = _model_config(model) if model else {}
    source = pretrained_source(model, pretrained) if model and (pretrained or not weights) else {}
    path = find_weights(model, pretrained, weights)
    sha256 = file_sha256(path)
    state, metadata = read_weights(path, sha256, trust_torchscript)
    activation = metadata.get("activation") or ("quick_gelu" if config.get("quick_gelu", not model) else "gelu")
    trained_with_quick_gelu = source.get("quick_gelu", False) or sha256 in published_sha256()
    if trained_with_quick_gelu and activation != "quick_gelu":
        raise ValueError(
            f"clip.model: {model} computes GELU, but these weights were trained with QuickGELU and would give wrong "
            f"features; use clip.model={model}-quickgelu, or set clip.pretrained=null if the file is not of {pretrained}"
        )
    if activation not in ACTIVATIONS:
        raise ValueError(f"{path}: expected activation {' or '.join(ACTIVATIONS)}, got {activation!r}")
    try:
        image, text = build(state, activation, **_heads(config, metadata))
    except KeyError as missing:
        raise ValueError(f"{path}: these weights are not a CLIP ViT, or a part of one: there is no tensor {missing}") from None
    if config:
        _check_sizes(model, config, image, text)
    for tower in (image, text):
        tower.to(device).eval().requires_grad_(False)
    mean, std = (tuple(source.get(key, default)) for key, default in (("mean", MEAN), ("std", STD)))
    return Clip(text, image, model or metadata.get("model", path.stem), sha256, mean, std)


def build(
    state: dict[str, torch.Tensor],
    activation: str = "quick_gelu",
    vision_heads: int | None = None,
    text_heads: int | None = None,
) -> tuple[ImageEncoder, TextEncoder]:
    """Towers from a state dict with OpenAI's tensor names; all sizes are read off the tensors.

    Args:
        state: tensors by name; left as it is.
        activation: "quick_gelu" or "gelu".
        vision_heads, text_heads: attention heads; default width // 64.

    Returns:
        (ImageEncoder, TextEncoder), float32, on the CPU.

    Raises:
        ValueError: these are no weights of a CLIP ViT, or of one that the towers do not compute.
        KeyError: a tensor is missing from which a size is read.
    """
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    if "visual.class_embedding" not in state:
        raise ValueError("these weights are not a CLIP ViT: there is no tensor visual.class_embedding")
    if "token_embedding.rows" in state:  # a compact vocabulary: known rows, then one row for all other tokens
        rows, known = state.pop("token_embedding.rows"), state["token_embedding.weight"]
        full = known[-1].repeat(tokenizer().vocab_size, 1)  # (width,) -> (vocabulary, width)
        full[rows.long()] = known[:-1]
        state["token_embedding.weight"] = full
    visual = {k.removeprefix("visual."): v for k, v in state.items() if k.startswith("visual.")}
    textual = {k: v for k, v in state.items() if not k.startswith("visual.")}
    for name in ("logit_scale", "logit_bias", "attn_mask", "input_resolution", "context_length", "vocab_size"):
        textual.pop(name, None)  # scores here are plain cosines
    width, _, patch, _ = visual["conv1.weight"].shape
    image = ImageEncoder(
        image_size=round((len(visual["positional_embedding"]) - 1) ** 0.5) * patch,
        patch=patch,
        width=width,
        heads=vision_heads or width // HEAD_WIDTH,
        embed_dim=visual["proj"].shape[1],
        activation=activation,
        **_depth(visual),
    )
    vocabulary, width = textual["token_embedding.weight"].shape
    text = TextEncoder(
        width=width,
        heads=text_heads or width // HEAD_WIDTH,
        embed_dim=textual["text_projection"].shape[1],
        context=len(textual["positional_embedding"]),
        vocabulary=vocabulary,
        activation=activation,
        **_depth(textual),
    )
    for tower, tensors in ((image, visual), (text, textual)):
        try:
            tower.load_state_dict(tensors)
        except RuntimeError as error:
            raise ValueError(f"these weights are not a CLIP that this code computes: {error}") from None
    return image, text


def _heads(config: dict[str, Any], metadata: dict[str, str]) -> dict[str, int]:
    """Head counts as `build` takes them: the file's metadata wins over open_clip's configuration."""
    heads = {}
    if config:
        vision = config["vision_cfg"]
        heads["vision_heads"] = vision["width"] // vision.get("head_width", HEAD_WIDTH)
        heads["text_heads"] = config["text_cfg"]["heads"]
    return heads | {key: int(metadata[key]) for key in ("vision_heads", "text_heads") if key in metadata}


def _depth(state: dict[str, torch.Tensor]) -> dict[str, int]:
    layers = {int(k.split(".")[2]) for k in state if k.startswith("transformer.resblocks.")}
    return {"layers": len(layers), "mlp_width": len(state["transformer.resblocks.0.mlp.c_fc.weight"])}


def _model_config(model: str) -> dict[str, Any]:
    config = open_clip.get_model_config(model) if ":" not in model else None  # hub addresses are files, not models
    if config is None:
        raise ValueError(f"clip.model: open_clip knows no model {model!r}; see open_clip.list_models()")
    odd = set(config["vision_cfg"]) - VISION_SETTINGS | set(config["text_cfg"]) - TEXT_SETTINGS
    odd |= set(config) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
    if odd or not isinstance(config["vision_cfg"]["layers"], int):
        raise ValueError(f"clip.model: {model} is not a plain CLIP ViT ({', '.join(sorted(odd)) or 'it is a ResNet'})")
    return config


def _check_sizes(model: str, config: dict[str, Any], image: ImageEncoder, text: TextEncoder) -> None:
    vision, language = config["vision_cfg"], config["text_cfg"]
    expected = (
        vision["image_size"], vision["width"], vision["layers"], vision["patch_size"],
        language["width"], language["layers"], config["embed_dim"],
    )  # fmt: skip
    found = (
        image.image_size, len(image.class_embedding), len(image.transformer["resblocks"]), image.conv1.kernel_size[0],
        text.positional_embedding.shape[1], len(text.transformer["resblocks"]), text.text_projection.shape[1],
    )  # fmt: skip
    if expected != found:
        raise ValueError(
            f"the weights are not a {model}: expected image size, vision width, layers, patch, text width, layers, "
            f"embedding size {expected}, got {found}; set clip.model to the right name, or to null to trust the file"
        )
