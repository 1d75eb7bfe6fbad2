"""Describe classes by a language model: `python -m rcnn.describe names.txt output=corpus.json` (paper 3.3).

Asks any OpenAI-compatible service, class by class, first what kind of thing it is and in which sense, then what it looks
like, its narrower and broader kinds, and the scenes it is seen in; composes sentences of the answers, and writes

    corpus.json           what rcnn.train reads: {"0": {"node_name": …, "candidate_sentences": […]}, …}
    corpus.answers.jsonl  the raw answers; a second run asks only for what is not in it
    corpus.about.json     models, settings, sense and counts of every class, cost, what was left out and what failed

The key of the service is read from OPENAI_API_KEY; a local server needs none:

    python -m rcnn.describe names.txt output=corpus.json base_url=http://localhost:11434/v1 model=llama3.1
    python -m rcnn.describe names.txt --dry-run     what it would ask, and the cost
    python -m rcnn.describe coco                    rebuild a corpus that ships with the project, without a request
    python -m rcnn.describe stats corpus.json …     statistics of corpora, side by side
"""

import contextlib
import json
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from rcnn import cli, clip, config
from rcnn.describing import batch, facts, service, stats, tasks
from rcnn.describing.answers import Answers
from rcnn.describing.compose import sentences
from rcnn.files import write_json
from rcnn.text.classes import ClassList

PRESETS = ("coco", "nuswide", "openimages")
PRICES = {"gpt-4o-mini": (0.15, 0.60)}  # USD for a million tokens in, out (November 2026)
LONGEST = 77  # tokens that CLIP takes
SHAPING = (  # the settings that the corpus depends on
    "model", "base_url", "temperature", "max_tokens", "context", "attributes", "attribute_rounds", "narrower", "broader",
    "hierarchy_rounds", "scenes", "scene_rounds", "drop_listed_kinds", "mode",
)  # fmt: skip


