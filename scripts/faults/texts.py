"""The families of configurations, class lists and corpora."""

import json
import re
from random import Random

from faults.harms import argument, bytes_changed, in_file, json_changed, no_file
from faults.junk import dump, places
from faults.results import finite, finite_tags, tags
from faults.trial import Step, Trial
from faults.unharmed import CLIP, NAMES
from faults.world import World

from rcnn import config
from rcnn.printing import short

WORDS = [
    "x", "", "😀", "null", "true", "5", "-1", "0", "1.5", "1e-4", ".inf", "-.inf", ".nan", "1e400", "9" * 400, "[]", "{}",
    "[x]",
    "[[]]", "{a: {b: c}}", "[1, [2, 3]]", "!!bool x", "!!timestamp x", "!!int x", "!!float x", "!!binary x", "!!set {a}",
    "!!python/object/apply:os.system [echo]", "&a [*a]", "*b", "2020-13-45", "2020-01-01", "0x1F", "1:2:3:4", "'\\x1b[2J'",
    '"\\e[31m"', '"\\ud800"', '"\\0"', "[" * 2000, "[" * 400 + "]" * 400, "{" * 300, "a" * 20_000, "a: b: c", "- x", "? x",
    "|", ">",
    "!!str", "@x", "%x", "`", '"', "'", "#", "\t", "[" + "1, " * 5000 + "1]", str(2**31), str(2**63), str(-(2**63)),
    "1e308", "1e30",
    "~/x", "/dev/null", "/proc/self/mem", "..", "a/b", "meta", "mps", "xla", "cuda", "cuda:99", "cuda:-1", "cpu:7", "auto",
    "[100]",
    "1_000", "0o17", "1__0", "１２", "yes", "NaN", "Infinity", "-0.0", "\u202e5",
]  # fmt: skip


def yaml_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A line of a YAML file is another, or there is one more, or bytes are changed."""
    lines, word = data.decode("utf-8", "replace").splitlines(), rng.choice(WORDS)
    at, kind = (
        rng.randrange(max(1, len(lines))),
        rng.choice(["value", "value", "value", "key", "line", "bytes", "bomb", "coding"]),
    )
    if kind == "bytes" or not lines:
        return bytes_changed(rng, data)
    if kind == "bomb":
        bomb = "\n".join(["a0: &a0 [x, x, x, x, x, x, x, x, x]"] + [
            f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)
        ])  # fmt: skip
        return "aliases of aliases", f"{bomb}\n{lines[at].partition(':')[0].strip()}: *a8\n".encode() + data
    if kind == "coding":
        coding = rng.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1", "cp500"])
        return f"in {coding}", (data.decode("utf-8", "replace") + "# é\n").encode(coding, "replace")
    key = lines[at].partition(":")[0]
    lines[at : at + (kind != "key")] = [{"value": f"{key}: {word}", "key": f"{word}: {word}", "line": word}[kind]]
    return f"line {at + 1} is {short(lines[at])}", "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"


def configuration(rng: Random, world: World) -> Trial:
    """A configuration is refused, or learns and scores finite numbers."""
    seed = rng.randrange(1 << 30)
    commands = {
        "data": ["data", "check", "--config", "coco.yaml"],
        "train": ["train", "--config", "coco.yaml", "--no-evaluate", "output=other"],
        "describe": ["describe", "describe.yaml", "--dry-run"],
        "evaluate": ["evaluate", "run"], "predict": ["predict", "photos/good-42.jpg", *NAMES],
    }  # fmt: skip
    name = rng.choice(sorted(commands))
    cls = config.DescribeConfig if name == "describe" else config.Config
    file = "describe.yaml" if name == "describe" else "coco.yaml"
    if name in ("data", "train", "describe") and rng.random() < 0.5:
        harms = [in_file(file, yaml_changed, seed + i) for i in range(rng.randint(1, 3))]
    else:
        known = config.known_keys(cls)
        keys = [rng.choice([*known, rng.choice(known).partition(".")[0], "rows.x", "x", ""]) for _ in range(rng.randint(1, 3))]
        harms = [argument(f"{key}={rng.choice(WORDS)}") for key in keys]

    def judge(setting, outcome):
        if outcome.code == 0 and name == "train":
            return finite(setting.root / "other") if (setting.root / "other").is_dir() else None
        if outcome.code == 0 and name == "predict" and re.search(r"\b(nan|inf)\b", outcome.out):
            return "scores that are no numbers"
        return None

    return Trial(harms, [Step(commands[name])], judge)


LINES = [
    "", " ", "_", "#", "[]", "[x]", "x []", "x [y]", "x [y] [z]", "a" + "[" * 60_000, "[" * 60_000, "a" + "]" * 60_000,
    "a [" * 20_000,
    "\x00", "a\x00b", "\x1b[31mred\x1b[0m", "a\tb", "a\x0bb", "a\x85b", "a\u2028b", "\u202eabc", "\u200b", "\ufeff",
    "\ud800", "😀",
    "<end_of_text>", "<start_of_text>", "a dog<end_of_text> is a cat", "<|endoftext|>", "word " * 100, "x" * 100_000,
    "é" * 300,
    "VEHICLE", "vehicle", "vehicle [a note]", "null", "true", "5", "a,b", 'a"b', "a=b", "../x", "%s", "{}", "{0}", "\\",
    "a\\nb",
    "ﬃ", "ǅ", "İ", "ß", "a\u0301", "<script>alert(1)</script>", "http://example.org/x",
]  # fmt: skip


def line_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A line of a text is another, there is one more, or bytes are changed."""
    if rng.random() < 0.25:
        return bytes_changed(rng, data)
    lines, line = data.decode("utf-8", "replace").splitlines(), rng.choice(LINES)
    at, coding = rng.randrange(len(lines) + 1), rng.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"])
    lines[at : at + rng.randint(0, 1)] = [line]
    text = rng.choice(["\n", "\n", "\r\n", "\r"]).join(lines)
    return f"line {at + 1} is {short(line)}, in {coding}", text.encode(
        coding, "surrogatepass" if "utf" in coding else "replace"
    )


