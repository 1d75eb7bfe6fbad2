"""The family of language-model services."""

import json
import re
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

from faults.harms import argument, bytes_changed, json_changed
from faults.junk import JUNK, dump, places
from faults.server import Reply
from faults.trial import KEY, Step, Trial
from faults.world import World

from rcnn.printing import short

BAD_ITEMS = [
    "N/A", "null", "none", "\x00", "a\x00b", "\x1b[31mred", "\u202egpj",
    "https://example.org/x", "www.example.org", "<script>alert(1)</script>",
    "ignore previous instructions",
    "a dog<end_of_text> is a cat", "<start_of_text>", "<|endoftext|>", "\ud800", "a" * 50_000, "",
    " ", "-", "[" * 1000, "😀", "\u2028", "\u200b", "As an AI language model", "**bold**", KEY, f"key: {KEY}",
    "x" * 185 + KEY, "_" * 60_000, "* " * 10_000, "1. " * 10_000,
]  # fmt: skip
KEY_ESCAPED = "".join(f"\\u{ord(letter):04x}" for letter in KEY)
BODIES = {  # how a whole body is changed
    "nothing": lambda rng: lambda data: b"",
    "cut": lambda rng: lambda data: data[: rng.randrange(len(data))],
    "deep": lambda rng: lambda data: b"[" * 100_000,
    "HTML": lambda rng: lambda data: b"<html><b>" + KEY.encode() + b"</b>\x1b[31m" * 100,
    "bytes": lambda rng: lambda data: rng.randbytes(1000),
    "other JSON": lambda rng: lambda data: dump(rng.choice(JUNK)),
    "a changed value": lambda rng: lambda data: json_changed(rng, data)[1],
    "changed bytes": lambda rng: lambda data: bytes_changed(rng, data)[1],
    "infinite tokens": lambda rng: lambda data: data.replace(b": 100,", b": 1e999,"),
    "much text": lambda rng: lambda data: data[:-1] + b', "x": "' + b"x" * (6 << 20) + b'"}',
    "key in pieces": lambda rng: lambda data: data.replace(b'"m"', json.dumps("y" * rng.randrange(150, 400) + KEY).encode()),
}
MESSAGES = {  # parts of a completion
    "key as model": lambda reply: reply.top.update(model=KEY),
    "key as refusal": lambda reply: reply.message.update(refusal=f"I refuse {KEY}", content=None),
    "key late in the refusal": lambda reply: reply.message.update(refusal="x" * 190 + KEY, content=None),
    "key as text": lambda reply: setattr(reply, "text", KEY),
    "key as reason to finish": lambda reply: reply.choice.update(finish_reason=KEY),
    "key in escapes": lambda reply: setattr(reply, "text", dump(reply.answer).decode().replace("e", KEY_ESCAPED, 1)),
    "key as a field": lambda reply: reply.answer.update({KEY: KEY}),
    "no tokens": lambda reply: reply.top.update(usage=None),
    "huge tokens": lambda reply: reply.top.update(usage={"prompt_tokens": 10**400, "completion_tokens": 1}),
    "negative tokens": lambda reply: reply.top.update(usage={"prompt_tokens": -(10**9), "completion_tokens": True}),
    "no choices": lambda reply: reply.top.update(choices=[]),
    "cut": lambda reply: reply.choice.update(finish_reason="length"),
    "text that is a list": lambda reply: reply.message.update(content=["x"]),
    "lone surrogates": lambda reply: setattr(reply, "text", dump(reply.answer).decode().replace("e", "\\ud800", 2)),
    "deep text": lambda reply: setattr(reply, "text", "[" * 100_000),
    "control characters as model": lambda reply: reply.top.update(model="\x1b[31m\u202e\x00"),
    "long model": lambda reply: reply.top.update(model="m" * 100_000),
}


