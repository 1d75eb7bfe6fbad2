#!/usr/bin/env python
"""What only a GPU shows, prepared for one run: bash scripts/gpu_check.sh

1. features and scores in float32, float16 and bfloat16 against the values of the authors' code (float32 must keep 1e-4);
2. learning at COCO's and NUS-WIDE's shape, float32 and bf16: seconds a step, peak memory, all 30 epochs of COCO;
3. views per second of the image tower, compiled and not, against open_clip's encode_image in fp16, and of the GPU's peak;
4. JPEG files to scores, views cut on the GPU, whose bytes must be those that are cut on the CPU;
5. the mini benchmark by one process and by two that share the GPU, with the same result.

Prints a table as it goes; exit 1 if something that must be equal is not. --device cpu --quick tries the script without a GPU.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "golden")]

import benchmark_eval
import benchmark_train
import numpy as np
import recipe
import torch
from PIL import Image
from torch.nn import functional as F

from rcnn import cli, clip
from rcnn.results.result import Result
from rcnn.score import mssa, views

PRECISIONS = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
MOST = 1e-4  # deviation of float32 on a GPU from the authors' values


def show(what, value):
    print(f"{what:58} {value}", flush=True)


def timed(work, device, rounds=3):
    """The least time of a piece of work, in seconds, after one round to warm up."""
    work()
    times = []
    for _ in range(rounds):
        began = benchmark_train.clock(device)
        work()
        times.append(benchmark_train.clock(device) - began)
    return min(times)


def deviations(device):
    """Whether float32 is near the authors' values."""
    good = True
    for name, precision in PRECISIONS.items():
        worst = {"features": 0.0, "scores": 0.0}
        for path in sorted((ROOT / "tests" / "golden").glob("*.npz")):
            golden = np.load(path)
            meta = json.loads(str(golden["meta"]))
            if "logits_mssa" not in golden:
                continue
            state = {k: torch.tensor(v) for k, v in recipe.clip_weights(meta["case"], meta["seed"]).items()}
            image, text = (tower.to(device).eval().requires_grad_(False) for tower in clip.build(state))
            model = clip.Clip(text, image.set_precision(precision), "", "", "", clip.MEAN, clip.STD)
            sizes = enumerate(golden["image_sizes"].tolist())
            pictures = [Image.fromarray(recipe.image(meta["seed"], i, height, width)) for i, (height, width) in sizes]
            pixels = torch.stack([views.views(p, image.image_size, meta["counts"]) for p in pictures]).to(device)
            z = torch.from_numpy(golden["class_embeddings"]).to(device)
            with torch.inference_mode():
                features = model.encode_views(pixels)
                scores = 20 * mssa.score(features, z, meta["counts"]).total
            for key, ours, theirs in (
                ("features", features.global_features[:, 0], golden["global_features"]),
                ("scores", scores / 20, golden["logits_mssa"] / 20),
            ):
                worst[key] = max(worst[key], (ours.float().cpu() - torch.from_numpy(theirs)).abs().max().item())
        show(f"{name}: largest deviation of features, of scores", " ".join(f"{value:.1e}" for value in worst.values()))
        good &= precision != torch.float32 or max(worst.values()) < MOST
    return good


