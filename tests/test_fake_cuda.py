"""Everything that runs on a GPU, on tensors that say they are on one and hold nothing: no driver is needed.

A tensor that was left on the CPU, or made there, is an error here as it would be on a GPU.
"""

import numpy as np
import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily

from rcnn import clip, config, tagger
from rcnn.clip.text_tower import grow
from rcnn.learn import losses
from rcnn.learn.prompt_learner import PromptLearner
from rcnn.score import mssa, tagclip
from rcnn.score.decoding import ViewBatch

CUDA = torch.device("cuda")
PRECISIONS = pytest.mark.parametrize("precision", [torch.float32, torch.float16, torch.bfloat16])


@pytest.fixture(autouse=True)
def fake():
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def without_contents(module):
    """The module with parameters and buffers of the same shapes and types that say they are on a GPU."""
    for part in module.modules():
        for name, p in list(part.named_parameters(recurse=False)):
            part.register_parameter(name, nn.Parameter(on_gpu(*p.shape, dtype=p.dtype), p.requires_grad))
        for name, buffer in list(part.named_buffers(recurse=False)):
            part.register_buffer(name, on_gpu(*buffer.shape, dtype=buffer.dtype))
    return module


@pytest.fixture
def load(state):
    """A function of the precision of the image tower: a Clip without contents on a GPU."""

    def load(precision=torch.float32):
        with unset_fake_temporarily():
            image, text = (tower.eval().requires_grad_(False) for tower in clip.build(state))
            image.set_precision(precision)
        return clip.Clip(*map(without_contents, (text, image)), "tiny16", "0" * 64, "1" * 64, clip.MEAN, clip.STD)

    return load


@pytest.fixture
def model(load):
    return load()


def on_gpu(*shape, **options):
    return torch.empty(shape, device=CUDA, **options)


def is_on_gpu(tensor, shape, dtype=torch.float32):
    return (tensor.device.type, tuple(tensor.shape), tensor.dtype) == ("cuda", shape, dtype)


def test_the_model_is_where_its_weights_are(model):
    assert model.device.type == "cuda"


@PRECISIONS
@pytest.mark.parametrize("last_blocks", [("qq",), ("qq", "vv", "qk+residual")])
def test_scoring_stays_on_the_gpu_and_is_float32_whatever_the_precision_of_the_tower(load, precision, last_blocks):
    model = load(precision)
    assert model.image.conv1.weight.dtype == precision
    pixels = on_gpu(3, 5, 224, 224, 3, dtype=torch.uint8)
    for features in model.encode_views_by(pixels, last_blocks).values():
        scores = mssa.score(features, on_gpu(7, 64), (2,), 0.05, maps=True)
        assert all(is_on_gpu(part, (3, 7)) for part in scores[:3])
        assert is_on_gpu(scores.maps, (3, 7, 14, 14))
    assert is_on_gpu(mssa.score(model.encode_views(pixels), on_gpu(7, 64), ()).total, (3, 7))


def test_sentences_are_encoded_on_the_gpu_and_their_features_brought_back(model):
    trees = grow(np.array([[8, 1, 2, 9], [8, 1, 9, 0], [8, 2, 9, 0]]), 5)
    assert len(trees) == 2
    assert is_on_gpu(model.text._encode(trees), (3, 64))


@PRECISIONS
def test_learning_stays_on_the_gpu_and_is_float32_whatever_the_precision_of_the_tower_as_far_as_the_loss(state, precision):
    """Its gradient needs a driver."""
    with unset_fake_temporarily():
        learner = PromptLearner(clip.build(state)[1].eval().requires_grad_(False).set_precision(precision), 6, 4)
    learner = without_contents(learner)
    learner.prefix = [tuple(on_gpu(*part.shape, dtype=part.dtype) for part in block) for block in learner.prefix]
    assert learner.text.transformer["resblocks"][0].mlp["c_fc"].weight.dtype == precision
    z = learner()
    assert is_on_gpu(z, (6, 64))
    assert is_on_gpu(losses.total_loss(z, on_gpu(8, 64), on_gpu(8, dtype=torch.int64), 0.2), ())


@PRECISIONS
@pytest.mark.parametrize("grids", [(), (2,), (2, 3)])
def test_tagging_stays_on_the_gpu_until_its_scores_are_done_and_these_are_float32(load, monkeypatch, grids, precision):
    model = load(precision)
    count, back = 1 + sum(n * n for n in grids), []
    batch = ViewBatch([0, 1, 2], on_gpu(3, count, 224, 224, 3, dtype=torch.uint8), {})
    monkeypatch.setattr(tagger, "batches", lambda *_, **__: [batch])
    monkeypatch.setattr(torch.Tensor, "isfinite", lambda x: np.ones(1, bool))  # of what holds nothing
    monkeypatch.setattr(torch.Tensor, "cpu", lambda x: back.append(x) or x)
    with unset_fake_temporarily():
        z = torch.eye(7, 64)
    settings = config.override({"evaluate": {"grids": list(grids)}}, [])
    list(tagger.Tagger(model, list("abcdefg"), z, "0" * 64, settings).stream([None] * 3))
    assert is_on_gpu(back[-1], (3, 7))


def test_tagclip_looks_on_the_gpu(model):
    image = on_gpu(3, 64, 96)
    seen = tagclip.look(model.image, image)
    assert is_on_gpu(seen.features, (25, 64))
    assert is_on_gpu(seen.attention, (24, 24))
    assert is_on_gpu(tagclip.class_token(model.image, on_gpu(2, 3, 224, 224), on_gpu(2, 196, dtype=torch.bool)), (2, 64))
    within, on = tagclip.cut(model.image, image, tagclip.Box(0, 0, 3, 2), on_gpu(4, 6, dtype=torch.bool))
    assert is_on_gpu(within, (3, 224, 224))
    assert is_on_gpu(on, (196,), torch.bool)
