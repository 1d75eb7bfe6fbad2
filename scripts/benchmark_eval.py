#!/usr/bin/env python
"""How fast images are evaluated: the share of the machine's peak, and against a plain implementation and open_clip.

    python scripts/benchmark_eval.py                        # ViT-B/16 with random weights, synthetic pictures
    python scripts/benchmark_eval.py --jpegs photos/        # also on real files
    python scripts/benchmark_eval.py --quick                # a small tower, seconds; its ratios mean nothing

(a) plain: straight from the equations, one snippet after the other, explicit softmax; done anew for every row and every
    epoch.
(b) open_clip's own encode_image on the same views: the global feature only.
(c) ours: global and local features of all views at once, then all sets of class embeddings in the same pass.

All get the same weights. Times are the least of several rounds taken in turn, so that a busy machine slows all alike. The
peak is that of a large matrix product on this machine, measured in the same rounds. For bf16 the scores' largest deviation
from float32 and the share of images with the same top 3 are printed. Evaluations of COCO's size are extrapolated, with the
arithmetic. Of decoding, the seconds of CPU are taken: of a process that cuts all views by Pillow, as it did before snippets
were cut on the device, and of one that squashes images, as it does. The last line is `ratio encode_image=<c / b>
bf16=<c in bf16 / b> all_rows=<a / c for 9 rows, without and with MSSA, and 30 epochs> views=<images per core-second of
decoding, squashed / cut>`.
"""

import argparse
import copy
import dataclasses
import itertools
import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import open_clip
import torch
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import plain_clip
from drawing import DRAWINGS, World, draw
from PIL import Image

from rcnn import cli, clip, runtime, scoring
from rcnn.clip import image_tower
from rcnn.config import EvaluateConfig
from rcnn.score import mssa, resize, tagclip
from rcnn.score.one_pass import fill
from rcnn.score.reading import read_rgb
from rcnn.score.score_file import ScoreFile
from rcnn.score.views import batches, squash

MODEL = "ViT-B-16-quickgelu"
CLASSES, ROWS, EPOCHS = 65, 9, 30  # of COCO's tables; every row comes without and with MSSA
GRIDS = (2, 3)  # snippets on a side
VIEWS = 1 + sum(n * n for n in GRIDS)
COCO_IMAGES = 39_217


def plain_scores(state, heads, views, z):
    """(C,) scores of one image from its (V, 3, S, S) views, MSSA with GRIDS (eq. 3 to 5, 9 and 10)."""
    found = [plain_clip.image_features(state, view[None], heads) for view in views]
    p = torch.cat([g for g, _ in found]) @ z.T  # (V, C)
    grid = round(found[0][1].shape[1] ** 0.5)
    s = [(local[0] @ z.T).T.unflatten(-1, (grid, grid)) for _, local in found]  # (N, C) -> (C, g, g)
    globals_, locals_, first = [p[0]], [s[0]], 1
    for n in GRIDS if len(views) > 1 else ():
        part = s[first : first + n * n]
        rows = [torch.cat(part[r * n : (r + 1) * n], -1) for r in range(n)]
        globals_.append(p[first : first + n * n].amax(0))
        locals_.append(F.max_pool2d(torch.cat(rows, -2)[None], n)[0])
        first += n * n
    local = mssa.pool_scores(torch.stack(locals_).mean(0).flatten(1)[None])[0]
    return (torch.stack(globals_).mean(0) + local) / 2


def our_scores(model, pixels, z):
    """(B, C) scores of the views of B images, (B, V, S, S, 3) uint8."""
    return mssa.score(model.encode_views(pixels), z, GRIDS).total


def tagclip_scores(model, photo, z):
    """(TagCLIP's scores of an image for both tasks, how many classes it looked at twice); all but the first 48 are unseen."""
    image = tagclip.resized(photo, model.image.conv1.kernel_size[0]).to(model.device)
    image = image_tower.normalise(image, model.mean, model.std)
    seen = tagclip.look(model.image, image)
    found = [tagclip.score(model.image, image, seen, z[first:], z[:0], model.scale) for first in (0, 48)]
    return found, sum(int((f.full != f.masked).sum()) for f in found)


