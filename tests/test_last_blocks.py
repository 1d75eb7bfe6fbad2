"""Other last blocks of the image tower: each against its attention maps written out, and as rows of an evaluation."""

import os
from pathlib import Path
from typing import get_args

import numpy as np
import plain_clip
import pytest
import torch
from PIL import Image
from running import filled
from torch.nn import functional as F

from rcnn import rows, scoring
from rcnn.clip.image_tower import CLEARCLIP, PATCHES, RESIDUAL
from rcnn.config import Config, EvaluateConfig, LastBlock, changed, override
from rcnn.score import mssa, views
from rcnn.score.score_file import Plane, ScoreFile

HEADS = 2
ALL = (CLEARCLIP, *get_args(LastBlock))
Z = F.normalize(torch.randn(7, 64, generator=torch.Generator().manual_seed(3)), dim=1)


@pytest.fixture(scope="module")
def trunk(towers):
    """Class token and patches of two made-up images before the last block."""
    images = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    return towers[0].trunk(images)


def maps(name, query, key, value):
    """(B, heads, 1 + N, 1 + N): what every token takes of the values of all tokens."""

    def softmax(one, other):
        weights = torch.einsum("bhid,bhjd->bhij", one, other).div(one.shape[-1] ** 0.5).exp()
        return weights / weights.sum(-1, keepdim=True)

    return {
        "qq": lambda: softmax(query, query),
        "v": lambda: torch.eye(value.shape[2]).expand(*value.shape[:3], -1),
        "vv": lambda: softmax(value, value),
        "kk": lambda: softmax(key, key),
        "qq+kk": lambda: softmax(query, query) + softmax(key, key),
        "qk": lambda: softmax(query, key),
    }[name]()


def written_out(state, x, name):
    """Local features by the last block's tensors under OpenAI's names."""
    last = plain_clip.names_of_blocks(state, "visual.transformer")[-1]
    query, key, value = plain_clip.query_key_value(state, last, x, HEADS)
    mixed = maps(name.removesuffix("+residual"), query, key, value) @ value
    out = plain_clip.linear(state, f"{last}.attn.out_proj", torch.cat(mixed.unbind(1), -1))  # the heads side by side
    if name.endswith("+residual"):
        out = plain_clip.feed_forward(state, last, x + out)
    return F.normalize(plain_clip.norm(state, "visual.ln_post", out) @ state["visual.proj"], dim=-1)[:, 1:]


@pytest.mark.parametrize("name", ALL)
def test_local_features_equal_the_attention_written_out(state, towers, trunk, name):
    found = towers[0].last_block(trunk, name)
    torch.testing.assert_close(found.local_features, written_out(state, trunk, name), rtol=0, atol=1e-5)
    assert torch.equal(found.global_features, towers[0].last_block(trunk).global_features)


def test_qk_with_residual_is_the_unchanged_block(towers, trunk):
    tower = towers[0]
    unchanged = tower.to_shared_space(tower.transformer["resblocks"][-1](trunk))
    found = tower.last_block(trunk, "qk+residual")
    torch.testing.assert_close(
        torch.cat([found.global_features[:, None], found.local_features], 1), unchanged, rtol=0, atol=1e-5
    )


def test_every_last_block_gives_other_features(towers, trunk):
    found = {towers[0].last_block(trunk, name).local_features.numpy().tobytes() for name in ALL}
    assert len(found) == len(ALL)


def test_the_default_is_clearclip_s_to_the_last_bit(towers, trunk):
    block = towers[0].transformer["resblocks"][-1]
    query, _, value = block.attn.project(block.ln_1(trunk), 0, 3)
    expected = towers[0].to_shared_space(block.attn.mix(query[:, :, 1:], query, value))
    assert torch.equal(towers[0].last_block(trunk).local_features, expected)


def test_a_configuration_may_name_every_last_block_but_the_default():
    assert set(ALL) == {key + residual for key in PATCHES for residual in ("", RESIDUAL)}
    assert EvaluateConfig(last_blocks=list(get_args(LastBlock))).last_blocks == ALL[1:]
    assert EvaluateConfig().last_blocks == ()
    for wrong in ("qq", "kv", "residual", ""):
        with pytest.raises(ValueError, match=r"^evaluate.last_blocks: expected 'v', .* or 'qk\+residual', got .*$"):
            override({}, [f"evaluate.last_blocks=['{wrong}']"])


