"""The paper's tables with ours beside: its numbers, our differences, and what must be said before comparing."""

import csv
import functools
import itertools
import json
import re
from pathlib import Path

import pytest
import torch
import yaml

from rcnn import cli, config, evaluate, report
from rcnn.datasets.images import ImageSet
from rcnn.results.table import LABELS, VARIANTS
from rcnn.text.classes import ClassList

ROOT = Path(__file__).parents[1]
parsed, listed = map(functools.cache, (yaml.safe_load, ClassList.read))  # most of the time would go into reading these
PAPER = parsed((ROOT / "data" / "paper_tables.yaml").read_text(encoding="utf-8"))
METRICS = ["mAP", "P@3", "R@3", "F1@3", "P@5", "R@5", "F1@5"]
TABLE_1, TABLE_2 = "Table 1. MS-COCO, top-3 precision, recall, F1", "Table 2. NUS-WIDE"
TABLE_3 = {"coco": "Table 3. Ablation, MS-COCO", "nuswide": "Table 3. Ablation, NUS-WIDE"}
OURS = "this run: CNR + PBL (learned names) + MSSA"
SUMS_THAT_ARE_OFF = {("table1", "Fast0Tag", "zsl", "F1@3"), ("table2", "BiAM", "gzsl", "F1@5")}
KINDS = pytest.mark.parametrize("kind", ["coco", "nuswide"])
PATHS = {"output", "cache", "clip.weights", "classes.seen", "classes.unseen", "corpus.path", "dataset.images"}
PATHS |= {"dataset.annotations"}
SPEED = {"device=cpu", "evaluate.batch_size=7", "evaluate.workers=5", "evaluate.save_every=3", "evaluate.bootstrap=9"}


def classes(kind):
    return listed(ROOT / "data" / kind / "seen.txt", ROOT / "data" / kind / "unseen.txt")


def made_up(kind="coco", *overrides):
    """A result file's content: the shipped configuration, the paper's test set, and numbers that all differ."""
    settings = config.load(ROOT / "configs" / f"{kind}.yaml", overrides)
    numbers = itertools.count(20.03, 0.29)
    variants = ("plain", "mssa") if settings.evaluate.counts else ("plain",)
    learned = settings.train.method == "names"
    rows = [row for row in LABELS if learned or row not in ("cnr", "cnr_pbl")]

    def metric():
        value = next(numbers)
        return {"value": value, "interval": [value - 1, value + 1], "versus_baseline": {"value": 0.5}}

    tasks = {t: {"images": 12345, "positives_per_image": n} for t, n in PAPER["positives_per_image"][kind].items()}
    return {
        "method": "cnr_pbl" if learned else "closed_form",
        "rows": {row: {v: {t: {m: metric() for m in METRICS} for t in tasks} for v in variants} for row in rows},
        "diagnostics": {}, "epochs": [], "best_on_test": {},
        "images": {"used": 12345, "left_out_without_labels": 7, "missing": 0, "unreadable": 0, "tasks": tasks},
        "warnings": [], "learning": {}, "class_fingerprint": classes(kind).fingerprint, "corpus_fingerprint": "c" * 64,
        "weights_sha256": "d" * 64, "seed": settings.seed, "versions": {}, "git_commit": None,
        "config": config.to_dict(settings),
    }  # fmt: skip


def put(result, row, variant, task, **values):
    """Give cells of a result these values, @ spelt _at_."""
    for metric, value in values.items():
        result["rows"][row][variant][task][metric.replace("_at_", "@")]["value"] = value
    return result


@pytest.fixture
def run(tmp_path, capsys, monkeypatch):
    """What `python -m rcnn.report` prints for results, or paths, and options: stdout, or of a failure stderr."""
    monkeypatch.setattr(yaml, "safe_load", parsed)
    monkeypatch.setattr(ClassList, "read", listed)

    def call(*results, code=0):
        arguments = []
        for i, given in enumerate(results):
            if isinstance(given, dict):
                path = tmp_path / f"result{i}.json"
                path.write_text(json.dumps(given), encoding="utf-8")
                given = path
            arguments.append(str(given))
        with pytest.raises(SystemExit) as ended:
            cli.run(lambda: report.main(arguments))
        stdout, stderr = capsys.readouterr()
        assert ended.value.code == code, stdout + stderr
        assert (stderr == "") if code == 0 else (stdout == "")
        return stderr if code else stdout

    return call


@pytest.fixture
def fails(run):
    """The one line that a bad call ends in."""

    def call(*results):
        (line,) = run(*results, code=2).splitlines()
        assert line.startswith("error: ")
        return line.removeprefix("error: ")

    return call


def read_markdown(text):
    """{title: (header, {(row, task): cells}, notes)}."""
    out = {}
    for block in text.split("### ")[1:]:
        title, *lines = block.splitlines()
        header, rule, *rows = [[c.strip().strip("*") for c in x.strip("|").split("|")] for x in lines if x.startswith("|")]
        assert set(rule) == {"---"}
        assert {len(r) for r in rows} == {len(header)} == {len(rule)}
        by_row = {(name, task): cells for name, task, *cells in rows}
        assert len(by_row) == len(rows)
        out[title] = header, by_row, [x[2:] for x in lines if x.startswith("- ")]
    return out