def flops(tower):
    """Floating-point operations of one view, two for a multiplication and addition: all products of matrices."""
    tokens, width = tower.grid**2 + 1, tower.proj.shape[0]
    blocks = tower.transformer["resblocks"]
    mlp = blocks[0].mlp["c_fc"].out_features
    block = tokens * (4 * width * width + 2 * width * mlp) + 2 * tokens * tokens * width
    patches = tower.grid**2 * 3 * tower.conv1.kernel_size[0] ** 2 * width
    return 2 * (len(blocks) * block + patches)


def cut_by_pillow(image):
    """(V, S, S, 3) uint8 views of an image from its full view and square, (2, S, S, 3)."""
    out, square, size = [image[0]], Image.fromarray(image[1]), image.shape[1]
    for n in GRIDS:
        side = size // n
        for top, left in itertools.product(range(0, n * side, side), repeat=2):
            snippet = square.crop((left, top, left + side, top + side))
            out.append(np.asarray(snippet.resize((size, size), Image.Resampling.BILINEAR)))
    return np.stack(out)


class Turns:
    """The least time of each piece of work by a clock, over rounds in which every piece runs once."""

    def __init__(self, device, clock=time.perf_counter):
        self.device, self.clock, self.best = device, clock, {}

    def take(self, name, work):
        """Run `work` once and keep its time if it is the least."""
        began = self.clock()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        took = self.clock() - began
        self.best[name] = min(took, self.best.get(name, took))


def towers(name, device):
    """open_clip's model with random weights, and ours with the same, in float32 and in bf16."""
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns that the weights are random
    torch.manual_seed(0)
    if name == "quick":
        vision = {"image_size": 224, "layers": 3, "width": 128, "patch_size": 16, "head_width": 64}
        text = {"context_length": 77, "vocab_size": 49408, "width": 128, "heads": 2, "layers": 1}
        reference = open_clip.model.CLIP(64, vision, text, quick_gelu=True)
    else:
        reference = open_clip.create_model(MODEL)
    reference = reference.to(device).eval().requires_grad_(False)
    image, text = (tower.to(device).eval().requires_grad_(False) for tower in clip.build(reference.state_dict()))
    model = clip.Clip(text, image, name, "0" * 64, "0" * 64, clip.MEAN, clip.STD)
    half = dataclasses.replace(model, image=copy.deepcopy(image).set_precision(torch.bfloat16))
    return reference, model, half


def synthetic(folder, count):
    """Drawings as JPEG files."""
    world, paths = World.load(DRAWINGS), []
    for i in range(count):
        paths.append(folder / f"{i:04}.jpg")
        draw(world, np.random.default_rng(i), "flat", 640, 480).image.save(paths[-1], quality=90)
    return paths


