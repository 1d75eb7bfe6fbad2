"""What learning leaves behind is read back as it was written, or refused: damaged, swapped, foreign or not finite."""

import contextlib
import json
import shutil

import pytest
import torch
from safetensors.torch import save_file

from rcnn import checkpoint
from rcnn.config import TrainConfig
from rcnn.learn import optimise
from rcnn.learn.names import learn_names
from rcnn.text.corpus import EncodedCorpus

IDENTITY = {"clip": "a", "corpus": "b", "classes": "c"}
EMBEDDINGS = {"baseline": torch.eye(2, 3), "cnr_pbl": -torch.eye(2, 3)}
RUN = {
    "version": checkpoint.VERSION, "method": "cnr_pbl", "class_names": ["cat", "dog"], "notes": [], "seen": 1,
    "weights_sha256": "d", "config": {}, "identity": IDENTITY, "learning": {}, "sources": {},
}  # fmt: skip
STATE = {"identity": IDENTITY, "losses": [1.5], "seconds": 0.5, "sources": {}}


def write_run(folder, rows=EMBEDDINGS, **changes):
    checkpoint.write(folder / checkpoint.EMBEDDINGS, rows, **RUN | changes)
    return folder


def test_a_run_is_read_as_it_was_written(tmp_path):
    rows, metadata = checkpoint.read_run(write_run(tmp_path))
    assert metadata == RUN
    assert list(rows) == list(EMBEDDINGS)
    assert all(torch.equal(rows[row], EMBEDDINGS[row]) for row in rows)


@pytest.mark.parametrize(("tensors", "metadata"), [(EMBEDDINGS, RUN), ({"class_vectors": torch.ones(2, 3)}, STATE)])
def test_every_flipped_bit_of_a_file_is_refused(tmp_path, tensors, metadata):
    path = tmp_path / "x.safetensors"
    checkpoint.write(path, tensors, **metadata)
    data = path.read_bytes()
    for i in range(len(data)):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1 << i % 8]) + data[i + 1 :])
        with pytest.raises(ValueError, match=r"x\.safetensors is damaged, or no such file of this version") as refused:
            checkpoint.read(path)
        assert len(str(refused.value)) < 500


def test_a_cut_file_is_refused_wherever_it_was_cut(tmp_path):
    data = (write_run(tmp_path) / checkpoint.EMBEDDINGS).read_bytes()
    for size in range(0, len(data), 7):
        (tmp_path / checkpoint.EMBEDDINGS).write_bytes(data[:size])
        with pytest.raises(ValueError, match="is damaged"):
            checkpoint.read_run(tmp_path)


@pytest.mark.parametrize("metadata", [None, {}, {"metadata": "5"}, {"metadata": "[" * 5000}, {"metadata": '{"order": ["z"]}'}])
def test_a_safetensors_file_from_elsewhere_is_refused(tmp_path, metadata):
    save_file({"z": torch.ones(2, 3)}, tmp_path / checkpoint.EMBEDDINGS, metadata)
    with pytest.raises(ValueError, match="is damaged, or no such file"):
        checkpoint.read_run(tmp_path)


@pytest.mark.parametrize(
    "changes",
    [
        {"version": "3"},
        {"class_names": ["cat", None]},
        {"class_names": "cat"},
        {"seen": -1},
        {"seen": 0.5},
        {"notes": 5},
        {"method": "closed_form"},  # which is not among the rows
        {"method": None},
        {"class_names": ["cat", "dog", "cow"]},  # for two class embeddings
        {"identity": {"clip": "a"}},
        {"config": 5},
        {"novel": 3},
    ],
)
def test_metadata_of_wrong_types_or_about_other_class_embeddings_are_refused(tmp_path, changes):
    with pytest.raises(ValueError, match="is damaged, or no such file"):
        checkpoint.read_run(write_run(tmp_path, **changes))


