"""The two towers, built from the tensors of a weights file, once these are found to fit."""

import math
from typing import Any

import torch
from torch import nn

from rcnn.clip.image_tower import ImageEncoder
from rcnn.clip.text_tower import TextEncoder
from rcnn.clip.tokens import tokenizer
from rcnn.printing import cut

HEAD_WIDTH = 64  # of every ViT that OpenAI published; other widths come from open_clip's config or the file's metadata
# tensors of a weights file that no feature depends on; scores here are plain cosines
NOT_READ = {"logit_scale", "logit_bias", "attn_mask", "input_resolution", "context_length", "vocab_size"}
ROWS = "token_embedding.rows"  # of a compact vocabulary: token numbers of all rows but the last, which serves all others
LEAST_CONTEXT = 8  # tokens: start, "a photo of a", one of a class name, full stop, end
# far beyond any CLIP; a file with more of one would take hours or terabytes
MOST_CONTEXT, MOST_LAYERS, MOST_GRID, MOST_IMAGE_SIZE = 1024, 256, 128, 2048


def build(
    state: dict[str, torch.Tensor],
    activation: str = "quick_gelu",
    vision_heads: int | None = None,
    text_heads: int | None = None,
) -> tuple[ImageEncoder, TextEncoder]:
    """Towers in float32, on the CPU, from tensors under OpenAI's names; sizes are read off the tensors.

    Without `vision_heads` or `text_heads` a tower has width // 64 attention heads.

    Raises:
        ValueError: these are no weights of a CLIP ViT, or of one that the towers do not compute, or damaged ones.
    """
    state = {name: tensor for name, tensor in state.items() if name not in NOT_READ}
    for name, tensor in state.items():
        _must_be_dense(name, tensor)
    rows, (image_sizes, text_sizes) = state.pop(ROWS, None), sizes(state)
    least, found = tokenizer().vocab_size, text_sizes["vocabulary"]
    _expect(rows is not None or found >= least, "token_embedding.weight", f"at least {least} rows", found)
    image_heads = _heads("visual.proj", image_sizes["width"], vision_heads)
    text_heads = _heads("text_projection", text_sizes["width"], text_heads)
    with torch.device("meta"):  # shapes alone: nothing is allocated before the tensors are found to fit
        image = ImageEncoder(**image_sizes, heads=image_heads, activation=activation)
        text = TextEncoder(**text_sizes, heads=text_heads, activation=activation)
    _must_fit(state, {f"visual.{name}": tensor for name, tensor in image.state_dict().items()} | text.state_dict())
    for prefix, tower in (("visual.", image), ("", text)):
        tower.to_empty(device="cpu")
        tower.load_state_dict({name: state[prefix + name] for name in tower.state_dict()})
        for name, tensor in tower.state_dict().items():
            low, high = tensor.aminmax()  # both are NaN if any number is
            _expect(low.isfinite() and high.isfinite(), prefix + name, "finite numbers", "others")
    if rows is not None:
        full = _whole_vocabulary(text.token_embedding.weight.detach(), rows)
        text.token_embedding = nn.Embedding.from_pretrained(full, freeze=False)
    return image, text


