#!/usr/bin/env python
"""Compare this project's modules with values computed by the authors' code, the paper's or TagCLIP's.

    python scripts/check_golden.py tests/golden/*.npz

Every file holds expected outputs, some inputs, and the seed from which weights, images and starting vectors are rebuilt
(tests/golden/recipe.py); its metadata say whose values they are. Printed per quantity: the largest error, of the paper's
relative to the quantity's largest magnitude, of TagCLIP's as it is. Exit 1 if one passes 1e-5; an error if a stored quantity is
neither an input nor compared.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "golden")]

import recipe

from rcnn import clip
from rcnn.clip import image_tower
from rcnn.clip.image_tower import ImageFeatures
from rcnn.learn import class_embeddings, losses
from rcnn.learn.optimise import learning_rates, new_optimiser, step
from rcnn.learn.prompt_learner import PromptLearner
from rcnn.results import metrics
from rcnn.score import mssa, tagclip, views
from rcnn.text import corpus
from rcnn.text.classes import ClassList

TOLERANCE = 1e-5
NEAR = 5e-6  # an attention so near to its layer's mean, relatively, is above or below it by rounding
INPUTS = {  # of a file of each kind; the rest is compared
    "paper": {"meta", "image_sizes", "predictions", "n_seen", "labels_pm1", "labels_pm1_unknown"},
    "tagclip": {"meta", "class_embeddings", "synthetic_refined", "maps"},
}


class Between(NamedTuple):
    """Bounds of what rounding decides; the nearest value within them is compared."""

    low: torch.Tensor
    high: torch.Tensor


def kind_of(golden):
    """Key of INPUTS: only TagCLIP's files have names of a background."""
    return "tagclip" if "background" in json.loads(str(golden["meta"])) else "paper"


def towers(meta):
    """Image and text tower with the weights of a file."""
    state = {k: torch.tensor(v) for k, v in recipe.clip_weights(meta["case"], meta["seed"]).items()}
    return (tower.eval().requires_grad_(False) for tower in clip.build(state))


def recompute(inputs):
    """Yield (name, ours) for every expected array of a file, of which `inputs` holds the INPUTS alone."""
    return (recompute_tagclip if kind_of(inputs) == "tagclip" else recompute_paper)(inputs)


def recompute_paper(inputs):
    meta = json.loads(str(inputs["meta"]))
    seed, grids, weight = meta["seed"], meta["counts"], meta["pair_weight"]
    image, text = towers(meta)

    sentences = [sentence for sentence, _ in recipe.CAPTIONS]
    targets = torch.tensor([c for _, c in recipe.CAPTIONS]) % meta["classes"]
    tokens = clip.tokenize(sentences)
    t = text.encode(tokens)
    yield from {"caption_tokens": tokens, "targets": targets, "caption_features": t}.items()

    start = torch.from_numpy(recipe.class_vectors(seed, meta["classes"], meta["tokens"], text.positional_embedding.shape[1]))

    def learner():
        names = PromptLearner(text, meta["classes"], meta["tokens"])
        names.class_vectors.data = start.clone()
        return names

    names = learner()
    z = names()
    mse, pairs = losses.reconstruction_loss(z, t, targets), losses.pair_loss(z)
    loss = mse + weight * pairs
    loss.backward()
    yield from {"class_embeddings": z, "mse": mse, "pair_loss": pairs, "loss": loss}.items()
    yield "grad", names.class_vectors.grad

    for speed, rate in (("paper", 1e-4), ("fast", 5e-2)):
        names = learner()
        optimiser = new_optimiser(names, momentum=0.9, weight_decay=5e-4)
        rates, trace = learning_rates(6, rate, warmup=1e-5), []
        for rate in rates:
            for half in (slice(0, 8), slice(8, 16)):
                trace.append(step(names, optimiser, t[half], targets[half], weight, rate))
        yield from {f"lr_{speed}": rates, f"losses_{speed}": trace, f"clsn_{speed}": names.class_vectors}.items()
    yield "lr_30_epochs", learning_rates(30, 1e-4, warmup=1e-5)

    sizes = enumerate(inputs["image_sizes"])
    pictures = [Image.fromarray(recipe.image(seed, i, int(height), int(width))) for i, (height, width) in sizes]
    pixels = torch.stack(
        [image_tower.normalise(views.views(p, image.image_size, grids), clip.MEAN, clip.STD) for p in pictures]
    )  # (B, V, 3, S, S)
    yield "pixels_sample", pixels[:, 0, :, ::37, ::41]
    yield "snippet_sample", pixels[:, 1:, :, ::37, ::41].transpose(0, 1)
    with torch.no_grad():
        features = image(pixels.flatten(0, 1))
        features = ImageFeatures(*(f.unflatten(0, pixels.shape[:2]) for f in features))  # (B·V, …) -> (B, V, …)
        yield "global_features", features.global_features[:, 0]
        yield "local_features_sample", features.local_features[:, 0, ::7]
        maps = z @ features.local_features[:2, 0].mT
        yield "score_map", maps.unflatten(-1, (image.grid, image.grid))  # (B, C, N) -> (B, C, H, W)
        for name, used in (("logits_no_mssa", ()), ("logits_mssa", grids)):
            yield name, 20 * mssa.score(features, z, used).total  # the authors' scores are 20 times the cosines

    scores, seen = torch.from_numpy(inputs["predictions"]), int(inputs["n_seen"])
    for kind in ("pm1", "pm1_unknown"):
        labels = torch.from_numpy(inputs[f"labels_{kind}"])
        for task, first in (("zsl", seen), ("gzsl", 0)):
            some = (labels[:, first:] == 1).any(1)
            s, y = scores[some, first:], labels[some, first:]
            ap = metrics.average_precision(s, y)
            yield f"ap_{kind}_{task}", ap
            at_k = [metrics.precision_recall_f1(*metrics.top_k_hits(s, y, k)[:2], k) for k in (3, 5, 10)]
            yield f"metrics_{kind}_{task}", torch.cat([100 * ap.double().mean()[None], *at_k])


