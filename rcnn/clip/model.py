"""The frozen CLIP: find the weights, check them, and build the two towers from their tensors."""

import hashlib
import json
import sys
import warnings
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import open_clip
import torch
from open_clip.pretrained import _PRETRAINED, download_pretrained, get_pretrained_cfg
from safetensors import SafetensorError, safe_open

from rcnn.clip.image_tower import ImageEncoder, ImageFeatures, normalise
from rcnn.clip.text_tower import TextEncoder
from rcnn.clip.transformer import ACTIVATIONS

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
    mean: tuple  # of the three colour channels, in [0, 1]
    std: tuple

    @property
    def fingerprint(self):
        """SHA-256 of all that features depend on: the weights, and how they are computed with."""
        first = [tower.transformer["resblocks"][0] for tower in (self.text, self.image)]
        computed = [[block.attn.heads, block.activation.__name__] for block in first]
        return hashlib.sha256(json.dumps([self.sha256, computed, self.mean, self.std]).encode()).hexdigest()

    @property
    def device(self):
        return self.text.positional_embedding.device

    def encode_views(self, pixels):
        """Views of B images, (B, V, S, S, 3) uint8, to ImageFeatures (B, V, D) and (B, V, N, D)."""
        images = normalise(pixels.to(self.device).flatten(0, 1), self.mean, self.std)
        return ImageFeatures(*(f.unflatten(0, pixels.shape[:2]) for f in self.image(images)))


def load(model="ViT-B-16-quickgelu", pretrained="openai", weights=None, trust_torchscript=False, device="cpu"):
    """Load a CLIP ViT.

    Args:
        model: a name of open_clip ("ViT-B-16-quickgelu"), or None to take every size from the file `weights`.
        pretrained: open_clip's tag of the weights; they are downloaded unless `weights` names a file.
        weights: a local file: OpenAI's TorchScript archive, a state dict of torch, or safetensors.
        trust_torchscript: open a TorchScript archive although its SHA-256 is none that OpenAI published. Such an
            archive is a program: loading it runs it.
        device: where the towers go.

    Returns:
        Clip

    Raises:
        FileNotFoundError: no such file, or the weights could not be downloaded; says what to fetch and where to put it.
        ValueError: an unknown or unsupported model, weights that do not fit it, or the wrong activation.
    """
    config = _model_config(model) if model else {}
    source = _published(model, pretrained) if model and (pretrained or not weights) else {}
    path = find_weights(model, pretrained, weights)
    sha256 = file_sha256(path)
    state, metadata = _read(path, sha256, trust_torchscript)
    activation = metadata.get("activation") or ("quick_gelu" if config.get("quick_gelu", not model) else "gelu")
    trained_with_quick_gelu = source.get("quick_gelu", False) or sha256 in _openai_hashes()
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


def find_weights(model, pretrained, weights):
    """Path of the weights that `load` would read; they are downloaded if they are nowhere yet."""
    if not weights and not model:
        raise ValueError("clip: expected a model name or a file; set clip.weights=FILE or clip.model=NAME")
    path = Path(weights) if weights else _download(model, pretrained, _published(model, pretrained))
    if not path.is_file():
        raise FileNotFoundError(f"clip.weights: there is no file {path}")
    return path


def build(state, activation="quick_gelu", vision_heads=None, text_heads=None):
    """Towers from a state dict with OpenAI's tensor names; all sizes are read off the tensors.

    Args:
        state: name -> tensor.
        activation: "quick_gelu" or "gelu".
        vision_heads, text_heads: attention heads; default width // 64.

    Returns:
        (ImageEncoder, TextEncoder), float32, on the CPU.
    """
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    if "visual.class_embedding" not in state:
        raise ValueError("these weights are not a CLIP ViT: there is no tensor visual.class_embedding")
    if "token_embedding.rows" in state:  # a compact vocabulary: known rows, then one row for all other tokens
        rows, known = state.pop("token_embedding.rows"), state["token_embedding.weight"]
        full = known[-1].repeat(tokenizer().vocab_size, 1)
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


def _heads(config, metadata):
    """Head counts as `build` takes them: the file's metadata wins over open_clip's configuration."""
    heads = {}
    if config:
        vision = config["vision_cfg"]
        heads["vision_heads"] = vision["width"] // vision.get("head_width", HEAD_WIDTH)
        heads["text_heads"] = config["text_cfg"]["heads"]
    return heads | {key: int(metadata[key]) for key in ("vision_heads", "text_heads") if key in metadata}


