#!/usr/bin/env python
"""Train the small CLIP of the mini benchmark from nothing but our own drawings and captions.

    python scripts/train_mini_clip.py                  # writes data/mini/clip.safetensors
    python scripts/train_mini_clip.py --steps 20 --pool 500 --output /tmp/try.safetensors

Pictures in the "flat" style only; the "chalk" style is watched, and the benchmark's "crayon" style is never drawn here.
Every batch is a function of the seed and the step, and nothing depends on the time: the same command with the same
number of threads on the same type of machine gives the same bits, and continues an interrupted run to the same bits.
"""

import argparse
import hashlib
import json
import math
import multiprocessing
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from drawing import DRAWINGS, World, draw, parse

from rcnn import clip
from rcnn.clip.image_tower import ImageEncoder
from rcnn.clip.text_tower import TextEncoder
from rcnn.files import replace_file
from rcnn.results.metrics import average_precision

DATA = ROOT / "data" / "mini"
IMAGE_SIZE, POOL_SIZE, PATCH = 64, 96, 8
VISION = {"width": 192, "heads": 3, "layers": 4, "mlp_width": 704}
TEXT = {"width": 128, "heads": 2, "layers": 2, "mlp_width": 512}
EMBED_DIM, CONTEXT, BATCH, FORGET, SCAFFOLDED = 128, 77, 96, 0.08, 0.6
WATCHED, SAVE_EVERY = 400, 50  # pictures; steps
GRID = IMAGE_SIZE // PATCH
CENTRES = (np.arange(GRID) + 0.5) / GRID
OPENINGS = (
    "a photo of a {}.", "a photo of the {}.", "a picture of a {}.", "a drawing of a {}.", "a good picture of the {}.",
    "a close-up of a {}.", "a small {}.", "a large {}.", "a {}.", "a {}", "the {}.", "there is a {} in the scene.",
    "this is a {}.", "art of the {}.", "a photo of one {}.", "a bright photo of a {}.", "a dark photo of the {}.",
)  # fmt: skip
JOINTS = (" with ", ", which has ", " and its ", ", showing ")  # between a thing and a part


def pick(rng, choices):
    return choices[rng.integers(len(choices))]