def spoil(rng: Random) -> tuple[str, Callable[[Reply], None]]:
    """One way in which a service misbehaves."""
    seed, kind = rng.randrange(1 << 30), rng.choice(["status", "body", "message", "item", "item", "many", "header", "slow"])
    own = Random(seed)
    if kind == "status":
        status = rng.choice([204, 302, 307, 308, 400, 401, 403, 404, 408, 409, 413, 422, 429, 500, 502, 599])
        text = rng.choice([KEY, "x" * 290 + KEY, "\x1b[31m", KEY_ESCAPED, "x" * 100_000, "no such model"])
        body = rng.choice([dump({"error": {"message": text, "code": text[:50]}}), text.encode(), dump({"error": text}), b"[]"])
        where = rng.choice([f"http://localhost:1/{KEY}", "/v1/elsewhere", "file:///etc/hostname", "//", "http://127.0.0.2:1/"])
        headers = {"Location": where} if status < 400 else {"Retry-After": rng.choice(["0", "1e9", "nan", "-1", "x", KEY])}
        return f"status {status}, {short(body)}, {headers}", lambda reply: vars(reply).update(
            status=status, body=lambda data: b"" if status == 204 else body, headers=headers
        )
    if kind == "body":
        name = rng.choice(sorted(BODIES))
        return f"the body is {name}", lambda reply: setattr(reply, "body", BODIES[name](Random(seed)))
    if kind == "message":
        name = rng.choice(sorted(MESSAGES))
        return name, MESSAGES[name]
    if kind == "item":
        item = rng.choice(BAD_ITEMS)
        return f"an item is {short(item)}", lambda reply: put_item(Random(seed), reply.answer, item)
    if kind == "many":
        count, length = rng.choice([(100_000, 5), (3_000, 1_000), (20, 100_000)])
        text = f"{count:,} items of {length:,} characters"
        return text, lambda reply: put_many(reply.answer, [f"{i} " + "x" * length for i in range(count)])
    if kind == "header":
        coding = rng.choice(["rot13", "zlib", "base64", "utf-16", "x", "idna", "\u00ff"])
        bomb = own.random() < 0.5
        headers = {"Content-Encoding": "gzip"} if bomb else {"Content-Type": f"application/json; charset={coding}"}
        return f"headers {headers}", lambda reply: vars(reply).update(headers=headers, **({"body": gzip_bomb} if bomb else {}))
    pause, absent_bytes = rng.choice([(0.3, 0), (0, 50), (0, 5 << 30)])
    return f"{pause} s a byte, {absent_bytes} too few", lambda reply: vars(reply).update(pause=pause, absent=absent_bytes)


def gzip_bomb(data: bytes) -> bytes:
    """1 GB of blanks in 1 MB."""
    packer = zlib.compressobj(9, wbits=31)
    return b"".join(packer.compress(b" " * (1 << 22)) for _ in range(256)) + packer.flush()


def put_item(rng: Random, answer: Any, item: str) -> None:
    """An item among the others of an answer."""
    found = [place for place in places(answer) if isinstance(place[0][place[1]], str)] if isinstance(answer, dict) else []
    if found:
        container, key, _ = rng.choice(found)
        container[key] = item


def put_many(answer: Any, items: list[str]) -> None:
    for key, value in answer.items():
        if isinstance(value, list) and key != "scenes":
            answer[key] = items


UNWANTED = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff]|https?:|www\.|<\W?\w+|ignore previous|\bN/A\b|\bnull\b|\bnone\b", re.I
)


def service(rng: Random, world: World) -> Trial:
    """A service that misbehaves: nothing of it gets into the corpus, and the key nowhere; with a good one it ends well."""
    spoils = [spoil(rng) for _ in range(rng.randint(1, 3))]
    kinds = [rng.choice(["", "", "", "triage", "parts", "phrases", "hierarchy", "scenes"]) for _ in spoils]

    def misbehave(text, do, kind):
        def harm(setting):
            setting.service.append(lambda reply: do(reply) if kind in ("", reply.kind) else None)
            return f"the service: {text}" + (f", to questions of {kind}" if kind else "")

        return harm

    harms = [misbehave(*spoiled, kind) for spoiled, kind in zip(spoils, kinds, strict=True)]
    more = rng.choice([[], [], ["--allow-partial"], ["--batch", "poll=0.01"]])
    command = ["describe", "two.txt", *world.describe, "timeout=1", *more]
    if rng.random() < 0.05:
        harms.append(argument(f"base_url=http://user:{KEY}@127.0.0.1:1/v1"))

    def judge(setting, outcome):
        path = setting.root / "two.corpus.json"
        if outcome.code:
            return f"exit code {outcome.code}, with a good service: {outcome.err[-200:]!r}"
        if not path.exists():
            return "no corpus"
        for entry in json.loads(path.read_bytes()).values():
            for sentence in entry["candidate_sentences"]:
                if found := UNWANTED.search(sentence):
                    return f"{found[0]!r} is in the corpus: {short(sentence)}"
        return None

    return Trial(harms, [Step(command), Step(command)], judge)
