"""scripts/paper.sh from a copy of the project, with nothing downloaded, with a stand-in of MS-COCO, and with bad ones."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import make_standins
import paper_page
import paper_ready
import pytest

from rcnn.text.classes import ClassList

ROOT = Path(__file__).parents[1]
QUICK = [
    "corpus.templates=false", "train.epochs=1", "train.ablation=false", "evaluate.bootstrap=0", "evaluate.grids=[2]",
    "evaluate.epochs=false", "device=cpu",
]  # fmt: skip
MINI_CLIP = ["clip.model=null", "clip.pretrained=null", "clip.weights=data/mini/clip.safetensors"]


@pytest.fixture
def copy(tmp_path):
    """The project without outputs and downloads; its mini benchmark has 8 drawings."""
    folder = tmp_path / "a copy"
    for name in ("configs", "data", "rcnn", "scripts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("coco.sh", "nuswide.sh", "requirements.txt", "tests/requirements.txt"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    script = folder / "scripts" / "draw_mini.py"
    text = script.read_text()
    assert "default=1000" in text
    script.write_text(text.replace("default=1000", "default=8"))
    return folder


def paper(folder, *arguments):
    """Run paper.sh in this very environment, with a home that is empty; returns the finished process."""
    environment = os.environ | {"VIRTUAL_ENV": sys.prefix, "PATH": f"{sys.prefix}/bin:{os.environ['PATH']}"}
    environment |= {"HOME": str(folder / "home"), "HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1"}
    command = ["bash", folder / "scripts" / "paper.sh", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, cwd="/")


def test_with_nothing_downloaded_it_measures_the_mini_benchmark_and_says_what_to_fetch_and_for_how_long(copy):
    old = copy / "outputs" / "paper" / "tables.md"  # of an earlier run
    old.parent.mkdir(parents=True)
    old.touch()
    done = paper(copy, *QUICK)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("==")] == [
        f"== {step}" for step in ("coco", "nuswide", "openimages", "mini", "page")
    ]
    page = (copy / "outputs" / "paper" / "README.md").read_text()
    assert "- Measured: mini benchmark\n- Absent, see *What is absent*: MS-COCO, NUS-WIDE, Open Images\n" in page
    assert "![figure 4](figures/mini/figure_4.png)" in page
    assert "- No figure 5: outputs/mini has kept no scores of its images" in page
    drawn = {path.name for path in (copy / "outputs" / "paper" / "figures" / "mini").iterdir()}
    assert drawn == {f"figure_{key}.{suffix}" for key in ("4", "classes") for suffix in ("png", "pdf", "json")}
    assert "| MS-COCO, F1@3 | ZSL | not measured | 53.6 | - | 86.3 | - |" in page
    result = json.loads((copy / "outputs" / "mini" / "result.json").read_text())
    assert f"{result['rows']['cnr_pbl']['mssa']['zsl']['mAP']['value']:.1f}" in page.partition("## Mini benchmark")[2]
    for size, script, pictures in (
        ("6.9 GB", "python scripts/prepare_coco.py", "39,217 images × 5 views"),
        ("0.7 GB", "python scripts/prepare_nuswide.py --help", "107,859 images × 5 views"),
        ("38.9 GB", "python scripts/prepare_openimages.py", "125,436 images × 5 views"),
    ):
        (line,) = [line for line in page.splitlines() if script in line]
        assert size in line
        assert f" h ({pictures})" in line
    speed, hours = (
        float(page.partition(before)[2].split()[0].replace(",", "")) for before in ("Measured here: ", "`bash nuswide.sh` | ")
    )
    assert hours == pytest.approx(107_859 * 5 / speed / 3600, rel=0.05)
    assert not list((copy / "outputs" / "paper").glob("tables.*"))
    assert not (copy / "downloads").exists()


def test_a_data_set_that_is_there_is_measured_beside_the_paper_a_broken_one_is_named_and_stops_no_other(copy):
    names = ClassList.read(ROOT / "data/coco/seen.txt", ROOT / "data/coco/unseen.txt").names
    make_standins.coco(copy / "downloads" / "coco", 8, names)
    (copy / "downloads" / "nuswide" / "Flickr").mkdir(parents=True)
    done = paper(copy, *QUICK, *MINI_CLIP, "evaluate.tagclip=true")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stderr.splitlines()[-1] == "failed: nuswide"
    page = (copy / "outputs" / "paper" / "README.md").read_text()
    assert (
        "- Measured: MS-COCO\n- Failed, though its files are here: NUS-WIDE\n- Absent, see *What is absent*: Open Images\n"
        in page
    )
    result = json.loads((copy / "outputs" / "coco" / "result.json").read_text())
    for row, scorer, words, quoted in (("cnr_pbl", "mssa", "RCNn", 53.6), ("tagclip", "plain", "TagCLIP*", 47.0)):
        value = result["rows"][row][scorer]["zsl"]["F1@3"]["value"]
        (line,) = [line for line in page.splitlines() if line.startswith(f"| **{words}, ours, NOT COMPARABLE** | ZSL")]
        assert line.endswith(f" | **{value:.1f}** ({value - quoted:+.1f}) |")
    assert "| **+ CNR, ours, not measured** | GZSL | - | - | - |" in page
    assert "- NOT COMPARABLE: ZSL: " in page
    assert "## Mini benchmark" not in page
    tables = list(csv.DictReader((copy / "outputs" / "paper" / "tables.csv").read_text().splitlines()))
    assert {line["table"] for line in tables} == {"table1", "table3"}
    assert (copy / "outputs" / "paper" / "tables.tex").exists()


def test_images_without_clips_weights_are_not_measured_and_nothing_is_downloaded(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(paper_ready, "try_to_load_from_cache", lambda repository, file: None)
    monkeypatch.setattr(paper_page, "seconds_per_view", lambda settings: 0.1)
    monkeypatch.setattr(paper_page, "FOLDER", tmp_path / "paper")
    for folder in ("coco/val2014", "nuswide/Flickr"):
        (tmp_path / "downloads" / folder).mkdir(parents=True)
    assert paper_ready.ready([]) == []
    paper_page.write([], [], [])
    page = (tmp_path / "paper" / "README.md").read_text()
    assert (
        "- Here, but CLIP's weights are not (0.35 GB; its own script fetches them, or clip.weights=FILE): MS-COCO, NUS-WIDE\n"
        "- Absent, see *What is absent*: Open Images\n"
    ) in page
    (tmp_path / ".cache" / "clip").mkdir(parents=True)
    (tmp_path / ".cache" / "clip" / "ViT-B-16.pt").touch()
    assert paper_ready.ready([]) == ["coco", "nuswide"]
    paper_page.write([], ["coco"], [])
    page = (tmp_path / "paper" / "README.md").read_text()
    assert "- Failed, though its files are here: MS-COCO\n- Here, but skipped: NUS-WIDE\n" in page


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["output=x"], "error: output is of one data set alone; give it to coco.sh, nuswide.sh or scripts/openimages.sh"),
        (["train.epoch=5"], "error: unknown configuration key train.epoch; the nearest is train.epochs"),
        (["--skip", "eat"], "error: --skip eat: the steps are coco nuswide openimages mini page"),
    ],
)
def test_what_it_cannot_do_it_refuses_in_one_line(arguments, said):
    refused = paper(ROOT, *arguments)
    assert (refused.returncode, refused.stdout, refused.stderr.splitlines()) == (2, "", [said])


def test_help_is_the_first_lines_of_the_script():
    told = paper(ROOT, "--help")
    assert told.returncode == 0
    assert told.stdout.startswith("The whole paper: every table of the data sets that are here")
    assert "bash scripts/paper.sh [--skip STEP] [key=value …]" in told.stdout
