"""The two losses and the mean loss of a step, against their sums written out."""

from itertools import combinations

import pytest
import torch
from torch.nn import functional as F

from rcnn.learn import losses
from rcnn.text.corpus import EncodedCorpus


def unit(seed, *shape):
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


def double_sum(z):
    return sum(1 + float(z[c] @ z[d]) for c in range(len(z)) for d in range(len(z)) if c != d)


@pytest.mark.parametrize("classes", [1, 2, 9])
def test_pair_loss_is_the_double_sum_over_different_classes(classes):
    z = unit(classes, classes, 6)
    assert losses.pair_loss(z).item() == pytest.approx(double_sum(z), abs=1e-12)


def test_pair_loss_is_the_double_sum_for_vectors_of_any_length_too():
    z = 3 * torch.rand(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert losses.pair_loss(z).item() == pytest.approx(double_sum(z), rel=1e-12)


def test_pair_loss_of_opposite_classes_is_zero():
    assert losses.pair_loss(torch.tensor([[0.6, 0.8], [-0.6, -0.8]])).item() == pytest.approx(0, abs=1e-6)


def test_gradient_of_pair_loss_is_that_of_the_double_sum():
    z = unit(3, 5, 4).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.pair_loss(z), z)
    expected = torch.stack([2 * (z.sum(0) - row) for row in z])
    torch.testing.assert_close(gradient, expected)


def test_reconstruction_loss_is_the_sum_of_squared_distances():
    z, t, targets = unit(1, 3, 5), unit(2, 4, 5), torch.tensor([2, 0, 2, 1])
    expected = sum((float(z[c, d]) - float(t[i, d])) ** 2 for i, c in enumerate(targets.tolist()) for d in range(5))
    assert losses.reconstruction_loss(z, t, targets).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.7])
def test_expected_loss_is_the_mean_over_all_possible_batches(weight):
    z, t, targets = unit(4, 3, 6), unit(5, 7, 6), torch.tensor([0, 0, 1, 2, 2, 2, 1])
    batches = [torch.tensor(rows) for rows in combinations(range(7), 3)]
    steps = [losses.reconstruction_loss(z, t[b], targets[b]) + weight * losses.pair_loss(z) for b in batches]
    sums = losses.class_sums(EncodedCorpus(t, targets, 3), batch_size=3)
    assert losses.expected_loss(z, sums, weight, 3).item() == pytest.approx(torch.stack(steps).mean().item(), rel=1e-12)


def test_expected_loss_scales_the_loss_of_the_whole_corpus_to_a_batch():
    z, t, targets = unit(6, 4, 8), unit(7, 50, 8), torch.arange(50) % 4
    whole = losses.reconstruction_loss(z, t, targets) * 10 / 50 + 0.2 * losses.pair_loss(z)
    sums = losses.class_sums(EncodedCorpus(t, targets, 4), batch_size=10)
    assert losses.expected_loss(z, sums, 0.2, 10).item() == pytest.approx(whole.item(), rel=1e-12)


def test_class_sums_are_each_classs_sum_times_the_share_of_a_batch():
    t, targets = unit(8, 6, 3).float(), torch.tensor([1, 1, 3, 0, 1, 3])
    sums = losses.class_sums(EncodedCorpus(t, targets, 4), batch_size=2)
    for c in range(4):
        own = [t[i].double() for i in range(6) if targets[i] == c]
        torch.testing.assert_close(sums[c], sum(own, torch.zeros(3, dtype=torch.float64)) * 2 / 6)
    assert sums.dtype == torch.float64


def test_the_gradient_of_the_reconstruction_loss_is_the_same_to_the_bit_every_time():
    generator = torch.Generator().manual_seed(0)
    z, t = (F.normalize(torch.randn(n, 128, generator=generator), dim=1) for n in (84, 2048))
    targets = torch.randint(84, (2048,), generator=generator)
    gradients = []
    for _ in range(20):
        w = z.clone().requires_grad_()
        losses.reconstruction_loss(w, t, targets).backward()
        gradients.append(w.grad)
    assert all(torch.equal(gradients[0], g) for g in gradients)


def test_the_automatic_pair_weight_is_cocos_and_keeps_its_share_of_a_step():
    assert losses.pair_weight(65, 512) == pytest.approx(0.2)
    assert losses.pair_weight(1006, 512) * 1006**2 / 512 == pytest.approx(0.2 * 65**2 / 512)
    assert losses.pair_weight(65, 256) == pytest.approx(0.1)


def test_the_total_loss_is_reconstruction_and_weighted_pairs():
    z, t, targets = unit(10, 4, 8), unit(11, 9, 8), torch.arange(9) % 4
    parts = losses.reconstruction_loss(z, t, targets), losses.pair_loss(z)
    assert losses.total_loss(z, t, targets, 0.3).item() == pytest.approx((parts[0] + 0.3 * parts[1]).item())
