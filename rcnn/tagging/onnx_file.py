"""A tagger as one ONNX file: from views of images, pixels as they are, to scores, with MSSA inside."""

import json
from typing import TYPE_CHECKING

import numpy as np
import torch

from rcnn.score import mssa

if TYPE_CHECKING:
    from rcnn.tagger import Tagger

TOLERANCE = 1e-4  # of a score, between ONNX Runtime and ours
MOST = 2.1e9  # bytes of weights that one ONNX file takes


class Scores(torch.nn.Module):
    """(B, V, S, S, 3) uint8 views, in the order of rcnn.score.views, to (B, C) scores."""

    def __init__(self, tagger: "Tagger") -> None:
        super().__init__()
        self.encode, self.image, self.settings = tagger.model.encode_views, tagger.model.image, tagger.settings.evaluate
        self.register_buffer("class_embeddings", tagger.class_embeddings)

    def forward(self, views: torch.Tensor) -> torch.Tensor:
        return mssa.score(self.encode(views), self.class_embeddings, self.settings.grids, self.settings.temperature).total


def convert(tagger: "Tagger") -> tuple[bytes, float]:
    """The file of a tagger on the CPU in float32, with names, thresholds and grids as JSON in its metadata.

    The second is its largest difference from our scores, on noise in batches of one and of three images. ValueError if it
    exceeds TOLERANCE, a package is absent, or there are too many weights for one file.
    """
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401, which torch's exporter needs
    except ImportError as error:
        raise ValueError(f"--onnx needs the package {error.name}; pip install '.[onnx]' in a checkout") from None
    model, size, grids = Scores(tagger).eval(), tagger.model.image.image_size, tagger.settings.evaluate.grids
    if (found := sum(tensor.nbytes for tensor in model.state_dict().values())) > MOST:
        raise ValueError(f"--onnx: expected at most {MOST / 1e9} GB of weights, which one file takes, got {found / 1e9:.1f} GB")
    noise = np.random.default_rng(0).integers(256, size=(3, 1 + sum(n * n for n in grids), size, size, 3), dtype=np.uint8)
    views, batch = torch.from_numpy(noise), {0: torch.export.Dim("batch")}
    with torch.no_grad():
        expected = model(views).numpy()
        traced = torch.export.export(model, (views[:2],), dynamic_shapes=(batch,), strict=True)  # else len() is a constant
        program = torch.onnx.export(traced, input_names=["views"], output_names=["scores"], dynamo=True, verbose=False)
    proto, cutoffs = program.model_proto, tagger.cutoffs
    for part in (proto.graph, *proto.graph.node, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        part.ClearField("metadata_props")  # in whose folders the code lies
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    names, thresholds = tagger.full_names, cutoffs.thresholds.tolist() if cutoffs else None
    facts = {"class_names": names, "thresholds": thresholds, "grids": grids}
    onnx.helper.set_model_props(proto, {key: json.dumps(value) for key, value in facts.items()})
    session = onnxruntime.InferenceSession(data := proto.SerializeToString(), providers=["CPUExecutionProvider"])
    found = [session.run(None, {"views": part})[0] for part in (noise[:1], noise)]
    difference = float(max(np.abs(scores - expected[: len(scores)]).max() for scores in found))
    if not difference <= TOLERANCE:
        raise ValueError(f"--onnx: ONNX Runtime's scores differ from ours by {difference:.1e}, more than {TOLERANCE}")
    return data, difference