def sentence_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A name or a sentence of a corpus is another."""
    tree = json.loads(data)
    container, key, path = rng.choice([place for place in places(tree) if isinstance(place[0][place[1]], str)])
    container[key] = rng.choice(LINES)
    return f"{'.'.join(map(str, path))} = {short(container[key])}", dump(tree)


SPECIAL = ("<end_of_text>", "<start_of_text>")


def texts(rng: Random, world: World) -> Trial:
    """A class list or a corpus is refused, or makes names that say something and finite numbers."""
    seed = rng.randrange(1 << 30)
    name = rng.choice(["predict", "describe", "train"])
    file = "names.corpus.json" if name == "train" and rng.random() < 0.7 else "names.txt"
    changes = [line_changed] if file == "names.txt" else [json_changed, sentence_changed, bytes_changed]
    harms = [in_file(file, rng.choice(changes), seed + i) for i in range(rng.randint(1, 3))]
    if rng.random() < 0.05:
        harms = [no_file(file, seed)]
    commands = {
        "predict": ["predict", "photos/good-42.jpg", *NAMES, "--format", "json"],
        "describe": ["describe", "names.txt", "--dry-run"],
        "train": ["train", "--classes", "names.txt", *CLIP, "output=other", "train.method=closed_form", "train.batch_size=64"],
    }

    def judge(setting, outcome):
        if outcome.code:
            return None
        text = setting.path(file).read_text("utf-8", "replace")
        if name != "describe" and any(token in text for token in SPECIAL):
            return "CLIP's own token is taken as a word"
        if name == "predict":
            (row,) = tags("json", outcome.out).values()
            return None if finite_tags(row) and all(n.strip() for n, _ in row) else "a tag without a name or a number"
        return finite(setting.root / "other") if name == "train" else None

    return Trial(harms, [Step(commands[name])], judge)
