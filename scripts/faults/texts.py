"""The families of configurations, class lists and corpora."""

import json
from random import Random

from faults.harms import argument, bytes_changed, dump, in_file, json_changed, no_file, places
from faults.results import finite
from faults.trial import Step, Trial
from faults.unharmed import CLIP, NAMES
from faults.world import World

from rcnn import config
from rcnn.printing import short

WORDS = [
    "x", "", "😀", "null", "true", "5", "-1", "0", "1.5", "1e-4", ".inf", "-.inf", ".nan", "1e400", "9" * 400, "[]", "{}",
    "[x]", "[[]]", "{a: {b: c}}", "[1, [2, 3]]", "!!bool x", "!!timestamp x", "!!int x", "!!float x", "!!binary x",
    "!!set {a}", "!!python/object/apply:os.system [echo]", "&a [*a]", "*b", "2020-13-45", "2020-01-01", "0x1F", "1:2:3:4",
    "'\\x1b[2J'", '"\\e[31m"', '"\\ud800"', '"\\0"', "[" * 2000, "[" * 400 + "]" * 400, "{" * 300, "a" * 20_000, "a: b: c",
    "- x", "? x", "|", ">", "!!str", "@x", "%x", "`", '"', "'", "#", "\t", "[" + "1, " * 5000 + "1]", str(2**31), str(2**63),
    str(-(2**63)), "1e308", "1e30", "~/x", "/dev/null", "/proc/self/mem", "..", "a/b", "meta", "mps", "xla", "cuda",
    "cuda:99", "cuda:-1", "cpu:7", "auto", "[100]", "1_000", "0o17", "1__0", "１２", "yes", "NaN", "Infinity", "-0.0",
    "\u202e5",
]  # fmt: skip
LINES = [
    "", " ", "_", "#", "[]", "[x]", "x []", "x [y]", "x [y] [z]", "a" + "[" * 60_000, "[" * 60_000, "a" + "]" * 60_000,
    "a [" * 20_000, "\x00", "a\x00b", "\x1b[31mred\x1b[0m", "a\tb", "a\x0bb", "a\x85b", "a\u2028b", "\u202eabc", "\u200b",
    "\ufeff", "\ud800", "😀", "<end_of_text>", "<start_of_text>", "a dog<end_of_text> is a cat", "<|endoftext|>",
    "word " * 100, "x" * 100_000, "é" * 300, "VEHICLE", "vehicle", "vehicle [a note]", "null", "true", "5", "a,b", 'a"b',
    "a=b", "../x", "%s", "{}", "{0}", "\\", "a\\nb", "ﬃ", "ǅ", "İ", "ß", "a\u0301", "<script>alert(1)</script>",
    "http://example.org/x", "<|endoftext|> of a dog", "a_dog",
]  # fmt: skip
SPECIAL = ("<end_of_text>", "<start_of_text>")
LEARN = ["output=other", "train.method=closed_form", "train.batch_size=64"]


def yaml_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A line of a YAML file is another, or there is one more, or bytes are changed."""
    lines, word = data.decode("utf-8", "replace").splitlines(), rng.choice(WORDS)
    at, kind = rng.randrange(len(lines)), rng.choice(["value", "value", "value", "key", "line", "bytes", "bomb", "coding"])
    key = lines[at].partition(":")[0]
    if kind == "bytes":
        return bytes_changed(rng, data)
    if kind == "bomb":
        rows = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
        rows += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
        return "aliases of aliases", "\n".join([*rows, f"{key.strip()}: *a8", ""]).encode() + data
    if kind == "coding":
        coding = rng.choice(["utf-16", "utf-32", "utf-8-sig", "latin-1", "cp500"])
        return f"in {coding}", (data.decode("utf-8", "replace") + "# é\n").encode(coding, "replace")
    lines[at : at + (kind != "key")] = [{"value": f"{key}: {word}", "key": f"{word}: {word}", "line": word}[kind]]
    return f"line {at + 1} is {short(lines[at])}", "\n".join(lines).encode("utf-8", "surrogatepass") + b"\n"


def configuration(rng: Random, world: World) -> Trial:
    """A configuration is refused, or learns and scores finite numbers."""
    seed = rng.randrange(1 << 30)
    command = rng.choice([
        ["data", "check", "--config", "coco.yaml"], ["train", "--config", "coco.yaml", "--no-evaluate", "output=other"],
        ["describe", "describe.yaml", "--dry-run"], ["evaluate", "run"], ["predict", "photos/good-42.jpg", *NAMES],
    ])  # fmt: skip
    file = next((text for text in command if text.endswith(".yaml")), None)
    known = config.known_keys(config.DescribeConfig if command[0] == "describe" else config.Config)
    keys = [*known, *{key.partition(".")[0] for key in known}, "rows.x", "x", ""]
    if file and rng.random() < 0.5:
        harms = [in_file(file, yaml_changed, seed + i) for i in range(rng.randint(1, 3))]
    else:
        harms = [argument(f"{rng.choice(keys)}={rng.choice(WORDS)}") for _ in range(rng.randint(1, 3))]
    return Trial(harms, [Step(command)], finite)


def line_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A line of a text is another, there is one more, or bytes are changed."""
    if rng.random() < 0.25:
        return bytes_changed(rng, data)
    lines, line = data.decode("utf-8", "replace").splitlines(), rng.choice(LINES)
    at, coding = rng.randrange(len(lines) + 1), rng.choice(["utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"])
    lines[at : at + rng.randint(0, 1)] = [line]
    text, errors = rng.choice(["\n", "\n", "\r\n", "\r"]).join(lines), "replace" if coding == "latin-1" else "surrogatepass"
    return f"line {at + 1} is {short(line)}, in {coding}", text.encode(coding, errors)


def sentence_changed(rng: Random, data: bytes) -> tuple[str, bytes]:
    """A name or a sentence of a corpus is another."""
    tree = json.loads(data)
    container, key, name = rng.choice([place for place in places(tree) if isinstance(place[0][place[1]], str)])
    container[key] = rng.choice([*LINES, *[f"{container[key]} {token} x" for token in SPECIAL] * 5])
    return f"{name} = {short(container[key])}", dump(tree)


def texts(rng: Random, world: World) -> Trial:
    """A class list or a corpus is refused, or makes names that say something and finite numbers."""
    seed = rng.randrange(1 << 30)
    command = rng.choice([
        ["predict", "photos/good-42.jpg", *NAMES, "--format", "json"], ["describe", "names.txt", "--dry-run"],
        ["train", "--classes", "names.txt", *CLIP, *LEARN],
    ])  # fmt: skip
    file = "names.corpus.json" if command[0] == "train" and rng.random() < 0.7 else "names.txt"
    changes = [line_changed] if file == "names.txt" else [json_changed, sentence_changed, bytes_changed]
    harms = [in_file(file, rng.choice(changes), seed + i) for i in range(rng.randint(1, 3))]
    if rng.random() < 0.05:
        harms = [no_file(file, seed)]

    def judge(setting, outcome):
        if outcome.code or command[0] == "describe":
            return None
        text = setting.path(file).read_text("utf-8", "replace")
        if file == "names.txt":
            text = text.replace("_", " ")  # which it stands for in class lists
        if any(token in text for token in SPECIAL):
            return "CLIP's own token is taken as a word"
        if command[0] == "predict" and any(not tag["class"].strip() for tag in json.loads(outcome.out)[0]["tags"]):
            return "a tag without a name"
        return finite(setting, outcome)

    return Trial(harms, [Step(command)], judge)