class Captions:
    """Sentences that are true of a picture, by thing, kind or scene, half of them in few words and half in further ones."""

    def __init__(self, path):
        raw = parse(Path(path).read_text())
        self.scenes, self.further = raw["scenes"], raw["captions"]
        self.entries = raw["objects"] | self.scenes
        world = World.load(path)
        self.parents = {k: v.parents for k, v in (world.objects | world.scenes).items()}
        self.classes = sorted({*self.parents, *(p for up in self.parents.values() for p in up)})

    def noun(self, rng, name):
        """A name for an object or a scene: its own, a synonym, a kind, or both."""
        parents, r = self.parents[name], rng.uniform()
        if parents and r < 0.25:
            return pick(rng, parents)
        word = pick(rng, self.entries[name]["names"]) if r > 0.82 else name
        if parents and 0.25 <= r < 0.4:
            return f"{word}, which {'shows' if name in self.scenes else 'is'} a {pick(rng, parents)}"
        return word

    def mention(self, rng, name, colour=None):
        """A thing or a scene in few words: its noun, perhaps with its colour and one or two parts."""
        parts = self.entries[name]["parts"]
        text = self.noun(rng, name)
        if colour and rng.uniform() < 0.35:
            text = f"{colour} {text}"
        r = rng.uniform()
        if r < 0.35:
            text += pick(rng, JOINTS) + pick(rng, parts)
        if r < 0.1:
            text += " and " + pick(rng, parts)
        return text

    def further_mention(self, rng, name, colour=None):
        """A thing, a scene or its kind in further words: how it looks, what it does, what it is, where it is often seen."""
        if self.parents[name] and rng.uniform() < 0.25:
            name = pick(rng, self.parents[name])
        words = self.further[name]
        text = pick(rng, words["narrower"]) if rng.uniform() < 0.2 else name
        if colour and rng.uniform() < 0.35:
            text = f"{colour} {text}"
        r = rng.uniform()
        if r < 0.35:
            text += pick(rng, JOINTS) + pick(rng, words["looks"])
        elif r < 0.55:
            text += ", which " + pick(rng, words["does"])
        elif r < 0.75:
            text += pick(rng, (", which is a ", ", a kind of ")) + pick(rng, words["broader"])
        elif r < 0.95:
            text += ", often seen " + pick(rng, words["places"])
        return text

    def caption(self, rng, scene, things):
        """One sentence. `things`: (name, colour) pairs that can be seen."""
        things = [things[i] for i in rng.permutation(len(things))]
        mention = self.mention if rng.uniform() < 0.5 else self.further_mention
        r = rng.uniform()
        if not things or r < 0.12:
            text = mention(rng, scene)
        else:
            text = mention(rng, *things[0])
            if len(things) > 1 and r < 0.5:
                text += pick(rng, (" and a ", " next to a ", ", together with a ")) + mention(rng, *things[1])
            if r > 0.7:
                text += pick(rng, (" in the ", " at the ", ", which appears together with the ")) + self.noun(rng, scene)
        return pick(rng, OPENINGS).format(text)

    def truth(self, *names):
        """1 for every class name that is true where these things or scenes are, else 0."""
        true = {*names, *(p for name in names for p in self.parents[name])}
        return [float(name in true) for name in self.classes]

    def vocabulary(self):
        """All token numbers a caption can hold."""
        others = "a with, which has and its, showing shows. next to, together in the at, which appears is a kind of, often seen"
        words = [*OPENINGS, others, *self.further, *(w for e in self.further.values() for kind in e.values() for w in kind)]
        for entry in self.entries.values():
            words += [*entry["names"], *entry["parts"]]
            for choice in entry["colours"].values():
                words += [choice] if isinstance(choice, str) else choice
        tokens = clip.tokenize([re.sub(r"[{}]", "", w) for w in words]).unique()
        return tokens[tokens > 0]


def _draw_one(job):
    index, seed, style, size = job
    picture = draw(_draw_one.world, np.random.default_rng([seed, index]), style, size, size)
    things = [(p.thing.name, p.colour, *p.box) for p in picture.placed]
    return np.asarray(picture.image), picture.scene.name, things, sorted(picture.labels())


def draw_pool(world_path, count, seed, style, cache):
    """`count` pictures and what is in them, drawn by all cores and kept in `cache`."""
    drawn = {key: value for key, value in parse(Path(world_path).read_text()).items() if key != "captions"}
    world = hashlib.sha256(json.dumps(drawn).encode()).hexdigest()[:12]
    path = cache / f"pool_{style}_{seed}_{count}_{world}.npz"
    if not path.exists():
        _draw_one.world = World.load(world_path)
        jobs = [(i, seed, style, POOL_SIZE) for i in range(count)]
        with multiprocessing.get_context("fork").Pool() as pool:
            drawn = list(tqdm(pool.imap(_draw_one, jobs, chunksize=50), total=count, desc=f"draw {style} pictures"))
        images, *facts = zip(*drawn, strict=True)
        with replace_file(path) as file:
            np.savez(file, images=np.stack(images), facts=json.dumps(facts))
    stored = np.load(path)
    return torch.from_numpy(stored["images"]), list(zip(*json.loads(str(stored["facts"])), strict=True))


def initialise(module):
    """Normal weights of the usual sizes for transformers."""
    for name, p in module.named_parameters():
        if "positional" in name or "class_embedding" in name:
            nn.init.normal_(p, std=p.shape[-1] ** -0.5)
        elif name.startswith("token_embedding"):
            nn.init.normal_(p, std=0.05)
        elif name in ("proj", "text_projection"):
            nn.init.normal_(p, std=p.shape[0] ** -0.5)
        elif p.dim() > 1:
            nn.init.normal_(p, std=0.6 * p[0].numel() ** -0.5)
    return module