def read_csv(text):
    """{(table, dataset, row, task, metric): the rest}."""
    header, *lines = csv.reader(text.splitlines())
    assert header == [
        "table", "dataset", "row", "task", "metric", "source", "value", "deviation", "paper", "difference", "comparable",
    ]  # fmt: skip
    assert {len(x) for x in lines} == {len(header)}
    out = {tuple(x[:5]): dict(zip(header[5:], x[5:], strict=True)) for x in lines}
    assert len(out) == len(lines)
    return out


def read_latex(text):
    """[(columns of the tabular, [[cell]] of header and rows, caption)]."""
    out = []
    for block in text.split(r"\begin{table}")[1:]:
        assert block.rstrip().endswith(r"\end{table}")
        columns, body = re.search(r"\\begin\{tabular\}\{(\w+)\}(.*)\\end\{tabular\}", block, re.DOTALL).groups()
        lines = [x for x in body.splitlines() if x and x not in (r"\toprule", r"\midrule", r"\bottomrule")]
        assert all(x.endswith(r" \\") for x in lines)
        cells = [[c.strip() for c in re.split(r"(?<!\\)&", x.removesuffix(r"\\"))] for x in lines]
        out.append((columns, cells, re.search(r"\\caption\{(.*)\}\n", block)[1]))
    return out


def notes(text):
    return [note for _, _, notes in read_markdown(text).values() for note in notes]


def test_coco_makes_tables_1_and_3_and_nuswide_tables_2_and_3(run):
    assert list(read_markdown(run(made_up()))) == [TABLE_1, TABLE_3["coco"]]
    assert list(read_markdown(run(made_up("nuswide")))) == [TABLE_2, TABLE_3["nuswide"]]
    assert list(read_markdown(run(made_up("nuswide"), made_up()))) == [
        TABLE_1, TABLE_2, TABLE_3["nuswide"], TABLE_3["coco"],
    ]  # fmt: skip


def test_tables_have_the_paper_s_columns(run):
    tables = read_markdown(run(made_up(), made_up("nuswide")))
    assert tables[TABLE_1][0] == ["method", "task", "P@3", "R@3", "F1@3"]
    assert tables[TABLE_2][0] == ["method", "task", "P@3", "R@3", "F1@3", "P@5", "R@5", "F1@5", "mAP"]
    for title in TABLE_3.values():
        assert tables[title][0] == ["method", "task", "mAP", "F1@3", "F1@5"]


def test_rows_of_other_methods_are_the_paper_s(run):
    tables = read_markdown(run(made_up(), made_up("nuswide")))
    first, second = tables[TABLE_1][1], tables[TABLE_2][1]
    assert first["SDL (M=2)", "GZSL"] == ["59.0", "60.8", "59.9"]
    assert first["DualCoOp", "ZSL"] == ["35.3", "87.6", "50.3"]
    assert first["RCNn", "ZSL"] == ["37.6", "93.4", "53.6"]
    assert second["MKT", "GZSL"] == ["35.9", "15.8", "22.0", "29.9", "22.0", "25.4", "18.3"]
    assert second["(ML)2-Enc", "ZSL"] == ["-", "-", "32.8", "-", "-", "32.3", "29.4"]
    assert second["CoMC", "ZSL"] == ["33.5", "53.5", "41.2", "24.8", "66.1", "36.1", "48.2"]
    assert second["CoMC", "GZSL"] == ["-"] * 7
    for number, rows in (("table1", first), ("table2", second)):
        assert list(rows) == [(n, t) for n in [*PAPER[number]["rows"], OURS] for t in ("ZSL", "GZSL")]


def test_own_rows_are_bold_among_those_of_other_methods_and_nothing_else_is(run):
    title, bold = None, 0
    for line in run(made_up(), made_up("nuswide")).splitlines():
        title = line.removeprefix("### ") if line.startswith("### ") else title
        if line.startswith("| "):
            name, *cells = line.strip("| ").split(" | ")
            own = name.strip("*") == OURS
            assert own <= (title in (TABLE_1, TABLE_2))
            assert [c.startswith("**") and c.endswith("**") for c in (name, *cells)] == [own] * (1 + len(cells))
            bold += own
        else:
            assert "**" not in line
    assert bold == 4


def test_own_row_of_table_1_is_the_method_with_mssa_and_its_difference_to_the_paper(run):
    result = put(made_up(), "cnr_pbl", "mssa", "zsl", P_at_3=38.84, R_at_3=91.02, F1_at_3=53.6)
    put(result, "cnr_pbl", "mssa", "gzsl", P_at_3=50.0, R_at_3=65.9, F1_at_3=70.74)
    rows = read_markdown(run(result))[TABLE_1][1]
    assert rows[OURS, "ZSL"] == ["38.8 (+1.2)", "91.0 (-2.4)", "53.6 (+0.0)"]
    assert rows[OURS, "GZSL"] == ["50.0 (-6.4)", "65.9 (+0.1)", "70.7 (+10.0)"]