def compare(reference, model, half, paths, batch_size, rounds, device):
    """Views per second of plain, encode_image and ours; printed as a table with the share of the peak."""
    size = model.image.image_size
    pixels = torch.cat([b.pixels for b in batches(paths[:batch_size], size, GRIDS, batch_size)])
    x = image_tower.normalise(pixels.to(device).flatten(0, 1), model.mean, model.std)  # (B·V, 3, S, S)
    z = F.normalize(torch.randn(CLASSES, model.image.proj.shape[1], device=device), dim=-1)
    side = 4096 if device.type == "cuda" else 1536
    a, b = torch.randn(2, side, side, device=device)
    a16, b16 = a.bfloat16(), b.bfloat16()
    state, heads = reference.state_dict(), model.image.transformer["resblocks"][0].attn.heads
    turns, photo, found = Turns(device), read_rgb(paths[0], size), []
    for i in range(rounds + 1):
        if i == 1:
            turns.best.clear()  # the first round warmed up
        turns.take("peak float32", lambda: a @ b)
        turns.take("peak bf16", lambda: a16 @ b16)
        turns.take("plain", lambda: plain_scores(state, heads, x[:VIEWS], z))
        turns.take("encode_image", lambda: reference.encode_image(x))
        turns.take("ours", lambda: model.image(x))
        turns.take("ours bf16", lambda: half.image(x))
        turns.take("TagCLIP", lambda: found.append(tagclip_scores(model, photo, z)))
    views = {"plain": VIEWS, "encode_image": len(x), "ours": len(x), "ours bf16": len(x)}
    work, rate = flops(model.image), {}
    print(f"{'':14} {'views/s':>8} {'TFLOP/s':>8} {'of the peak':>12}")
    for name, count in views.items():
        rate[name] = count / turns.best[name]
        peak = 2 * side**3 / turns.best["peak bf16" if "bf16" in name else "peak float32"]
        print(f"{name:14} {rate[name]:8.2f} {rate[name] * work / 1e12:8.3f} {100 * rate[name] * work / peak:10.0f} %")
    difference = plain_scores(state, heads, x[:VIEWS], z) - our_scores(model, pixels[:1], z)[0]
    print(f"plain and ours differ by at most {difference.abs().max():.1e} in the scores")
    cuts, ratio = found[-1][1], turns.best["TagCLIP"] / turns.best["ours"] * len(x) / VIEWS
    print("TagCLIP, {} x {} pixels, {} classes looked at again: {:.2f} s an image, {:.2f} times our {} views".format(
        *photo.size, cuts, turns.best["TagCLIP"], ratio, VIEWS
    ))  # fmt: skip
    return rate


def precision(model, half, paths, batch_size):
    """Largest deviation of bf16's scores from float32's, and the share of images with the same top 3."""
    torch.manual_seed(1)
    z = F.normalize(torch.randn(CLASSES, model.image.proj.shape[1], device=model.device), dim=-1)
    deviation, same, seen = 0.0, 0, 0
    for batch in batches(paths, model.image.image_size, GRIDS, batch_size):
        if batch.indices:
            one, two = (our_scores(m, batch.pixels, z) for m in (model, half))
            deviation = max(deviation, (one - two).abs().max().item())
            tops = [s.topk(3).indices.sort(1).values for s in (one, two)]
            same += (tops[0] == tops[1]).all(1).sum().item()
            seen += len(one)
    print(f"bf16: scores deviate by at most {deviation:.1e}; the same top 3 on {same} of {seen} images")


def decoding(paths, size, batch_size, rounds, device):
    """How many times as many images a core of decoding processes gives where snippets are cut on the device."""
    pixels = [squash(read_rgb(path, size), size, GRIDS) for path in paths]
    squashed = torch.from_numpy(np.stack(pixels)).to(device)
    views = [cut_by_pillow(image) for image in pixels]
    if not np.array_equal(np.stack(views), torch.cat([resize.cut(x, GRIDS) for x in squashed.split(batch_size)]).cpu()):
        raise ValueError("the snippets cut on the device differ from Pillow's")
    processor, on_device = Turns(torch.device("cpu"), time.process_time), Turns(device)
    for _ in range(rounds):
        for path in paths:
            processor.take((path, "all views"), lambda path=path: cut_by_pillow(squash(read_rgb(path, size), size, GRIDS)))
            processor.take((path, "squashed"), lambda path=path: squash(read_rgb(path, size), size, GRIDS))
        for i, part in enumerate(squashed.split(batch_size)):
            on_device.take(i, lambda part=part: resize.cut(part, GRIDS))
    print(f"\n{'decoded to':14} {'ms of a core':>13} {'images/core-s':>14} {'bytes an image':>15}")
    rate = {}
    for name, image in (("all views", views[0]), ("squashed", pixels[0])):
        rate[name] = len(paths) / sum(processor.best[path, name] for path in paths)
        print(f"{name:14} {1000 / rate[name]:13.1f} {rate[name]:14.0f} {image.nbytes:15,}")
    took = sum(on_device.best.values()) / len(paths)
    print(f"the snippets of an image are cut in {1000 * took:.2f} ms on {device}, byte for byte as Pillow does")
    return rate["squashed"] / rate["all views"]


