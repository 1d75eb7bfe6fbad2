"""The paper's tables with ours beside: its numbers, our differences, and what must be said before comparing."""

import csv
import itertools
import re

import pytest
from made_up import ROOT, labelled, made_up
from running import rcnn

from rcnn import config, rows
from rcnn.datasets import DATASETS
from rcnn.results import tables
from rcnn.results.result import Metric
from rcnn.results.tables import FORMATS, Cell, Table, TableRow

PAPER = tables.paper()
TASKS = ("zsl", "gzsl")
TABLE_1, TABLE_2 = "Table 1. MS-COCO, top-3 precision, recall, F1", "Table 2. NUS-WIDE"
TABLE_3 = {"coco": "Table 3. Ablation, MS-COCO", "nuswide": "Table 3. Ablation, NUS-WIDE"}
OPEN_IMAGES = "Table 2. Open Images"
FIRST = {"coco": ("table1", TABLE_1), "nuswide": ("table2", TABLE_2)}
COMPARED = {kind: key for kind, (key, _) in FIRST.items()} | {
    "openimages": "table2_openimages"
}  # data set -> its other methods
OURS = "this run: CNR + PBL (learned names) + MSSA"
SUMS_THAT_ARE_OFF = {("table1", "Fast0Tag", "zsl", "F1@3"), ("table2", "BiAM", "gzsl", "F1@5")}
SUMS_THAT_ARE_OFF |= {  # the first two have a precision of one digit
    ("table2_openimages", "LabelEM", "zsl", "F1@10"), ("table2_openimages", "Fast0Tag", "zsl", "F1@10"),
    ("table2_openimages", "BiAM", "zsl", "F1@20"), ("table2_openimages", "BiAM", "gzsl", "F1@20"),
}  # fmt: skip
KINDS = pytest.mark.parametrize("kind", FIRST)
OTHER_IMAGES = {  # rows of the paper that cannot be compared with its own, by their precision and recall
    ("coco", "gzsl"): ["CONSE", "Fast0Tag", "Deep0Tag", "SDL (M=2)"],
    ("nuswide", "zsl"): ["CONSE", "LabelEM", "Fast0Tag", "LESA (M=10)", "BiAM", "SDL (M=7)", "CLIP-FT", "MKT", "CoMC"],
    ("nuswide", "gzsl"): ["SDL (M=7)"],
    ("openimages", "zsl"): ["CONSE", "LabelEM", "Fast0Tag", "LESA (M=10)"],
}
FREE = {  # options in which results that are averaged may differ
    "seed", "device", "output", "cache", "rows", "clip.model", "clip.pretrained", "clip.weights", "clip.trust_torchscript",
    "classes.seen", "classes.unseen", "corpus.path", "dataset.images", "dataset.annotations", "evaluate.batch_size",
    "evaluate.compile", "evaluate.bootstrap", "evaluate.workers", "evaluate.save_every", "evaluate.keep_scores",
}  # fmt: skip


def show(*results, form="markdown"):
    """Tables of results as text."""
    return tables.render(tables.tables(tables.group((f"result{i}", result) for i, result in enumerate(results))), form)


def open_images(*overrides, **fields):
    """As `made_up`, for Open Images, where k is 10 and 20."""
    result = made_up("openimages", *overrides, **fields)
    for scorers in result.rows.values():
        for by_task in scorers.values():
            for task, metrics in by_task.items():
                by_task[task] = {name.replace("@3", "@10").replace("@5", "@20"): metric for name, metric in metrics.items()}
    return result


def put(result, row, scorer, task, **values):
    """Give cells of a result these values, @ spelt _at_."""
    result.rows[row][scorer][task] |= {name.replace("_at_", "@"): Metric(value=value) for name, value in values.items()}
    return result


def numbers(result, row, scorer, task, columns):
    return [result.rows[row][scorer][task][column].value for column in columns]


def read_markdown(text):
    """{title: (header, {(row, task): cells}, notes)}."""
    out = {}
    for block in text.split("### ")[1:]:
        title, *lines = block.splitlines()
        header, rule, *body = [
            [c.strip().replace("**", "") for c in x.strip("|").split("|")] for x in lines if x.startswith("|")
        ]
        assert set(rule) == {"---"}
        assert {len(r) for r in body} == {len(header)} == {len(rule)}
        by_row = {(name.removesuffix(" †"), task): cells for name, task, *cells in body}
        assert len(by_row) == len(body)
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


def test_coco_makes_tables_1_and_3_and_nuswide_tables_2_and_3():
    assert list(read_markdown(show(made_up()))) == [TABLE_1, TABLE_3["coco"]]
    assert list(read_markdown(show(made_up("nuswide")))) == [TABLE_2, TABLE_3["nuswide"]]
    assert list(read_markdown(show(made_up("nuswide"), made_up()))) == [TABLE_1, TABLE_2, TABLE_3["nuswide"], TABLE_3["coco"]]


def test_open_images_makes_its_part_of_table_2_alone_since_the_paper_has_no_ablation_on_it(save):
    everything = made_up(), open_images(), made_up("nuswide")
    assert list(read_markdown(show(*everything))) == [TABLE_1, TABLE_2, OPEN_IMAGES, TABLE_3["coco"], TABLE_3["nuswide"]]
    folders = save(*everything)
    assert list(read_markdown(report(*folders, "--table", 2))) == [TABLE_2, OPEN_IMAGES]
    assert fails(folders[1], "--table", 3) == "--table: these results have no table 3"