def test_own_row_of_table_2_is_beside_the_paper_s(run):
    values = dict(zip(["P_at_3", "R_at_3", "F1_at_3", "P_at_5", "R_at_5", "F1_at_5", "mAP"], range(11, 18), strict=True))
    rows = read_markdown(run(put(made_up("nuswide"), "cnr_pbl", "mssa", "gzsl", **values)))[TABLE_2][1]
    assert rows[OURS, "GZSL"] == [
        "11.0 (-20.8)", "12.0 (-1.8)", "13.0 (-6.3)", "14.0 (-12.7)", "15.0 (-4.4)", "16.0 (-6.4)", "17.0 (-0.9)",
    ]  # fmt: skip


@KINDS
@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["train.method=closed_form"], "this run: closed form of CNR + PBL + MSSA"),
        (["evaluate.counts=[]"], "this run: CNR + PBL (learned names)"),
        (["train.method=closed_form", "evaluate.counts=[]"], "this run: closed form of CNR + PBL"),
    ],
)
def test_another_method_than_the_paper_s_is_named_and_has_no_difference_to_it(run, kind, overrides, name):
    result, (number, title) = made_up(kind, *overrides), {"coco": ("table1", TABLE_1), "nuswide": ("table2", TABLE_2)}[kind]
    text = run(result)
    columns, (rows, ablation) = PAPER[number]["columns"], (read_markdown(text)[t][1] for t in (title, TABLE_3[kind]))
    assert list(rows)[-2:] == [(name, "ZSL"), (name, "GZSL")]
    assert len(rows) == 2 * (len(PAPER[number]["rows"]) + 1)
    own = result["rows"][result["method"]][list(result["rows"]["baseline"])[-1]]
    for task, metrics in own.items():
        assert rows[name, task.upper()] == [f"{metrics[m]['value']:.1f}" for m in columns]
    assert all("(" in cell for cell in ablation["class name", "ZSL"])
    cells = {key: cell for key, cell in read_csv(run(result, "--format", "csv")).items() if key[:3] == (number, kind, name)}
    assert len(cells) == 2 * len(columns)
    assert {(c["source"], c["paper"], c["difference"], c["comparable"]) for c in cells.values()} == {("ours", "", "", "yes")}


def test_a_difference_that_rounds_to_nothing_is_positive(run):
    result = put(made_up(), "cnr_pbl", "mssa", "zsl", P_at_3=37.58, R_at_3=93.36, F1_at_3=53.54)
    assert read_markdown(run(result))[TABLE_1][1][OURS, "ZSL"] == ["37.6 (+0.0)", "93.4 (+0.0)", "53.5 (-0.1)"]
    assert not any("-0.0)" in run(result, "--format", form) for form in report.FORMATS)


@KINDS
def test_table_3_has_the_paper_s_four_rows_first_and_every_row_of_the_result(run, kind):
    result = made_up(kind)
    rows = read_markdown(run(result))[TABLE_3[kind]][1]
    four = ["class name", "CNR (learned names)", "CNR + PBL (learned names)", "CNR + PBL (learned names) + MSSA"]
    assert list(rows)[:8] == [(name, task) for name in four for task in ("ZSL", "GZSL")]
    assert len(rows) == 4 * len(LABELS)
    for row, variants in result["rows"].items():
        for variant, tasks in variants.items():
            known = PAPER["table3"][kind].get(f"{row} {variant}", {})
            for task, metrics in tasks.items():
                expected = [f"{metrics[m]['value']:.1f}" for m in ("mAP", "F1@3", "F1@5")]
                if known:
                    values = zip(expected, ("mAP", "F1@3", "F1@5"), known[task], strict=True)
                    expected = [f"{text} ({metrics[m]['value'] - paper:+.1f})" for text, m, paper in values]
                assert rows[LABELS[row] + VARIANTS[variant], task.upper()] == expected


def test_a_difference_in_table_3_is_ours_minus_the_paper_s(run):
    put(result := made_up(), "cnr", "plain", "gzsl", mAP=66.94, F1_at_3=40.0, F1_at_5=49.0)
    put(result, "cnr", "mssa", "gzsl", mAP=66.94, F1_at_3=40.0, F1_at_5=49.0)
    rows = read_markdown(run(result))[TABLE_3["coco"]][1]
    assert rows["CNR (learned names)", "GZSL"] == ["66.9 (+0.2)", "40.0 (-14.8)", "49.0 (+0.0)"]
    assert rows["CNR (learned names) + MSSA", "GZSL"] == ["66.9", "40.0", "49.0"]


def test_csv_holds_value_paper_and_difference_of_every_cell(run):
    text = run(put(made_up(), "cnr_pbl", "mssa", "zsl", P_at_3=38.8437, R_at_3=91.02), "--format", "csv")
    cells = read_csv(text)
    key = ("table1", "coco", OURS, "zsl")
    expected = {"source": "ours", "value": "38.844", "deviation": "", "paper": "37.6", "difference": "1.244"}
    expected["comparable"] = "yes"
    assert cells[*key, "P@3"] == expected
    assert cells[*key, "R@3"] == expected | {"value": "91.02", "paper": "93.4", "difference": "-2.38"}
    quoted = {"source": "paper", "value": "", "deviation": "", "difference": "", "comparable": ""}
    assert cells["table1", "coco", "SDL (M=2)", "gzsl", "F1@3"] == quoted | {"paper": "59.9"}
    alone = cells["table3", "coco", "80 templates + MSSA", "gzsl", "mAP"]
    assert alone["source"] == "ours"
    assert float(alone["value"]) > 0
    assert alone["paper"] == alone["difference"] == ""
    assert alone["comparable"] == "yes"


