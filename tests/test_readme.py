"""What the README shows works as it stands, but for the weights, which are the mini CLIP's here."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rcnn import __main__ as commands

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
MINI = f"{ROOT}/data/mini/clip.safetensors"


@pytest.fixture
def photos(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    for name in ("photo.jpg", "a.jpg", "b.jpg"):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)


def run(text, **scope):
    """The names that an example leaves behind."""
    exec(compile(text, "README.md", "exec"), scope)
    return scope


@pytest.mark.usefixtures("photos")
def test_a_few_lines_tag_a_photograph_from_class_names_alone_and_then_with_cut_offs(capsys):
    tags, cutoffs = [text for text in EXAMPLES if "tagger.tag(" in text]
    known = '["dog", "bicycle", "crane [a wading bird]"]'
    assert known in tags
    names = run(tags.replace(known, f"{known}, model=None, pretrained=None, weights={MINI!r}"))
    assert names["scores"].shape == (2, 3)
    assert re.fullmatch(r"(\w+ -?[\d.]+\n){2}", capsys.readouterr().out)
    images, labels = ["a.jpg", "b.jpg"] * 6, [["dog"], ["bicycle", "crane [a wading bird]"]] * 6
    names = run(cutoffs, tagger=names["tagger"], images=images, labels=labels)
    assert all(tag.present for tag in names["tags"])
    assert (Path("outputs/mine") / "cutoffs.json").exists()


@pytest.mark.usefixtures("photos")
def test_sentences_become_class_embeddings_and_an_image_scores_and_a_score_map():
    (example,) = [text for text in EXAMPLES if "class_embeddings" in text]
    names = run(example.replace("clip.load()", f"clip.load(None, weights={MINI!r})"))
    assert names["scores"].total.shape == (1, 2)
    assert names["dog_map"].shape == (8, 8)


def test_every_file_that_the_readme_names_is_there():
    named = re.findall(r"\]\(([^)#:]+)\)|`((?:rcnn|scripts|configs|data|tests)/[\w/.-]*)`", README)
    paths = {next(filter(None, pair)) for pair in named}
    assert len(paths) > 15
    assert [path for path in sorted(paths) if not (ROOT / path).exists()] == []


def test_every_command_that_the_readme_names_is_one():
    named = set(re.findall(r"python -m rcnn\.(\w+)|^ +rcnn (\w+)", README, re.MULTILINE))
    assert {next(filter(None, pair)) for pair in named} <= set(commands.COMMANDS)