def test_the_open_images_part_has_the_paper_s_numbers_and_all_rows_of_the_result():
    values = dict(zip(PAPER["table2_openimages"]["columns"], range(11, 18), strict=True))
    result = put(open_images(), "cnr_pbl", "mssa", "gzsl", **{name.replace("@", "_at_"): v for name, v in values.items()})
    header, found, _ = read_markdown(show(result))[OPEN_IMAGES]
    assert header == ["method", "task", "P@10", "R@10", "F1@10", "P@20", "R@20", "F1@20", "mAP"]
    assert found["MKT", "ZSL"] == ["11.1", "86.8", "19.7", "6.1", "94.7", "11.4", "68.1"]
    assert found["(ML)2-Enc", "GZSL"] == ["-", "-", "27.6", "-", "-", "24.1", "79.9"]
    assert found["RCNn", "GZSL"] == ["23.3", "26.8", "24.9", "16.8", "38.6", "23.4", "79.2"]
    assert found[OURS, "GZSL"] == [
        "11.0 (-12.3)", "12.0 (-14.8)", "13.0 (-11.9)", "14.0 (-2.8)", "15.0 (-23.6)", "16.0 (-7.4)", "17.0 (-62.2)",
    ]  # fmt: skip
    ours = {OURS, *(rows.label(row, scorer) for row, scorer in itertools.product(rows.ROWS, rows.SCORERS))}
    ours.remove(rows.label("cnr_pbl", "mssa"))  # under the name of this run
    assert {name for name, _ in found} == {*PAPER["table2_openimages"]["rows"], *ours}


def test_a_run_without_descriptions_has_its_rows_in_table_2_and_no_difference_to_the_paper():
    result = open_images("corpus.path=null")
    for row in set(result.rows) - {"baseline", "centred", "templates"}:
        del result.rows[row]
    found = read_markdown(show(result.model_copy(update={"method": "templates"})))[OPEN_IMAGES][1]
    assert list(dict.fromkeys(name for name, _ in found))[-6:] == [
        "this run: 80 templates + MSSA", "class name", "class name + MSSA", "class name, centred", "class name, centred + MSSA",
        "80 templates",
    ]  # fmt: skip
    assert not any("(" in cell for (name, _), cells in found.items() for cell in cells)


@pytest.mark.parametrize("kind", COMPARED)
def test_rows_on_other_test_images_than_the_paper_s_are_marked_and_a_note_says_what_they_imply(kind):
    result = open_images() if kind == "openimages" else made_up(kind)
    spec, expected = PAPER[COMPARED[kind]], {task: OTHER_IMAGES.get((kind, task), []) for task in TASKS}
    text = show(result)
    marked = {tuple(cells[:2]) for line in text.splitlines() if "† |" in line for cells in [line.strip("| ").split(" | ")]}
    assert marked == {(f"{name} †", task.upper()) for task, names in expected.items() for name in names}
    (notes,) = (notes for title, (*_, notes) in read_markdown(text).items() if title == spec["title"])
    told = [note for note in notes if note.startswith("†")]
    for note, (task, names) in zip(told, [(t, n) for t, n in expected.items() if n], strict=True):
        assert f"{task.upper()}: precision and recall imply other test images" in note
        numbers = dict(re.findall(r"(?:, |images, )([^,]+?) (\d\.\d\d)(?=,| )", note))
        for name in names:
            by = dict(zip(spec["columns"], spec["rows"][name][task], strict=True))
            (k, *_) = (int(column[2:]) for column in by if column.startswith("P@"))
            assert float(numbers[name]) == pytest.approx(k * by[f"P@{k}"] / by[f"R@{k}"], abs=0.006)
        assert note.endswith(f"RCNn {DATASETS[kind].positives_per_image[task]}.")
    assert f"{spec['other_images']}." in notes
    silent = "(ML)2-Enc: no precision and recall, so nobody can tell on which images."
    assert (silent in notes) == (kind != "coco")
    caption = read_latex(show(result, form="latex"))[0][2]
    assert caption.count(r"\dag{} Not comparable") == len(told)


def test_tables_have_the_paper_s_columns():
    made = read_markdown(show(made_up(), made_up("nuswide")))
    assert made[TABLE_1][0] == ["method", "task", "P@3", "R@3", "F1@3"]
    assert made[TABLE_2][0] == ["method", "task", "P@3", "R@3", "F1@3", "P@5", "R@5", "F1@5", "mAP"]
    for title in TABLE_3.values():
        assert made[title][0] == ["method", "task", "mAP", "F1@3", "F1@5"]


