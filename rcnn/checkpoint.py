"""What learning leaves behind: its state after the last epoch, the class embeddings of every epoch, and the run's rows.

All are safetensors files with a JSON text in their metadata, each written whole or not at all.
"""

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from rcnn.files import replace_file

EMBEDDINGS = "class_embeddings.safetensors"


def write(path, tensors, **facts):
    """Write named tensors and JSON-able facts."""
    facts = json.dumps({"order": list(tensors), **facts})  # safetensors sorts its tensors
    data = save({k: v.detach().cpu().contiguous() for k, v in tensors.items()}, {"facts": facts})
    with replace_file(path) as file:
        file.write(data)


def read(path):
    """(tensors, facts) that `write` wrote."""
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}")
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads(file.metadata()["facts"])
            return {name: file.get_tensor(name) for name in facts.pop("order")}, facts
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a file of this project, or a cut one: {error!r}") from None


def read_run(folder):
    """Rows and facts of a finished run.

    Returns:
        (rows, facts): name -> (C, D) class embeddings; class names, split, weights and what the method's own row is.
    """
    path = Path(folder) / EMBEDDINGS
    if not path.is_file():
        raise FileNotFoundError(f"{folder} is no finished run (there is no {path.name}); make one with python -m rcnn.train")
    return read(path)