@KINDS
def test_csv_has_all_cells_of_both_tables(run, kind):
    result, number = made_up(kind), {"coco": "table1", "nuswide": "table2"}[kind]
    cells = read_csv(run(result, "--format", "csv"))
    counted = [sum(key[0] == table for key in cells) for table in (number, "table3")]
    assert counted == [2 * (len(PAPER[number]["rows"]) + 1) * len(PAPER[number]["columns"]), 4 * len(LABELS) * 3]
    for row, task, metric in itertools.product(LABELS, ("zsl", "gzsl"), ("mAP", "F1@3", "F1@5")):
        for variant in VARIANTS:
            value = float(cells["table3", kind, LABELS[row] + VARIANTS[variant], task, metric]["value"])
            assert value == pytest.approx(result["rows"][row][variant][task][metric]["value"], abs=6e-4)


def test_csv_of_numbers_that_the_paper_lacks_has_empty_cells(run):
    cells = read_csv(run(made_up("nuswide"), "--format", "csv"))
    assert set(cells["table2", "nuswide", "CoMC", "gzsl", "mAP"].values()) == {"paper", ""}
    assert cells["table2", "nuswide", "(ML)2-Enc", "zsl", "F1@3"]["paper"] == "32.8"


def marks(text):
    """{data set: what the column "comparable" says of our rows}; it says nothing of the paper's."""
    out = {}
    for (_, kind, *_), cell in read_csv(text).items():
        if cell["source"] == "ours":
            out.setdefault(kind, set()).add(cell["comparable"])
        else:
            assert cell["comparable"] == ""
    return out


@KINDS
@pytest.mark.parametrize("what", ["nothing", "classes", "ZSL images", "GZSL images", "warning"])
def test_csv_says_whether_our_rows_are_comparable(run, kind, what):
    result = made_up(kind)
    if what == "classes":
        result["class_fingerprint"] = "f" * 64
    elif what == "warning":
        result["warnings"] = ["something"]
    elif what != "nothing":
        result["images"]["tasks"][what.split()[0].lower()]["positives_per_image"] *= 1.02
    assert marks(run(result, "--format", "csv")) == {kind: {"yes" if what == "nothing" else "no"}}


def test_csv_marks_a_data_set_by_all_its_seeds_and_by_no_other_data_set(run):
    other = made_up("coco", "seed=1") | {"warnings": ["something"]}
    assert marks(run(made_up(), made_up("nuswide"), other, "--format", "csv")) == {"coco": {"no"}, "nuswide": {"yes"}}


def test_latex_has_the_cells_of_the_markdown_in_rows_as_wide_as_the_tabular(run):
    results = [made_up(), made_up("nuswide")]
    tables = read_latex(run(*results, "--format", "latex"))
    expected = read_markdown(run(*results))
    assert len(tables) == len(expected) == 4
    for (columns, (header, *rows), _), (title, (names, by_row, _)) in zip(tables, expected.items(), strict=True):
        assert columns == "ll" + "r" * (len(names) - 2), title
        assert {len(row) for row in rows} == {len(columns)}
        assert header == names
        assert rows == [[*key, *cells] for key, cells in by_row.items()]


def test_latex_escapes_what_latex_would_read_as_markup(run):
    result = made_up()
    result["warnings"] = [r"50 % of A & B in #1_2 for {x} or $y$: ~me, 2^3, C:\new\b ± 1"]
    text = run(result, made_up("coco", "seed=1"), "--format", "latex")
    escaped = r"50 \% of A \& B in \#1\_2 for \{x\} or \$y\$: \textasciitilde{}me, 2\textasciicircum{}3, C:/new/b $\pm$ 1."
    tables = read_latex(text)
    assert len(tables) == 2
    for columns, rows, caption in tables:
        assert f"WARNING: {escaped}" in caption
        assert r"$\pm$ standard deviation" in caption
        assert not re.search(r"(?<!\\)[&%#_$]|[~^]", (caption + "".join(itertools.chain(*rows))).replace(r"$\pm$", ""))
        assert all(r" $\pm$ 0.0" in cell for cell in rows[-1][2:]), columns
    assert "±" not in text


def test_latex_escapes_names_too():
    row = {"name": r"A & B_1 {c}$^~\d", "task": "zsl", "kind": "ours", "cells": [(50.0, None, 49.0)]}
    made = {"table": "table1", "title": "Table 1. T #1", "dataset": "coco", "columns": ["100 %"], "rows": [row], "notes": []}
    name = r"A \& B\_1 \{c\}\$\textasciicircum{}\textasciitilde{}/d"
    expected = [["method", "task", r"100 \%"], [name, "ZSL", "50.0 (+1.0)"]]
    assert read_latex(report.render([made], "latex")) == [("llr", expected, r"T \#1.")]