def test_rows_of_other_methods_are_the_paper_s():
    made = read_markdown(show(made_up(), made_up("nuswide")))
    first, second = made[TABLE_1][1], made[TABLE_2][1]
    assert first["SDL (M=2)", "GZSL"] == ["59.0", "60.8", "59.9"]
    assert first["DualCoOp", "ZSL"] == ["35.3", "87.6", "50.3"]
    assert first["RCNn", "ZSL"] == ["37.6", "93.4", "53.6"]
    assert second["MKT", "GZSL"] == ["35.9", "15.8", "22.0", "29.9", "22.0", "25.4", "18.3"]
    assert second["(ML)2-Enc", "ZSL"] == ["-", "-", "32.8", "-", "-", "32.3", "29.4"]
    assert second["CoMC", "ZSL"] == ["33.5", "53.5", "41.2", "24.8", "66.1", "36.1", "48.2"]
    assert second["CoMC", "GZSL"] == ["-"] * 7
    for number, found in (("table1", first), ("table2", second)):
        assert list(found) == [(n, t) for n in [*PAPER[number]["rows"], OURS] for t in ("ZSL", "GZSL")]


def test_own_rows_are_bold_among_those_of_other_methods_and_nothing_else_is():
    title, bold = None, 0
    for line in show(made_up(), made_up("nuswide")).splitlines():
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


def test_own_row_of_table_1_is_the_method_with_mssa_and_its_difference_to_the_paper():
    result = put(made_up(), "cnr_pbl", "mssa", "zsl", P_at_3=38.84, R_at_3=91.02, F1_at_3=53.6)
    put(result, "cnr_pbl", "mssa", "gzsl", P_at_3=50.0, R_at_3=65.9, F1_at_3=70.74)
    found = read_markdown(show(result))[TABLE_1][1]
    assert found[OURS, "ZSL"] == ["38.8 (+1.2)", "91.0 (-2.4)", "53.6 (+0.0)"]
    assert found[OURS, "GZSL"] == ["50.0 (-6.4)", "65.9 (+0.1)", "70.7 (+10.0)"]


def test_own_row_of_table_2_is_beside_the_paper_s():
    values = dict(zip(["P_at_3", "R_at_3", "F1_at_3", "P_at_5", "R_at_5", "F1_at_5", "mAP"], range(11, 18), strict=True))
    found = read_markdown(show(put(made_up("nuswide"), "cnr_pbl", "mssa", "gzsl", **values)))[TABLE_2][1]
    assert found[OURS, "GZSL"] == [
        "11.0 (-20.8)", "12.0 (-1.8)", "13.0 (-6.3)", "14.0 (-12.7)", "15.0 (-4.4)", "16.0 (-6.4)", "17.0 (-0.9)",
    ]  # fmt: skip


@KINDS
@pytest.mark.parametrize(
    ("overrides", "name"),
    [
        (["train.method=closed_form"], "this run: closed form of CNR + PBL + MSSA"),
        (["evaluate.grids=[]"], "this run: CNR + PBL (learned names)"),
        (["train.method=closed_form", "evaluate.grids=[]"], "this run: closed form of CNR + PBL"),
    ],
)
def test_another_method_than_the_paper_s_is_named_and_has_no_difference_to_it(kind, overrides, name):
    result, (number, title) = made_up(kind, *overrides), FIRST[kind]
    columns, made = PAPER[number]["columns"], read_markdown(show(result))
    found, ablation = made[title][1], made[TABLE_3[kind]][1]
    assert list(found)[-2:] == [(name, "ZSL"), (name, "GZSL")]
    assert len(found) == 2 * (len(PAPER[number]["rows"]) + 1)
    scorer = list(result.rows["baseline"])[-1]
    for task in TASKS:
        assert found[name, task.upper()] == [f"{v:.1f}" for v in numbers(result, result.method, scorer, task, columns)]
    assert all("(" in cell for cell in ablation["class name", "ZSL"])
    cells = [cell for key, cell in read_csv(show(result, form="csv")).items() if key[:3] == (number, kind, name)]
    assert len(cells) == 2 * len(columns)
    assert {(c["source"], c["paper"], c["difference"], c["comparable"]) for c in cells} == {("ours", "", "", "yes")}


def test_a_difference_that_rounds_to_nothing_is_positive():
    result = put(made_up(), "cnr_pbl", "mssa", "zsl", P_at_3=37.58, R_at_3=93.36, F1_at_3=53.54)
    assert read_markdown(show(result))[TABLE_1][1][OURS, "ZSL"] == ["37.6 (+0.0)", "93.4 (+0.0)", "53.5 (-0.1)"]
    assert not any("-0.0)" in show(result, form=form) for form in FORMATS)


@KINDS
def test_table_3_has_the_paper_s_four_rows_first_and_every_row_of_the_result(kind):
    result, columns = made_up(kind), PAPER["table3"]["columns"]
    found = read_markdown(show(result))[TABLE_3[kind]][1]
    four = ["class name", "CNR (learned names)", "CNR + PBL (learned names)", "CNR + PBL (learned names) + MSSA"]
    assert list(found)[:8] == [(name, task) for name in four for task in ("ZSL", "GZSL")]
    assert len(found) == 4 * len(rows.ROWS)
    for row, scorer, task in itertools.product(rows.ROWS, rows.SCORERS, TASKS):
        ours = numbers(result, row, scorer, task, columns)
        if known := PAPER["table3"]["datasets"][kind].get(f"{row} {scorer}"):
            expected = [f"{value:.1f} ({value - paper:+.1f})" for value, paper in zip(ours, known[task], strict=True)]
        else:
            expected = [f"{value:.1f}" for value in ours]
        assert found[rows.label(row, scorer), task.upper()] == expected


