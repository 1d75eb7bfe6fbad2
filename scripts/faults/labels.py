"""The family of annotations."""

import json
from random import Random

from faults.harms import in_file, no_file
from faults.junk import JUNK, dump
from faults.trial import Harm, Step, Trial
from faults.world import World

from rcnn.printing import short

COCO = "coco/annotations/instances_val2014.json"


def coco_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """COCO's file is changed so that the labels stay as they are, or cannot be had."""
    kind = rng.choice(["value", "value", "value", "remove", "again", "cut", "coding", "whole"])
    if kind == "cut":
        return "cut", data[: rng.randrange(len(data) - 2)]
    if kind == "coding":
        coding = rng.choice(["utf-16", "utf-32", "utf-8-sig"])
        return f"in {coding}", data.decode().encode(coding)
    tree = json.loads(data)
    part = rng.choice(["images", "annotations", "categories"])
    number = rng.randrange(len(tree[part]))
    entry = tree[part][number]
    if kind == "whole":
        part = rng.choice([part, "info", "licenses"])
        tree[part] = rng.choice([v for v in JUNK if v not in ([], {})])
        return f"{part} = {short(tree[part])}", dump(tree)
    if kind == "again":
        more = json.loads(json.dumps(entry))
        if rng.random() < 0.6:
            keys = {"images": ["id", "file_name"], "annotations": ["id"], "categories": ["id", "name"]}[part]
            key = rng.choice(keys)
            more[key] = 9999 if key == "id" else str(more[key]).swapcase()
        tree[part].insert(rng.randrange(len(tree[part]) + 1), more)
        return f"{part}: one more, {short(more)}", dump(tree)
    key = rng.choice(sorted(entry))
    text = f"{part}.{number}.{key}"
    if kind == "remove":
        del entry[key]
        return f"{text} is removed", dump(tree)
    # 5 may be another one's, as may True, which is 1
    entry[key] = rng.choice([*(v for v in JUNK if v not in (5, True)), str(entry[key])])
    return f"{text} = {short(entry[key])}", dump(tree)


def zeros_and_ones_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A text file of NUS-WIDE is changed so that the labels stay as they are, or cannot be had."""
    kind = rng.choice(["cut", "ends", "foreign", "blank", "coding", "slashes", "long", "twice"])
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    if kind == "cut":  # within a line
        return f"cut in line {at + 1}", b"\r\n".join(lines[:at]) + b"\r\n" * bool(at) + lines[at][: len(lines[at]) // 2]
    if kind == "ends":
        return "LF", data.replace(b"\r\n", b"\n")
    if kind == "slashes":
        return "slashes", data.replace(b"\\", b"/")
    if kind == "coding":
        return "in UTF-16", data.decode("latin-1").encode("utf-16")
    lines[at] = {
        "foreign": rng.choice([b"2", b"-1", b"x", b"\xff", b"\0", b"1 1 1 1 1 1 1 1", b"\xd9\xa1", b"0.0"]),
        "blank": b"\r\n" + lines[at],
        "long": lines[at] * 1000, "twice": lines[at] + b"\r\n" + lines[at],
    }[kind]  # fmt: skip
    return f"line {at + 1}: {kind}", b"\r\n".join(lines) + b"\r\n"


def loop_of_folders(place: str) -> Harm:
    def harm(setting):
        (setting.root / place / "again").symlink_to(setting.root / place)
        return f"{place}/again is a link to {place}"

    return harm


def annotations(rng: Random, world: World) -> Trial:
    """Labels are those of the unharmed files, or refused."""
    seed, kind = rng.randrange(1 << 30), rng.choice(["coco", "nuswide"])
    files = ["nuswide/ImageList/*.txt", "nuswide/NUS_WID_Tags/*.txt", "nuswide/Groundtruth/AllLabels/*.txt"]
    if kind == "coco":
        harms = [in_file(COCO, coco_changed, seed + i) for i in range(rng.randint(1, 2))]
    else:
        harms = [in_file(rng.choice(files), zeros_and_ones_changed, seed)]
    if rng.random() < 0.1:
        harms = [no_file(COCO if kind == "coco" else rng.choice(files), seed)]
    if kind == "nuswide" and rng.random() < 0.1:
        harms = [loop_of_folders(rng.choice(["nuswide", "nuswide/ImageList", "nuswide/Flickr"]))]

    def judge(setting, outcome):
        if outcome.code or json.loads(outcome.out) == world.good[kind]:
            return None
        return "the labels are others"

    return Trial(harms, [Step(["labels", f"{kind}.yaml"])], judge)
