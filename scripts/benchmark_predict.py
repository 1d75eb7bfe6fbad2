#!/usr/bin/env python
"""What keeping scores and writing tables costs beside the image tower, and how a large collection answers.

    python scripts/benchmark_predict.py              # ViT-B/16 with random weights, drawings; 100,000 generated entries
    python scripts/benchmark_predict.py --quick      # a small tower and 1,000 entries; seconds, its ratio means nothing

First some drawings are tagged, by the full image alone, which makes the ratio largest: the time in the store and in writing
the table is compared with that of the tower in the same run. Then the store is filled with generated scores of files that are
no images, and rcnn.predict, started anew, answers from it in several ways: time of the whole process, of its processor, and
peak memory (Linux). The last line is `ratio=<store and table / tower> answer=<seconds of the slowest> memory=<MB>`.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
from torch.nn import functional as F

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmark_eval import MODEL, synthetic, towers

from rcnn import cli, config, runtime
from rcnn.collection import Collection, Known, Source
from rcnn.tagger import Tagger
from rcnn.tagging.store import Photo, Store
from rcnn.tagging.tags import ranked, writer

NAMES = [f"class {i}" for i in range(80)]
MINI = ["clip.model=null", "clip.pretrained=null", f"clip.weights={ROOT}/data/mini/clip.safetensors", "device=cpu"]


def beside_the_tower(folder: Path, name: str, images: int, device: torch.device) -> float:
    """Seconds in the store and in writing the table, for each second of tagging without them."""
    model = towers(name, device)[1]
    torch.manual_seed(0)
    z = F.normalize(torch.randn(len(NAMES), model.image.proj.shape[1]), dim=1)
    settings = config.override({"cache": folder / "cache", "evaluate": {"grids": []}}, [])
    tagger = Tagger(model, NAMES, z, "benchmark", settings)
    known = Known(tagger.identity, NAMES, [])
    source = SimpleNamespace(settings=settings, folder=folder / "cache", tagger=tagger, noted=lambda: known, learned=known)
    paths = synthetic(folder, images)
    tagger.scores(paths[:1])  # warms up
    collection, kept, put = Collection(paths, source), 0.0, Store.put

    def timed(store, answers):
        nonlocal kept
        began = time.perf_counter()
        put(store, answers)
        kept += time.perf_counter() - began

    Store.put = timed
    began = time.perf_counter()
    for _ in collection.score():
        pass
    scored = time.perf_counter() - began
    Store.put = put
    began = time.perf_counter()
    collection.open()
    with open(folder / "tags.csv", "w", newline="") as file, writer(file, "csv", NAMES, paths) as write:
        for i, answer in collection.answers():
            columns = ranked(answer, None, 5)
            write(paths[i], list(zip(columns, answer[columns].tolist(), strict=True)))
    written = time.perf_counter() - began
    tower = scored - kept
    each = [1000 * seconds / images for seconds in (tower, kept, written)]
    print("{} drawings on {}: tower {:.2f} ms each, store {:.3f} ms, reading and writing the table {:.3f} ms".format(
        images, device.type, *each
    ))  # fmt: skip
    return (kept + written) / tower


def fill(folder: Path, count: int) -> list[str]:
    """Files, and scores in the store; returns the arguments of rcnn.predict."""
    (folder / "names.txt").write_text("\n".join(NAMES))
    photos, pairs = folder / "photos", [*MINI, f"cache={folder}/cache"]
    source, rng = Source(None, str(folder / "names.txt"), pairs), np.random.default_rng(0)
    store = Store(folder / "cache" / "tagged", source.learned.identity, len(NAMES))
    for start in range(0, count, 1000):
        (photos / f"{start:06}").mkdir(parents=True)
        paths = [photos / f"{start:06}" / f"{i:06}.jpg" for i in range(start, min(start + 1000, count))]
        for path in paths:
            path.touch()
        scores = rng.normal(0.25, 0.03, (len(paths), len(NAMES))).astype(np.float32)
        store.put({Photo.at(path): row for path, row in zip(paths, scores, strict=True)})
    store.close()
    return [str(photos), "--classes", str(folder / "names.txt"), *pairs]


ANSWER = """
import re, sys, time
from pathlib import Path
from rcnn import predict
predict.main(sys.argv[1:])
sys.stdout.flush()
print(time.process_time(), re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1], file=sys.stderr)
"""


def answers(arguments: list[str], count: int) -> tuple[float, float]:
    """(seconds of the slowest, MB of the largest) of rcnn.predict in several ways."""
    slowest = largest = 0.0
    for more in ([], ["--format", "csv"], ["--format", "jsonl"], ["--top", "5", "--min-score", "-1", "--format", "csv"]):
        command, began = [sys.executable, "-c", ANSWER, *arguments, *more], time.perf_counter()
        ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=True)
        took = time.perf_counter() - began
        processor, kilobytes = map(float, ended.stderr.splitlines()[-1].split())
        shown = " ".join(more) or "a table"
        print(f"{count:,} entries, {shown}: {took:.2f} s, of a processor {processor:.2f} s, {kilobytes / 1024:.0f} MB")
        slowest, largest = max(slowest, took), max(largest, kilobytes / 1024)
    return slowest, largest


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=16, help="drawings that are tagged (default: 16)")
    parser.add_argument("--entries", type=int, default=100_000, help="generated entries (default: 100,000)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--quick", action="store_true", help="a small tower and 1,000 entries; only to see that it runs")
    args = parser.parse_args(argv)
    entries = 1000 if args.quick else args.entries
    with tempfile.TemporaryDirectory() as folder:
        device = runtime.device(args.device)
        ratio = beside_the_tower(Path(folder), "quick" if args.quick else MODEL, args.images, device)
        (Path(folder) / "many").mkdir()
        seconds, memory = answers(fill(Path(folder) / "many", entries), entries)
    print(f"ratio={ratio:.5f} answer={seconds:.2f} memory={memory:.0f}")


if __name__ == "__main__":
    cli.run(main)
