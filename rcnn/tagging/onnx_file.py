"""A tagger as one ONNX file: from views of images, pixels as they are, to scores, with MSSA inside."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

from rcnn.files import replace_file
from rcnn.score import mssa
from rcnn.tagging.labels import full_names

if TYPE_CHECKING:
    from rcnn.tagger import Tagger

TOLERANCE = 1e-4  # of a score, between ONNX Runtime and ours
MOST = 2**31  # bytes of an ONNX file, as of all protocol buffers


class Scores(nn.Module):
    """(B, V, S, S, 3) uint8 views, in the order of rcnn.score.views, to (B, C) scores."""

    def __init__(self, tagger: "Tagger") -> None:
        super().__init__()
        self.encode, self.image, self.evaluate = tagger.model.encode_views, tagger.model.image, tagger.settings.evaluate
        self.register_buffer("class_embeddings", tagger.class_embeddings)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return mssa.score(self.encode(views), self.class_embeddings, self.evaluate.grids, self.evaluate.temperature).total


def write(tagger: "Tagger", path: Path) -> float:
    """Write the file, with names, thresholds and grids in its metadata.

    Args:
        tagger: on the CPU, in float32.

    Returns:
        The largest difference from our scores, on noise in batches of one and of three images.

    Raises:
        ValueError: a package is absent, the file would be too large, or the difference exceeds TOLERANCE.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401, which torch's exporter needs
    except ImportError as error:
        raise ValueError(f"--onnx needs the package {error.name}; pip install '.[onnx]' in a checkout") from None
    model, size, cutoffs = Scores(tagger).eval(), tagger.model.image.image_size, tagger.cutoffs
    if (needed := sum(p.nbytes for p in [*model.parameters(), *model.buffers()])) > MOST - 2**24:
        raise ValueError(f"--onnx: expected at most 2 GB of weights, as one file holds, got {needed / 1e9:.1f} GB")
    grids, batch = tagger.settings.evaluate.grids, {0: torch.export.Dim("batch")}
    noise = torch.randint(256, (3, 1 + sum(n * n for n in grids), size, size, 3), generator=torch.Generator().manual_seed(0))
    noise = noise.to(torch.uint8)
    with torch.no_grad():
        expected = model(noise).numpy()
        traced = torch.export.export(model, (noise[:2],), dynamic_shapes=(batch,), strict=True)  # else len() is a constant
        program = torch.onnx.export(traced, input_names=["views"], output_names=["scores"], dynamo=True, verbose=False)
    proto = program.model_proto
    for node in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        node.ClearField("metadata_props")  # where in whose folders the code lies
        node.ClearField("doc_string")
    del proto.graph.value_info[:]
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    facts = {
        "class_names": full_names(tagger.class_names, tagger.notes),
        "thresholds": cutoffs.thresholds.tolist() if cutoffs else None,
        "grids": list(grids),
    }
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in facts.items()})
    data = proto.SerializeToString()
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    found = np.concatenate([session.run(None, {"views": part.numpy()})[0] for part in (noise[:1], noise)])
    difference = float(np.abs(found - np.concatenate([expected[:1], expected])).max())
    if not difference <= TOLERANCE:
        raise ValueError(f"--onnx: ONNX Runtime's scores differ from ours by {difference:.1e}, more than {TOLERANCE}")
    with replace_file(path) as file:
        file.write(data)
    return difference
