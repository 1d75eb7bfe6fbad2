"""Figure 3: what the class name and the method predict for some images, side by side (paper 4.4)."""

import os
import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rcnn import checkpoint, rows
from rcnn.figures import style
from rcnn.figures.kept_scores import KeptScores
from rcnn.printing import cut, short
from rcnn.results.result import Result
from rcnn.score.reading import read_rgb, reason
from rcnn.text import corpus
from rcnn.text.classes import ClassList

IMAGES, AMONG = 4, {"zsl": 5, "gzsl": 10}
LOOK = {"true": ("✓", "#00795C"), "reasonable": ("≈", "black"), "wrong": ("×", "#C63D00")}  # the paper's green, black and red
RULE = "Reasonable: a true label in the singular or plural, or a broader kind of one by the descriptions (our rule)."


def lemma(name: str) -> str:
    """A name in lower case, without the ending of a regular plural."""
    name = re.sub(r"(?<=[^aeiou])ies$", "y", name.lower())
    return re.sub(r"(?<=[xz])es$|(?<=ch|sh|ss)es$|(?<=[^s])s$", "", name) if len(name) > 3 else name


def kinds(name: str, sentences: Sequence[str]) -> set[str]:
    """Lemmas of the broader kinds that the descriptions of a class name: "a dog, which is a pet."."""
    found = (re.fullmatch(rf"a {re.escape(name)}, which is an? ([^,]+)\.", sentence) for sentence in sentences)
    return {lemma(match[1]) for match in found if match}


def choose(kept: KeptScores, named: Sequence[str]) -> list[int]:
    """The images of these names, or without any, evenly spaced ones of those with two labels that the first task scores."""
    if not named:
        several = (kept.labels[:, max(kept.tasks.values()) :] == 1).sum(1) >= 2
        if not len(candidates := np.flatnonzero(kept.readable & several)):
            raise ValueError("no image has two labels; --images says which to show")
        return candidates[np.linspace(0, len(candidates) - 1, min(IMAGES, len(candidates))).astype(int)].tolist()
    chosen = []
    for name in named:
        found = [i for i, path in enumerate(kept.images) if kept.readable[i] and f"/{path}".endswith(f"/{name}")]
        if len(found) != 1:
            raise ValueError(f"--images: {short(name)} is the end of {len(found)} image paths of this run; expected one")
        chosen += found
    return chosen


def numbers(run: str, named: Sequence[str] = ()) -> dict[str, Any]:
    """All that the figure shows; `named` images, or see `choose`."""
    result, metadata = Result.load(run), checkpoint.read_run(run)[1]
    kept = KeptScores(run, result)
    names, folder = result.class_names, result.settings.dataset.images
    shown = {result.label(*pair): kept.scores(*pair) for pair in ((rows.BASELINE, "plain"), (result.method, result.scorer))}
    described = {}
    if result.settings.corpus.path:
        known = corpus.load(result.settings.corpus.path, ClassList(tuple(names), result.seen, tuple(metadata["notes"])))
        for sentence, c in zip(known.sentences, known.targets.tolist(), strict=True):
            described.setdefault(c, []).append(sentence)
    images = []
    for i in choose(kept, named):
        by_task = {}
        for task, first in kept.tasks.items():
            true = [c for c in range(first, len(names)) if kept.labels[i, c] == 1]
            near = {lemma(names[c]) for c in true}.union(*(kinds(names[c], described.get(c, ())) for c in true))
            columns = {"labels": [{"class": names[c], "is": "true"} for c in true]}
            for label, scores in shown.items():
                best = first + np.argsort(-scores[i, first:], kind="stable")[: AMONG[task]]
                columns[label] = [
                    {"class": names[c], "is": "true" if c in true else "reasonable" if lemma(names[c]) in near else "wrong",
                     "score": round(float(scores[i, c]), 5)}
                    for c in best
                ]  # fmt: skip
            by_task[task] = columns
        images.append({"image": os.path.relpath(kept.images[i], folder), "tasks": by_task})
    chosen = "named" if named else f"evenly spaced of those with two {next(iter(kept.tasks)).upper()} labels"
    return {"chosen": chosen, "rule": RULE, "images": images}


def lines(found: dict[str, Any]) -> list[str]:
    """The numbers in words."""
    out = [f"{len(found['images'])} images, {found['chosen']}. {found['rule']}"]
    for image in found["images"]:
        for task, columns in image["tasks"].items():
            out.append(f"{Path(image['image']).name}, {task.upper()}")
            for label, entries in columns.items():
                out.append(f"  {label}: {', '.join(LOOK[e['is']][0] + ' ' + e['class'] for e in entries)}")
    return out


def draw(found: dict[str, Any], run: str) -> "style.Figure":
    """The figure: a row of texts for each image."""
    folder = Path(Result.load(run).settings.dataset.images)
    images, side, step, top = found["images"], 1.3, 1.47, 0.47  # inches: of an image, from row to row, above the first
    figure = style.new(top + step * len(images) + 0.15)
    figure.set_layout_engine("none")
    width, height = figure.get_size_inches()
    columns = [(task, label) for task, labels in images[0]["tasks"].items() for label in labels]
    lefts = np.linspace(side + 0.15, width + 0.05, len(columns) + 1)[:-1]

    def write(left, down, text, size=6, **look):
        figure.text(left / width, 1 - down / height, text, va="top", fontsize=size, **look)

    for left, (task, label) in zip(lefts, columns, strict=True):
        if label == "labels":
            write(left, 0.04, f"{task.upper()}, {AMONG[task]} best", 7.5, weight="bold")
        write(left, 0.19, textwrap.fill(label, 20), style="italic")
    for down, image in zip(np.arange(len(images)) * step + top, images, strict=True):
        panel = figure.add_axes((0.03 / width, 1 - (down + side) / height, side / width, side / height), anchor="NW")
        panel.imshow(_small(folder / image["image"]))
        panel.set_axis_off()
        for left, (task, label) in zip(lefts, columns, strict=True):
            entries = image["tasks"][task][label]
            for line, entry in enumerate(entries[:10]):
                mark, colour = LOOK[entry["is"]]
                more = f"… {len(entries) - 9} more" if line == 9 and len(entries) > 10 else ""
                write(left, down + 0.132 * line, f"{mark} {more or cut(entry['class'], 22)}", 5.8, color=colour)
    marks = "; ".join(f"{mark} {word}" for word, (mark, _) in LOOK.items())
    write(0.03, height - 0.12, f"{marks}. {found['rule']} Images: {found['chosen']}.", 5, color="0.35")
    return figure


def _small(path: Path) -> Image.Image:
    try:
        image = read_rgb(path, 1024)
    except Exception as error:  # of nearly every kind
        raise ValueError(f"{path}: {reason(error)}") from None
    image.thumbnail((1024, 1024))
    return image