def normalise(images):
    """uint8 (B, S, S, 3) or float (B, 3, S, S) in [0, 255] -> CLIP's input."""
    x = images.permute(0, 3, 1, 2).float() if images.dtype == torch.uint8 else images
    return (x / 255 - torch.tensor(clip.MEAN)[:, None, None]) / torch.tensor(clip.STD)[:, None, None]


def batch(rng, images, facts, captions):
    """BATCH crops, half around one object, half anywhere; a true sentence, and the true class names, of each.

    Returns:
        images (B, 3, S, S), tokens (B, context), names (B, 1 + N, C) in {0, 1}: of the picture and of its patches.
    """
    chosen = rng.integers(len(images), size=BATCH)
    flip = np.where(rng.uniform(size=BATCH) < 0.5, -1, 1)
    windows, sentences, shown, places = [], [], [], []
    for i in chosen:
        scene, things, _ = facts[i]
        side = 1.0 if rng.uniform() < 0.35 else rng.uniform(0.4, 1.0)
        left, top = rng.uniform(0, 1 - side, 2)
        if rng.uniform() < 0.5:
            _, _, x, y, w, h = things[rng.integers(len(things))]
            side = min(1.0, w * rng.uniform(1.0, 1.8))
            left, top = (np.clip(c + rng.uniform(w - side, 0) if side > w else c, 0, 1 - side) for c in (x, y))
        windows.append((left, top, side))
        seen = []
        ground = captions.truth(scene)
        where = np.tile(np.array(ground, np.float32), (GRID, GRID, 1))  # true names of every patch
        for name, colour, x, y, w, h in things:
            # the ellipse in an object's box stands for the object
            distance = ((left + side * CENTRES - x) / w - 0.5) ** 2 + (((top + side * CENTRES - y) / h - 0.5) ** 2)[:, None]
            where[distance < 0.16] = captions.truth(name)
            inside = max(0, min(x + w, left + side) - max(x, left)) * max(0, min(y + h, top + side) - max(y, top))
            if inside > 0.5 * w * h:
                seen.append((name, colour))
        places.append(where)
        sentences.append(captions.caption(rng, scene, seen))
        shown.append(captions.truth(scene, *(name for name, _ in seen)))
    x0, y0, side = np.array(windows).T
    places = torch.tensor(np.stack(places))
    places[flip < 0] = places[flip < 0].flip(2)
    shown = torch.cat([torch.tensor(shown, dtype=torch.float32)[:, None], places.flatten(1, 2)], dim=1)
    theta = torch.zeros(BATCH, 2, 3)
    theta[:, 0, 0], theta[:, 1, 1] = torch.tensor(side * flip), torch.tensor(side)
    theta[:, 0, 2], theta[:, 1, 2] = (torch.tensor(2 * np.array(v) + side - 1) for v in (x0, y0))
    grid = F.affine_grid(theta, (BATCH, 3, IMAGE_SIZE, IMAGE_SIZE), align_corners=False)
    x = F.grid_sample(images[chosen].permute(0, 3, 1, 2).float(), grid, align_corners=False, padding_mode="reflection")

    def jitter(low, high, channels):
        return torch.tensor(rng.uniform(low, high, (BATCH, channels, 1, 1))).float()

    # sharpness, contrast, light, a little grey and noise: the held-out style has other lines, colours and grain
    blurred = F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
    x = torch.lerp(blurred, x, jitter(0.3, 2.5, 1))
    x = torch.lerp(x, jitter(0, 255, 1).expand_as(x), jitter(0, 0.5, 1))
    grey = x.mean(1, keepdim=True)
    x = torch.lerp(x, grey.expand_as(x), jitter(0, 0.5, 1))
    x = x * jitter(0.7, 1.3, 3) + jitter(-30, 30, 1)
    x = x + torch.tensor(rng.normal(0, 1, x.shape)).float() * jitter(0, 10, 1)
    return normalise(x.clamp(0, 255)), clip.tokenize(sentences), shown