def _depth(state):
    layers = {int(k.split(".")[2]) for k in state if k.startswith("transformer.resblocks.")}
    return {"layers": len(layers), "mlp_width": len(state["transformer.resblocks.0.mlp.c_fc.weight"])}


@cache
def tokenizer():
    """CLIP's byte-pair tokenizer (49,408 tokens), as open_clip ships it."""
    return open_clip.tokenizer.SimpleTokenizer()


def tokenize(sentences, context=77):
    """Token rows of sentences.

    Args:
        sentences: list of M strings.
        context: longest row, with the start and end tokens.

    Returns:
        (M, context) int64, zero after the end-of-text token.

    Raises:
        ValueError: a sentence has more than `context` tokens. CLIP's own tokenizer would cut it without a word.
    """
    bpe = tokenizer()
    rows = torch.zeros(len(sentences), context, dtype=torch.int64)
    for i, sentence in enumerate(sentences):
        tokens = [bpe.sot_token_id, *bpe.encode(sentence), bpe.eot_token_id]
        if len(tokens) > context:
            raise ValueError(f"a sentence has {len(tokens)} tokens, CLIP takes {context}; shorten it: {sentence!r}")
        rows[i, : len(tokens)] = torch.tensor(tokens)
    return rows


def file_sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path, sha256, trust_torchscript):
    """(state dict, metadata) of a weights file."""
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, framework="pt") as file:
                return {k: file.get_tensor(k) for k in file.keys()}, file.metadata() or {}  # noqa: SIM118
        except SafetensorError as error:
            raise ValueError(f"{path} is not a safetensors file, perhaps only half downloaded: {error}") from None
    if _is_torchscript(path):
        if sha256 not in _openai_hashes() and not trust_torchscript:
            raise ValueError(
                f"{path} is a TorchScript archive, a program that runs on loading, and its SHA-256 {sha256} is none "
                "that OpenAI published; if you trust its source set clip.trust_torchscript=true"
            )
        with warnings.catch_warnings():  # torch calls the format old; it is the one OpenAI published
            warnings.filterwarnings("ignore", message=".*torch.jit")
            return torch.jit.load(path, map_location="cpu").state_dict(), {}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds for a file that is not its own
        raise ValueError(f"{path} holds no state dict that loads with weights_only=True: {error}") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(k, str) and torch.is_tensor(v) for k, v in state.items()):
        raise ValueError(f"{path} holds no state dict: expected tensors by name")
    return {k.removeprefix("module."): v for k, v in state.items()}, {}


def _is_torchscript(path):
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


@cache
def _openai_hashes():
    """SHA-256 of the archives OpenAI published; each stands in its download address."""
    addresses = (tag.get("url", "") for tags in _PRETRAINED.values() for tag in tags.values())
    return {url.split("/")[-2] for url in addresses if "openaipublic" in url}


def _model_config(model):
    config = open_clip.get_model_config(model) if ":" not in model else None  # hub addresses are files, not models
    if config is None:
        raise ValueError(f"clip.model: open_clip knows no model {model!r}; see open_clip.list_models()")
    odd = set(config["vision_cfg"]) - VISION_SETTINGS | set(config["text_cfg"]) - TEXT_SETTINGS
    odd |= set(config) - {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu"}
    if odd or not isinstance(config["vision_cfg"]["layers"], int):
        raise ValueError(f"clip.model: {model} is not a plain CLIP ViT ({', '.join(sorted(odd)) or 'it is a ResNet'})")
    return config


def _published(model, pretrained):
    source = get_pretrained_cfg(model, pretrained or "")
    if not source:
        tags = ", ".join(open_clip.list_pretrained_tags_by_model(model)) or "none"
        raise ValueError(f"clip.pretrained: there are no weights {pretrained!r} for {model}; there are: {tags}")
    return source


def _download(model, pretrained, source):
    address = source["url"] or f"hf-hub:{source['hf_hub']}"
    print(f"CLIP weights: {model} {pretrained} (from {address}, or the local cache)", file=sys.stderr)
    try:
        # OpenAI's own address carries the checksum; others live on the hub
        return Path(download_pretrained(source, prefer_hf_hub="openaipublic" not in source["url"]))
    except Exception as error:  # urllib, the hub's client and the checksum test each raise their own kinds
        name = Path(address).name if source["url"] else "the file of its weights"
        raise FileNotFoundError(
            f"no CLIP weights: {model} ({pretrained}) could not be downloaded ({error}).\n"
            f"  On a machine with internet fetch {address}\n"
            f"  then set clip.weights=/path/to/{name}"
        ) from None


def _check_sizes(model, config, image, text):
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
