#!/usr/bin/env python
"""Compare the features that two copies of CLIP's weights give, such as OpenAI's archive and the hub's safetensors.

    python scripts/check_weights.py ViT-B-16.pt open_clip_model.safetensors
    python scripts/check_weights.py A.pt B.safetensors --model ViT-B-16     # open_clip's name; without it the files' own sizes

Prints the largest difference of text, global and local features over a few sentences and made-up images. Exit 1 if one
passes 1e-6.
"""

import argparse
import sys
from pathlib import Path

import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rcnn import cli, clip

TOLERANCE = 1e-6
SENTENCES = ["a photo of a dog.", "a dog, which has a wagging tail.", "Traffic lights; 2 of them (red)!", ""]
IMAGES = 4


def features(path, model):
    """Text (M, D), global (B, D) and local (B, N, D) features of the weights at `path`."""
    loaded = clip.load(model, None, path)
    noise = torch.rand(IMAGES, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    pictures = F.interpolate(noise, (loaded.image.image_size,) * 2, mode="bicubic").clamp(0, 1).mul(255).byte()
    views = loaded.encode_views(pictures.movedim(1, -1)[:, None])  # (B, 3, S, S) -> (B, 1, S, S, 3)
    return {
        "text": loaded.text.encode(clip.tokenize(SENTENCES)),
        "global": views.global_features[:, 0],
        "local": views.local_features[:, 0],
    }


@torch.inference_mode()
def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs=2, type=Path, metavar="FILE", help="weights, in any format that clip.weights takes")
    parser.add_argument("--model", help="open_clip's name of the ViT, where the files do not say heads and activation")
    args = parser.parse_args(argv)
    one, other = (features(path, args.model) for path in args.files)
    equal = True
    for kind in one:
        if one[kind].shape != other[kind].shape:
            raise ValueError(
                f"expected two copies of one model, got {kind} features of shape {tuple(one[kind].shape)} from "
                f"{args.files[0]} and {tuple(other[kind].shape)} from {args.files[1]}"
            )
        difference = (one[kind] - other[kind]).abs().max().item()
        equal &= difference <= TOLERANCE  # false for NaN
        print(f"{kind + ' features':16} {difference:.1e}")
    print(f"the files give {'the same' if equal else 'different'} features")
    return int(not equal)


if __name__ == "__main__":
    cli.run(main)
