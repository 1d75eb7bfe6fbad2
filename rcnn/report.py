"""Tables of the paper with ours beside: `python -m rcnn.report outputs/coco/result.json`.

Reads result files alone. Several result files that differ only in their seed give mean ± standard deviation. Tables 1 and
3 are made of MS-COCO's results, 2 and 3 of NUS-WIDE's; rows of other methods are the paper's numbers. A result on other
classes or images than the paper's is shown, and marked as not comparable.
"""

import csv
import io
import json
import statistics
import sys
from pathlib import Path

import yaml

from rcnn import cli, config
from rcnn.files import replace_file
from rcnn.results.table import LABELS, VARIANTS
from rcnn.text.classes import ClassList

DATA = Path(__file__).resolve().parents[1] / "data"
TITLES = {
    "table1": "Table 1. MS-COCO, top-3 precision, recall, F1",
    "table2": "Table 2. NUS-WIDE",
    "table3": "Table 3. Ablation",
}
DATASETS = {"coco": "MS-COCO", "nuswide": "NUS-WIDE"}
FORMATS = {"markdown": "md", "csv": "csv", "latex": "tex"}  # and the suffix of their files
# configuration keys in which results of one setting may differ, beside all paths: fingerprints say what was in the files
FREE = {"seed", "device", "evaluate.batch_size", "evaluate.workers", "evaluate.save_every", "evaluate.bootstrap"}
FREE |= {key for key, option in config.options() if option.metadata["path"]}


def read(paths):
    """{data set: [results of its seeds]} of result files.

    Raises:
        FileNotFoundError, ValueError: no result file, or results that differ in more than their seed.
    """
    groups = {}
    for path in map(Path, paths):
        path = path / "result.json" if path.is_dir() else path
        if not path.is_file():
            raise FileNotFoundError(f"there is no result file {path}; python -m rcnn.evaluate makes one")
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            kind = result["config"]["dataset"]["kind"]
            result["rows"]["baseline"]["plain"], result["images"]["tasks"], result["class_fingerprint"], result["method"]
            result["warnings"], result["images"]["unreadable"], result["seed"], result["config"]["dataset"]["keep_unlabelled"]
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is no result file of this rcnn.evaluate; measure again") from None
        if kind not in list(DATASETS):
            raise ValueError(f"{path}: the paper has no table of the data set {kind!r}; expected coco or nuswide")
        groups.setdefault(kind, []).append((path, result))
    for results in groups.values():
        first = shaping(results[0][1])
        for path, result in results[1:]:
            other = shaping(result)
            if different := sorted(k for k in first.keys() | other.keys() if first.get(k) != other.get(k)):
                raise ValueError(f"{path} and {results[0][0]} differ in {', '.join(different)}; only seeds can be averaged")
        seeds = [result["seed"] for _, result in results]
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"two of the results have the same seed ({', '.join(map(str, seeds))}); give each once")
    return {kind: [result for _, result in results] for kind, results in groups.items()}