def test_latex_captions_leave_the_number_to_latex(run):
    captions = [caption for *_, caption in read_latex(run(made_up(), made_up("nuswide"), "--format", "latex"))]
    titles = "MS-COCO, top-3 precision, recall, F1", "NUS-WIDE", "Ablation, MS-COCO", "Ablation, NUS-WIDE"
    for caption, title in zip(captions, titles, strict=True):
        assert re.match(rf"{title}\. ZSL: 12,345 images, ", caption)
        assert "Table" not in caption


def test_several_seeds_give_mean_and_sample_standard_deviation(run):
    results = [put(made_up("coco", f"seed={s}"), "cnr_pbl", "mssa", "zsl", F1_at_3=v) for s, v in enumerate((50, 51, 53))]
    tables = read_markdown(run(*results))
    assert tables[TABLE_1][1][OURS, "ZSL"][2] == "51.3 ± 1.5 (-2.3)"
    assert tables[TABLE_3["coco"]][1]["CNR + PBL (learned names) + MSSA", "ZSL"][1] == "51.3 ± 1.5 (-2.3)"
    assert tables[TABLE_1][1]["RCNn", "ZSL"] == ["37.6", "93.4", "53.6"]
    assert "Ours: mean ± standard deviation of 3 seeds." in tables[TABLE_1][2]
    cell = read_csv(run(*results, "--format", "csv"))["table1", "coco", OURS, "zsl", "F1@3"]
    assert [cell[k] for k in ("value", "deviation", "paper", "difference")] == ["51.333", "1.528", "53.6", "-2.267"]
    cells = read_latex(run(*results, "--format", "latex"))[0][1]
    assert cells[-2] == [OURS, "ZSL", *cells[-2][2:4], r"51.3 $\pm$ 1.5 (-2.3)"]


def test_one_seed_has_no_deviation(run):
    assert "±" not in run(made_up())


def test_seeds_of_two_data_sets_are_averaged_each_for_itself(run):
    results = [put(made_up("coco", f"seed={s}"), "cnr_pbl", "mssa", "zsl", F1_at_3=50 + 4 * s) for s in (0, 1)]
    tables = read_markdown(run(results[0], made_up("nuswide"), results[1]))
    assert tables[TABLE_1][1][OURS, "ZSL"][2] == "52.0 ± 2.8 (-1.6)"
    assert not any("±" in cell for cells in tables[TABLE_2][1].values() for cell in cells)
    assert any("2 seeds" in note for note in tables[TABLE_1][2])
    assert not any("seeds" in note for note in tables[TABLE_2][2])


def test_seeds_may_lie_anywhere_and_be_measured_on_any_machine(run):
    elsewhere = [f"{key}=/elsewhere/{key}" for key in PATHS]
    assert "2 seeds" in run(made_up(), made_up("coco", "seed=1", *elsewhere, *SPEED))


def test_seeds_must_be_equal_in_every_other_option(fails):
    free = PATHS | {pair.partition("=")[0] for pair in SPEED} | {"seed", "dataset.kind"}
    settled, other = sorted({key for key, _ in config.options()} - free), made_up("coco", "seed=1")
    for key in settled:
        section, _, name = key.rpartition(".")
        (other["config"][section] if section else other["config"])[name] = "another"
    assert f" differ in {', '.join(settled)}; only seeds" in fails(made_up(), other)


@pytest.mark.parametrize("turn", [1, -1])
@pytest.mark.parametrize("key", ["clip.pretrained", "train.novel", "novel"])
def test_options_that_one_result_alone_knows_are_named_in_either_order(fails, turn, key):
    first, other = made_up(), made_up("coco", "seed=1")
    section, _, name = key.rpartition(".")
    place = other["config"][section] if section else other["config"]
    if place.pop(name, None) is None:
        place[name] = 3
    assert f" differ in {key}; only seeds" in fails(*[first, other][::turn])


@pytest.mark.parametrize(("seeds", "listed"), [((0, 0), "0, 0"), ((3, 1, 2, 3), "3, 1, 2, 3")])
def test_the_same_seed_twice_is_refused(fails, seeds, listed):
    line = fails(made_up("nuswide", f"seed={seeds[0]}"), *(made_up("coco", f"seed={s}") for s in seeds))
    assert line == f"two of the results have the same seed ({listed}); give each once"


def test_the_same_file_twice_is_refused(fails, tmp_path):
    (tmp_path / "result.json").write_text(json.dumps(made_up()), encoding="utf-8")
    assert "have the same seed (0, 0)" in fails(tmp_path, tmp_path / "result.json")