class Description:
    """One corpus in the making: its classes, the answers there are, and the way to get more.

    Args:
        settings: DescribeConfig.
        classes: ClassList.
        store: Answers.
        batched: ask through the Batch API.
        max_cost: USD that this run may spend, or None.
    """

    def __init__(self, settings, classes, store, batched=False, max_cost=None):
        self.settings, self.classes, self.store, self.batched, self.max_cost = settings, classes, store, batched, max_cost
        self.service = tasks.Service(settings.model, settings.base_url, settings.temperature, settings.max_tokens)
        prices = (settings.input_price, settings.output_price)
        self.prices = PRICES.get(settings.model) if None in prices else prices
        if max_cost is not None and self.prices is None:
            raise ValueError(f"--max-cost: the price of {settings.model} is not known; set input_price= and output_price=")
        # homonyms without a note of their own, as in Open Images, share one description
        senses = [note if note and not note.startswith("/") else None for note in classes.notes or [""] * len(classes)]
        self.labels = list(zip(classes.names, senses, strict=True))
        self.failed, self._client = {}, None

    def close(self):
        """Close the connections to the service."""
        if self._client:
            self._client.openai.close()

    def price(self, tokens, halved=False):
        """USD of (in, out) tokens; 0 if the price is not known."""
        return sum(p * n for p, n in zip(self.prices or (0, 0), tokens, strict=True)) / 1e6 / (2 if halved else 1)

    @property
    def spent(self):
        """USD of this run so far."""
        return self.price(self.store.paid, self.batched)

    def first_tasks(self):
        """{label: triage task}"""
        return {label: tasks.triage(label[0], self.settings.context, label[1]) for label in self.labels}

    def further_tasks(self, triages):
        """{label: its other tasks} for the labels in `triages` (label -> Triage)."""
        return {
            label: tasks.descriptions(label[0], label[1] or triage.gloss, describable(triage), self.settings)
            for label, triage in triages.items()
        }

    def missing(self, todo):
        """[(task, next body to send)] of tasks that are not at a good end."""
        self._forget_failures(todo)
        steps = [(task, tasks.advance(task, self.service, self.store)[0]) for task in todo]
        return [(task, step) for task, step in steps if isinstance(step, dict)]

    def ask(self, todo, title):
        """Bring `todo` (tasks) to their end; failures are added to `failed`. Returns task -> answer."""
        self._forget_failures(todo)
        ends = {task: end for task in todo if not isinstance(end := self._end(task), dict)}
        rest = [task for task in todo if task not in ends]
        if rest:
            self._connect(rest)
            self._forget_failures(rest)  # the answers were read anew
            with tqdm(total=len(todo), initial=len(ends), desc=title, unit="answer", mininterval=0.5) as bar:

                def done(task, end):
                    ends[task] = end
                    trouble = self._client.trouble
                    bar.set_postfix_str(self.cost() + (f", trouble: {trouble[:60]}" if trouble else ""), refresh=False)
                    bar.update()

                self._run(rest, done, bar)
        for task, end in ends.items():
            if isinstance(end, tasks.Failure):
                self.failed.setdefault(task.name, []).append(f"{task.family} {task.round}: {end.why}")
        return {task: end for task, end in ends.items() if not isinstance(end, tasks.Failure)}

    def _forget_failures(self, todo):
        """What failed in an earlier run gets a new chance."""
        for task in todo:
            end, keys = tasks.advance(task, self.service, self.store)
            if isinstance(end, tasks.Failure):
                self.store.forget(keys)

    def _connect(self, rest):
        """Get ready to ask for `rest`: the right to write the answers, and a client."""
        self.store.open()  # before anything is paid for
        if not self.batched and self.state.exists():
            raise ValueError(f"{self.state}: a batch is under way; --batch collects it, or delete that file")
        try:
            self._client = self._client or service.Client(self.settings.base_url, self.settings.timeout, self.settings.retries)
        except service.StopError as error:
            first = f'{rest[0].family} of "{rest[0].name}"'
            raise ValueError(f"{len(rest)} answers are not in {self.store.path} (the first: {first}); {error}") from None

    @property
    def state(self):
        """The file that remembers batches under way."""
        return beside(self.settings.output, ".batch.json")

    def _end(self, task):
        return tasks.advance(task, self.service, self.store)[0]

    def _run(self, rest, done, bar):
        if self.batched:
            s = self.settings
            try:
                batch.run(
                    rest, self.service, self.store, self._client, self.state, self._allowed_batch, done, s.poll, bar.write
                )
            except service.UnansweredError as error:
                raise ValueError(f"{error}; the same command goes on") from None
        else:
            service.run(rest, self.service, self.store, self._client, self.settings.concurrency, self._allowed, done)

    def cost(self):
        """What this run has cost so far, in words."""
        return f"${self.spent:.4f}" if self.prices else f"{sum(self.store.paid):,} tokens"

    def _allowed(self):
        if self.max_cost is not None and self.store.unmetered:
            return "the service reports no token counts, so that --max-cost cannot be kept"
        if self.max_cost is not None and self.spent >= self.max_cost:
            return f"{self.cost()} spent, --max-cost is {self.max_cost}; the same command with more continues"
        return None

    def _allowed_batch(self, pending):
        expected = self.spent + self.price(self.estimate(pending), halved=True)
        if self.max_cost is not None and expected > self.max_cost:
            return f"this batch would bring the cost to about ${expected:.4f}, --max-cost is {self.max_cost}"
        return None

    def estimate(self, pending):
        """Roughly the tokens (in, out) of [(task, body)]."""
        each = [tasks.estimate(body, task) for task, body in pending]
        return tuple(map(sum, zip(*each, strict=True))) if each else (0, 0)

    def dry_run(self):
        """Print what would be asked, and what it would cost."""
        first = self.first_tasks()
        known, pending = {}, self.missing(first.values())
        for label, task in first.items():
            end = self._end(task)
            guess = tasks.Triage(kind="object", gloss="a meaning in about a dozen words, known after the first answer",
                                 other_senses=[], visible=True)  # fmt: skip
            known[label] = end if isinstance(end, tasks.Triage) else guess
        every = [task for further in self.further_tasks(known).values() for task in further]
        pending += self.missing(every)
        print(f"{'':10} {'tasks':>7} {'to ask':>7} {'tokens in':>11} {'out':>9}   (estimated)")
        for family in tasks.SCHEMAS:
            total = sum(task.family == family for task in [*first.values(), *every])
            part = [p for p in pending if p[0].family == family]
            into, out = self.estimate(part)
            print(f"{family:10} {total:7,} {len(part):7,} {into:11,} {out:9,}")
        into, out = self.estimate(pending)
        cost = f"${self.price((into, out)):.2f}, or ${self.price((into, out), True):.2f} with --batch"
        print(f"{len(pending):,} requests to {self.settings.base_url or 'OpenAI'}, model {self.settings.model}, about", end=" ")
        print(cost if self.prices else f"{into + out:,} tokens; the price of this model is not known")

    def corpus(self):
        """Ask for all that is missing; returns the corpus, and the report on it."""
        first = self.first_tasks()
        answers = self.ask(list(dict.fromkeys(first.values())), "kind and sense")
        triages = {label: answers[task] for label, task in first.items() if task in answers}
        further = self.further_tasks(triages)
        answers |= self.ask(list(dict.fromkeys(t for ts in further.values() for t in ts)), "descriptions")
        corpus, about, left_out = {}, {}, Counter()
        listed = {name.lower() for name in self.classes.names} if self.settings.drop_listed_kinds else ()
        for i, label in enumerate(self.labels):
            name, triage = label[0], triages.get(label)
            got = [(task.family, answers[task]) for task in further.get(label, ()) if task in answers]
            known, counts = facts.gather(name, got, triage is not None and describable(triage), listed)
            described = sentences(name, **known.families(), mode=self.settings.mode)
            fitting = [s for s in described if len(clip.tokenizer().encode(s)) + 2 <= LONGEST]
            counts["sentences: over 77 tokens"] += len(described) - len(fitting)
            left_out.update(counts)
            if not fitting and name not in self.failed:
                self.failed[name] = ["nothing usable was answered"]
            corpus[str(i)] = {"node_name": name, "candidate_sentences": fitting}
            about[str(i)] = {
                "name": name,
                **(triage.model_dump() if triage else {}),
                **{family: len(texts) for family, texts in known.families().items()},
                "sentences": len(fitting),
            }
        return corpus, self._report(about, +left_out, [*first.values(), *(t for ts in further.values() for t in ts)])

    def _report(self, about, left_out, every):
        used = [self.store.get(k) for t in dict.fromkeys(every) for k in tasks.advance(t, self.service, self.store)[1]]
        used = [reply for reply in used if reply]
        metered = [reply for reply in used if reply.usage]
        tokens = [sum(reply.usage[i] for reply in metered) for i in (0, 1)]
        cost = sum(self.price(reply.usage, reply.batched) for reply in metered)
        return {
            "models_served": dict(Counter(reply.model for reply in used)),
            "prompt_version": tasks.PROMPTS["version"],
            "settings": {key: getattr(self.settings, key) for key in SHAPING},
            "replies": len(used),
            "tokens_in": tokens[0],
            "tokens_out": tokens[1],
            "cost_usd": round(cost, 4) if self.prices else None,
            "left_out_or_noted": dict(sorted(left_out.items())),
            "failed": self.failed,
            "classes": about,
        }


