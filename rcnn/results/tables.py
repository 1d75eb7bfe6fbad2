"""The paper's tables with ours beside, from results alone: Markdown, CSV, LaTeX."""

import csv
import io
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import files
from typing import NamedTuple

import yaml

from rcnn import config
from rcnn.datasets import DATASETS
from rcnn.results.result import Result
from rcnn.results.table import protocol, ties

METHOD = ("cnr_pbl", "mssa")  # the row and the scorer of the paper's method
HEADER = ["table", "dataset", "row", "task", "metric", "source", "value", "deviation", "paper", "difference", "comparable"]
OTHER = "†"  # marks rows of other methods on other test images than RCNn's
HALF, CLOSE = 0.05, 0.02  # of a rounded percentage; of positives an image, relative
FORMATS = {"markdown": "md", "csv": "csv", "latex": "tex"}  # and the suffix of their files


class Cell(NamedTuple):
    """A number of the paper, or ours: its mean and standard deviation over seeds, and the paper's number beside it."""

    mean: float | None
    deviation: float | None = None
    paper: float | None = None


@dataclass(frozen=True)
class TableRow:
    """A method on one task; `ours` or quoted from the paper, and whether the paper has numbers for it."""

    name: str
    task: str
    ours: bool
    cells: list[Cell]
    known: bool = True
    same_images: bool | None = None  # whether quoted numbers are on RCNn's test images; None where nobody can tell


@dataclass(frozen=True)
class Table:
    """One table of the paper; `comparable` whether our numbers are on its classes and test set."""

    key: str
    title: str
    dataset: str
    columns: list[str]
    rows: list[TableRow]
    notes: list[str]
    comparable: bool


def paper() -> dict:
    """Numbers of the paper's Tables 1 to 3; a comparison of methods on the data set X may be TABLE_X."""
    return yaml.safe_load((files("rcnn.results") / "paper.yaml").read_text(encoding="utf-8"))


def group(results: Iterable[tuple[str, Result]]) -> dict[str, list[Result]]:
    """{data set: results of its seeds}, from (path, Result); ValueError if they differ in more, or the paper has no table."""
    known, groups = [spec["dataset"] for spec in paper().values() if "dataset" in spec], {}
    for path, result in results:
        if result.dataset not in known:
            raise ValueError(f"{path}: the paper has no table of the data set {result.dataset!r}; it has of {', '.join(known)}")
        groups.setdefault(result.dataset, []).append((path, result))
    for (first_path, first), *others in groups.values():
        one = shaping(first)
        for path, result in others:
            other = shaping(result)
            if different := sorted(k for k in one.keys() | other.keys() if one.get(k) != other.get(k)):
                raise ValueError(f"{path} and {first_path} differ in {', '.join(different)}; only seeds can be averaged")
        seeds = [first.seed, *(result.seed for _, result in others)]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"two of the results have the same seed ({', '.join(map(str, seeds))}); give each once")
    return {kind: [result for _, result in pairs] for kind, pairs in groups.items()}


def shaping(result: Result) -> dict:
    """All that must be equal for results to be averaged: not the seed, nor what moves last digits or intervals alone."""
    found = config.shaping(result.settings, "learning", "rows", "scores", "metrics")
    del found["seed"]
    found["rows"] = sorted(result.rows)
    return found | {key: getattr(result, key) for key in ("class_fingerprint", "corpus_fingerprint", "clip_fingerprint")}