def learning(device, quick):
    for name, job in benchmark_train.JOBS.items():
        steps = 2 if quick else job.all_steps if name == "coco" else 5
        job = replace(job, steps=steps, device=device.type, tower="quick" if quick else "full")
        with torch.device("meta"):
            text = benchmark_train.TextEncoder(**job.sizes)
        text.load_state_dict(benchmark_train.random_state(job.sizes, job.seed), assign=True)
        text = text.to(device).eval().requires_grad_(False)
        features = F.normalize(torch.randn(4 * job.batch, job.sizes["embed_dim"]), dim=1).to(device)
        features = features.repeat(-(-steps // 4), 1)[: steps * job.batch]
        for precision in ("float32", "bf16"):
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            times, _ = benchmark_train.take_steps(job, job.classes, text, features, device, precision)
            memory = benchmark_train.peak_memory(device) / 2**30
            whole = f", {steps} steps, all 30 epochs, {sum(times):.1f} s" if steps == job.all_steps else ""
            show(f"learning, {name}, {precision}", f"{min(times):.4f} s a step, peak {memory:.2f} GiB{whole}")


def tower_speed(device, quick):
    reference, model, _ = benchmark_eval.towers("quick" if quick else benchmark_eval.MODEL, device)
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    x = torch.randn(8 if quick else 224, 3, 224, 224, device=device).to(half)
    side = 512 if quick else 8192
    a = torch.randn(side, side, device=device, dtype=half)
    peak = 2 * side**3 / timed(lambda: a @ a, device)
    tower, reference = model.image.set_precision(half), reference.to(half)
    with torch.inference_mode():
        speeds = {
            "ours": timed(lambda: tower(x), device),
            "open_clip's encode_image": timed(lambda: reference.encode_image(x), device),
        }
        if device.type == "cuda":
            tower.compile()
            speeds["ours, compiled"] = timed(lambda: tower(x), device)
    for name, seconds in speeds.items():
        share = benchmark_eval.flops(model.image) * len(x) / seconds / peak
        show(f"{name}, {str(half).removeprefix('torch.')}", f"{len(x) / seconds:,.0f} views/s, {100 * share:.0f} % of the peak")


def from_files(device, quick):
    """Whether views that are cut on the device have the CPU's bytes."""
    _, model, _ = benchmark_eval.towers("quick" if quick else benchmark_eval.MODEL, device)
    model.image.set_precision(torch.float16 if device.type == "cuda" else torch.float32)
    z = F.normalize(torch.randn(65, model.image.proj.shape[1], device=device), dim=1)
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        paths = benchmark_eval.synthetic(Path(folder), 4 if quick else 32) * (1 if quick else 32)
        given = 224, benchmark_eval.GRIDS, 16
        began = time.perf_counter()
        for batch in views.batches(paths, *given, views.available_cores(), device=device):
            mssa.score(model.encode_views(batch.pixels), z, benchmark_eval.GRIDS).total.cpu()
        took = time.perf_counter() - began
        show(
            "JPEG files to scores, 14 views an image", f"{len(paths) / took:,.1f} images/s, {views.available_cores()} processes"
        )
        (here,), (there,) = (views.batches(paths[:4], *given, 0, device=where) for where in ("cpu", device))
        equal = torch.equal(here.pixels, there.pixels.cpu())
    show("views cut on the device have the CPU's bytes", equal)
    return equal


def run(command):
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def two_processes(device, quick):
    """Whether two processes find what one finds."""
    with tempfile.TemporaryDirectory() as folder:
        run([sys.executable, "scripts/draw_mini.py", "--folder", folder, "--images", "20" if quick else "500"])
        keys = {"dataset.images": f"{folder}/images", "dataset.annotations": f"{folder}/instances.json"}
        keys |= {"cache": f"{folder}/cache", "device": device.type, "train.epochs": 2}
        train = ["rcnn.train", "--config", "configs/mini.yaml", "--no-evaluate", *(f"{k}={v}" for k, v in keys.items())]
        rows = []
        for name, start in (("one process", []), ("two processes", ["torch.distributed.run", "--nproc-per-node=2", "-m"])):
            output = f"{folder}/{name.split()[0]}"
            run([sys.executable, "-m", *train, f"output={output}"])
            began = time.perf_counter()
            run([sys.executable, "-m", *start, "rcnn.evaluate", output])
            show(f"mini benchmark, {name}", f"{time.perf_counter() - began:.1f} s")
            rows.append(Result.load(output).rows)
    show("two processes find what one finds", rows[0] == rows[1])
    return rows[0] == rows[1]


def main(argv=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--quick", action="store_true", help="small sizes; only to see that it runs")
    args = parser.parse_args(argv)
    if args.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("torch finds no CUDA GPU; --device cpu --quick tries the script without one")
    device = torch.device(args.device)
    show("machine", torch.cuda.get_device_name() if args.device == "cuda" else "CPU")
    good = deviations(device)
    learning(device, args.quick)
    tower_speed(device, args.quick)
    good &= from_files(device, args.quick)
    good &= two_processes(device, args.quick)
    show("everything that must be equal is", good)
    return 0 if good else 1


if __name__ == "__main__":
    cli.run(main)