def test_a_difference_in_table_3_is_ours_minus_the_paper_s():
    put(result := made_up(), "cnr", "plain", "gzsl", mAP=66.94, F1_at_3=40.0, F1_at_5=49.0)
    put(result, "cnr", "mssa", "gzsl", mAP=66.94, F1_at_3=40.0, F1_at_5=49.0)
    found = read_markdown(show(result))[TABLE_3["coco"]][1]
    assert found["CNR (learned names)", "GZSL"] == ["66.9 (+0.2)", "40.0 (-14.8)", "49.0 (+0.0)"]
    assert found["CNR (learned names) + MSSA", "GZSL"] == ["66.9", "40.0", "49.0"]


def test_a_row_from_elsewhere_is_in_table_3_under_its_key():
    result = made_up()
    result.rows["my_row"] = result.rows["templates"]
    result = labelled(result)
    found = read_markdown(show(result))[TABLE_3["coco"]][1]
    for scorer, task in itertools.product(("", " + MSSA"), ("ZSL", "GZSL")):
        assert found[f"my_row{scorer}", task] == found[f"80 templates{scorer}", task]
    value = result.rows["my_row"]["mssa"]["zsl"]["mAP"].value
    cell = read_csv(show(result, form="csv"))["table3", "coco", "my_row + MSSA", "zsl", "mAP"]
    assert cell == {
        "source": "ours", "value": f"{value:.3f}".rstrip("0"), "deviation": "", "paper": "", "difference": "",
        "comparable": "yes",
    }  # fmt: skip
    assert r"my\_row + MSSA" in [row[0] for row in read_latex(show(result, form="latex"))[1][1]]


def test_csv_holds_value_paper_and_difference_of_every_cell():
    cells = read_csv(show(put(made_up(), "cnr_pbl", "mssa", "zsl", P_at_3=38.8437, R_at_3=91.02), form="csv"))
    key = ("table1", "coco", OURS, "zsl")
    expected = {"source": "ours", "value": "38.844", "deviation": "", "paper": "37.6", "difference": "1.244"}
    expected["comparable"] = "yes"
    assert cells[*key, "P@3"] == expected
    assert cells[*key, "R@3"] == expected | {"value": "91.02", "paper": "93.4", "difference": "-2.38"}
    quoted = {"source": "paper", "value": "", "deviation": "", "difference": ""}
    assert cells["table1", "coco", "SDL (M=2)", "gzsl", "F1@3"] == quoted | {"paper": "59.9", "comparable": "no"}
    assert cells["table1", "coco", "SDL (M=2)", "zsl", "F1@3"] == quoted | {"paper": "37.5", "comparable": "yes"}


@KINDS
def test_csv_has_all_cells_of_both_tables(kind):
    result, (number, _) = made_up(kind), FIRST[kind]
    cells = read_csv(show(result, form="csv"))
    counted = [sum(key[0] == table for key in cells) for table in (number, "table3")]
    assert counted == [2 * (len(PAPER[number]["rows"]) + 1) * len(PAPER[number]["columns"]), 4 * len(rows.ROWS) * 3]
    for row, scorer, task, metric in itertools.product(rows.ROWS, rows.SCORERS, TASKS, PAPER["table3"]["columns"]):
        value = float(cells["table3", kind, rows.label(row, scorer), task, metric]["value"])
        assert value == pytest.approx(result.rows[row][scorer][task][metric].value, abs=6e-4)


def test_csv_of_numbers_that_the_paper_lacks_has_empty_cells():
    cells = read_csv(show(made_up("nuswide"), form="csv"))
    assert set(cells["table2", "nuswide", "CoMC", "gzsl", "mAP"].values()) == {"paper", ""}
    assert cells["table2", "nuswide", "(ML)2-Enc", "zsl", "F1@3"]["paper"] == "32.8"


def marks(*results):
    """{data set: what the column "comparable" says of our rows}; of the paper's it says whether they are on RCNn's images."""
    out = {}
    for key, cell in read_csv(show(*results, form="csv")).items():
        kind = key[1]
        if cell["source"] == "ours":
            out.setdefault(kind, set()).add(cell["comparable"])
        else:
            _, kind, name, task, _ = key
            silent = name == "(ML)2-Enc" or (name, task) == ("CoMC", "gzsl")
            assert cell["comparable"] == ("no" if name in OTHER_IMAGES.get((kind, task), ()) else "" if silent else "yes"), key
    return out


@KINDS
@pytest.mark.parametrize(("comparable", "said"), [(True, "yes"), (False, "no")])
def test_csv_says_whether_our_rows_are_comparable_as_the_result_does_whatever_its_notes_say(kind, comparable, said):
    for doubts in ([], ["NOT COMPARABLE"]):
        assert marks(made_up(kind, comparable=comparable, doubts=doubts)) == {kind: {said}}


def test_csv_marks_a_data_set_by_all_its_seeds_and_by_no_other_data_set():
    other = made_up("coco", "seed=1", comparable=False)
    assert marks(made_up(), made_up("nuswide"), other) == {"coco": {"no"}, "nuswide": {"yes"}}


