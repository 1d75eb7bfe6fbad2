"""coco.sh, nuswide.sh and openimages.sh from end to end, on stand-ins in the data sets' own layouts, with the mini CLIP."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from rcnn.text.classes import ClassList

ROOT = Path(__file__).parents[1]
QUICK = [
    "clip.model=null", "clip.pretrained=null", f"clip.weights={ROOT}/data/mini/clip.safetensors", "corpus.templates=false",
    "train.epochs=1", "train.ablation=false", "evaluate.bootstrap=0", "evaluate.grids=[2]", "device=cpu",
]  # fmt: skip


@pytest.fixture(scope="module")
def standins(tmp_path_factory):
    folder = tmp_path_factory.mktemp("standins")
    script = ROOT / "scripts" / "make_standins.py"
    subprocess.run([sys.executable, script, folder, "--images", "16"], check=True, capture_output=True)
    return folder


def bash(script, *arguments):
    """Run a script in this very environment; returns the finished process."""
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    command = ["bash", ROOT / script, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


def read_tables(run):
    """{(table, row, task, metric): value} of our rows, and the Markdown."""
    rows = list(csv.DictReader((run / "tables.csv").read_text().splitlines()))
    ours = {
        (r["table"], r["row"], r["task"], r["metric"]): float(r["value"]) for r in rows if r["source"] == "ours" and r["value"]
    }
    return ours, (run / "tables.md").read_text()


def test_coco_sh_goes_from_the_official_layout_to_tables_1_and_3_and_does_nothing_twice(standins, tmp_path):
    data = standins / "coco"
    pairs = [*QUICK, f"dataset.images={data}/val2014", f"dataset.annotations={data}/annotations/instances_val2014.json",
             f"output={tmp_path}/run", f"cache={tmp_path}/a cache"]  # fmt: skip
    done = bash("coco.sh", *pairs)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("==")] == [
        f"== {step}" for step in ("data", "check", "train", "evaluate", "report")
    ]
    (told,) = [line for line in done.stdout.splitlines() if line.startswith("next: ") and "rcnn.train" in line]  # by the check
    command = ["python", "-m", "rcnn.train", "--config", "configs/coco.yaml"]
    assert shlex.split(told.removeprefix("next: ")) == [*command, *pairs]
    ours, text = read_tables(tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    method = result["rows"]["cnr_pbl"]["mssa"]
    assert ours["table1", "this run: CNR + PBL (learned names) + MSSA", "zsl", "F1@3"] == round(
        method["zsl"]["F1@3"]["value"], 3
    )
    assert ours["table3", "class name", "gzsl", "mAP"] == round(result["rows"]["baseline"]["plain"]["gzsl"]["mAP"]["value"], 3)
    assert "| RCNn | ZSL | 37.6 | 93.4 | 53.6 |" in text
    assert re.search(r"NOT COMPARABLE: ZSL: \d+ images have a positive label, 16,799 were expected", text)
    assert re.search(
        r"NOT COMPARABLE: GZSL: [\d.]+ positives an image, the paper's own rows imply 2\.571, .*: not its test set", text
    )
    assert text.strip() in done.stdout
    assert r"\begin{tabular}" in (tmp_path / "run" / "tables.tex").read_text()
    before = (tmp_path / "run" / "result.json").read_bytes()
    again = bash("coco.sh", "--skip", "check", "--skip", "data", "--skip", "report", *pairs)
    assert again.returncode == 0, again.stderr
    assert "is of these very settings" in again.stdout
    assert "== check: skipped" in again.stdout
    assert (tmp_path / "run" / "result.json").read_bytes() == before


def test_nuswide_sh_goes_from_the_official_text_files_to_tables_2_and_3(standins, tmp_path):
    full = ClassList.read(ROOT / "data/nuswide/seen.txt", ROOT / "data/nuswide/unseen.txt")
    corpus = json.loads((ROOT / "data/nuswide/corpus.json").read_text())
    shown = {"street", "desert", "forest", "furniture", "fruit", "building", "flower", "weather", "kitchen"}
    seen = [n for n in full.names[:925] if n in shown or n in ("nature", "blue", "nikon")]
    unseen = list(full.names[925:])
    (tmp_path / "seen.txt").write_text("\n".join(seen))
    (tmp_path / "unseen.txt").write_text("\n".join(unseen))
    by_name = {entry["node_name"]: entry for entry in corpus.values()}
    (tmp_path / "corpus.json").write_text(json.dumps({i: by_name[n] for i, n in enumerate([*seen, *unseen])}))
    data = standins / "nuswide"
    done = bash(
        "nuswide.sh", "--skip", "check", *QUICK,
        f"dataset.images={data}/Flickr", f"dataset.annotations={data}", f"output={tmp_path}/run",
        f"cache={tmp_path}/cache", f"classes.seen={tmp_path}/seen.txt", f"classes.unseen={tmp_path}/unseen.txt",
        f"corpus.path={tmp_path}/corpus.json",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    ours, text = read_tables(tmp_path / "run")
    assert {key[0] for key in ours} == {"table2", "table3"}
    assert "NOT COMPARABLE: the class list is not the paper's." in text
    assert "| MKT | GZSL | 35.9 |" in text


def test_openimages_sh_goes_from_the_official_files_to_table_2_without_descriptions(standins, tmp_path):
    full = ClassList.read(ROOT / "data/openimages/seen.txt", ROOT / "data/openimages/unseen.txt")
    lines = [f"{name} [{note}]\n" for name, note in zip(full.names, full.notes, strict=True)]
    labels = (standins / "openimages" / "test" / "test-annotations-human-imagelabels.csv").read_text()
    shown = [line for line, note in zip(lines, full.notes, strict=True) if f",{note},1\n" in labels]
    (tmp_path / "seen.txt").write_text("".join(shown[: len(shown) // 2]))  # the class list is long: some of it will do here
    (tmp_path / "unseen.txt").write_text("".join(shown[len(shown) // 2 :]))
    done = bash(
        "scripts/openimages.sh", *QUICK, f"dataset.images={standins}/openimages", f"dataset.annotations={standins}/openimages",
        f"output={tmp_path}/run", f"cache={tmp_path}/cache", f"classes.seen={tmp_path}/seen.txt",
        f"classes.unseen={tmp_path}/unseen.txt", "corpus.path=null",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("==")] == [
        f"== {step}" for step in ("data", "check", "train", "evaluate", "report")
    ]
    ours, text = read_tables(tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["images"]["used"] == 16
    assert [row for row in result["rows"] if "/" not in row] == ["baseline", "centred", "templates"]
    for name, row in (("this run: 80 templates + MSSA", "templates"), ("class name + MSSA", "baseline")):
        for task in ("zsl", "gzsl"):
            for metric in ("F1@10", "F1@20", "mAP"):
                assert ours["table2", name, task, metric] == round(result["rows"][row]["mssa"][task][metric]["value"], 3)
    assert {key[0] for key in ours} == {"table2"}
    assert "| RCNn | ZSL | 12.0 | 93.3 | 21.2 | 6.3 | 98.0 | 11.8 | 70.2 |" in text
    assert "NOT COMPARABLE: 16 test images, 125,436 were expected." in text
    assert text.strip() in done.stdout


def test_the_scripts_teach_and_refuse_what_they_do_not_know():
    told = bash("coco.sh", "--help")
    assert told.returncode == 0
    assert "bash coco.sh [--skip STEP] [key=value …]" in told.stdout
    told = bash("scripts/openimages.sh", "--help")
    assert told.stdout.startswith("Open Images, from nothing to the paper's Table 2 with ours beside.\n")
    assert "bash scripts/openimages.sh [--skip STEP] [key=value …]" in told.stdout
    for arguments, said in (
        (["--skip", "eat"], "the steps are data check train evaluate report"),
        (["--skip"], "the steps are data check train evaluate report"),
        (["fast"], "expected --skip"),
        (["train.epoch=5"], "error: unknown configuration key train.epoch; the nearest is train.epochs"),
    ):
        refused = bash("nuswide.sh", *arguments)
        assert refused.returncode == 2
        assert said in refused.stderr


def test_nuswide_sh_says_in_one_line_what_is_missing_and_how_to_get_it(tmp_path):
    refused = bash("nuswide.sh", f"dataset.images={tmp_path}/Flickr", f"output={tmp_path}/run")
    assert refused.returncode == 2
    assert refused.stdout == "== data\n"
    (line,) = refused.stderr.splitlines()
    assert f"{tmp_path}/Flickr" in line
    assert "python scripts/prepare_nuswide.py --help" in line


def test_a_script_stops_at_a_step_that_fails(standins, tmp_path):
    images = f"dataset.images={standins}/coco/val2014"
    stopped = bash("coco.sh", *QUICK, images, f"dataset.annotations={tmp_path}/none.json", f"output={tmp_path}/run")
    assert stopped.returncode == 1
    assert f"MISSING  images and labels: there is no annotation file {tmp_path}/none.json" in stopped.stdout
    assert "== train" not in stopped.stdout
