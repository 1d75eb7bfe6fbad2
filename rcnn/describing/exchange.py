"""One exchange with the language model: a question, the replies to it, and what is sent next."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from rcnn.config import DescribeConfig
from rcnn.describing.answers import Answers, Reply
from rcnn.describing.facts import gather, unfit
from rcnn.describing.questions import PROMPTS, SCHEMAS, Attributes, Question, Triage
from rcnn.files import digest
from rcnn.printing import cut, explain

CAPS = ("max_tokens", "max_completion_tokens")
COMPLAINTS = 2  # how often an invalid answer or a refusal is sent back
MOST_SENT_BACK = 10_000  # characters of it
TOKENS_AN_ITEM = {"triage": 80, "parts": 10, "phrases": 11, "hierarchy": 5, "scenes": 26}  # of answers, for estimates
MANY, SPARE = 4, 20  # an answer may have so many times the entries that were asked for, and so many more
FORMATS = {
    family: {"type": "json_schema", "json_schema": {"name": family, "strict": True, "schema": form.model_json_schema()}}
    for family, form in SCHEMAS.items()
}


@dataclass(frozen=True)
class Failure:
    """Why a question has no answer."""

    why: str


class Exchange:
    """The exchange about one question, from the first request to the answer or a failure.

    A cut answer is asked for once more with a doubled cap; a refusal or an invalid answer is sent back with a complaint.
    """

    def __init__(self, question: Question, settings: DescribeConfig) -> None:
        self.question, self.settings = question, settings
        self.replies: dict[str, Reply] = {}  # by their keys, so far
        self.outcome: BaseModel | Failure | None = None  # while a reply is awaited; then the validated answer or a Failure
        self._messages = [{"role": "system", "content": PROMPTS["system"]}, {"role": "user", "content": question.prompt}]
        self._caps = 1  # times settings.max_tokens
        self._complaints = 0

    def next_request(self) -> dict[str, Any]:
        """JSON body of the request that is to be sent next."""
        # OpenAI's newer models refuse max_tokens; local servers know no other name
        limit = CAPS[0] if self.settings.base_url else CAPS[1]
        return {
            "model": self.settings.model,
            "messages": self._messages,
            "response_format": FORMATS[self.question.family],
            "seed": self.question.round,
            limit: self._caps * self.settings.max_tokens,
            **({} if self.settings.temperature is None else {"temperature": self.settings.temperature}),
        }

    @property
    def key(self) -> str:
        """Under which the reply to the next request is stored: a hash of the service and all that shapes the reply."""
        # the cap shapes only answers that are cut: with it in the key, raising it would ask everything anew
        shaping = {k: v for k, v in self.next_request().items() if k not in CAPS}
        return digest([self.settings.base_url, shaping | {"cap": self._caps}])[:32]

    def take(self, reply: Reply) -> None:
        """Go on with the reply to the last request: to the outcome, or to the next request."""
        self.replies[self.key] = reply
        answer = _read(self.question, reply)
        if reply.finish == "length" and self._caps == 1:
            self._caps = 2
        elif reply.finish == "length":
            self.outcome = Failure(f"the answer was cut at {self._caps * self.settings.max_tokens} tokens; raise max_tokens")
        elif isinstance(answer, Failure) and self._complaints < COMPLAINTS:
            self._complaints += 1
            self._messages = [
                *self._messages,
                {"role": "assistant", "content": (reply.text or reply.refusal or "(no answer)")[:MOST_SENT_BACK]},
                {"role": "user", "content": PROMPTS["complaint"].format(why=answer.why)},
            ]
        else:
            self.outcome = answer

    def follow(self, store: Answers) -> None:
        """Take the replies that are stored, as far as they go."""
        while self.outcome is None and (reply := store.get(self.key)):
            self.take(reply)


def _read(question: Question, reply: Reply) -> BaseModel | Failure:
    """The validated answer in a reply, or why there is none."""
    if reply.refusal:
        return Failure(f"the model refused: {cut(reply.refusal)}")
    if reply.finish == "content_filter":
        return Failure("the service's content filter withheld it")
    if not reply.text:
        return Failure("it is empty")
    try:
        answer = SCHEMAS[question.family].model_validate_json(reply.text)
    except ValidationError as error:
        return Failure(f"it does not fit the JSON schema: {explain(error)}")
    if flaw := _flaw(question, answer):
        return Failure(flaw)
    return answer


def _flaw(question: Question, answer: BaseModel) -> str | None:
    """Why an answer of the right form cannot be used, or None."""
    entries = sum(len(value) for _, value in answer if isinstance(value, list))
    if entries > (most := MANY * question.items + SPARE):
        return f"it has {entries:,} entries, more than {most}"
    if isinstance(answer, Triage):
        reason = unfit(answer.gloss)
        return f"its gloss cannot be used: {reason}" if reason else None
    facts, reasons = gather(question.name, [answer])
    if answer == Attributes(attributes=[]):  # which says that no photograph can show it
        return None
    why = ", ".join(f"{reason} ({n})" for reason, n in reasons.items()) or "it is empty"
    if not any(facts.families().values()):
        return f"it has no entry that can be used: {why}"
    usable = sum(map(len, facts.families().values()))
    return f"fewer than half of its entries can be used: {why}" if 2 * usable < entries else None


def expected_tokens(exchanges: Iterable[Exchange]) -> tuple[int, int]:
    """Roughly the tokens (in, out) of the next request of each exchange."""
    into = out = 0
    for exchange in exchanges:
        into += len(json.dumps(exchange.next_request())) // 4
        out += TOKENS_AN_ITEM[exchange.question.family] * exchange.question.items
    return into, out