def test_notes_of_every_seed_are_shown_once(run):
    results = [made_up("coco", f"seed={s}") for s in range(3)]
    results[1]["warnings"], results[2]["warnings"] = ["first"], ["second", "first"]
    results[2]["images"]["unreadable"] = 4
    for _, _, found in read_markdown(run(*results)).values():
        assert found[:2] == [note for note in found if re.match("G?ZSL: ", note)]
        assert sorted(found[2:]) == [
            "0 missing and 4 unreadable images were left out.",
            "Images without a positive label: not used, as in the paper.",
            "In brackets: ours minus the paper's. Rows of other methods: the paper's numbers.",
            "Ours: mean ± standard deviation of 3 seeds.",
            "WARNING: first.",
            "WARNING: second.",
        ]


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        (["train.epochs=29"], "train.epochs"),
        (["evaluate.temperature=0.07"], "evaluate.temperature"),
        (["dataset.keep_unlabelled=true"], "dataset.keep_unlabelled"),
        (["clip.model=ViT-B-16"], "clip.model"),
        (["evaluate.top_k=[3]", "seed=2", "train.tokens=5"], "evaluate.top_k, train.tokens"),
    ],
)
def test_results_that_differ_in_more_than_the_seed_are_refused_by_name(fails, overrides, named):
    line = fails(made_up(), made_up("coco", "seed=1"), made_up("coco", *overrides))
    assert re.fullmatch(rf".+result2.json and .+result0.json differ in {named}; only seeds can be averaged", line)


@pytest.mark.parametrize("fact", ["class_fingerprint", "corpus_fingerprint", "weights_sha256"])
def test_results_of_other_classes_descriptions_or_weights_are_not_averaged(fails, fact):
    other = made_up("coco", "seed=1") | {fact: "f" * 64}
    assert f"differ in {fact}; only seeds" in fails(made_up(), other)


@KINDS
def test_a_result_of_the_shipped_classes_and_the_paper_s_test_set_is_comparable(run, kind):
    text = run(made_up(kind))
    assert "NOT" not in text
    assert "off" not in text
    for task, implied in PAPER["positives_per_image"][kind].items():
        expected = f"{task.upper()}: 12,345 images, {implied:.3f} positives each; the paper's own rows imply {implied}."
        assert notes(text).count(expected) == 2


def test_a_result_of_classes_in_another_order_or_split_is_marked(run):
    shipped = classes("coco")
    swapped = ClassList((shipped.names[1], shipped.names[0], *shipped.names[2:]), shipped.seen)
    for other in (swapped, ClassList(shipped.names, shipped.seen + 1), classes("nuswide")):
        tables = read_markdown(run(made_up() | {"class_fingerprint": other.fingerprint}))
        assert all(found[0].startswith("NOT COMPARABLE: the class list") for _, _, found in tables.values())
    assert "NOT COMPARABLE" in run(made_up() | {"class_fingerprint": other.fingerprint}, "--format", "latex")


@pytest.mark.parametrize("task", ["zsl", "gzsl"])
@pytest.mark.parametrize(("factor", "said"), [(1.02, "2 %"), (0.98, "2 %"), (1.5, "50 %"), (1.009, None), (0.991, None)])
def test_positives_per_image_off_by_more_than_one_percent_are_marked(run, task, factor, said):
    results = made_up(), made_up("nuswide")
    for result in results:
        result["images"]["tasks"][task]["positives_per_image"] *= factor
    for _, _, found in read_markdown(run(*results)).values():
        marked = [note for note in found if "NOT ITS TEST SET" in note]
        assert len(marked) == (said is not None)
        assert all(note.startswith(f"{task.upper()}: ") and f"{said} off" in note for note in marked)


@pytest.mark.parametrize(("missing", "unreadable"), [(3, 2), (3, 0), (0, 2)])
def test_images_that_were_left_out_are_in_the_notes(run, missing, unreadable):
    result = made_up()
    result["images"] |= {"missing": missing, "unreadable": unreadable}
    for _, _, found in read_markdown(run(result)).values():
        assert f"{missing} missing and {unreadable} unreadable images were left out." in found


def test_nothing_is_said_of_missing_images_when_none_are(run):
    assert "missing" not in run(made_up())


def test_notes_say_whether_images_without_labels_are_kept(run):
    assert "Images without a positive label: not used, as in the paper." in notes(run(made_up()))
    assert "Images without a positive label: kept." in notes(run(made_up("coco", "dataset.keep_unlabelled=true")))


def test_warnings_of_the_result_are_in_the_notes_of_every_table(run):
    warnings = ["ZSL: 16,000 images have a positive label, 16,799 were expected", "another"]
    for _, _, found in read_markdown(run(made_up() | {"warnings": warnings})).values():
        assert [note for note in found if "WARNING" in note] == [f"WARNING: {warning}." for warning in warnings]


def test_metrics_that_were_not_measured_are_dashes(run):
    result = made_up("coco", "evaluate.top_k=[3]")
    for row, variant, task, k in itertools.product(LABELS, VARIANTS, ("zsl", "gzsl"), ("P@5", "R@5", "F1@5")):
        del result["rows"][row][variant][task][k]
    rows = read_markdown(run(result))[TABLE_3["coco"]][1]
    assert all(cells[2] == "-" and "-" not in cells[0].split() for cells in rows.values())
    cell = read_csv(run(result, "--format", "csv"))["table3", "coco", "class name", "zsl", "F1@5"]
    source = {"source": "ours", "paper": "35.1", "comparable": "yes"}
    assert cell == {"value": "", "deviation": "", "difference": ""} | source


