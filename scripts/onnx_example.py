"""The best five classes of a photo by an exported model.onnx: `python onnx_example.py model.onnx photo.jpg`.

Needs onnxruntime, numpy and Pillow alone; copy it. The model takes the photo whole and cut into snippets, as bytes.
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
known = {key: json.loads(value) for key, value in session.get_modelmeta().custom_metadata_map.items()}
size, names = session.get_inputs()[0].shape[2], known["class_names"]
photo = ImageOps.exif_transpose(Image.open(sys.argv[2])).convert("RGB")
views, square = [photo.resize((size, size), Image.Resampling.BILINEAR)], photo.resize((size, size), Image.Resampling.BICUBIC)
for n in known["grids"]:
    side = size // n
    corners = [(column * side, row * side) for row in range(n) for column in range(n)]
    views += [square.crop((x, y, x + side, y + side)).resize((size, size), Image.Resampling.BILINEAR) for x, y in corners]
scores = session.run(None, {"views": np.stack([np.asarray(view) for view in views])[None]})[0][0]
for c in np.argsort(-scores, kind="stable")[:5]:
    print(f"{scores[c]:.6f} {names[c]}")
