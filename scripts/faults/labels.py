"""The family of annotations."""

import copy
import json
from random import Random

from faults.harms import JUNK, dump, in_file, no_file
from faults.trial import Harm, Step, Trial
from faults.world import World

from rcnn.printing import short

COCO = "coco/annotations/instances_val2014.json"
NUSWIDE = ["nuswide/ImageList/*.txt", "nuswide/NUS_WID_Tags/*.txt", "nuswide/Groundtruth/AllLabels/*.txt"]


def coco_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """COCO's file is changed so that the labels stay as they are, or cannot be had."""
    kind, tree, part = rng.choice(["value"] * 3 + ["whole", "remove", "again", "cut", "coding"]), json.loads(data), "images"
    if kind == "cut":
        return kind, data[: rng.randrange(len(data) - 2)]
    if kind == "coding":
        coding = rng.choice(["utf-16", "utf-32", "utf-8-sig"])
        return f"in {coding}", data.decode().encode(coding)
    keys = {"images": ["id", "file_name"], "annotations": ["id"], "categories": ["id", "name"]}
    part = rng.choice([*keys, "info", "licenses"]) if kind == "whole" else rng.choice(list(keys))
    number = rng.randrange(len(tree[part])) if part in keys else 0
    if kind == "whole":
        container, key, junk = tree, part, [value for value in JUNK if value not in ([], {})]
    else:
        container = tree[part][number]
        key = rng.choice(sorted(container))
        # 5 may be another one's, as may True, which is 1
        junk = [*(value for value in JUNK if value not in (5, True)), str(container[key])]
    if kind == "remove":
        del container[key]
    elif kind == "again":
        more, key = copy.deepcopy(container), rng.choice(keys[part])
        if rng.random() < 0.6:
            more[key] = 9999 if key == "id" else str(more[key]).swapcase()
        tree[part].insert(rng.randrange(len(tree[part]) + 1), more)
    else:
        container[key] = rng.choice(junk)
    return f"{kind}: {part} {number}, {key} = {short(container.get(key))}", dump(tree)


def zeros_and_ones_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A text file of NUS-WIDE is changed so that the labels stay as they are, or cannot be had."""
    lines = data.splitlines()
    at, foreign = rng.randrange(len(lines)), rng.choice(
        [b"2", b"-1", b"x", b"\xff", b"\0", b"1 1 1 1 1 1 1 1", b"\xd9\xa1", b"0.0"]
    )  # fmt: skip
    line, end = lines[at], b"\r\n"
    kinds = {
        "LF": data.replace(end, b"\n"), "slashes": data.replace(b"\\", b"/"),
        "UTF-16": data.decode("latin-1").encode("utf-16"),
        "cut": end.join([*lines[:at], line[: len(line) // 2]]),  # within a line
    } | {
        kind: end.join([*lines[:at], *new, *lines[at + 1 :]]) + end
        for kind, new in {
            "foreign": [foreign], "blank": [b"", line], "long": [line * 1000], "twice": [line, line],
        }.items()
    }  # fmt: skip
    kind = rng.choice(list(kinds))
    return f"line {at + 1}: {kind}", kinds[kind]


def loop_of_folders(place: str) -> Harm:
    return lambda setting: (setting.root / place / "again").symlink_to(setting.root / place) or f"{place}/again links to it"


def annotations(rng: Random, world: World) -> Trial:
    """Labels are those of the unharmed files, or refused."""
    seed, kind, file = rng.randrange(1 << 30), rng.choice(["coco", "nuswide"]), rng.choice(NUSWIDE)
    harms = [in_file(file, zeros_and_ones_changed, seed)]
    if kind == "coco":
        file, harms = COCO, [in_file(COCO, coco_changed, seed + i) for i in range(rng.randint(1, 2))]
    if rng.random() < 0.1:
        harms = [no_file(file, seed)]
    if kind == "nuswide" and rng.random() < 0.1:
        harms = [loop_of_folders(rng.choice(["nuswide", "nuswide/ImageList", "nuswide/Flickr"]))]
    command = ["labels", f"{kind}.yaml"]
    return Trial(harms, [Step(command)], world.same(command))