def describable(triage):
    """Whether looks may be asked for: of metadata and the invisible they could only be invented."""
    return triage.visible and triage.kind != "metadata"


def beside(output, suffix):
    """Path of a file that belongs to a corpus: corpus.json -> corpus<suffix>."""
    return Path(output.removesuffix(".json") + suffix)


def show_statistics(paths):
    """Print the statistics of corpora side by side."""
    tables, pairs = {}, {}
    for path in paths:
        try:
            read = json.loads(Path(path).read_text(encoding="utf-8"))
            column = Path(path).stem if Path(path).stem not in tables else str(path)
            tables[column], pairs[path] = stats.statistics(read)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise ValueError(f"{path} is no text corpus") from None
    print("\n".join(stats.render(tables)))
    for path, found in pairs.items():
        if found:
            print(f"\n{path}: classes that are kinds of each other ({len(found)}):")
            print("\n".join(f"  {name}: {kind} ({relation})" for name, relation, kind in found))


def read_settings(source, overrides):
    """DescribeConfig of a preset's name, a YAML file, or a text file of class names."""
    if source in PRESETS:
        source = Path(__file__).parents[1] / "configs" / "describe" / f"{source}.yaml"
    if str(source).endswith((".yaml", ".yml")):
        return config.load(source, overrides, config.DescribeConfig)
    return config.override({"classes": {"unseen": str(source)}}, overrides, config.DescribeConfig)


