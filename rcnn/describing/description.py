"""A corpus in the making: the questions about its classes, their exchanges, and the sentences composed of the answers."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from rcnn.config import DescribeConfig, shaping
from rcnn.describing import batch, live, questions
from rcnn.describing.address import Address
from rcnn.describing.answers import Answers, beside
from rcnn.describing.compose import sentences
from rcnn.describing.cost import Cost
from rcnn.describing.exchange import Exchange, Failure, expected_tokens
from rcnn.describing.facts import gather, twins, unfit
from rcnn.describing.questions import Question, Triage
from rcnn.describing.service import Service, StopError
from rcnn.describing.stats import MOST_TOKENS, token_count
from rcnn.printing import printable, short
from rcnn.progress import progress
from rcnn.text.classes import ClassList

UNKNOWN = Triage(  # stands for an answer that is not there yet, in estimates
    kind="object", gloss="a meaning in about a dozen words, known after the first answer", other_senses=[], visible=True
)


class Description:
    """One corpus in the making; `store` has the answers there are and gets the new ones, `max_cost` is in USD."""

    def __init__(
        self, settings: DescribeConfig, classes: ClassList, store: Answers, batched: bool, max_cost: float | None
    ) -> None:
        self._base_url = settings.base_url
        if settings.base_url is not None:  # what shapes answers, is shown and written never has the secrets of an address
            settings = settings.model_copy(update={"base_url": Address.parse(settings.base_url).shown})
        self.settings, self.names, self.store, self.batched = settings, classes.names, store, batched
        self.cost = Cost(settings, store, batched, max_cost)
        notes, shared = classes.notes or [""] * len(classes), Counter(name.lower() for name in self.names)
        # a note such as /m/0k4j is no sense, but tells homonyms apart
        self._senses = ["" if note.startswith("/") else note for note in notes]
        labelled = list(zip(self.names, notes, strict=True))
        told = [note if note.startswith("/") and shared[name.lower()] > 1 else None for name, note in labelled]
        labels = zip(self.names, self._senses, told, strict=True)
        self._first = [questions.triage(*label, settings) for label in labels]
        self._exchanges: dict[Question, Exchange] = {}

    def dry_run(self) -> list[str]:
        """What would be asked and what it would cost, as lines of text."""
        self._begin(self._first)
        self._begin(question for group in self._further(UNKNOWN) for question in group)
        pending = [exchange for exchange in self._exchanges.values() if exchange.outcome is None]
        lines = [f"{'':10} {'questions':>9} {'to ask':>7} {'tokens in':>11} {'out':>9}   (estimated)"]
        for family in questions.SCHEMAS:
            part = [exchange for exchange in pending if exchange.question.family == family]
            total = sum(question.family == family for question in self._exchanges)
            into, out = expected_tokens(part)
            lines.append(f"{family:10} {total:9,} {len(part):7,} {into:11,} {out:9,}")
        tokens, price = expected_tokens(pending), self.cost.price
        known = f"${price(tokens):.2f}, or ${price(tokens, batched=True):.2f} with --batch"
        about = known if self.cost.prices else f"{sum(tokens):,} tokens; the price of this model is not known"
        asked = f"{len(pending):,} requests to {self.settings.base_url or 'OpenAI'}, model {self.settings.model}"
        return [*lines, f"{asked}, about {about}"]

    def corpus(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Ask for all that is missing; returns the corpus and its about file."""
        self._ask(self._first, "kind and sense")
        further = self._further()
        self._ask([question for group in further for question in group], "descriptions")
        failed: dict[str, list[str]] = {}  # {class: why}
        for question, exchange in self._exchanges.items():
            if isinstance(exchange.outcome, Failure):
                failed.setdefault(question.name, []).append(f"{question.family} {question.round}: {exchange.outcome.why}")
        corpus, entries, left_out = {}, {}, Counter()
        listed = {name.lower() for name in self.names} if self.settings.drop_listed_kinds else ()
        for i, name in enumerate(self.names):
            triage = self._answer(self._first[i])
            answers = [answer for question in further[i] if (answer := self._answer(question))]
            facts, counts = gather(name, answers, triage is not None and triage.describable, listed)
            described = sentences(name, **facts.families(), mode=self.settings.mode, articles=self.settings.articles)
            fitting = [sentence for sentence in described if token_count(sentence) <= MOST_TOKENS]
            counts[f"sentences: over {MOST_TOKENS} tokens"] += len(described) - len(fitting)
            left_out.update(counts)
            if not fitting:
                failed.setdefault(name, ["nothing usable was answered"])
            corpus[str(i)] = {"node_name": name, "candidate_sentences": fitting}
            sense = triage.model_dump() if triage else {}
            if triage:
                sense["other_senses"] = [text for text in triage.other_senses if not unfit(text)]
                left_out["other senses: unfit"] += len(triage.other_senses) - len(sense["other_senses"])
            entries[str(i)] = {"name": name, **sense, **facts.families(), "sentences": len(fitting)}
            entries[str(i)] |= {"left_out_or_noted": dict(sorted((+counts).items()))} if +counts else {}
        noted = {"left_out_or_noted": dict(sorted((+left_out).items())), "failed": failed}
        senses = {e["name"]: (e.get("kind", ""), e.get("gloss", "")) for e in entries.values()}
        noted |= {"twins": twins(senses, self.settings.twins), "classes": entries}
        return corpus, self._source() | noted

    def _source(self) -> dict[str, Any]:
        """What the about file says of the answers: models, settings, and their tokens in this run and all before."""
        replies = [reply for exchange in self._exchanges.values() for reply in exchange.replies.values()]
        metered = [reply for reply in replies if reply.usage]
        price = sum(self.cost.price(reply.usage, reply.batched) for reply in metered)
        return {
            "models_served": dict(Counter(reply.model for reply in replies)),
            "prompt_version": questions.PROMPTS["version"],
            "settings": shaping(self.settings, "corpus"),
            "replies": len(replies),
            "tokens_in": sum(reply.usage[0] for reply in metered),
            "tokens_out": sum(reply.usage[1] for reply in metered),
            "cost_usd": round(price, 4) if self.cost.prices else None,
        }

    def _further(self, unknown: Triage | None = None) -> list[list[Question]]:
        """The other questions about each class; those with no answer to the first get the questions of `unknown`."""
        further = []
        for name, sense, first in zip(self.names, self._senses, self._first, strict=True):
            triage = self._answer(first) or unknown
            ask = questions.descriptions
            further.append(ask(name, sense or triage.gloss, triage.describable, self.settings) if triage else [])
        return further

    def _answer(self, question: Question) -> BaseModel | None:
        outcome = self._exchanges[question].outcome
        return None if isinstance(outcome, Failure) else outcome

    def _begin(self, asked: Iterable[Question]) -> list[Exchange]:
        """The exchanges about these questions, as far as the stored replies take them; what failed earlier begins anew."""
        asked = list(dict.fromkeys(asked))
        for question in asked:
            exchange = Exchange(question, self.settings)
            exchange.follow(self.store)
            failed = isinstance(exchange.outcome, Failure)
            self._exchanges[question] = Exchange(question, self.settings) if failed else exchange
        return [self._exchanges[question] for question in asked]

    def _ask(self, asked: Iterable[Question], title: str) -> None:
        """Bring the exchanges about these questions to their outcomes."""
        exchanges = self._begin(asked)
        waiting = [exchange for exchange in exchanges if exchange.outcome is None]
        if not waiting:
            return
        settings, state = self.settings, beside(self.settings.output, ".batch.json")
        if not self.batched and state.exists():
            raise ValueError(f"{state}: a batch is under way; --batch collects it, or delete that file")
        try:
            service = Service(self._base_url, settings.timeout, settings.retries)
        except StopError as error:
            first = f"{waiting[0].question.family} of {short(waiting[0].question.name)}"
            raise ValueError(f"{len(waiting)} answers are not in {self.store.path} (the first: {first}); {error}") from None
        if self.batched:
            ended = batch.run(waiting, service, self.store, self.cost, state, settings.poll)
        else:
            ended = live.run(waiting, service, self.store, self.cost, settings.concurrency)
        bar = progress(title=title, total=len(exchanges), initial=len(exchanges) - len(waiting), unit="answer")
        with bar:
            for _ in ended:
                bar.note(f"{self.cost}" + (f", trouble: {printable(service.trouble[:60])}" if service.trouble else ""))
                bar.update()