def tables(groups: dict[str, list[Result]]) -> list[Table]:
    """All tables that there are results for."""
    known, out = paper(), []
    ablated = known["table3"]["datasets"]
    for key, spec in known.items():
        if results := groups.get(spec.get("dataset")):
            made = [row for name in spec["rows"] for row in _quoted(spec, name)]
            row, scorer = results[0].method, results[0].scorer
            numbers = spec["rows"]["RCNn"] if (row, scorer) == METHOD else {}
            mine = {(row, scorer): numbers, ("tagclip", "plain"): spec["rows"]["TagCLIP*"]}
            for own, papers in mine.items():
                if all(own[1] in result.rows.get(own[0], {}) for result in results):
                    made += _ours(f"this run: {results[0].label(*own)}", results, *own, spec["columns"], papers)
            others = [(r, s) for r, scorers in results[0].rows.items() for s in scorers if (r, s) not in mine]
            for other in others if spec["dataset"] not in ablated else ():  # which no Table 3 will show
                made += _ours(results[0].label(*other), results, *other, spec["columns"], {})
            out.append(_table(key.partition("_")[0], spec["title"], results, spec["columns"], made, _on_other_images(spec)))
    spec = known["table3"]
    for kind, results in groups.items():
        if kind not in ablated:
            continue
        numbers, mine = spec["datasets"][kind], []
        for row, scorers in results[0].rows.items():
            for scorer in scorers:
                quoted = numbers.get(f"{row} {scorer}", {})
                mine += _ours(results[0].label(row, scorer), results, row, scorer, spec["columns"], quoted)
        mine.sort(key=lambda r: r.known, reverse=True)  # the paper's four first; others are ours alone
        out.append(_table("table3", f"{spec['title']}, {DATASETS[kind].title}", results, spec["columns"], mine))
    return out


def _quoted(spec, name):
    out = []
    for task in ("zsl", "gzsl"):
        values, numbers = spec["rows"][name][task] or [None] * len(spec["columns"]), implied(spec, name, task)
        same = all(close for _, close in numbers) if numbers else None
        out.append(TableRow(name, task, False, [Cell(value) for value in values], True, same))
    return out


def implied(spec: dict, name: str, task: str) -> list[tuple[float, bool]]:
    """What precision and recall of a row of a table imply: (positives an image, whether that may be RCNn's number) by k.

    Precision is hits / (k images) and recall hits / positives, so k P / R is the number of positives an image, whatever the
    method. It may be RCNn's if some P and R that round to the row's give RCNn's number within CLOSE.
    """
    out, known = [], DATASETS[spec["dataset"]].positives_per_image[task]
    by = dict(zip(spec["columns"], spec["rows"][name][task] or (), strict=False))
    for column, p in by.items():
        if column.startswith("P@") and p is not None:
            k, r = int(column[2:]), by[f"R{column[1:]}"]
            low, high = k * (p - HALF) / (r + HALF), k * (p + HALF) / (r - HALF)
            out.append((k * p / r, low / (1 + CLOSE) <= known <= high * (1 + CLOSE)))
    return out


def _on_other_images(spec):
    """Notes on the rows that are not on RCNn's test images, and on those of which nobody can tell."""
    out, told = [], set()
    for task, known in DATASETS[spec["dataset"]].positives_per_image.items():
        found = {name: numbers for name in spec["rows"] if (numbers := implied(spec, name, task))}
        told |= found.keys()
        if off := [f"{name} {numbers[0][0]:.2f}" for name, numbers in found.items() if not all(close for _, close in numbers)]:
            out.append(
                f"{OTHER} Not comparable with RCNn and ours, {task.upper()}: precision and recall imply other test images, "
                f"{', '.join(off)} positives each, RCNn {known}"
            )
    if out:
        out.append(spec["other_images"])
    if silent := [name for name in spec["rows"] if name not in told]:
        out.append(f"{', '.join(silent)}: no precision and recall, so nobody can tell on which images")
    return [f"{note}." for note in out]


def _ours(name, results, row, scorer, columns, numbers):
    out = []
    for task in results[0].rows[row][scorer]:
        quoted = numbers.get(task) or [None] * len(columns)
        cells = [_cell(results, row, scorer, task, c, n) for c, n in zip(columns, quoted, strict=True)]
        out.append(TableRow(name, task, True, cells, bool(numbers)))
    return out


def _cell(results, row, scorer, task, metric, number):
    """Over the seeds; empty where it was not measured."""
    try:
        values = [result.rows[row][scorer][task][metric].value for result in results]
    except KeyError:
        return Cell(None, None, number)
    return Cell(statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None, number)


