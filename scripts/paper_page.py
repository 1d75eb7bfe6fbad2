#!/usr/bin/env python
"""The page of scripts/paper.sh: ours beside the paper, and what is absent.

    python scripts/paper_page.py [--measured NAME …] [--failed NAME …] [key=value …]

writes outputs/paper/README.md from the results of what was measured, and tables.{md,csv,tex} and figures/ beside it. For what
is absent it measures how fast an image tower of ViT-B/16's size with random weights is on this machine. Nothing is downloaded.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import prepare_coco
import prepare_openimages
import torch
from paper_ready import has_images, has_weights, load

from rcnn import cli, config, figure, runtime
from rcnn.clip.image_tower import ImageEncoder
from rcnn.datasets import DATASETS
from rcnn.files import replace_file
from rcnn.results import table, tables
from rcnn.results.result import Result

FOLDER = ROOT / "outputs" / "paper"
ABLATION = {
    "baseline plain": "class name",
    "cnr plain": "+ CNR",
    "cnr_pbl plain": "+ PBL",
    "cnr_pbl mssa": "+ MSSA",
}  # Table 3's rows: row and scorer, and what the page calls them
METHODS = {"RCNn": tables.METHOD, "TagCLIP*": ("tagclip", "plain")}  # rows of Tables 1 and 2 that are measured here, too


class Source(NamedTuple):
    """How to get a data set and measure it."""

    size: str
    address: str
    get: str
    measure: str


SOURCES = {
    "coco": Source(
        "6.9 GB to download; 14 GB of disk on the way, 7 GB in the end",
        prepare_coco.SERVER,
        "python scripts/prepare_coco.py",
        "bash coco.sh",
    ),
    "nuswide": Source(
        "0.7 GB of text files and some 20 GB of images, on request; 29 GB of disk for scores while it is measured",
        "https://lms.comp.nus.edu.sg/wp-content/uploads/2019/research/nuswide/NUS-WIDE.html",
        "python scripts/prepare_nuswide.py --help",
        "bash nuswide.sh",
    ),
    "openimages": Source(
        "38.9 GB to download; 78 GB of disk on the way, 39 GB in the end, 68 GB for scores while nine rows are measured",
        prepare_openimages.SERVER,
        "python scripts/prepare_openimages.py",
        "bash scripts/openimages.sh",
    ),
}


def views(settings: config.Config) -> int:
    """How often the image tower looks at one image."""
    return 1 + sum(side * side for side in settings.evaluate.grids)


def images(name: str, settings: config.Config) -> int:
    """How many images the paper tests on."""
    return DATASETS[name].counts.get("test images") or settings.dataset.expected_images["gzsl"]


@torch.inference_mode()
def seconds_per_view(settings: config.Config) -> float:
    """Of an image tower of ViT-B/16's size with random weights: the least of two batches after a first."""
    device = runtime.device(settings.device)
    with device:
        tower = ImageEncoder(image_size=224, patch=16, width=768, heads=12, layers=12, mlp_width=3072, embed_dim=512)
        for parameter in tower.parameters():
            torch.nn.init.normal_(parameter, std=0.02)
        batch = torch.zeros(64 if device.type == "cuda" else 2, 3, 224, 224)
    precision = settings.evaluate.precision
    if precision == "auto":
        precision = "fp16" if device.type == "cuda" else "float32"
    tower.eval().set_precision(runtime.PRECISIONS[precision])
    took = []
    for _ in range(3):
        began = time.perf_counter()
        tower(batch).global_features.sum().item()  # waits for a GPU
        took.append(time.perf_counter() - began)
    return min(took[1:]) / len(batch)


def numbers(name: str, result: Result | None) -> list[str]:
    """Lines of the paper's tables of one data set: its numbers, and ours below them."""
    found, known = [], tables.paper()
    for spec in known.values():
        if spec.get("dataset") == name:
            rows = [(row, spec["rows"][row], key) for row, key in METHODS.items()]
            found += _numbers(spec["title"], spec["columns"], rows, result)
    if name in known["table3"]["datasets"]:
        spec = known["table3"]
        quoted = spec["datasets"][name]
        rows = [(words, quoted[key], tuple(key.split())) for key, words in ABLATION.items()]
        found += _numbers(f"{spec['title']}, {DATASETS[name].title}", spec["columns"], rows, result)
    return found