def describe(settings, dry_run=False, batched=False, max_cost=None, allow_partial=False):
    """Make the corpus of a DescribeConfig; returns the exit code."""
    classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
    with Answers(beside(settings.output, ".answers.jsonl")) as store:
        if store.skipped:
            numbers = ", ".join(map(str, store.skipped[:10]))
            print(f"{store.path}: skipped lines that cannot be read: {numbers}", file=sys.stderr)
        with contextlib.closing(Description(settings, classes, store, batched, max_cost)) as description:
            if dry_run:
                return description.dry_run()
            corpus, report = description.corpus()
    write_json(beside(settings.output, ".about.json"), report)
    failed = report["failed"]
    if failed:
        shown = [f"  {name}: {why[0]}" for name, why in list(failed.items())[:20]]
        print(f"{len(failed)} of {len(corpus)} classes failed:", *shown, sep="\n", file=sys.stderr)
        if not allow_partial:
            print("no corpus was written; run again to ask for these only, or add --allow-partial", file=sys.stderr)
            return 1
    write_json(settings.output, corpus)
    total = sum(len(entry["candidate_sentences"]) for entry in corpus.values())
    print(f"{total:,} sentences of {len(corpus):,} classes: {settings.output} ({description.cost()} in this run)")
    pairs = stats.listed_kinds({e["node_name"]: stats.parse(e["node_name"], e["candidate_sentences"]) for e in corpus.values()})
    if pairs:
        few = ", ".join(f"{name}/{kind}" for name, _, kind in pairs[:3])
        print(f"{len(pairs)} kinds are classes of the list themselves ({few}, …); rcnn.describe stats lists them")
    return 1 if failed else 0


def main(argv=None):
    parser = cli.parser("describe", __doc__, config.DescribeConfig)
    parser.add_argument("source", metavar="CLASSES", help="coco, nuswide, openimages, a list of class names, or a YAML file")
    parser.add_argument("rest", nargs="*", metavar="key=value", help="configuration keys to set; after stats: corpus files")
    parser.add_argument("--dry-run", action="store_true", help="print requests, tokens and cost; ask nothing")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="send nothing more once this run has cost so much")
    parser.add_argument("--batch", action="store_true", help="ask through OpenAI's Batch API: half the price, within a day")
    parser.add_argument(
        "--allow-partial", action="store_true", help="write what there is though classes failed; training needs all"
    )
    args = parser.parse_intermixed_args(argv)
    if args.source == "stats":
        if not args.rest:
            raise ValueError("stats: expected one or more corpus files")
        return show_statistics(args.rest)
    return describe(read_settings(args.source, args.rest), args.dry_run, args.batch, args.max_cost, args.allow_partial)


if __name__ == "__main__":
    cli.run(main)