def test_latex_has_the_cells_of_the_markdown_in_rows_as_wide_as_the_tabular():
    results = [made_up(), made_up("nuswide")]
    made, expected = read_latex(show(*results, form="latex")), read_markdown(show(*results))
    assert len(made) == len(expected) == 4
    for (columns, (header, *body), _), (title, (names, by_row, _)) in zip(made, expected.items(), strict=True):
        assert columns == "ll" + "r" * (len(names) - 2), title
        assert {len(row) for row in body} == {len(columns)}
        assert header == names
        assert [[row[0].removesuffix(r" \dag{}"), *row[1:]] for row in body] == [
            [*key, *cells] for key, cells in by_row.items()
        ]


def test_latex_escapes_what_latex_would_read_as_markup():
    result = made_up(doubts=[r"50 % of A & B in #1_2 for {x} or $y$: ~me, 2^3, C:\new\b ± 1"])
    text = show(result, made_up("coco", "seed=1"), form="latex")
    escaped = r"50 \% of A \& B in \#1\_2 for \{x\} or \$y\$: \textasciitilde{}me, 2\textasciicircum{}3, C:/new/b $\pm$ 1."
    made = read_latex(text)
    assert len(made) == 2
    for columns, body, caption in made:
        assert f"NOT COMPARABLE: {escaped}" in caption
        assert r"$\pm$ standard deviation" in caption
        assert not re.search(r"(?<!\\)[&%#_$]|[~^]", (caption + "".join(itertools.chain(*body))).replace(r"$\pm$", ""))
        assert all(r" $\pm$ 0.0" in cell for cell in body[-1][2:]), columns
    assert "±" not in text


def test_latex_escapes_names_too():
    row = TableRow(r"A & B_1 {c}$^~\d", "zsl", True, [Cell(50.0, None, 49.0)])
    table = Table("table1", "Table 1. T #1", "coco", ["100 %"], [row], [], True)
    name = r"A \& B\_1 \{c\}\$\textasciicircum{}\textasciitilde{}/d"
    expected = [["method", "task", r"100 \%"], [name, "ZSL", "50.0 (+1.0)"]]
    assert read_latex(tables.render([table], "latex")) == [("llr", expected, r"T \#1.")]


def test_latex_captions_leave_the_number_to_latex():
    captions = [caption for *_, caption in read_latex(show(made_up(), made_up("nuswide"), form="latex"))]
    titles = "MS-COCO, top-3 precision, recall, F1", "NUS-WIDE", "Ablation, MS-COCO", "Ablation, NUS-WIDE"
    for caption, title in zip(captions, titles, strict=True):
        assert re.match(rf"{title}\. ZSL: 12,345 images, ", caption)
        assert "Table" not in caption


def test_several_seeds_give_mean_and_sample_standard_deviation():
    results = [put(made_up("coco", f"seed={s}"), "cnr_pbl", "mssa", "zsl", F1_at_3=v) for s, v in enumerate((50, 51, 53))]
    made = read_markdown(show(*results))
    assert made[TABLE_1][1][OURS, "ZSL"][2] == "51.3 ± 1.5 (-2.3)"
    assert made[TABLE_3["coco"]][1]["CNR + PBL (learned names) + MSSA", "ZSL"][1] == "51.3 ± 1.5 (-2.3)"
    assert made[TABLE_1][1]["RCNn", "ZSL"] == ["37.6", "93.4", "53.6"]
    assert "Ours: mean ± standard deviation of 3 seeds." in made[TABLE_1][2]
    cell = read_csv(show(*results, form="csv"))["table1", "coco", OURS, "zsl", "F1@3"]
    assert [cell[k] for k in ("value", "deviation", "paper", "difference")] == ["51.333", "1.528", "53.6", "-2.267"]
    cells = read_latex(show(*results, form="latex"))[0][1]
    assert cells[-2] == [OURS, "ZSL", *cells[-2][2:4], r"51.3 $\pm$ 1.5 (-2.3)"]


def test_one_seed_has_no_deviation():
    assert "±" not in show(made_up())


def test_seeds_of_two_data_sets_are_averaged_each_for_itself():
    results = [put(made_up("coco", f"seed={s}"), "cnr_pbl", "mssa", "zsl", F1_at_3=50 + 4 * s) for s in (0, 1)]
    made = read_markdown(show(results[0], made_up("nuswide"), results[1]))
    assert made[TABLE_1][1][OURS, "ZSL"][2] == "52.0 ± 2.8 (-1.6)"
    assert not any("±" in cell for cells in made[TABLE_2][1].values() for cell in cells)
    assert any("2 seeds" in note for note in made[TABLE_1][2])
    assert not any("seeds" in note for note in made[TABLE_2][2])


def another(key, value):
    """A valid value of an option, other than this one."""
    others = {
        "train.method": "closed_form", "train.precision": "bf16", "evaluate.precision": "bf16", "device": "cuda",
        "dataset.expected_images": {},
        "evaluate.unknown": "with_negatives", "evaluate.classes_without_positives": "excluded",
        "evaluate.tagclip_background": ["sky"], "evaluate.last_blocks": ["vv"],
    }  # fmt: skip
    if key in others:
        return others[key]
    if isinstance(value, bool):
        return not value
    if isinstance(value, dict):
        return {"mine": "elsewhere"}
    if isinstance(value, list):
        return [1, 2]
    return (value + 1 if isinstance(value, int) else value / 2) if isinstance(value, int | float) else "elsewhere"


