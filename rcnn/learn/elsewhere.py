"""Class embeddings that were made elsewhere, to be measured beside the rows of a run."""

from collections.abc import Callable
from itertools import zip_longest
from pathlib import Path

import torch
from pydantic import TypeAdapter
from safetensors import safe_open
from torch.nn import functional as F

from rcnn import checkpoint, functions
from rcnn.clip import Clip
from rcnn.files import must_be_regular
from rcnn.learn import class_embeddings
from rcnn.printing import explain, short
from rcnn.text import corpus
from rcnn.text.classes import ClassList

NAMES = TypeAdapter(list[str])


def read(
    source: str | Path, classes: ClassList, width: int, fingerprint: str, model: Callable[[], Clip], cache: str | None = None
) -> torch.Tensor:
    """Class embeddings from elsewhere, (C, D) float32 unit vectors.

    Args:
        source: a safetensors file with one tensor (C, D) and its metadata "class_names", a JSON list in the order of the class
            list; the class_embeddings.safetensors of another run, of which the method's row is taken; or a JSON file
            {class name: [sentences]}, of which the normalised mean is taken (CuPL's form); or "module:function", which is
            called with the list of class names and the CLIP and returns a tensor (C, D).
        width: D.
        fingerprint: of the CLIP of this run, which another run must share.
        model: called if sentences must be encoded, or for a function.

    Raises:
        ValueError: no such file, or one of other classes, of another CLIP, or of vectors that are none; a function that raises.
    """
    if functions.is_name(str(source)):
        z = functions.load(str(source))(list(classes.names), model())
        if not isinstance(z, torch.Tensor):
            raise ValueError(f"{source}: expected a tensor of class embeddings {(len(classes), width)}, got {short(z)}")
        return _checked(source, z.detach().cpu(), len(classes), width)
    path = Path(source)
    if path.suffix == ".json":
        sentences = corpus.from_sentences(path, classes)
        return class_embeddings.mean(corpus.encode(model(), sentences, cache))
    z, names, theirs = _read_tensor(path)
    if theirs not in (None, fingerprint):
        raise ValueError(f"{path}: this run was learned with another CLIP, so its class embeddings lie in another space")
    pairs = enumerate(zip_longest(classes.names, names, fillvalue=""))
    if different := next(((i, pair) for i, pair in pairs if pair[0].lower() != pair[1].lower()), None):
        place, (ours, theirs) = different
        raise ValueError(
            f"{path}: expected the run's {len(classes)} classes in its order, found {len(names)}; "
            f"class {place} is {short(ours)} in the run and {short(theirs)} here"
        )
    return _checked(path, z, len(classes), width)


def _checked(source, z, num_classes, width):
    if z.shape != (num_classes, width):
        raise ValueError(f"{source}: expected class embeddings of shape {(num_classes, width)}, got {tuple(z.shape)}")
    if not z.is_floating_point():
        raise ValueError(f"{source}: expected class embeddings of floating-point numbers, got {z.dtype}")
    z = F.normalize(z.float(), dim=1)
    if not (z.norm(dim=1) > 0.99).all():  # NaN, infinite, zero, or too small for float32
        raise ValueError(f"{source}: expected finite class embeddings other than zero")
    return z


def _read_tensor(path):
    """(class embeddings, class names, fingerprint of their CLIP or None) of a tensor with names, or of a run."""
    must_be_regular(path)
    try:
        with safe_open(path, framework="pt") as file:
            keys, metadata = list(file.keys()), file.metadata() or {}
            if "metadata" not in metadata:
                (key,) = keys
                return file.get_tensor(key), NAMES.validate_json(metadata["class_names"]), None
        rows, metadata = checkpoint.read(path)
        return rows[metadata["method"]], NAMES.validate_python(metadata["class_names"]), metadata["identity"]["clip"]
    except Exception as error:  # a damaged file, a type that torch lacks, metadata of another form
        raise ValueError(
            f'{path}: expected a safetensors file of one tensor (C, D) with the metadata "class_names", a JSON list; or the '
            f"class_embeddings.safetensors of a run ({explain(error)})"
        ) from None