def ahead(make, first, last):
    """(step, make(step)) for every step, each made by a second thread while the one before it is learned from."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(make, first)
        for step in range(first, last):
            made, waiting = waiting.result(), pool.submit(make, step + 1)
            yield step, made


@torch.no_grad()
def probe(image, text, compact, images, facts, names):
    """mAP of object names on pictures, in percent, by the global and by the strongest local feature."""
    rows = clip.tokenize([f"a photo of a {n}." for n in names])
    classes = F.normalize(text(text.token_embedding(compact(rows)), rows.argmax(1)), dim=-1)
    small = F.interpolate(images.permute(0, 3, 1, 2).float(), IMAGE_SIZE, mode="bilinear", antialias=True)
    features = [image(normalise(x)) for x in small.split(200)]
    by_global = torch.cat([f.global_features @ classes.T for f in features])
    by_local = torch.cat([(f.local_features @ classes.T).amax(1) for f in features])
    labels = torch.tensor([[1 if n in f[2] else -1 for n in names] for f in facts])
    return [100 * average_precision(s, labels).mean().item() for s in (by_global, by_local)]


def safetensors(state, metadata):
    """The bytes of a safetensors file. The library writes the metadata in an order of its own each time: here it is fixed."""
    content = save(state, metadata)
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start]) | {"__metadata__": metadata}
    return content[:8] + json.dumps(header, separators=(",", ":")).encode().ljust(start - 8) + content[start:]


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drawings", type=Path, default=DRAWINGS)
    parser.add_argument("--output", type=Path, default=DATA / "clip.safetensors")
    parser.add_argument("--cache", type=Path, default=Path("outputs/mini_clip"), help="pictures and progress")
    parser.add_argument("--steps", type=int, default=5200, help=f"batches of {BATCH}")
    parser.add_argument("--pool", type=int, default=60000, help="pictures to draw")
    parser.add_argument("--muon-rate", type=float, default=4e-3, help="of the matrices in the blocks")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="of all else")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2, help="of torch; another number gives other bits")
    args = parser.parse_args(argv)
    args.cache.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    captions, names = Captions(args.drawings), list(World.load(args.drawings).objects)
    images, facts = draw_pool(args.drawings, args.pool, args.seed, "flat", args.cache)
    watched, watched_facts = draw_pool(args.drawings, WATCHED, args.seed + 1, "chalk", args.cache)
    rows = captions.vocabulary()
    table = torch.full((clip.tokenizer().vocab_size,), len(rows))  # token -> compact row; the last row is "any other word"
    table[rows] = torch.arange(len(rows))

    image = initialise(ImageEncoder(IMAGE_SIZE, PATCH, **VISION, embed_dim=EMBED_DIM))
    text = initialise(TextEncoder(**TEXT, embed_dim=EMBED_DIM, context=CONTEXT, vocabulary=len(rows) + 1))
    scale = nn.Parameter(torch.tensor(np.log(1 / 0.07), dtype=torch.float32))
    # a scaffold: class names of the picture and of its patches, read off before the last block; its loss fades out
    # well before the end, and it is thrown away
    scaffold = nn.Sequential(nn.LayerNorm(VISION["width"]), nn.Linear(VISION["width"], len(captions.classes)))
    nn.init.constant_(scaffold[1].bias, -3.0)
    parameters = [*image.parameters(), *text.parameters(), *scaffold.parameters(), scale]
    # Muon for the matrices of the blocks learns these small towers in about half the steps that AdamW takes
    matrices = [p for tower in (image, text) for p in tower.transformer.parameters() if p.dim() == 2]
    others = [p for p in parameters if all(p is not m for m in matrices)]
    optimisers = {
        torch.optim.Muon(matrices, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"): args.muon_rate,
        torch.optim.AdamW(others, betas=(0.9, 0.98), weight_decay=0.01): args.learning_rate,
    }
    print(f"{sum(p.numel() for p in parameters) / 1e6:.2f} M parameters, {len(rows)} tokens", flush=True)

    progress, first = args.cache / "progress.pt", 0
    made_with = {k: v for k, v in vars(args).items() if k not in ("output", "cache", "drawings")}
    made_with["drawings"] = hashlib.sha256(args.drawings.read_bytes()).hexdigest()
    if progress.exists():
        saved = torch.load(progress, weights_only=True)
        if saved["made_with"] != made_with:
            parser.error(f"{progress} was made with other settings or drawings; choose another --cache")
        image.load_state_dict(saved["image"])
        text.load_state_dict(saved["text"])
        scaffold.load_state_dict(saved["scaffold"])
        scale.data = saved["scale"]
        for optimiser, stored in zip(optimisers, saved["optimisers"], strict=True):
            optimiser.load_state_dict(stored)
        first = saved["step"]
        print(f"continue at step {first}", flush=True)

    running = None
    steps = ahead(lambda step: batch(np.random.default_rng([args.seed, 7, step]), images, facts, captions), first, args.steps)
    for step, (x, tokens, true) in tqdm(steps, initial=first, total=args.steps, desc="train", mininterval=5):
        end = tokens.argmax(1)
        short = table[tokens[:, : int(end.max()) + 1]]
        # now and then a word is replaced by "any other word": so that row learns to stand for words never seen
        forget = torch.tensor(np.random.default_rng([args.seed, 8, step]).uniform(size=short.shape)) < FORGET
        forget[:, 0] = False
        forget[torch.arange(BATCH), end] = False
        short[forget] = len(rows)
        schedule = min((step + 1) / 150, 0.5 * (1 + math.cos(math.pi * step / args.steps)))
        for optimiser, rate in optimisers.items():
            for group in optimiser.param_groups:
                group["lr"] = rate * schedule
        # the fused attention's backward pass takes half the step on a CPU; the plain one is far quicker at 65 tokens
        with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
            hidden = image.trunk(x)
            g = image.last_block(hidden).global_features
            guesses = scaffold(hidden)
            z = F.normalize(text(text.token_embedding(short), end), dim=-1)
        logits = scale.clamp(max=np.log(100)).exp() * g.float() @ z.float().T
        target = torch.arange(BATCH)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        fade = max(0.0, 1 - step / (SCAFFOLDED * args.steps))
        naming = F.binary_cross_entropy_with_logits(guesses.float(), true, reduction="none").sum(2).mean(0)
        naming = naming[0] + naming[1:].mean()
        for optimiser in optimisers:
            optimiser.zero_grad()
        (loss + 0.3 * fade * naming).backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()
        running = loss.item() if running is None else 0.98 * running + 0.02 * loss.item()
        last = step + 1 == args.steps
        if (step + 1) % 250 == 0 or last:
            by_global, by_local = probe(image, text, table.__getitem__, watched, watched_facts, names)
            seen = probe(image, text, table.__getitem__, images[:WATCHED], facts[:WATCHED], names)
            tqdm.write(
                f"step {step + 1}: loss {running:.3f}, naming {naming.item():.1f}, scale {scale.exp().item():.1f}, "
                f"mAP of things in the watched style {by_global:.1f} (global) {by_local:.1f} (local), "
                f"in the training style {seen[0]:.1f} {seen[1]:.1f}"
            )
        if (step + 1) % SAVE_EVERY == 0 or last:
            state = {
                "image": image.state_dict(),
                "text": text.state_dict(),
                "scale": scale.data,
                "scaffold": scaffold.state_dict(),
            }
            with replace_file(progress) as file:
                torch.save(
                    state
                    | {
                        "optimisers": [optimiser.state_dict() for optimiser in optimisers],
                        "step": step + 1,
                        "made_with": made_with,
                    },
                    file,
                )

    state = {f"visual.{k}": v for k, v in image.state_dict().items()} | text.state_dict() | {"logit_scale": scale.data}
    state = {k: v.half().contiguous() for k, v in state.items()} | {"token_embedding.rows": rows.to(torch.int32)}
    metadata = {
        "model": "mini", "activation": "quick_gelu", "vision_heads": str(VISION["heads"]), "text_heads": str(TEXT["heads"]),
        "threads": str(args.threads),
    }  # fmt: skip
    with replace_file(args.output) as file:
        file.write(safetensors(state, metadata))
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