def test_a_compiled_tower_has_no_other_last_blocks():
    with pytest.raises(ValueError, match=r"^evaluate: compile, last_blocks: expected one of them at most; .*$"):
        override({}, ["evaluate.compile=true", "evaluate.last_blocks=[vv]"])


def test_runs_with_other_last_blocks_are_told_apart():
    one, other = (Config(evaluate=EvaluateConfig(last_blocks=blocks)) for blocks in ((), ("vv",)))
    assert changed(one, other, "metrics") == ["evaluate.last_blocks"]


def test_the_class_name_and_the_methods_are_scored_by_other_last_blocks_and_the_methods_own_stays_last():
    settings = EvaluateConfig(last_blocks=("vv", "qk+residual"))
    for row in ("baseline", "cnr_pbl", "closed_form"):
        assert rows.scorers(row, settings) == ["plain", "mssa/vv", "mssa/qk+residual", "mssa"]
    for row in ("centred", "mean", "cnr", "mine"):
        assert rows.scorers(row, settings) == ["plain", "mssa"]
    assert rows.scorers("baseline", EvaluateConfig(grids=(), last_blocks=("vv",))) == ["plain/vv", "plain"]
    assert rows.method_scorer(settings) == "mssa"
    assert rows.label("baseline", "mssa/vv") == "class name + MSSA, last block vv"


@pytest.fixture
def noise(tmp_path):
    paths = [tmp_path / f"{i}.png" for i in range(3)]
    rng = np.random.default_rng(0)
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(path)
    return paths


def scored(folder: Path, model, paths, *last_blocks):
    """A file with the scores of two rows."""
    settings = EvaluateConfig(grids=(2,), batch_size=2, workers=0, diagnostics=False, last_blocks=last_blocks)
    sets = scoring.scored_sets(settings, {"baseline": Z, "mean": Z.flip(0)}, {0: Z.roll(1, 0)})
    return filled(ScoreFile(folder, sets, len(paths), len(Z), 2, "identity"), model, paths, sets, settings)


def test_a_pass_scores_every_last_block_and_the_other_rows_keep_their_scores_to_the_last_bit(
    tmp_path, tiny_clip, noise, monkeypatch
):
    alone = scored(tmp_path / "scores", tiny_clip, noise)
    trunk, passed = type(tiny_clip.image).trunk, []
    monkeypatch.setattr(type(tiny_clip.image), "trunk", lambda tower, x: passed.append(len(x)) or trunk(tower, x))
    file = scored(tmp_path / "scores", tiny_clip, noise, "vv", "qq+kk+residual")
    assert passed == [2 * 5, 5]  # five views of an image, once for all last blocks
    assert file.folder != alone.folder
    assert set(file.planes) - set(alone.planes) == {Plane("baseline", f"mssa/{b}", "total") for b in ("vv", "qq+kk+residual")}
    for plane in alone.planes:
        np.testing.assert_array_equal(file.plane(plane), alone.plane(plane))
    pixels = torch.stack([views.views(Image.open(path), 224, (2,)) for path in noise])
    for name, features in tiny_clip.encode_views_by(pixels, ("vv", "qq+kk+residual")).items():
        expected = mssa.score(features, Z, (2,)).total.numpy()
        np.testing.assert_allclose(file.tables("baseline", f"mssa/{name}")["total"], expected, rtol=0, atol=2e-6)


def test_a_damaged_batch_is_scored_again_by_all_last_blocks(tmp_path, tiny_clip, noise):
    file = scored(tmp_path / "scores", tiny_clip, noise, "vv")
    whole = [file.plane(plane) for plane in file.planes]
    (path,) = file.folder.glob("*.scores")
    with open(path, "r+b") as raw:
        raw.seek(-9, os.SEEK_END)
        raw.write(b"damage")
    assert file.todo() == [1]
    again = scored(tmp_path / "scores", tiny_clip, noise, "vv")
    assert again.folder == file.folder
    np.testing.assert_array_equal([again.plane(plane) for plane in again.planes], whole)
