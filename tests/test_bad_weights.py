"""Damaged and hostile files of CLIP's weights: each is refused in one line that names it, or gives the same weights."""

import os
import random
import sys
import zipfile

import pytest
import torch
from hostile import at_once, irregular, torchscript
from safetensors.torch import save_file

from rcnn import clip

ROWS = torch.arange(0, 49408, 500)


@pytest.fixture(scope="module")
def small(state):
    """The tiny CLIP with a compact vocabulary, in half precision: 3 MB."""
    known = torch.cat([state["token_embedding.weight"][ROWS], torch.ones(1, 128)])
    return {k: v.half() for k, v in (state | {"token_embedding.weight": known}).items()} | {"token_embedding.rows": ROWS}


@pytest.fixture(scope="module")
def files(small, tmp_path_factory):
    """The same weights in every format, and their fingerprint."""
    folder = tmp_path_factory.mktemp("weights")
    save_file(small, folder / "safetensors.safetensors")
    torch.save(small, folder / "zip.pt")
    torch.save(small, folder / "pickle.pt", _use_new_zipfile_serialization=False)
    torchscript(folder / "program.pt", small)
    return {path.stem: path for path in folder.iterdir()}, clip.load(None, None, folder / "zip.pt").fingerprint


def refused(path, error=ValueError, **settings):
    with pytest.raises(error) as raised:
        clip.load(None, None, path, trust_torchscript=True, **settings)
    (line,) = str(raised.value).splitlines()
    assert str(path) in line
    assert len(line) < 800
    return line


def changed(data, how):
    """`data` with a flipped bit, random bytes near an end, where headers lie, or without its end."""
    data, near_an_end = bytearray(data), how.randrange(-20000, 20000)
    kind = how.choice(["flip", "bytes", "cut"])
    if kind == "flip":
        data[how.randrange(len(data))] ^= 1 << how.randrange(8)
    elif kind == "bytes":
        data[near_an_end] = how.randrange(256)
    else:
        del data[near_an_end:]
    return data


@pytest.mark.parametrize("kind", ["safetensors", "zip", "pickle", "program"])
def test_flipped_and_missing_bytes_are_refused_in_one_line_or_give_weights_that_are_numbers(files, tmp_path, kind):
    (path, fingerprint), how, loaded = (files[0][kind], files[1]), random.Random(kind), 0
    for _ in range(12):
        (bad := tmp_path / path.name).write_bytes(changed(path.read_bytes(), how))
        try:
            model = clip.load(None, None, bad, trust_torchscript=True)
        except ValueError as error:
            (line,) = str(error).splitlines()
            assert str(bad) in line
            continue
        loaded += 1
        if kind in ("zip", "program"):  # the formats that have checksums
            assert model.fingerprint == fingerprint
        assert all(p.isfinite().all() for tower in (model.text, model.image) for p in tower.parameters())
    assert loaded < 12