def _table(key, title, results, columns, made, more=()):
    comparable = all(result.comparable for result in results)
    return Table(key, title, results[0].dataset, columns, made, _notes(results, more), comparable)


def _notes(results, more):
    """What a reader must know before comparing, of every seed."""
    out = []
    for result in results:
        out += [f"NOT COMPARABLE: {doubt}." for doubt in result.doubts]
        out += [
            f"{task.upper()}: {found.images:,} images, {found.positives_per_image:.3f} positives each."
            for task, found in result.images.tasks.items()
        ]
        out += [f"Not verified: {result.images.unverified}."] * bool(result.images.unverified)
        out += protocol(result) + ties(result)
    out = list(dict.fromkeys(out))
    if len(results) > 1:
        out.append(f"Ours: mean ± standard deviation of {len(results)} seeds.")
    return [*out, *more, "In brackets: ours minus the paper's. Rows of other methods: the paper's numbers."]


def render(made: list[Table], form: str) -> str:
    """All tables as text in one of FORMATS."""
    if form == "csv":
        return _csv(made)
    return "\n\n".join((_markdown if form == "markdown" else _latex)(table) for table in made)


def _csv(made):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(HEADER)
    for table in made:
        for row in table.rows:
            for column, cell in zip(table.columns, row.cells, strict=True):
                value, known = (cell.mean, cell.paper) if row.ours else (None, cell.mean)
                off = None if None in (value, known) else round(value - known, 3) + 0.0
                numbers = [v if v is None else round(v, 3) for v in (value, cell.deviation)]
                mark = {True: "yes", False: "no", None: None}[table.comparable if row.ours else row.same_images]
                source = "ours" if row.ours else "paper"
                writer.writerow([table.key, table.dataset, row.name, row.task, column, source, *numbers, known, off, mark])
    return text.getvalue().rstrip("\n")


def _name(row):
    return f"{row.name} {OTHER}" if row.same_images is False else row.name


def _words(cell, plus):
    """Mean, ± deviation, and in brackets the difference to the paper."""
    if cell.mean is None:
        return "-"
    text = f"{cell.mean:.1f}" + (f" {plus} {cell.deviation:.1f}" if cell.deviation is not None else "")
    return text + (f" ({round(cell.mean - cell.paper, 1) + 0.0:+.1f})" if cell.paper is not None else "")


def _markdown(table):
    header = ["method", "task", *table.columns]
    lines = [header, ["---"] * len(header)]
    for row in table.rows:
        line = [_name(row), row.task.upper(), *(_words(cell, "±") for cell in row.cells)]
        mixed = row.ours and table.key != "table3"  # among other methods
        lines.append([f"**{c}**" if mixed and c != "-" else c for c in line])
    return "\n".join([f"### {table.title}", "", *(f"| {' | '.join(r)} |" for r in lines), "", *(f"- {n}" for n in table.notes)])


def _latex(table):
    def escape(text):
        text = text.replace("\\", "/")
        for mark in "&%#_{}$":
            text = text.replace(mark, f"\\{mark}")
        return (
            text.replace("±", r"$\pm$")
            .replace(OTHER, r"\dag{}")
            .replace("~", r"\textasciitilde{}")
            .replace("^", r"\textasciicircum{}")
        )

    names = [[escape(_name(row)), escape(row.task.upper())] for row in table.rows]
    lines = [name + [_words(cell, r"$\pm$") for cell in row.cells] for name, row in zip(names, table.rows, strict=True)]
    head = " & ".join(escape(c) for c in ["method", "task", *table.columns]) + r" \\"
    body = [rf"\begin{{tabular}}{{ll{'r' * len(table.columns)}}}", r"\toprule", head, r"\midrule"]
    body += [*(" & ".join(line) + r" \\" for line in lines), r"\bottomrule"]
    caption = escape(" ".join([table.title.split(". ", 1)[1] + ".", *table.notes]))
    return "\n".join([r"\begin{table}", r"\centering", *body, r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"])