def changed(result, *keys):
    """The result with other values of these options."""
    for key in keys:
        section, _, name = key.rpartition(".")
        place = result.config[section] if section else result.config
        place[name] = another(key, place[name])
    return result


def test_seeds_may_lie_anywhere_and_be_measured_on_any_machine():
    assert "2 seeds" in show(made_up(), changed(made_up("coco", "seed=1"), *FREE - {"seed"}))


def test_seeds_must_be_equal_in_every_other_option():
    settled = sorted(set(config.known_keys()) - FREE - {"dataset.kind"})
    with pytest.raises(ValueError, match=f" differ in {', '.join(settled)}; only seeds".replace(".", r"\.")):
        show(made_up(), changed(made_up("coco", "seed=1"), *settled))


@pytest.mark.parametrize("key", ["train.epochs", "evaluate.temperature", "dataset.keep_unlabelled"])
def test_results_that_differ_in_more_than_the_seed_are_refused_by_name(key):
    with pytest.raises(ValueError, match=f"^result2 and result0 differ in {key}; only seeds can be averaged$"):
        show(made_up(), made_up("coco", "seed=1"), changed(made_up(), key))


@pytest.mark.parametrize("fact", ["class_fingerprint", "corpus_fingerprint", "clip_fingerprint"])
def test_results_of_other_classes_descriptions_or_weights_are_not_averaged(fact):
    with pytest.raises(ValueError, match=f"differ in {fact}; only seeds"):
        show(made_up(), made_up("coco", "seed=1", **{fact: "f" * 64}))


@pytest.mark.parametrize(("seeds", "listed"), [((0, 0), "0, 0"), ((3, 1, 2, 3), "3, 1, 2, 3")])
def test_the_same_seed_twice_is_refused(seeds, listed):
    with pytest.raises(ValueError, match=rf"^two of the results have the same seed \({listed}\); give each once$"):
        show(made_up("nuswide", f"seed={seeds[0]}"), *(made_up("coco", f"seed={s}") for s in seeds))


def test_a_data_set_that_the_paper_has_no_table_of_is_refused():
    result = made_up()
    result.config["dataset"]["kind"] = "mini"
    told = "result1: the paper has no table of the data set 'mini'; it has of coco, nuswide, openimages"
    with pytest.raises(ValueError, match=f"^{told}$"):
        show(made_up(), result)


def own(notes, title):
    """The notes but for those on rows of other methods, which Table 3 has none of."""
    other = [note for note in notes if re.match(r"†|Where images|LESA's|\(ML\)2-Enc", note)]
    assert bool(other) == (title not in TABLE_3.values())
    return [note for note in notes if note not in other]


@KINDS
def test_a_comparable_result_has_its_images_and_nothing_else_of_ours_in_the_notes(kind):
    positives = DATASETS[kind].positives_per_image
    for title, (*_, notes) in read_markdown(show(made_up(kind))).items():
        assert own(notes, title) == [
            *(f"{task.upper()}: 12,345 images, {positives[task]:.3f} positives each." for task in TASKS),
            "In brackets: ours minus the paper's. Rows of other methods: the paper's numbers.",
        ]


def test_doubts_come_first_in_the_notes_of_every_table():
    result = made_up(doubts=["the class list is not the paper's", "another"], comparable=False)
    for _, _, notes in read_markdown(show(result)).values():
        assert notes[:2] == ["NOT COMPARABLE: the class list is not the paper's.", "NOT COMPARABLE: another."]
        assert not any("NOT" in note for note in notes[2:])
    for *_, caption in read_latex(show(result, form="latex")):
        assert "NOT COMPARABLE: the class list is not the paper's. NOT COMPARABLE: another." in caption


def test_notes_of_every_seed_are_shown_once():
    results = [made_up("coco", f"seed={s}", doubts=d) for s, d in enumerate(([], ["first"], ["second", "first"]))]
    for title, (*_, notes) in read_markdown(show(*results)).items():
        assert sorted(own(notes, title)) == [
            "GZSL: 12,345 images, 2.571 positives each.",
            "In brackets: ours minus the paper's. Rows of other methods: the paper's numbers.",
            "NOT COMPARABLE: first.",
            "NOT COMPARABLE: second.",
            "Ours: mean ± standard deviation of 3 seeds.",
            "ZSL: 12,345 images, 1.208 positives each.",
        ]


def test_classes_and_images_that_the_scores_cannot_tell_apart_are_in_the_notes():
    decided = {"baseline": {"plain": {"zsl": {"3": 7, "5": 4}}}, "mine": {"mssa": {"gzsl": {"3": 0, "5": 9}}}}
    result = made_up(coinciding={"templates": [["cat", "dog"], ["car", "bus", "van"]]}, decided_by_ties=decided)
    for _, _, notes in read_markdown(show(result)).values():
        assert "80 templates: 5 of 65 classes share their class embedding: cat, dog; car, bus, van." in notes
        (note,) = [note for note in notes if note.startswith("Ties")]
        assert "top 5 in up to 9 of 12345 images (mine, mssa, GZSL)" in note