@pytest.mark.parametrize("kind", ["zip", "program"])
def test_one_flipped_bit_of_an_archive_is_found(files, tmp_path, kind):
    data = bytearray(files[0][kind].read_bytes())
    data[len(data) // 2] ^= 1
    (bad := tmp_path / "flipped.pt").write_bytes(data)
    assert "does not have its checksum" in refused(bad)


def test_an_archive_that_expands_to_many_times_its_size_is_refused_unread(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("a/data.pkl", "w") as part:
        part.write(bytes(1 << 22))
    assert "many times its size" in refused(tmp_path / "bomb.pt")


@pytest.mark.parametrize("length", [0, 1, 1 << 20, 1 << 40, (1 << 64) - 1])
def test_a_safetensors_header_of_a_wrong_length_is_refused(files, tmp_path, length):
    (path := tmp_path / "a.safetensors").write_bytes(length.to_bytes(8, "little") + files[0]["safetensors"].read_bytes()[8:])
    refused(path)


@pytest.mark.parametrize(
    ("name", "number", "said"),
    [
        ("vision_heads", "x", "vision_heads='x'"),
        ("vision_heads", "0", "vision_heads='0'"),
        ("text_heads", "-3", "text_heads='-3'"),
        (
            "text_heads",
            str(10**400),
            "text_projection: expected a number of attention heads that divides its 128 rows",
        ),
        ("text_heads", "1" + "0" * 5000, "text_heads='1000"),
        ("vision_heads", "3", "visual.proj: expected a number of attention heads that divides its 128 rows, got 3"),
        ("activation", "relu\x1b" * 10**5, "activation='relu"),
    ],
)
def test_metadata_that_cannot_be_is_refused_with_its_name(small, tmp_path, name, number, said):
    save_file(small, tmp_path / "a.safetensors", {name: number})
    assert said in refused(tmp_path / "a.safetensors")


BLOCK = "transformer.resblocks"
CHANGES = {
    "whole numbers": ({"text_projection": torch.ones(128, 64, dtype=torch.int64)}, "text_projection: expected floating-point"),
    "complex": ({"visual.proj": torch.ones(128, 64, dtype=torch.complex64)}, "visual.proj: expected floating-point numbers"),
    "NaN": ({"visual.ln_post.bias": torch.full((128,), torch.nan)}, "visual.ln_post.bias: expected finite numbers"),
    "infinite": ({"ln_final.weight": torch.full((128,), -torch.inf)}, "ln_final.weight: expected finite numbers"),
    "too large": ({"ln_final.weight": torch.full((128,), 1e300, dtype=torch.float64)}, "ln_final.weight: expected finite"),
    "no dimension": ({"text_projection": torch.ones(())}, "text_projection: expected 2 dimensions"),
    "three dimensions": ({"visual.proj": torch.ones(128, 64, 1)}, "visual.proj: expected 2 dimensions"),
    "empty": ({"visual.proj": torch.ones(128, 0)}, "visual.proj: expected 2 dimensions, none of them empty"),
    "shape": ({"ln_final.weight": torch.ones(64)}, r"ln_final.weight has shape (64,), not (128,)"),
    "no square": ({"visual.positional_embedding": torch.ones(196, 128)}, "1 + a square number of rows, got 196"),
    "no patch": ({"visual.positional_embedding": torch.ones(1, 128)}, "1 + a square number of rows, got 1"),
    "many patches": ({"visual.positional_embedding": torch.ones(200**2 + 1, 2)}, "at most 128 patches on a side, got 200"),
    "huge images": ({"visual.conv1.weight": torch.ones(1, 3, 200, 200)}, "images of at most 2048 pixels, got 2800"),
    "patches": ({"visual.conv1.weight": torch.ones(128, 3, 8, 16)}, "visual.conv1.weight has shape (128, 3, 8, 16), not"),
    "short": ({"positional_embedding": torch.ones(7, 128)}, "positional_embedding: expected 8 to 1024 rows, got 7"),
    "long": ({"positional_embedding": torch.ones(10**6, 1)}, "positional_embedding: expected 8 to 1024 rows, got 1000000"),
    "towers": ({"text_projection": torch.ones(128, 32)}, "text_projection: expected 64 columns, got 32"),
    "gap": ({f"{BLOCK}.9999.ln_1.weight": torch.ones(1)}, f"there is no {BLOCK}.3.ln_1.weight"),
    "many blocks": ({f"{BLOCK}.{i}.ln_1.weight": torch.ones(1) for i in range(10**4)}, "at most 256 blocks, got 10000"),
    "unknown": ({"what\x1b" * 10**5: torch.ones(1)}, "is not known"),
    "row out of range": ({"token_embedding.rows": torch.cat([ROWS[:-1], torch.tensor([49408])])}, "from 0 to 49407"),
    "row below zero": ({"token_embedding.rows": ROWS - 1}, "token_embedding.rows: expected 99 different whole numbers from 0"),
    "rows twice": ({"token_embedding.rows": ROWS // 1000}, "token_embedding.rows: expected 99 different whole numbers"),
    "too few rows": ({"token_embedding.rows": ROWS[1:]}, "token_embedding.rows: expected 99 different whole numbers"),
    "rows of no integers": ({"token_embedding.rows": ROWS.float()}, "99 different whole numbers from 0 to 49407"),
}  # fmt: skip


@pytest.mark.parametrize("kind", CHANGES)
def test_tensors_that_no_clip_has_are_refused_by_name(small, tmp_path, kind):
    changes, said = CHANGES[kind]
    save_file(small | changes, tmp_path / "a.safetensors")
    assert said in refused(tmp_path / "a.safetensors")


def test_a_vocabulary_smaller_than_that_of_the_tokens_is_refused(small, tmp_path):
    save_file({k: v for k, v in small.items() if k != "token_embedding.rows"}, tmp_path / "a.safetensors")
    assert "token_embedding.weight: expected at least 49408 rows, got 100" in refused(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "tensor", [torch.ones(1).expand(128, 64), torch.ones(128, 64).to_sparse(), torch.empty(128, 64, device="meta")]
)
def test_tensors_whose_numbers_are_not_all_in_the_file_are_refused(small, tmp_path, tensor):
    torch.save(small | {"text_projection": tensor}, tmp_path / "a.pt")
    assert "text_projection: expected a dense tensor" in refused(tmp_path / "a.pt")


def test_weights_that_are_no_regular_file_are_refused_at_once(tmp_path):
    for path in [*irregular(tmp_path, "a.safetensors"), *irregular(tmp_path, "a.pt")]:
        with at_once():
            assert refused(path) == f"{path} is not a regular file"


@pytest.mark.parametrize("kind", ["safetensors", "zip", "program"])
def test_weights_load_from_a_path_with_an_emoji(files, tmp_path, kind):
    path = (tmp_path / "😀 \u202e").with_suffix(files[0][kind].suffix)
    path.write_bytes(files[0][kind].read_bytes())
    assert clip.load(None, None, path, trust_torchscript=True).fingerprint == files[1]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are Unicode there")
def test_weights_load_from_a_path_that_is_not_utf8_except_by_safetensors_which_says_so(files, tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.pt")
    path.write_bytes(files[0]["zip"].read_bytes())
    assert clip.load(None, None, path).fingerprint == files[1]
    path = path.with_suffix(".safetensors")
    path.write_bytes(files[0]["safetensors"].read_bytes())
    assert "is not valid UTF-8" in refused(path)