def all_rows(model, paths, batch_size, plain_rate, folder):
    """Seconds per image of scoring all rows and epochs, ours measured, plain projected from its views per second."""
    torch.manual_seed(2)
    random = F.normalize(torch.randn(ROWS + EPOCHS, CLASSES, model.image.proj.shape[1]), dim=-1)
    settings = EvaluateConfig(grids=GRIDS, batch_size=batch_size, workers=0, diagnostics=False)
    rows, epochs = ({str(i): z for i, z in enumerate(part)} for part in random.split([ROWS, EPOCHS]))
    sets = scoring.scored_sets(settings, rows, epochs)
    file = ScoreFile(folder, sets, len(paths), CLASSES, batch_size, "benchmark")
    todo = file.todo()
    file.open(todo)
    began = time.perf_counter()
    clock = fill(file, todo, model, paths, sets, settings)
    ours = (time.perf_counter() - began) / len(paths)
    file.delete()
    views = ROWS * (1 + VIEWS) + EPOCHS * VIEWS
    plain = views / plain_rate
    tower = VIEWS * len(paths) / clock.encoding
    print(f"\nall rows: {ROWS} rows without and with MSSA, {EPOCHS} epochs with it")
    print(f"  plain  {views} views an image / {plain_rate:.2f} views/s = {plain:.1f} s an image")
    print(f"  ours   {VIEWS} views an image, all sets in one pass: {ours:.2f} s an image ({tower:.2f} views/s in the tower; "
          f"{100 * clock.scoring / clock.encoding:.1f} % more for {len(sets)} sets, "
          f"{100 * clock.waiting / clock.encoding:.1f} % waiting for images)")  # fmt: skip
    for what, seconds in (("plain", plain), ("ours", ours)):
        print(f"  COCO, {COCO_IMAGES:,} images x {seconds:.2f} s = {COCO_IMAGES * seconds / 3600:,.1f} h, {what}")
    return plain / ours


@torch.inference_mode()
def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jpegs", type=Path, metavar="FOLDER", help="real photographs, to be used as well")
    parser.add_argument("--images", type=int, default=16, help="images for the precision and the complete pass (default: 16)")
    parser.add_argument("--batch-size", type=int, default=2, help="images at a time, 14 views each (default: 2)")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="a small tower; only to see that it runs")
    args = parser.parse_args(argv)
    if args.threads:
        torch.set_num_threads(args.threads)
    device = runtime.device(args.device)
    models = towers("quick" if args.quick else MODEL, device)
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads")
    with tempfile.TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        sources = {"synthetic": synthetic(scratch, args.images)}
        if args.jpegs:
            files = sorted(p for p in args.jpegs.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[: args.images]
            if not files:
                raise FileNotFoundError(f"--jpegs: there is no JPEG file in {args.jpegs}")
            sources["real"] = files
        ratios = None
        for name, paths in sources.items():
            print(f"\n{name} pictures, {len(paths)} files, {VIEWS} views each")
            rate = compare(*models, paths, min(args.batch_size, len(paths)), args.rounds, device)
            precision(*models[1:], paths, args.batch_size)
            rows = all_rows(models[1], paths, args.batch_size, rate["plain"], scratch / "scores")
            views = decoding(paths, models[1].image.image_size, args.batch_size, args.rounds, device)
            ratios = ratios or (rate["ours"] / rate["encode_image"], rate["ours bf16"] / rate["encode_image"], rows, views)
    print("\nratio encode_image={:.2f} bf16={:.2f} all_rows={:.0f} views={:.2f}".format(*ratios))


if __name__ == "__main__":
    cli.run(main)