def test_metrics_that_were_not_measured_are_dashes():
    result = made_up("coco", "evaluate.top_k=[3]")
    for row, scorer, task, metric in itertools.product(rows.ROWS, rows.SCORERS, TASKS, ("P@5", "R@5", "F1@5")):
        del result.rows[row][scorer][task][metric]
    found = read_markdown(show(result))[TABLE_3["coco"]][1]
    assert all(cells[2] == "-" and "-" not in cells[0].split() for cells in found.values())
    cell = read_csv(show(result, form="csv"))["table3", "coco", "class name", "zsl", "F1@5"]
    source = {"source": "ours", "paper": "35.1", "comparable": "yes"}
    assert cell == {"value": "", "deviation": "", "difference": ""} | source


def test_without_mssa_table_3_has_the_rows_without_it_alone():
    found = read_markdown(show(made_up("coco", "evaluate.grids=[]")))[TABLE_3["coco"]][1]
    first = ("baseline", "cnr", "cnr_pbl")
    expected = [rows.label(row) for row in (*first, *(row for row in rows.ROWS if row not in first))]
    assert list(dict.fromkeys(name for name, _ in found)) == expected


def test_a_result_of_own_classes_without_a_split_has_gzsl_alone():
    result = made_up()
    del result.images.tasks["zsl"]
    for scorers in result.rows.values():
        for by_task in scorers.values():
            del by_task["zsl"]
    for title, (_, found, _) in read_markdown(show(result)).items():
        assert {task for name, task in found if title != TABLE_1 or name == OURS} == {"GZSL"}


@pytest.fixture
def save(tmp_path):
    """Write results into the folders of runs; returns the folders."""

    def write(*results):
        folders = [tmp_path / f"run{i}" for i in range(len(results))]
        for folder, result in zip(folders, results, strict=True):
            result.save(folder / "result.json")
        return folders

    return write


def report(*arguments):
    """What `python -m rcnn.report` prints."""
    stdout, stderr = rcnn("report", *arguments)
    assert stderr == ""
    return stdout


def fails(*arguments):
    """The one line that a bad call ends in."""
    stdout, stderr = rcnn("report", *arguments, code=2)
    assert stdout == ""
    (line,) = stderr.splitlines()
    return line.removeprefix("error: ")


def test_the_command_prints_every_format_of_files_or_folders(save):
    results = made_up(), made_up("nuswide")
    folders = save(*results)
    assert report(*folders) == report(*(folder / "result.json" for folder in folders)) == show(*results) + "\n"
    for form in FORMATS:
        assert report(*folders, "--format", form) == show(*results, form=form) + "\n"


def test_write_leaves_every_format_in_a_folder(save, tmp_path):
    (folder,) = save(result := made_up())
    report(folder, "--write", tmp_path / "new" / "tables", "--table", 1)
    assert sorted(path.name for path in (tmp_path / "new" / "tables").iterdir()) == ["tables.csv", "tables.md", "tables.tex"]
    for form, suffix in FORMATS.items():
        text = (tmp_path / "new" / "tables" / f"tables.{suffix}").read_text(encoding="utf-8")
        assert text == report(folder, "--format", form, "--table", 1)
        assert text != show(result, form=form) + "\n"


def test_table_picks(save):
    folders = save(made_up(), made_up("nuswide"))
    whole, parts = report(*folders), [report(*folders, "--table", n) for n in (1, 2, 3)]
    assert [list(read_markdown(part)) for part in parts] == [[TABLE_1], [TABLE_2], list(TABLE_3.values())]
    assert "\n".join(parts) == whole
    assert report(*folders, "--table", 3, "--table", 1, "--table", 2) == whole
    assert {key[0] for key in read_csv(report(*folders, "--format", "csv", "--table", 3))} == {"table3"}


@pytest.mark.parametrize("present", [(), (3,)])
@pytest.mark.parametrize(("kind", "number"), [("coco", 2), ("nuswide", 1)])
def test_an_absent_table_is_an_error_whatever_else_is_asked_for(save, kind, number, present):
    (folder,), wanted = save(made_up(kind)), [("--table", n) for n in (*present, number)]
    for options in (wanted, wanted[::-1]):
        assert fails(folder, *itertools.chain(*options)) == f"--table: these results have no table {number}"


@pytest.mark.parametrize("options", [["--table", 4], ["--format", "html"]])
def test_unknown_tables_and_formats_are_errors(save, options):
    _, stderr = rcnn("report", *save(made_up()), *options, code=2)
    assert f"argument {options[0]}: invalid choice" in stderr


def test_a_bad_file_or_one_given_twice_ends_in_one_line(save, tmp_path):
    (folder,) = save(made_up())
    assert "have the same seed (0, 0)" in fails(folder, folder / "result.json")
    assert fails(folder, tmp_path) == f"there is no result file {tmp_path / 'result.json'}; python -m rcnn.evaluate makes one"
    (folder / "result.json").write_text("5")
    assert re.fullmatch(r".+result.json is damaged, or was changed: .+; measure again: .+", fails(folder))


def test_help_teaches():
    text = report("--help")
    assert "python -m rcnn.report" in text
    assert "--table" in text
    assert "configuration keys" not in text