def sizes(state: dict[str, torch.Tensor]) -> tuple[dict[str, int], dict[str, int]]:
    """What the towers of image and text read off the shapes of their tensors: arguments of ImageEncoder and TextEncoder."""
    _shape(state, "visual.class_embedding", 1)  # a ResNet has none
    patch = _shape(state, "visual.conv1.weight", 4)[-1]
    patches = _shape(state, "visual.positional_embedding", 2)[0] - 1
    grid = math.isqrt(patches)
    _expect(grid**2 == patches > 0, "visual.positional_embedding", "1 + a square number of rows", patches + 1)
    _expect(grid <= MOST_GRID, "visual.positional_embedding", f"at most {MOST_GRID} patches on a side", grid)
    image_size = grid * patch
    _expect(image_size <= MOST_IMAGE_SIZE, "visual.conv1.weight", f"images of at most {MOST_IMAGE_SIZE} pixels", image_size)
    context = _shape(state, "positional_embedding", 2)[0]
    _expect(
        LEAST_CONTEXT <= context <= MOST_CONTEXT, "positional_embedding", f"{LEAST_CONTEXT} to {MOST_CONTEXT} rows", context
    )
    both = []
    for projection, blocks in (("visual.proj", "visual.transformer.resblocks."), ("text_projection", "transformer.resblocks.")):
        layers = sum(name.startswith(blocks) and name.endswith(".ln_1.weight") for name in state)
        _expect(layers <= MOST_LAYERS, blocks[:-1], f"at most {MOST_LAYERS} blocks", layers)
        width, embed_dim = _shape(state, projection, 2)
        mlp_width = _shape(state, f"{blocks}0.mlp.c_fc.weight", 2)[0]
        both.append({"width": width, "layers": layers, "mlp_width": mlp_width, "embed_dim": embed_dim})
    image, text = both
    _expect(image["embed_dim"] == text["embed_dim"], "text_projection", f"{image['embed_dim']} columns", text["embed_dim"])
    vocabulary = _shape(state, "token_embedding.weight", 2)[0]
    return image | {"image_size": image_size, "patch": patch}, text | {"context": context, "vocabulary": vocabulary}


def _heads(projection: str, width: int, heads: int | None) -> int:
    """How many attention heads a tower has, which no shape says."""
    heads = heads or width // HEAD_WIDTH
    _expect(heads and width % heads == 0, projection, f"a number of attention heads that divides its {width} rows", heads)
    return heads


def _expect(condition: Any, tensor: str, expected: str, found: Any) -> None:
    if not condition:
        raise ValueError(f"{cut(tensor)}: expected {expected}, got {cut(str(found))}")


def _must_be_dense(name: str, tensor: torch.Tensor) -> None:
    """ValueError for a tensor that is not there in full: sparse, without data, or one number that stands for many."""
    dense = tensor.layout == torch.strided and not tensor.is_meta and tensor.nbytes <= tensor.untyped_storage().nbytes()
    _expect(dense, name, "a dense tensor", "another")
    _expect(tensor.is_floating_point() or name == ROWS, name, "floating-point numbers", tensor.dtype)


def _shape(state: dict[str, torch.Tensor], name: str, dimensions: int) -> tuple[int, ...]:
    """The shape of a tensor from which sizes are read."""
    if name not in state:
        raise ValueError(f"these weights are not a CLIP ViT, or a part of one: there is no tensor {name}")
    shape = tuple(state[name].shape)
    _expect(len(shape) == dimensions and 0 not in shape, name, f"{dimensions} dimensions, none of them empty", shape)
    return shape


def _must_fit(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """ValueError unless the tensors are those expected, by name and shape."""
    wrong = [f"there is no {name}" for name in expected if name not in state]
    wrong += [f"{cut(name)} is not known" for name in state if name not in expected]
    wrong += [
        f"{name} has shape {tuple(state[name].shape)}, not {tuple(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    if wrong:
        raise ValueError(f"these weights are not a CLIP that this code computes: {cut('; '.join(wrong))}")


def _whole_vocabulary(known: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
    """Embeddings of all tokens, (V, width), from those of the tokens `rows` and then one for all others, (R + 1, width)."""
    count, size = len(known) - 1, tokenizer().vocab_size
    expected = f"{count} different whole numbers from 0 to {size - 1}"
    _expect(not rows.is_floating_point() and not rows.is_complex(), ROWS, expected, rows.dtype)
    rows = rows.long()
    good = rows.shape == (count,) and ((rows >= 0) & (rows < size)).all() and len(rows.unique()) == count
    _expect(good, ROWS, expected, "others")
    full = known[-1].repeat(size, 1)  # (width,) -> (V, width)
    full[rows] = known[:-1]
    return full