def shaping(result):
    """All that must be equal for results to be averaged."""
    flat = {}
    for key, value in result["config"].items():
        flat |= {f"{key}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {key: value}
    facts = {k: result.get(k) for k in ("class_fingerprint", "corpus_fingerprint", "weights_sha256")}
    return {k: v for k, v in flat.items() if k not in FREE} | facts


def cell(results, row, variant, task, metric):
    """(mean, standard deviation or None) over the seeds, or None where it was not measured."""
    try:
        values = [r["rows"][row][variant][task][metric]["value"] for r in results]
    except KeyError:
        return None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def tables(groups, paper):
    """Rows of all tables that there are results for.

    Returns:
        [{"table", "title", "dataset", "notes", "columns", "rows"}]; a row is {"name", "task", "kind", "cells"}, kind "paper"
        or "ours", a cell (mean, deviation, the paper's number), each of the three a number or None.
    """
    out = []
    for number, kind in (("table1", "coco"), ("table2", "nuswide")):
        if kind in groups:
            results, spec = groups[kind], paper[number]
            rows = [row for name, tasks in spec["rows"].items() for row in quoted(name, tasks, spec["columns"])]
            row, variant = results[0]["method"], "mssa" if "mssa" in next(iter(results[0]["rows"].values())) else "plain"
            known = spec["rows"]["RCNn"] if (row, variant) == ("cnr_pbl", "mssa") else {}
            rows += ours(f"this run: {LABELS[row]}{VARIANTS[variant]}", results, row, variant, spec["columns"], known)
            out.append(table(number, TITLES[number], kind, results, spec["columns"], rows, paper))
    for kind, results in groups.items():
        spec, rows = paper["table3"], []
        for row in results[0]["rows"]:
            for variant in results[0]["rows"][row]:
                known = spec[kind].get(f"{row} {variant}", {})
                rows += ours(LABELS[row] + VARIANTS[variant], results, row, variant, spec["columns"], known)
        rows.sort(key=lambda r: r["known"], reverse=True)  # the paper's four first; others are ours alone
        out.append(table("table3", f"{TITLES['table3']}, {DATASETS[kind]}", kind, results, spec["columns"], rows, paper))
    return out


def quoted(name, tasks, columns):
    """Rows of a method by the paper's numbers."""
    numbers = {task: tasks[task] or [None] * len(columns) for task in ("zsl", "gzsl")}
    return [{"name": name, "task": t, "kind": "paper", "cells": [(v, None, None) for v in n]} for t, n in numbers.items()]


def ours(name, results, row, variant, columns, known):
    """Measured rows, beside the paper's numbers where it has them."""
    rows = []
    for task in next(iter(results[0]["rows"].values()))["plain"]:
        numbers = known.get(task) or [None] * len(columns)
        cells = [(*(cell(results, row, variant, task, c) or (None, None)), n) for c, n in zip(columns, numbers, strict=True)]
        rows.append({"name": name, "task": task, "kind": "ours", "cells": cells, "known": bool(known)})
    return rows


def table(number, title, kind, results, columns, rows, paper):
    return {"table": number, "title": title, "dataset": kind, "columns": columns, "rows": rows,
            "notes": notes(kind, results, paper)}  # fmt: skip


def notes(kind, results, paper):
    """What a reader must know before comparing, of every seed."""
    out = list(dict.fromkeys(note for result in results for note in result_notes(kind, result, paper)))
    if len(results) > 1:
        out.append(f"Ours: mean ± standard deviation of {len(results)} seeds.")
    return [*out, "In brackets: ours minus the paper's. Rows of other methods: the paper's numbers."]


def result_notes(kind, result, paper):
    """What is special about the images and classes of one result."""
    out = []
    shipped = ClassList.read(DATA / kind / "seen.txt", DATA / kind / "unseen.txt")
    if result["class_fingerprint"] != shipped.fingerprint:
        out.append("NOT COMPARABLE: the class list is not the paper's.")
    images = result["images"]
    for task, found in images["tasks"].items():
        expected = paper["positives_per_image"][kind][task]
        off = abs(found["positives_per_image"] / expected - 1)
        verdict = f"the paper's own rows imply {expected}" + (
            f", {100 * off:.0f} % off: NOT ITS TEST SET" if off > 0.01 else ""
        )
        out.append(f"{task.upper()}: {found['images']:,} images, {found['positives_per_image']:.3f} positives each; {verdict}.")
    if images["missing"] or images["unreadable"]:
        out.append(f"{images['missing']} missing and {images['unreadable']} unreadable images were left out.")
    kept = result["config"]["dataset"]["keep_unlabelled"]
    out.append(f"Images without a positive label: {'kept' if kept else 'not used, as in the paper'}.")
    return out + [f"WARNING: {warning}." for warning in result["warnings"]]


def render(made, form):
    """All tables as text in one of FORMATS."""
    if form == "csv":
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(
            ["table", "dataset", "row", "task", "metric", "source", "value", "deviation", "paper", "difference", "comparable"]
        )
        for t in made:
            doubts = ("NOT ", "WARNING", "were left out", "label: kept")
            comparable = "no" if any(doubt in note for note in t["notes"] for doubt in doubts) else "yes"
            for row in t["rows"]:
                for column, (mean, deviation, known) in zip(t["columns"], row["cells"], strict=True):
                    source, known = ("paper", mean) if row["kind"] == "paper" else ("ours", known)
                    value = None if source == "paper" else mean
                    off = None if None in (value, known) else round(value - known, 3) + 0.0
                    numbers = [v if v is None else round(v, 3) for v in (value, deviation)]
                    mark = comparable if source == "ours" else None
                    writer.writerow(
                        [t["table"], t["dataset"], row["name"], row["task"], column, source, *numbers, known, off, mark]
                    )
        return text.getvalue().rstrip("\n")
    parts = []
    for t in made:
        header = ["method", "task", *t["columns"]]
        lines = [[row["name"], row["task"].upper(), *(words(c, form) for c in row["cells"])] for row in t["rows"]]
        parts.append((markdown if form == "markdown" else latex)(t, header, lines))
    return "\n\n".join(parts)


def words(value, form):
    """One cell: mean, ± deviation, and in brackets the difference to the paper."""
    mean, deviation, known = value
    if mean is None:
        return "-"
    plus = r"$\pm$" if form == "latex" else "±"
    text = f"{mean:.1f}" + (f" {plus} {deviation:.1f}" if deviation is not None else "")
    return text + (f" ({round(mean - known, 1) + 0.0:+.1f})" if known is not None else "")


def markdown(t, header, lines):
    rows = [header, ["---"] * len(header)]
    for row, line in zip(t["rows"], lines, strict=True):
        mixed = row["kind"] == "ours" and t["table"] != "table3"  # among other methods
        rows.append([f"**{c}**" if mixed and c != "-" else c for c in line])
    return "\n".join([f"### {t['title']}", "", *(f"| {' | '.join(r)} |" for r in rows), "", *(f"- {n}" for n in t["notes"])])


def latex(t, header, lines):
    def escape(text):
        text = text.replace("\\", "/")
        for mark in "&%#_{}$":
            text = text.replace(mark, f"\\{mark}")
        return text.replace("±", r"$\pm$").replace("~", r"\textasciitilde{}").replace("^", r"\textasciicircum{}")

    rows = [" & ".join(escape(c) if i < 2 else c for i, c in enumerate(line)) + r" \\" for line in lines]
    head = " & ".join(escape(c) for c in header) + r" \\"
    body = [rf"\begin{{tabular}}{{ll{'r' * len(t['columns'])}}}", r"\toprule", head, r"\midrule", *rows, r"\bottomrule"]
    caption = escape(" ".join([t["title"].split(". ", 1)[1] + ".", *t["notes"]]))
    return "\n".join([r"\begin{table}", r"\centering", *body, r"\end{tabular}", rf"\caption{{{caption}}}", r"\end{table}"])


def main(argv=None):
    parser = cli.parser("report", __doc__, keys=None)
    parser.add_argument("results", nargs="+", metavar="RESULT", help="result.json, or the folder of a run")
    parser.add_argument("--format", choices=FORMATS, default="markdown")
    parser.add_argument("--write", metavar="FOLDER", help="also write tables.md, tables.csv and tables.tex there")
    parser.add_argument("--table", type=int, choices=(1, 2, 3), action="append", help="only this table; may be repeated")
    args = parser.parse_args(argv)
    paper = yaml.safe_load((DATA / "paper_tables.yaml").read_text(encoding="utf-8"))
    made = tables(read(args.results), paper)
    if args.table:
        if absent := set(args.table) - {int(t["table"][-1]) for t in made}:
            raise ValueError(f"--table: these results have no table {min(absent)}")
        made = [t for t in made if int(t["table"][-1]) in args.table]
    for form, suffix in FORMATS.items() if args.write else ():
        with replace_file(Path(args.write) / f"tables.{suffix}") as file:
            file.write((render(made, form) + "\n").encode())
    sys.stdout.write(render(made, args.format) + "\n")


if __name__ == "__main__":
    cli.run(main)
