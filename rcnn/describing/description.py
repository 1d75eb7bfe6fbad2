"""A corpus in the making: the questions about its classes, their exchanges, and the sentences composed of the answers."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from rcnn.config import DescribeConfig
from rcnn.describing import batch, live, questions
from rcnn.describing.about import beside, compile_about
from rcnn.describing.answers import Answers
from rcnn.describing.compose import sentences
from rcnn.describing.cost import Cost
from rcnn.describing.exchange import Exchange, Failure, expected_tokens
from rcnn.describing.facts import gather
from rcnn.describing.questions import Question, Triage
from rcnn.describing.service import Service, StopError, UnansweredError
from rcnn.describing.stats import MOST_TOKENS, token_count
from rcnn.progress import progress
from rcnn.text.classes import ClassList

Label = tuple[str, str | None]  # a class name, and the sense the user chose
UNKNOWN = Triage(  # stands for an answer that is not there yet, in estimates
    kind="object", gloss="a meaning in about a dozen words, known after the first answer", other_senses=[], visible=True
)


class Description:
    """One corpus in the making.

    Args:
        settings: what to ask, and whom.
        classes: the classes to describe.
        store: the answers there are; new ones are added.
        batched: ask through the Batch API.
        max_cost: USD that this run may spend, or None.
    """

    def __init__(
        self, settings: DescribeConfig, classes: ClassList, store: Answers, batched: bool = False, max_cost: float | None = None
    ) -> None:
        self.settings, self.store, self.batched = settings, store, batched
        self.cost = Cost(settings, store, batched, max_cost)
        # homonyms without a note of their own, as in Open Images, share one description
        senses = [note if note and not note.startswith("/") else None for note in classes.notes or [""] * len(classes)]
        self.labels: list[Label] = list(zip(classes.names, senses, strict=True))
        self._batches = beside(settings.output, ".batch.json")
        self._exchanges: dict[Question, Exchange] = {}
        self._service: Service | None = None

    def close(self) -> None:
        """Close the connections to the service."""
        if self._service:
            self._service.close()

    def dry_run(self) -> list[str]:
        """What would be asked and what it would cost, as lines of text."""
        first = self._first()
        self._begin(first.values())
        further = self._further({label: self._answer(question) or UNKNOWN for label, question in first.items()})
        self._begin(question for group in further.values() for question in group)
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
        first = self._first()
        self._ask(first.values(), "kind and sense")
        triages = {label: answer for label, question in first.items() if (answer := self._answer(question))}
        further = self._further(triages)
        self._ask([question for group in further.values() for question in group], "descriptions")
        failed = self._failed()
        corpus, entries, left_out = {}, {}, Counter()
        listed = {name.lower() for name, _ in self.labels} if self.settings.drop_listed_kinds else ()
        for i, label in enumerate(self.labels):
            name, triage = label[0], triages.get(label)
            answers = [(q.family, answer) for q in further.get(label, ()) if (answer := self._answer(q))]
            facts, counts = gather(name, answers, triage is not None and triage.describable, listed)
            described = sentences(name, **facts.families(), mode=self.settings.mode)
            fitting = [sentence for sentence in described if token_count(sentence) <= MOST_TOKENS]
            counts[f"sentences: over {MOST_TOKENS} tokens"] += len(described) - len(fitting)
            left_out.update(counts)
            if not fitting:
                failed.setdefault(name, ["nothing usable was answered"])
            corpus[str(i)] = {"node_name": name, "candidate_sentences": fitting}
            sense = triage.model_dump() if triage else {}
            entries[str(i)] = {"name": name, **sense, **facts.families(), "sentences": len(fitting)}
        replies = [reply for exchange in self._exchanges.values() for reply in exchange.replies.values()]
        return corpus, compile_about(self.settings, replies, self.cost, +left_out, failed, entries)

    def _first(self) -> dict[Label, Question]:
        return {label: questions.triage(*label, self.settings) for label in self.labels}

    def _further(self, triages: dict[Label, Triage]) -> dict[Label, list[Question]]:
        return {
            label: questions.descriptions(label[0], label[1] or triage.gloss, triage.describable, self.settings)
            for label, triage in triages.items()
        }

    def _answer(self, question: Question) -> BaseModel | None:
        outcome = self._exchanges[question].outcome
        return None if isinstance(outcome, Failure) else outcome

    def _failed(self) -> dict[str, list[str]]:
        """{class: why}"""
        failed = {}
        for question, exchange in self._exchanges.items():
            if isinstance(exchange.outcome, Failure):
                why = f"{question.family} {question.round}: {exchange.outcome.why}"
                failed.setdefault(question.name, []).append(why)
        return failed

    def _begin(self, asked: Iterable[Question]) -> list[Exchange]:
        """The exchanges about these questions, as far as the stored replies take them; what failed earlier begins anew."""
        asked = list(dict.fromkeys(asked))
        for question in asked:
            exchange = self._exchanges[question] = Exchange(question, self.settings)
            exchange.follow(self.store)
            if isinstance(exchange.outcome, Failure):
                self.store.forget(exchange.replies)
                self._exchanges[question] = Exchange(question, self.settings)
        return [self._exchanges[question] for question in asked]

    def _ask(self, asked: Iterable[Question], title: str) -> None:
        """Bring the exchanges about these questions to their outcomes."""
        exchanges = self._begin(asked)
        waiting = [exchange for exchange in exchanges if exchange.outcome is None]
        if not waiting:
            return
        service = self._connect(waiting)
        # opening the store has read it again: another run may have answered since
        waiting = [e for e in self._begin([exchange.question for exchange in waiting]) if e.outcome is None]
        with progress(title=title, total=len(exchanges), initial=len(exchanges) - len(waiting), unit="answer") as bar:

            def done(_: Exchange) -> None:
                trouble = service.trouble
                bar.note(f"{self.cost}" + (f", trouble: {trouble[:60]}" if trouble else ""))
                bar.update()

            if not self.batched:
                live.run(waiting, service, self.store, self.cost.refuse, done, self.settings.concurrency)
                return
            try:
                tell, poll = bar.note, self.settings.poll
                batch.run(waiting, service, self.store, self.cost.refuse_batch, done, self._batches, poll, tell)
            except UnansweredError as error:
                raise ValueError(f"{error}; the same command continues") from None

    def _connect(self, waiting: list[Exchange]) -> Service:
        """The right to write the answers, and the service."""
        self.store.open()  # before anything is paid for
        if not self.batched and self._batches.exists():
            raise ValueError(f"{self._batches}: a batch is under way; --batch collects it, or delete that file")
        try:
            self._service = self._service or Service(self.settings.base_url, self.settings.timeout, self.settings.retries)
        except StopError as error:
            first = f'{waiting[0].question.family} of "{waiting[0].question.name}"'
            raise ValueError(f"{len(waiting)} answers are not in {self.store.path} (the first: {first}); {error}") from None
        return self._service