def test_without_mssa_table_3_has_the_rows_without_it_alone(run):
    rows = read_markdown(run(made_up("coco", "evaluate.counts=[]")))[TABLE_3["coco"]][1]
    assert list(dict.fromkeys(name for name, _ in rows)) == [
        LABELS[r] for r in ("baseline", "cnr", "cnr_pbl", *(r for r in LABELS if r not in ("baseline", "cnr", "cnr_pbl")))
    ]


def test_a_result_of_own_classes_without_a_split_has_gzsl_alone(run):
    result = made_up() | {"class_fingerprint": ClassList(("cat", "dog"), 0).fingerprint}
    del result["images"]["tasks"]["zsl"]
    for variants in result["rows"].values():
        for tasks in variants.values():
            del tasks["zsl"]
    for title, (_, rows, found) in read_markdown(run(result)).items():
        assert {task for name, task in rows if title != TABLE_1 or name == OURS} == {"GZSL"}
        assert any("NOT COMPARABLE" in note for note in found)


def test_table_picks(run):
    results = [made_up(), made_up("nuswide")]
    whole, parts = run(*results), [run(*results, "--table", n) for n in (1, 2, 3)]
    assert [list(read_markdown(part)) for part in parts] == [[TABLE_1], [TABLE_2], list(TABLE_3.values())]
    assert "\n".join(parts) == whole
    assert run(*results, "--table", 3, "--table", 1, "--table", 2) == whole


def test_table_picks_in_csv_and_latex_too(run):
    assert {key[0] for key in read_csv(run(made_up(), "--format", "csv", "--table", 3))} == {"table3"}
    assert len(read_latex(run(made_up(), "--format", "latex", "--table", 3))) == 1


@pytest.mark.parametrize("present", [(), (3,)])
@pytest.mark.parametrize(("kind", "number"), [("coco", 2), ("nuswide", 1)])
def test_an_absent_table_is_an_error_whatever_else_is_asked_for(fails, kind, number, present):
    wanted = [("--table", n) for n in (*present, number)]
    for options in (wanted, wanted[::-1]):
        assert fails(made_up(kind), *itertools.chain(*options)) == f"--table: these results have no table {number}"


@pytest.mark.parametrize("options", [["--table", 4], ["--format", "html"]])
def test_unknown_tables_and_formats_are_errors(run, options):
    assert f"argument {options[0]}: invalid choice" in run(made_up(), *options, code=2)


def test_a_folder_of_a_run_stands_for_its_result_file(run, tmp_path):
    result = made_up()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(json.dumps(result), encoding="utf-8")
    assert run(tmp_path / "run") == run(tmp_path / "run" / "result.json") == run(result)


def test_a_file_that_is_not_there_is_named(fails, tmp_path):
    for given, named in ((tmp_path / "no.json", "no.json"), (tmp_path, "result.json")):
        assert fails(given) == f"there is no result file {tmp_path / named}; python -m rcnn.evaluate makes one"


@pytest.mark.parametrize(
    "content",
    [
        b"", b"method: cnr", b"\xff\xfe\x00", b"[1, 2]", b"3", b"null", b"{}", b'{"config": {}}',
        b'{"config": {"dataset": {"kind": "coco"}}, "rows": {}}', b'{"config": {"dataset": 3}}',
    ],
)  # fmt: skip
def test_a_file_that_is_no_result_is_named(fails, tmp_path, content):
    path = tmp_path / "other.json"
    path.write_bytes(content)
    assert fails(path) == f"{path} is no result file of this rcnn.evaluate; measure again"


@pytest.mark.parametrize(
    "key",
    [
        "method", "warnings", "seed", "class_fingerprint", "rows", "rows baseline", "rows baseline plain", "images",
        "images tasks", "images unreadable", "config", "config dataset", "config dataset kind",
        "config dataset keep_unlabelled",
    ],
)  # fmt: skip
def test_a_result_of_another_version_that_lacks_something_is_named(fails, key):
    result = place = made_up("coco", "seed=1")
    *outer, last = key.split()
    for name in outer:
        place = place[name]
    del place[last]
    line = fails(made_up(), result)
    assert re.fullmatch(r".+result1.json is no result file of this rcnn.evaluate; measure again", line)


@pytest.mark.parametrize("kind", ["mini", ["coco"], None])
def test_a_data_set_that_the_paper_has_no_table_of_is_refused(fails, kind):
    result = made_up()
    result["config"]["dataset"]["kind"] = kind
    line = fails(made_up(), result)
    assert f"result1.json: the paper has no table of the data set {kind!r}; expected coco or nuswide" in line


def test_help_teaches(run):
    text = run("--help")
    assert "python -m rcnn.report" in text
    assert "--table" in text
    assert "configuration keys" not in text