@torch.inference_mode()
def recompute_tagclip(inputs):
    meta = json.loads(str(inputs["meta"]))
    recipe.CASES[meta["case"]] = meta["shape"]
    tower, text = towers(meta)
    count, scale = meta["classes"], meta["logit_scale"]
    texts = torch.from_numpy(inputs["class_embeddings"])
    names = tagclip.templates(ClassList(tuple(meta["text_names"]), 0))
    features = text.encode(clip.tokenize(names.sentences))
    yield "text_features", class_embeddings.mean(corpus.EncodedCorpus(features, names.targets, names.num_classes))

    scores, before = [], []
    for j, (i, height, width) in enumerate(meta["images"]):
        picture = Image.fromarray(recipe.image(meta["seed"], i, height, width))
        image = image_tower.normalise(tagclip.resized(picture, tower.conv1.kernel_size[0]), clip.MEAN, clip.STD)
        grid = tagclip.grid_of(tower, image)
        seen = features, attention, votes = tagclip.look(tower, image)
        by_layer = [layer.attention for layer in tagclip.layers(tower, image)]
        among_patches = [a[1:, 1:] for a in by_layer]
        probabilities = (scale * features[1:] @ texts.T).softmax(-1)
        refined_once = attention @ probabilities
        boxes = tagclip.boxes(tagclip.unit(refined_once), grid)
        refined = attention @ (probabilities * boxes)
        stages = {
            "pixels_sample": image[:, ::37, ::41],
            "features_sample": features[::7],
            "attention_layers_sample": torch.stack([a[::19, ::23] for a in by_layer]),
            "votes": Between(*(sum(a > s * a.mean() for a in among_patches)[::3, ::5] for s in (1 + NEAR, 1 - NEAR))),
            "kept_fraction": (votes >= 4).float().mean(),
            "attention_row_sums": attention.sum(1),
            "attention_sample": attention[::13, ::17],
            "refined_min_max": torch.stack(refined.aminmax()),
            "box_union": np.packbits(boxes.T.numpy()),
            "reidentified": [reidentified(tower, image, texts, scale, *c) for c in tagclip.candidates(refined, count, grid)],
        }
        every = 3 if len(refined) > 340 else 1
        sampled = {"probabilities": probabilities, "refined_once": refined_once, "refined": refined}
        stages |= {name: stage[::every] for name, stage in sampled.items()}
        yield from ((f"image{j}_{name}", stage) for name, stage in stages.items())
        found = tagclip.score(tower, image, seen, texts[:count], texts[count:], scale)
        scores.append(found.full)
        before.append(found.masked)
        if j == 0:
            synthetic = torch.from_numpy(inputs["synthetic_refined"])
            yield "synthetic_scores", tagclip.reidentify(tower, image, synthetic, texts, count, scale)
            without = synthetic.clone()
            without[:, 5] = 0.01
            yield "synthetic_scores_without_class5", tagclip.reidentify(tower, image, without, texts, count, scale)
    yield "scores", torch.stack(scores)
    yield "scores_without_cwr", torch.stack(before)
    maps = torch.from_numpy(inputs["maps"])
    yield "maps_box_union", tagclip.boxes(maps.flatten(1).T, maps.shape[1:]).T.reshape(maps.shape)


def reidentified(tower, image, texts, scale, c, box, on):
    """A row of what is known of each re-identified class."""
    pixels, seen = tagclip.cut(tower, image, box, on)
    probability = (scale * tagclip.class_token(tower, pixels[None], seen[None]) @ texts.T).softmax(-1)[0, c]
    return [c, *box, probability.item(), pixels[:, ::37, ::41].double().mean().item(), int(seen.sum())]


def check(path):
    """Print a table for one file; return its worst (error, quantity)."""
    golden = np.load(path)
    kind = kind_of(golden)
    inputs = {name: golden[name] for name in golden.files if name in INPUTS[kind]}
    print(f"{path}  {golden['meta']}\n  inputs: {', '.join(sorted(inputs))}")
    computed = dict(recompute(inputs))
    if odd := computed.keys() ^ (set(golden.files) - INPUTS[kind]):
        raise SystemExit(f"{path}: not compared: {', '.join(sorted(odd))}")
    worst = (0.0, "nothing")
    for name, ours in computed.items():
        expected = golden[name].astype(np.float64)
        if isinstance(ours, Between):
            ours = np.clip(expected, *(bound.numpy() for bound in ours))
        ours = np.asarray(ours.detach() if torch.is_tensor(ours) else ours, dtype=np.float64)
        if ours.shape != expected.shape:
            raise SystemExit(f"{path}: {name}: expected shape {expected.shape}, got {ours.shape}")
        difference = np.nan_to_num(np.abs(ours - expected), nan=np.inf).max(initial=0)
        error = float(difference / max(np.abs(expected).max(initial=0), 1e-12)) if kind == "paper" else float(difference)
        worst = max(worst, (error, name))
        print(f"  {name:32} {error:.1e}{'  TOO FAR' if error > TOLERANCE else ''}")
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="golden values, .npz")
    files = parser.parse_args().files
    if missing := [str(path) for path in files if not path.is_file()]:
        parser.error(f"there is no {', '.join(missing)}")
    error, name = max(check(path) for path in files)
    print(f"worst {name} {error:.1e}")
    return int(error > TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