@pytest.mark.parametrize(
    "z",
    [torch.eye(2, 4), torch.ones(3), torch.tensor(1.0), torch.full((2, 3), torch.nan), torch.tensor([[1, 0, torch.inf]] * 2)],
)
def test_class_embeddings_of_another_width_or_not_finite_are_refused(tmp_path, z):
    with pytest.raises(ValueError, match=r"got .*baseline|baseline has numbers that are not finite"):
        checkpoint.read_run(write_run(tmp_path, {"cnr_pbl": torch.eye(2, 3), "baseline": z}))


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_numbers_of_other_types_than_are_written_are_refused(tmp_path, dtype):
    path = tmp_path / "x.safetensors"
    tensors = {"z": torch.ones(2, 3).to(dtype)}
    metadata = {"order": ["z"]}
    with contextlib.suppress(TypeError):  # of those that have no checksum
        metadata["sha256"] = checkpoint._checksum(tensors, metadata)
    save_file(tensors, path, {"metadata": json.dumps(metadata)})
    with pytest.raises(ValueError, match="is damaged, or no such file"):
        checkpoint.read(path)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_one_number_that_is_not_finite_is_found(value):
    tensor = torch.arange(6.0).view(2, 3)
    assert checkpoint.is_finite(tensor)
    assert checkpoint.is_finite(tensor[:0])
    tensor[1, 1] = value
    assert not checkpoint.is_finite(tensor)


def learn(run, model, weight=0.2):
    """Two class names learned from four sentences of two directions."""
    features = torch.eye(model.text.text_projection.shape[1])[[0, 0, 1, 1]]
    corpus = EncodedCorpus(features, torch.tensor([0, 0, 1, 1]), 2)
    settings = TrainConfig(tokens=1, epochs=3, batch_size=2)
    return learn_names(run, "cnr_pbl", model, corpus, weight, settings, 0, IDENTITY)


def test_a_state_and_class_embeddings_in_each_others_place_are_refused(tmp_path, tiny_clip):
    learn(tmp_path, tiny_clip)
    state, embeddings = tmp_path / "cnr_pbl" / "state.safetensors", write_run(tmp_path) / checkpoint.EMBEDDINGS
    epoch = checkpoint.epoch_file(tmp_path, "cnr_pbl", 0)
    for given, place, read in (
        (state, embeddings, lambda: checkpoint.read_run(tmp_path)),
        (epoch, embeddings, lambda: checkpoint.read_run(tmp_path)),
        (embeddings, state, lambda: learn(tmp_path, tiny_clip)),
        (epoch, state, lambda: learn(tmp_path, tiny_clip)),
        (embeddings, epoch, lambda: checkpoint.read_epochs(tmp_path, "cnr_pbl", (2, 3))),
    ):
        before = place.read_bytes()
        shutil.copy(given, place)
        with pytest.raises(ValueError, match=f"{place.name} is damaged, or no such file"):
            read()
        place.write_bytes(before)


def test_learning_that_diverges_stops_with_the_epoch_and_the_step_and_what_to_lower(tmp_path, tiny_clip):
    with pytest.raises(
        ValueError, match=r"learning diverged: in step 1 of epoch 0 the loss is inf; lower train\.learning_rate"
    ):
        learn(tmp_path, tiny_clip, 1e38)
    assert not list(tmp_path.iterdir())


def test_learning_that_diverges_keeps_the_last_good_state(tmp_path, tiny_clip, monkeypatch):
    loss = optimise.total_loss
    calls = []

    def diverging(*arguments):
        calls.append(arguments)
        return loss(*arguments) * (float("nan") if len(calls) == 5 else 1)  # in the first step of epoch 2

    with monkeypatch.context() as patch:
        patch.setattr(optimise, "total_loss", diverging)
        with pytest.raises(ValueError, match=r"in step 1 of epoch 2 the loss is nan; .* \(the last whole epoch is kept\)"):
            learn(tmp_path / "diverged", tiny_clip)
    _, state = checkpoint.read(tmp_path / "diverged" / "cnr_pbl" / "state.safetensors", checkpoint.State)
    assert len(state["losses"]) == 2
    continued, whole = learn(tmp_path / "diverged", tiny_clip)[0], learn(tmp_path / "whole", tiny_clip)[0]
    assert torch.equal(continued, whole)