def _numbers(title, columns, rows, result):
    lines = ["", f"**{title}**", "", f"| method | task | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
    for words, quoted, (row, scorer) in rows:
        for task, values in quoted.items():
            lines.append(f"| {words}, paper | {task.upper()} | {' | '.join(map(str, values))} |")
            if result is None:
                continue
            measured = result.rows.get(row, {}).get(scorer, {}).get(task, {})
            ours = [_difference(measured, *pair) for pair in zip(columns, values, strict=True)]
            mark = ", not measured" if not measured else "" if result.comparable else ", NOT COMPARABLE"
            lines.append(f"| **{words}, ours{mark}** | {task.upper()} | {' | '.join(ours)} |")
    return lines


def _difference(measured, column, quoted):
    if column not in measured:
        return "-"
    value = measured[column].value
    return f"**{value:.1f}** ({round(value - quoted, 1) + 0.0:+.1f})"


def glance(results: dict[str, Result]) -> list[str]:
    """Lines of one table: the method on every data set, paper and ours, by the F1 of the fewest names and by mAP."""
    lines = ["| data set | task | | F1, paper | F1, ours | mAP, paper | mAP, ours |", "|---|---|---|---|---|---|---|"]
    known, (row, scorer) = tables.paper(), tables.METHOD
    for name in SOURCES:
        spec, parts = next(spec for spec in known.values() if spec.get("dataset") == name), known["table3"]
        result = results.get(name)
        for task in ("zsl", "gzsl"):
            quoted = dict(zip(spec["columns"], spec["rows"]["RCNn"][task], strict=True))
            if name in parts["datasets"]:
                quoted |= dict(zip(parts["columns"], parts["datasets"][name][f"{row} {scorer}"][task], strict=True))
            f1 = next(metric for metric in quoted if metric.startswith("F1"))
            measured = result.rows.get(row, {}).get(scorer, {}).get(task, {}) if result else {}
            mark = "not measured" if not measured else "" if result.comparable else "NOT COMPARABLE"
            cells = [text for m in (f1, "mAP") for text in (str(quoted[m]), _difference(measured, m, quoted[m]))]
            lines.append(f"| {DATASETS[name].title}, {f1} | {task.upper()} | {mark} | {' | '.join(cells)} |")
    return lines


def absent(names: Sequence[str], pairs: Sequence[str]) -> list[str]:
    """Lines on what to fetch for each data set, and how long measuring it will take here."""
    per_view = seconds_per_view(load(names[0], pairs))
    lines = ["| data set | size | where from | get it | then | image tower, projected |", "|---|---|---|---|---|---|"]
    for name in names:
        settings, source = load(name, pairs), SOURCES[name]
        count, looks = images(name, settings), views(settings)
        hours = count * looks * per_view / 3600
        lines.append(
            f"| {DATASETS[name].title} | {source.size} | {source.address} | `{source.get}` | `{source.measure}` "
            f"| {hours:,.1f} h ({count:,} images × {looks} views) |"
        )
    settings = load(names[0], pairs)
    return [
        *lines,
        "",
        "CLIP ViT-B/16 is needed for all of them: 0.35 GB, fetched on first use by their own scripts, or `clip.weights=FILE`.",
        "",
        f"Measured here: {1 / per_view:,.2f} views/s by an image tower of ViT-B/16's size with random weights "
        f"({runtime.device(settings.device)}, threads: {torch.get_num_threads()}, the least of two batches). The hours are "
        "projected from it and leave out the reading of images, metrics and intervals, and learning the class names from "
        "text: on two CPU cores some 8 minutes for MS-COCO and 21 hours for NUS-WIDE, by `scripts/README.md`; "
        "`python scripts/benchmark_train.py` measures it here.",
    ]


def figures(name: str, run: str) -> list[str]:
    """Lines with the figures of a run that there is something to draw of, and why there are no others."""
    lines, absent = ["", f"### {DATASETS[name].title}", ""], []
    for key in figure.FIGURES:
        try:
            figure.main([key, os.path.relpath(run), "--output", str(FOLDER / "figures" / name)])
            lines += [f"![figure {key}](figures/{name}/figure_{key}.png)", ""]
        except (ValueError, OSError) as error:
            absent.append(f"- No figure {key}: {error}")
    return lines + absent


def write(measured: Sequence[str], failed: Sequence[str], pairs: Sequence[str]) -> None:
    """Write the page, and the tables beside it."""
    results = {name: Result.load(load(name, pairs).output) for name in measured}
    mine = tables.tables(tables.group((name, result) for name, result in results.items() if name in SOURCES))
    here = [name for name in SOURCES if has_images(load(name, pairs))]
    gone = [name for name in SOURCES if name not in here]
    others = [name for name in here if name not in (*measured, *failed)]
    skipped = [name for name in others if has_weights(load(name, pairs))]
    lines = ["# The paper's tables, ours beside", ""]
    states = {
        "Measured": [*results],
        "Failed, though its files are here": failed,
        "Here, but skipped": skipped,
        "Here, but CLIP's weights are not (0.35 GB; its own script fetches them, or clip.weights=FILE)": [
            name for name in others if name not in skipped
        ],
        "Absent, see *What is absent*": gone,
    }
    for state, names in states.items():
        if names:
            lines.append(f"- {state}: {', '.join(DATASETS[name].title for name in names)}")
    lines += ["", "The paper's method, RCNn. In brackets: ours minus the paper's. Percent.", ""]
    lines += glance(results)
    for name in SOURCES:
        lines += ["", f"## {DATASETS[name].title}", *numbers(name, results.get(name))]
        notes = [note for made in mine if made.dataset == name for note in made.notes]
        if name in results and "tagclip" not in results[name].rows:
            notes.append("TagCLIP is measured with `evaluate.tagclip=true`, by a second pass over the images.")
        if notes:
            lines += ["", *(f"- {note}" for note in dict.fromkeys(notes))]
    if mine:
        lines += [
            "",
            "All rows, also of other methods: [tables.md](tables.md), [tables.csv](tables.csv), [tables.tex](tables.tex).",
        ]
    if "mini" in results:
        lines += ["", "## Mini benchmark", "", "Drawings and a small CLIP; the paper has no such table.", "", "```"]
        lines += [table.render(results["mini"]).strip("\n"), "```"]
        spent = results["mini"].seconds
        if spent.get("images"):
            lines += ["", f"Its image tower took {spent['image_tower'] / spent['images']:.4f} s an image here."]
    shutil.rmtree(FOLDER / "figures", ignore_errors=True)  # of an earlier run
    if results:
        lines += ["", "## Figures", "", "Also as PDF, and the numbers of each as JSON, in `figures/`."]
        lines += [line for name in results for line in figures(name, load(name, pairs).output)]
    if gone:
        lines += ["", "## What is absent", "", *absent(gone, pairs)]
    for form, suffix in tables.FORMATS.items():
        path = FOLDER / f"tables.{suffix}"
        if mine:
            with replace_file(path) as file:
                file.write((tables.render(mine, form) + "\n").encode())
        else:
            path.unlink(missing_ok=True)  # of an earlier run, which the page does not speak of
    with replace_file(FOLDER / "README.md") as file:
        file.write(("\n".join(lines) + "\n").encode())
    print(f"the page is outputs/paper/README.md; tables of {len(mine)} comparisons with the paper beside it")


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measured", action="append", default=[], choices=[*SOURCES, "mini"], metavar="NAME")
    parser.add_argument("--failed", action="append", default=[], choices=[*SOURCES, "mini"], metavar="NAME")
    parser.add_argument("pairs", nargs="*", metavar="key=value", help="configuration keys, as given to scripts/paper.sh")
    args = parser.parse_intermixed_args(argv)
    write(args.measured, args.failed, args.pairs)


if __name__ == "__main__":
    cli.run(main)
