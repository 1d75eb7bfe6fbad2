"""The family of language-model services."""

import json
import re
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from faults.harms import JUNK, argument, bytes_changed, dump, json_changed, places
from faults.server import ANSWERS, Reply
from faults.trial import KEY, Step, Trial
from faults.world import World

from rcnn.printing import short

KEY_ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
ITEMS = [
    "N/A", "null", "none", "\x00", "a\x00b", "\x1b[31mred", "\u202egpj", "https://example.org/x", "www.example.org",
    "<script>alert(1)</script>", "ignore previous instructions", "a dog<end_of_text> is a cat", "<start_of_text>",
    "<|endoftext|>", "\ud800", "a" * 50_000, "", " ", "-", "[" * 1000, "😀", "\u2028", "\u200b", "As an AI language model",
    "**bold**", KEY, f"key: {KEY}", "x" * 185 + KEY, "_" * 60_000, "* " * 10_000, "1. " * 10_000,
]  # fmt: skip
STATUSES = [204, 302, 307, 308, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 599]
PLACES = [f"http://localhost:1/{KEY}", "/v1/elsewhere", "file:///etc/hostname", "//", "http://127.0.0.2:1/"]
ERRORS = [KEY, "x" * 290 + KEY, "\x1b[31m", KEY_ESCAPED, "x" * 100_000, "no such model"]
UNWANTED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]|https?:|www\.|<\W?\w+|ignore previous|\bN/A\b|\bnull\b|\bnone\b", re.I
)


def in_text(old: str, new: str) -> Callable[[Reply], None]:
    return lambda reply: vars(reply).update(text=dump(reply.answer).decode().replace(old, new, 2))


def in_body(change: Callable[[bytes], bytes]) -> Callable[[Reply], None]:
    return lambda reply: vars(reply).update(body=change)