def test_what_evaluate_writes_can_be_reported(run):
    of, made = classes("coco"), made_up()
    settings = config.load(ROOT / "configs" / "coco.yaml", ["evaluate.bootstrap=2"])
    torch.manual_seed(0)
    labels = torch.where(torch.rand(10, len(of)) < 0.1, 1, -1).to(torch.int8)
    labels[:, -1] = 1
    images = ImageSet([Path(f"{i}.jpg") for i in range(10)], labels)
    wanted = evaluate.planes(dict.fromkeys(LABELS), {}, settings.evaluate.counts, False)

    class Scores(dict):
        planes = wanted

        def done(self):
            return {0}, {}

    facts = {"method": "cnr_pbl", "learning": {}, "identity": {"corpus": "c" * 64}, "weights_sha256": "d" * 64}
    used = {task: evaluate.task_images(labels, first) for task, first in of.tasks.items()}
    scores = Scores({plane: torch.rand(10, len(of)).numpy() for plane in wanted})
    result = evaluate.summarise(settings, facts, of, images, used, scores, {})
    assert set(result) == set(made)
    assert set(result["images"]) == set(made["images"])
    tables = read_markdown(run(result))
    value = result["rows"]["cnr_pbl"]["mssa"]["zsl"]["P@3"]["value"]
    assert tables[TABLE_1][1][OURS, "ZSL"][0] == f"{value:.1f} ({value - 37.6:+.1f})"
    assert list(tables[TABLE_3["coco"]][1]) == list(read_markdown(run(made))[TABLE_3["coco"]][1])
    assert any("NOT ITS TEST SET" in note for note in tables[TABLE_1][2])
    assert any("this is another test set" in note for note in tables[TABLE_1][2])


def paper_rows():
    """(table, columns, row, task, numbers) of all that data/paper_tables.yaml has."""
    for number, kind in (("table1", None), ("table2", None), ("table3", "coco"), ("table3", "nuswide")):
        spec = PAPER[number]
        for name, tasks in spec[kind or "rows"].items():
            assert list(tasks) == ["zsl", "gzsl"]
            for task, numbers in tasks.items():
                yield number, spec["columns"], name, task, numbers


def test_every_row_of_the_paper_has_a_percentage_per_column():
    rows = list(paper_rows())
    assert len(rows) == 2 * (7 + 13 + 4 + 4)
    assert [(number, name, task) for number, _, name, task, numbers in rows if numbers is None] == [("table2", "CoMC", "gzsl")]
    for _, columns, name, task, numbers in rows:
        if numbers is not None:
            assert len(numbers) == len(columns), (name, task)
            assert all(n is None or (isinstance(n, float) and 0 < n < 100) for n in numbers), (name, task)


def test_every_f1_of_the_paper_follows_from_its_precision_and_recall_but_for_two_of_other_methods():
    off, checked = set(), 0
    for number, columns, name, task, numbers in paper_rows():
        by = dict(zip(columns, numbers or [None] * len(columns), strict=True))
        for k in (3, 5):
            p, r, f1 = (by.get(f"{x}@{k}") for x in ("P", "R", "F1"))
            if p is not None:
                checked += 1
                if abs(f1 - 2 * p * r / (p + r)) > 0.1:
                    off.add((number, name, task, f"F1@{k}"))
    assert checked == 14 + 2 * (2 * 13 - 3)
    assert off == SUMS_THAT_ARE_OFF


@pytest.mark.parametrize(("kind", "number"), [("coco", "table1"), ("nuswide", "table2")])
def test_the_last_row_of_the_ablation_is_the_paper_s_result(kind, number):
    for task in ("zsl", "gzsl"):
        result = dict(zip(PAPER[number]["columns"], PAPER[number]["rows"]["RCNn"][task], strict=True))
        last = dict(zip(PAPER["table3"]["columns"], PAPER["table3"][kind]["cnr_pbl mssa"][task], strict=True))
        shared = result.keys() & last.keys()
        assert len(shared) == {"coco": 1, "nuswide": 3}[kind]
        assert {m: result[m] for m in shared} == {m: last[m] for m in shared}


@pytest.mark.parametrize(("kind", "number"), [("coco", "table1"), ("nuswide", "table2")])
def test_positives_per_image_are_those_behind_the_paper_s_row(kind, number):
    for task, implied in PAPER["positives_per_image"][kind].items():
        by = dict(zip(PAPER[number]["columns"], PAPER[number]["rows"]["RCNn"][task], strict=True))
        for k in {int(c[-1]) for c in by if "@" in c}:
            assert implied == pytest.approx(k * by[f"P@{k}"] / by[f"R@{k}"], rel=5e-3)


@pytest.mark.parametrize(("kind", "number"), [("coco", "table1"), ("nuswide", "table2")])
def test_configurations_quote_the_same_numbers(kind, number):
    lines = (ROOT / "configs" / f"{kind}.yaml").read_text(encoding="utf-8").splitlines()
    header = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    quoted = [float(x) for x in re.findall(r"\d+\.\d+", " ".join(header))]
    result = PAPER[number]["rows"]["RCNn"]
    ablation = [n for tasks in PAPER["table3"][kind].values() for task in ("zsl", "gzsl") for n in tasks[task]]
    assert quoted == [*result["zsl"], *result["gzsl"], *ablation, *PAPER["positives_per_image"][kind].values()]
