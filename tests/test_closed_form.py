"""The closed form reaches what other ways of minimising the expected loss reach, and its certificate holds."""

import math

import pytest
import torch
from torch.nn import functional as F

from rcnn.learn.closed_form import minimise
from rcnn.learn.losses import class_sums
from rcnn.text.corpus import EncodedCorpus


def sums(seed, classes=12, dimensions=16, sentences=90):
    """a_c of sentences that all lie in one cone, as text features do."""
    g = torch.Generator().manual_seed(seed)
    targets = torch.cat([torch.arange(classes), torch.randint(classes, (sentences - classes,), generator=g)])
    centres = torch.randn(1, dimensions, generator=g) + 0.7 * torch.randn(classes, dimensions, generator=g)
    t = F.normalize(centres[targets] + 0.5 * torch.randn(sentences, dimensions, generator=g), dim=1)
    return class_sums(EncodedCorpus(t, targets, classes), batch_size=32)


def objective(z, a, weight):
    """−2 Σ_c a_c·z_c + λ ‖Σ_c z_c‖²."""
    z = z.double()
    return float(-2 * (a * z).sum() + weight * z.sum(0).square().sum())


def sweep(a, weight, sweeps=3000):
    """Block-coordinate descent: each class in turn to its best place given the others."""
    z = F.normalize(a, dim=1)
    total = z.sum(0)
    for _ in range(sweeps):
        before = z.clone()
        for c in range(len(a)):
            total = total - z[c]
            z[c] = F.normalize(a[c] - weight * total, dim=0)
            total = total + z[c]
        if (z - before).abs().max() < 1e-12:
            break
    return z


@pytest.mark.parametrize("weight", [0.0, 0.01, 0.2, 0.5])
def test_the_optimum_is_certified_and_made_of_unit_vectors(weight):
    a = sums(0)
    best = minimise(a, weight)
    assert 0 <= best.gap <= 1e-8 * a.norm(dim=1).sum()
    torch.testing.assert_close(best.class_embeddings.norm(dim=1), torch.ones(len(a)))
    assert best.class_embeddings.dtype == torch.float32


def test_weight_zero_gives_the_normalised_mean_of_each_classs_sentences():
    a = sums(1)
    expected = a / a.square().sum(1, keepdim=True).sqrt()
    torch.testing.assert_close(minimise(a, 0.0).class_embeddings, expected.float())


@pytest.mark.parametrize("weight", [0.05, 0.3])
def test_no_random_unit_vectors_are_better(weight):
    a = sums(2)
    best = minimise(a, weight)
    reached, g = objective(best.class_embeddings, a, weight), torch.Generator().manual_seed(2)
    for spread in (1.0, 0.1, 0.01, 0.001):
        for _ in range(20):
            other = best.class_embeddings + spread * torch.randn(a.shape, generator=g)
            assert objective(F.normalize(other, dim=1), a, weight) > reached - best.gap - 1e-6


@pytest.mark.parametrize("weight", [0.01, 0.1, 0.5])
@pytest.mark.parametrize("seed", [3, 4])
def test_sweeps_over_the_classes_converge_to_the_same_objective(seed, weight):
    a = sums(seed)
    expected = objective(sweep(a, weight), a, weight)
    assert objective(minimise(a, weight).class_embeddings, a, weight) == pytest.approx(expected, rel=1e-6)


def test_gradient_descent_is_not_better_and_comes_close():
    a, weight = sums(5), 0.2
    best = minimise(a, weight)
    x = torch.randn(a.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64).requires_grad_()
    optimiser = torch.optim.Adam([x], lr=0.05)
    for _ in range(800):
        z = F.normalize(x, dim=1)
        loss = -2 * (a * z).sum() + weight * z.sum(0).square().sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    descended, reached = loss.item(), objective(best.class_embeddings, a, weight)
    assert reached <= descended + best.gap + 1e-6
    assert descended == pytest.approx(reached, rel=1e-3)


@pytest.mark.parametrize("weight", [0.1, 1.0, 30.0])
def test_the_gap_holds_against_a_search_over_all_angles(weight):
    a = torch.tensor([[2.0, 0.1], [0.3, 0.4]], dtype=torch.float64)
    angles = torch.linspace(0, 2 * math.pi, 2001, dtype=torch.float64)
    circle = torch.stack([angles.cos(), angles.sin()], 1)
    alone = -2 * circle @ a.T  # (angles, classes)
    together = 2 + 2 * circle @ circle.T  # ‖z_1 + z_2‖²
    lowest = float((alone[:, :1] + alone[:, 1] + weight * together).min())
    best = minimise(a, weight)
    reached = objective(best.class_embeddings, a, weight)
    assert reached - best.gap <= lowest + 1e-6
    assert lowest <= reached + 1e-3 * weight  # the grid's step allows this much


def test_as_many_classes_as_open_images_are_certified():
    g = torch.Generator().manual_seed(6)
    a = (F.normalize(torch.randn(1, 512, generator=g) + torch.randn(7586, 512, generator=g), dim=1) * 0.07).double()
    best = minimise(a, 1e-4)
    assert best.gap <= 1e-8 * a.norm(dim=1).sum()
    assert objective(best.class_embeddings, a, 1e-4) < objective(F.normalize(a, dim=1), a, 1e-4)


def test_the_input_is_left_alone():
    a = sums(7)
    before = a.clone()
    minimise(a, 0.3)
    assert torch.equal(a, before)


def test_a_class_without_sentences_is_refused_with_the_count():
    a = sums(8)
    a[[2, 5]] = 0
    with pytest.raises(ValueError, match="none for 2 of 12"):
        minimise(a, 0.2)