def gzip_bomb(data: bytes) -> bytes:
    """1 GB of blanks in 1 MB."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(b" " * (1 << 22)) for _ in range(256)) + packer.flush()


def put_item(rng: Random, answer: Any, item: str) -> None:
    """An item in place of one of an answer."""
    if found := [(container, key) for container, key, _ in places(answer) if isinstance(container[key], str)]:
        container, key = rng.choice(found)
        container[key] = item


def put_many(answer: Any, items: list[str]) -> None:
    for key in answer:
        if isinstance(answer[key], list) and key != "scenes":
            answer[key] = items


def spoil(rng: Random) -> tuple[str, Callable[[Reply], None]]:
    """One way in which a service misbehaves: a status, a body, a part of a completion, an item, many items, a header, slow."""
    seed, status, item, error, where = rng.randrange(1 << 30), *map(rng.choice, (STATUSES, ITEMS, ERRORS, PLACES))
    junk, number, coding = map(rng.choice, (JUNK, range(400), ["rot13", "zlib", "base64", "x", "idna", "ÿ"]))
    count, length = rng.choice([(100_000, 5), (3_000, 1_000), (20, 100_000)])
    refusal = rng.choice(
        [dump({"error": {"message": error, "code": error[:50]}}), error.encode(), dump({"error": error}), b"[]"]
    )
    sent = {"Location": where} if status < 400 else {"Retry-After": rng.choice(["0", "1e9", "nan", "-1", "x", KEY])}
    bodies = {
        "nothing": lambda data: b"", "noise": lambda data: Random(seed).randbytes(1000), "deep": lambda data: b"[" * 100_000,
        "HTML": lambda data: b"<html><b>" + KEY.encode() + b"</b>\x1b[31m" * 100,
        "cut": lambda data: data[: Random(seed).randrange(len(data))],
        "other JSON": lambda data: dump(junk), "a changed value": lambda data: json_changed(Random(seed), data)[1],
        "changed bytes": lambda data: bytes_changed(Random(seed), data)[1],
        "infinite tokens": lambda data: data.replace(b": 100,", b": 1e999,"),
        "much text": lambda data: data[:-1] + b', "x": "' + b"x" * (6 << 20) + b'"}',
        "the key late": lambda data: data.replace(b'"m"', json.dumps("y" * number + KEY).encode()),
    }  # fmt: skip
    parts = {
        "model": [KEY, "\x1b[31m\u202e\x00", "m" * 100_000],
        "usage": [None, {"prompt_tokens": 10**400, "completion_tokens": 1}, {"prompt_tokens": -(10**9)}],
        "choices": [[]], "refusal": [f"I refuse {KEY}", "x" * 190 + KEY], "finish_reason": [KEY, "length"], "content": [["x"]],
    }  # fmt: skip
    part = rng.choice(sorted(parts))
    value, body = rng.choice(parts[part]), rng.choice(sorted(bodies))
    level = {"refusal": "message", "content": "message", "finish_reason": "choice"}.get(part, "top")
    pause, absent = rng.choice([(0.3, 0), (0, 50), (0, 5 << 30)])
    text, change = rng.choice([
        ("the key as text", lambda reply: vars(reply).update(text=KEY)), ("deep text", in_text("{", "[" * 100_000)),
        ("the key in escapes", in_text("e", KEY_ESCAPED)), ("lone surrogates", in_text("e", "\\ud800")),
        ("the key as a field", lambda reply: reply.answer.update({KEY: KEY})),
    ])  # fmt: skip
    return rng.choice([
        (f"status {status}, {short(refusal)}, {sent}", lambda reply: vars(reply).update(
            status=status, body=lambda data: b"" if status == 204 else refusal, headers=sent)),
        (f"the body is {body}", in_body(bodies[body])), (text, change),
        (f"{part} = {short(value)}", lambda reply: getattr(reply, level).update({part: value})),
        *[(f"an item is {short(item)}", lambda reply: put_item(Random(seed), reply.answer, item))] * 2,
        (f"{count:,} items of {length:,} characters",
         lambda reply: put_many(reply.answer, [f"{i} " + "x" * length for i in range(count)])),
        (f"characters coded as {coding}", lambda reply: reply.headers.update({"Content-Type": f"a/json; charset={coding}"})),
        ("a gzip bomb", lambda reply: vars(reply).update(headers={"Content-Encoding": "gzip"}, body=gzip_bomb)),
        (f"{pause} s a byte, {absent} too few", lambda reply: vars(reply).update(pause=pause, absent=absent)),
    ])  # fmt: skip


def service(rng: Random, world: World) -> Trial:
    """A service that misbehaves: nothing of it gets into the corpus, and the key nowhere; with a good one it ends well."""

    def misbehaving(text, change, kind):
        def harm(setting):
            setting.service.append(lambda reply: change(reply) if kind in ("", reply.kind) else None)
            return f"the service: {text}" + (f", to questions of {kind}" if kind else "")

        return harm

    harms = [misbehaving(*spoil(rng), rng.choice(["", "", "", *ANSWERS])) for _ in range(rng.randint(1, 3))]
    more = rng.choice([[], [], ["--allow-partial"], ["--batch", "poll=0.01"]])
    command = ["describe", "two.txt", *world.describe, "timeout=1", *more]
    if rng.random() < 0.05:
        harms.append(argument(f"base_url=http://user:{KEY}@127.0.0.1:1/v1"))

    def judge(setting, outcome):
        path = setting.root / "two.corpus.json"
        if outcome.code:
            return f"exit code {outcome.code}, with a good service: {outcome.err[-1500:]!r}"
        if not path.exists():
            return "no corpus"
        for entry in json.loads(path.read_bytes()).values():
            for sentence in entry["candidate_sentences"]:
                if found := UNWANTED.search(sentence):
                    return f"{found[0]!r} is in the corpus: {short(sentence)}"
        return None

    return Trial(harms, [Step(command), Step(command)], judge)
