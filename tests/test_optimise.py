"""The schedule, the batches and the loop of class-name learning."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from rcnn.config import TrainConfig
from rcnn.learn import optimise
from rcnn.learn.names import learn_names
from rcnn.learn.prompt_learner import PromptLearner
from rcnn.text.corpus import EncodedCorpus


def test_the_first_epoch_is_constant_and_then_a_cosine_begins():
    rates = optimise.learning_rates(30, 1e-4, 1e-5)
    assert rates[:2] == [1e-5, 1e-4]
    assert rates[29] == pytest.approx(1e-4 * 0.5 * (1 + math.cos(math.pi * 28 / 30)))
    assert all(a > b for a, b in itertools.pairwise(rates[1:]))


def test_an_epoch_visits_every_sentence_once_but_for_the_incomplete_batch():
    rows = optimise.batches(23, 5, seed=0, epoch=1)
    assert [len(r) for r in rows] == [5, 5, 5, 5]
    assert len(set(torch.cat(rows).tolist())) == 20


def test_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        return torch.cat(optimise.batches(50, 10, seed, epoch)).tolist()

    assert order(0, 1) == order(0, 1)
    assert order(0, 1) != order(0, 2) != order(1, 2)
    np.random.seed(1)
    assert order(0, 1) == order(0, 1)


def learner_and_sentences(text):
    generator = torch.Generator().manual_seed(3)
    learner = PromptLearner(text, 6, 4, generator)
    width = text.text_projection.shape[1]
    features = F.normalize(torch.randn(24, width, generator=generator), dim=1)
    return learner, EncodedCorpus(features, torch.arange(24) % 6, 6)


def settings(epochs):
    """Fast enough to see the loss fall."""
    return TrainConfig(epochs=epochs, learning_rate=1e-2, warmup_rate=1e-2, batch_size=12)


def test_learning_lowers_the_loss_and_touches_nothing_but_the_class_vectors(towers):
    learner, sentences = learner_and_sentences(towers[1])
    before = {k: v.clone() for k, v in towers[1].state_dict().items()}
    optimiser = optimise.new_optimiser(learner, 0.9, 5e-4)
    trace = [loss for _, loss in optimise.learn(learner, optimiser, sentences, 0.2, settings(6), seed=0)]
    assert trace[-1] < trace[0] - 0.2
    assert all(torch.equal(before[k], v) for k, v in towers[1].state_dict().items())


def test_learning_that_begins_later_goes_the_same_way(towers):
    ends = []
    for stops in ([4], [1, 4]):
        learner, sentences = learner_and_sentences(towers[1])
        optimiser, first = optimise.new_optimiser(learner, 0.9, 5e-4), 0
        for stop in stops:
            epochs = optimise.learn(learner, optimiser, sentences, 0.2, settings(4), seed=0, first=first)
            list(itertools.islice(epochs, stop - first))
            first = stop
        ends.append(learner.class_vectors.detach().clone())
    assert torch.equal(*ends)


def test_a_step_in_bfloat16_is_near_the_one_in_float32(towers):
    losses, vectors = [], []
    for text in (towers[1], copy.deepcopy(towers[1]).set_precision(torch.bfloat16)):
        learner, sentences = learner_and_sentences(text)
        assert learner().dtype == learner.class_vectors.dtype == torch.float32
        optimiser = optimise.new_optimiser(learner, 0.9, 5e-4)
        losses.append(optimise.step(learner, optimiser, sentences.features, sentences.targets, 0.2, 1e-2))
        assert optimiser.state[learner.class_vectors]["momentum_buffer"].dtype == torch.float32
        vectors.append(learner.class_vectors.detach())
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)
    assert losses[0] != losses[1]
    assert 0 < (vectors[0] - vectors[1]).norm() < 0.1 * vectors[0].norm()


def test_the_precision_that_is_set_is_that_of_the_tower_while_names_are_learned_and_of_nothing_else(tiny_clip, tmp_path):
    before, found = {k: v.clone() for k, v in tiny_clip.text.state_dict().items()}, {}
    for precision in ("float32", "bf16"):
        _, sentences = learner_and_sentences(tiny_clip.text)
        settings = TrainConfig(epochs=2, learning_rate=1e-2, warmup_rate=1e-2, batch_size=12, precision=precision)
        z, record, _ = learn_names(tmp_path / precision, "cnr", tiny_clip, sentences, 0.2, settings, 0, {})
        assert z.dtype == torch.float32
        found[precision] = torch.tensor(record["losses"])
    assert torch.allclose(*found.values(), rtol=2e-2)
    assert not torch.equal(*found.values())
    after = tiny_clip.text.state_dict()
    assert all(v.dtype == after[k].dtype and torch.equal(v, after[k]) for k, v in before.items())
