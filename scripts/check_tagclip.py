#!/usr/bin/env python
"""Compare TagCLIP's labels of COCO photographs with those that its authors published, made with OpenAI's ViT-B/16.

    python scripts/check_tagclip.py labels.json val2017/ --weights ViT-B-16.pt

labels.json: {image number, 12 digits: {"predicted": [0-79], "ground_truth": [0-79]}}, numbers of COCO's 80 classes in COCO's
order, as in `output/coco2017_val_tagclip_example.txt` of github.com/linyq2117/TagCLIP. A label is a class whose score is above
the middle between the least and the greatest of the 80. On all 4,952 images of that file the authors' labels have P 78.6,
R 41.2, F1 54.1. Printed: the photographs whose labels differ, and P, R, F1 of both. Exit 1 if any differ.
"""

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rcnn import cli, clip
from rcnn.clip.image_tower import normalise
from rcnn.datasets import DATASETS
from rcnn.files import read_json
from rcnn.printing import short
from rcnn.progress import progress
from rcnn.score import tagclip, tagclip_pass
from rcnn.score.reading import read_rgb
from rcnn.text.classes import ClassList

NAMES = """person, bicycle, car, motorbike, aeroplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella, handbag, tie,
suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard, surfboard, tennis racket,
bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange, broccoli, carrot, hot dog, pizza, donut,
cake, chair, sofa, pottedplant, bed, diningtable, toilet, tvmonitor, laptop, mouse, remote, keyboard, cell phone, microwave,
oven, toaster, sink, refrigerator, book, clock, vase, scissors, teddy bear, hair drier, toothbrush"""
CLASSES = ClassList(tuple(name.replace("\n", " ").strip() for name in NAMES.split(",")), 0)  # with TagCLIP's own six names


def labels(model, texts, path):
    """Numbers of the classes in a photograph."""
    side = model.image.conv1.kernel_size[0]
    image = normalise(tagclip.resized(read_rgb(path, side), side).to(model.device), model.mean, model.std)
    scores = tagclip.score(model.image, image, tagclip.look(model.image, image), *texts, model.scale).full
    low, high = scores.aminmax()
    return set((scores > low + 0.5 * (high - low)).nonzero()[:, 0].tolist())


def precision_recall_f1(found, true):
    """In percent, over all pairs of image and class."""
    hits = sum(len(found[i] & true[i]) for i in true)
    p, r = hits / max(sum(map(len, found.values())), 1), hits / max(sum(map(len, true.values())), 1)
    return f"P {100 * p:.1f}, R {100 * r:.1f}, F1 {200 * p * r / max(p + r, 1e-12):.1f}"


@torch.inference_mode()
def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labels", type=Path, metavar="LABELS", help="JSON of the authors' labels and the ground truth")
    parser.add_argument("images", type=Path, metavar="FOLDER", help="the photographs, of val2017 or val2014")
    parser.add_argument("--weights", type=Path, help="OpenAI's ViT-B/16; downloaded if not given")
    parser.add_argument("--model", default="ViT-B-16-quickgelu", help="'' for the sizes in the file, to try the script")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(argv)
    expected = read_json(args.labels)
    try:
        theirs, true = ({i: set(e[key]) for i, e in expected.items()} for key in ("predicted", "ground_truth"))
    except (AttributeError, KeyError, TypeError):
        raise ValueError(f"{args.labels}: expected {{image: {{predicted, ground_truth}}}}, got {short(expected)}") from None
    files = {path.stem[-12:]: path for path in args.images.glob("*.jpg")}
    if missing := sorted(expected.keys() - files):
        raise FileNotFoundError(f"{len(missing)} of {len(expected)} images are not in {args.images}: {', '.join(missing[:10])}")
    model = clip.load(args.model or None, "openai" if args.model else None, args.weights, device=args.device)
    encoded = tagclip_pass.encode(model, CLASSES, DATASETS["coco"].background, None)
    texts = [t.to(model.device) for t in encoded]
    ours = {i: labels(model, texts, files[i]) for i in progress(sorted(expected), "photographs", unit="image")}
    different = [i for i in ours if ours[i] != theirs[i]]
    for i in different:
        more, fewer = (", ".join(CLASSES.names[c] for c in sorted(some)) for some in (ours[i] - theirs[i], theirs[i] - ours[i]))
        print(f"{files[i].name}: we also have {more or 'nothing'}, they also have {fewer or 'nothing'}")
    print(f"ours:   {precision_recall_f1(ours, true)}\ntheirs: {precision_recall_f1(theirs, true)}")
    print(f"the same labels for {len(ours) - len(different)} of {len(ours)} photographs")
    return int(bool(different))


if __name__ == "__main__":
    cli.run(main)
