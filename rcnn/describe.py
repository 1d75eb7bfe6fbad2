"""Describe classes by a language model: `python -m rcnn.describe names.txt` (paper 3.3).

Asks any OpenAI-compatible service, class by class, first what kind of thing it is and in which sense, then what it looks
like, its narrower and broader kinds, and the scenes it is seen in; composes sentences of the answers, and writes

    names.corpus.json           what rcnn.train reads: {"0": {"node_name": …, "candidate_sentences": […]}, …}
    names.corpus.answers.jsonl  the raw answers; a second run asks only for what is not in it
    names.corpus.about.json     models, settings, sense and facts of every class, cost, what was left out and what failed

The key of the service is read from OPENAI_API_KEY; a local server needs none:

    python -m rcnn.describe names.txt base_url=http://localhost:11434/v1 model=llama3.1
    python -m rcnn.describe names.txt --dry-run     what it would ask, and the cost
    python -m rcnn.describe coco                    rebuild a corpus that ships with the project, without a request
    python -m rcnn.describe stats corpus.json …     statistics of corpora, side by side
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rcnn import cli, config
from rcnn.datasets import DATASETS
from rcnn.describing import stats
from rcnn.describing.answers import Answers, beside
from rcnn.describing.description import Description
from rcnn.files import must_be_regular, write_json
from rcnn.printing import message, printable
from rcnn.text.classes import ClassList

PRESETS = Path(__file__).parents[1] / "configs" / "describe"  # of a checkout


def is_class_list(source: str) -> bool:
    """Whether the first argument is a text file of class names, neither the name of a data set or preset nor a YAML file."""
    return source not in DATASETS and not (PRESETS / f"{source}.yaml").is_file() and not source.endswith((".yaml", ".yml"))


def read_settings(source: str, overrides: Sequence[str] = ()) -> config.DescribeConfig:
    """The settings of a class list, a YAML file or a preset; the corpus of names.txt is names.corpus.json beside it."""
    if is_class_list(source):
        raw = {"classes": {"unseen": source}, "output": str(Path(source).with_suffix(".corpus.json"))}
        return config.override(raw, overrides, config.DescribeConfig)
    preset = PRESETS / f"{source}.yaml"
    if source in DATASETS and not PRESETS.is_dir():
        raise ValueError(f"{source} is part of a checkout of the project, not of the installed package")
    if source in DATASETS and not preset.is_file():
        known = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise ValueError(f"there are no questions for {source}; there are for {known}")
    return config.load(preset if preset.is_file() else source, overrides, config.DescribeConfig)


def describe(settings: config.DescribeConfig, dry_run: bool, batched: bool, max_cost: float | None, allow_partial: bool) -> int:
    """Make the corpus that `settings` ask for; returns the exit code."""
    classes = ClassList.read(settings.classes.seen, settings.classes.unseen)
    for path in (Path(settings.output), beside(settings.output, ".about.json")):
        if path.exists():
            must_be_regular(path)  # before anything is paid for
    with Answers(beside(settings.output, ".answers.jsonl"), writing=not dry_run) as store:
        if store.skipped:
            print(printable(f"{store.path}: skipped lines that cannot be read:"), *store.skipped[:10], file=sys.stderr)
        description = Description(settings, classes, store, batched, max_cost)
        if dry_run:
            print("\n".join(map(printable, description.dry_run())))
            return 0
        corpus, about = description.corpus()
    write_json(beside(settings.output, ".about.json"), about)
    if failed := about["failed"]:
        shown = [message(f"  {name}: {why[0]}".replace("\n", " ")) for name, why in list(failed.items())[:20]]
        print(f"{len(failed)} of {len(corpus)} classes failed:", *shown, sep="\n", file=sys.stderr)
        if not allow_partial:
            print("no corpus was written; run again to ask for these only, or add --allow-partial", file=sys.stderr)
            return 1
    write_json(settings.output, corpus)
    total = sum(len(entry["candidate_sentences"]) for entry in corpus.values())
    print(printable(f"{total:,} sentences of {len(corpus):,} classes: {settings.output} ({description.cost} in this run)"))
    if pairs := stats.listed_kinds(stats.read_facts(settings.output)):
        few = message(", ".join(f"{name}/{kind}" for name, _, kind in pairs[:3]))
        print(f"{len(pairs)} kinds are classes of the list themselves ({few}, …); python -m rcnn.describe stats lists them")
    return 1 if failed else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = cli.parser("describe", __doc__, config.DescribeConfig)
    parser.add_argument("source", metavar="CLASSES", help="coco, nuswide, openimages, a list of class names, or a YAML file")
    parser.add_argument("rest", nargs="*", metavar="key=value", help="configuration keys to set; after stats: corpus files")
    parser.add_argument("--dry-run", action="store_true", help="print requests, tokens and cost; ask nothing")
    parser.add_argument("--max-cost", type=float, metavar="USD", help="send nothing more once this run has cost so much")
    parser.add_argument("--batch", action="store_true", help="ask through OpenAI's Batch API: half the price, within a day")
    parser.add_argument("--allow-partial", action="store_true", help="write what there is if classes fail; training needs all")
    args = parser.parse_intermixed_args(argv)
    if args.source == "stats":
        if not args.rest:
            raise ValueError("stats: expected one or more corpus files")
        print("\n".join(map(printable, stats.compare(args.rest))))
        return 0
    settings = read_settings(args.source, args.rest)
    code = describe(settings, args.dry_run, args.batch, args.max_cost, args.allow_partial)
    if code == 0 and not args.dry_run and is_class_list(args.source):
        corpus = [] if settings.output == read_settings(args.source).output else [f"corpus.path={settings.output}"]
        print("next:", printable(shlex.join(["python", "-m", "rcnn.train", "--classes", args.source, *corpus])))
    return code


if __name__ == "__main__":
    cli.run(main)