def paper_rows():
    """(table, columns, row, task, numbers) of all numbers of the paper."""
    parts = [(PAPER[number], number, PAPER[number]["rows"]) for number in COMPARED.values()]
    parts += [(PAPER["table3"], "table3", PAPER["table3"]["datasets"][kind]) for kind in FIRST]
    for spec, number, methods in parts:
        for name, by_task in methods.items():
            assert list(by_task) == ["zsl", "gzsl"]
            for task, values in by_task.items():
                yield number, spec["columns"], name, task, values


def test_every_row_of_the_paper_has_a_percentage_per_column():
    found = list(paper_rows())
    assert len(found) == 2 * (7 + 13 + 11 + 4 + 4)
    assert [(number, name, task) for number, _, name, task, values in found if values is None] == [("table2", "CoMC", "gzsl")]
    for _, columns, name, task, values in found:
        if values is not None:
            assert len(values) == len(columns), (name, task)
            assert all(n is None or (isinstance(n, float) and 0 < n < 100) for n in values), (name, task)


def test_every_f1_of_the_paper_follows_from_its_precision_and_recall_but_for_six_of_other_methods():
    off, checked = set(), 0
    for number, columns, name, task, values in paper_rows():
        by = dict(zip(columns, values or [None] * len(columns), strict=True))
        for k in (3, 5, 10, 20):
            p, r, f1 = (by.get(f"{x}@{k}") for x in ("P", "R", "F1"))
            if p is not None:
                checked += 1
                if abs(f1 - 2 * p * r / (p + r)) > 0.1:
                    off.add((number, name, task, f"F1@{k}"))
    assert checked == 14 + 2 * (2 * 13 - 3) + 2 * 2 * (11 - 1)
    assert off == SUMS_THAT_ARE_OFF


def of_table(kind, task):
    """{metric: the paper's number of its method} from Table 1 or 2."""
    spec = PAPER[COMPARED[kind]]
    return dict(zip(spec["columns"], spec["rows"]["RCNn"][task], strict=True))


def of_the_paper(kind, task):
    """{metric: the paper's number of its method} from Table 1 or 2, and the same from Table 3."""
    row, ablation = of_table(kind, task), PAPER["table3"]
    return row, dict(zip(ablation["columns"], ablation["datasets"][kind]["cnr_pbl mssa"][task], strict=True))


@KINDS
@pytest.mark.parametrize("task", TASKS)
def test_the_last_row_of_the_ablation_is_the_paper_s_result(kind, task):
    row, last = of_the_paper(kind, task)
    shared = row.keys() & last.keys()
    assert len(shared) == {"coco": 1, "nuswide": 3}[kind]
    assert {m: row[m] for m in shared} == {m: last[m] for m in shared}


@pytest.mark.parametrize("kind", COMPARED)
@pytest.mark.parametrize("task", TASKS)
def test_positives_per_image_are_those_behind_the_paper_s_row(kind, task):
    row = of_table(kind, task)
    for k in {int(c.split("@")[1]) for c in row if "@" in c}:
        implied = k * row[f"P@{k}"] / row[f"R@{k}"]
        assert DATASETS[kind].positives_per_image[task] == pytest.approx(implied, rel=5e-3)


@KINDS
def test_configurations_quote_the_same_numbers(kind):
    lines = (ROOT / "configs" / f"{kind}.yaml").read_text(encoding="utf-8").splitlines()
    header = list(itertools.takewhile(lambda line: line.startswith("#"), lines))
    quoted = [float(x) for x in re.findall(r"\d+\.\d+", " ".join(header))]
    row = PAPER[FIRST[kind][0]]["rows"]["RCNn"]
    ablation = [n for by_task in PAPER["table3"]["datasets"][kind].values() for task in TASKS for n in by_task[task]]
    assert quoted == [*row["zsl"], *row["gzsl"], *ablation, *DATASETS[kind].positives_per_image.values()]


def test_the_configuration_of_open_images_quotes_the_same_numbers():
    header = (ROOT / "configs" / "openimages.yaml").read_text(encoding="utf-8")
    quoted = [float(x) for x in re.findall(r"\d+\.\d+", header[header.index("# paper:") : header.index("# Not published")])]
    row = PAPER["table2_openimages"]["rows"]["RCNn"]
    assert quoted == [*row["zsl"], *row["gzsl"], *DATASETS["openimages"].positives_per_image.values()]


@KINDS
def test_tables_1_and_2_show_tagclip_as_the_paper_has_it_and_as_it_was_measured_with_the_difference(kind):
    key, title = FIRST[kind]
    result = made_up(kind)
    result.rows["tagclip"] = {"plain": {task: dict(metrics) for task, metrics in result.rows["mean"]["plain"].items()}}
    columns = PAPER[key]["columns"]
    for task in TASKS:
        put(result, "tagclip", "plain", task, **{name.replace("@", "_at_"): 40 + i for i, name in enumerate(columns)})
    _, found, _ = read_markdown(show(labelled(result)))[title]
    for task in TASKS:
        papers = PAPER[key]["rows"]["TagCLIP*"][task]
        assert found["TagCLIP*", task.upper()] == [str(value) for value in papers]
        assert found["this run: TagCLIP", task.upper()] == [f"{40 + i:.1f} ({40 + i - p:+.1f})" for i, p in enumerate(papers)]
    assert "this run: TagCLIP" not in show(made_up(kind))
