"""Average precision and top-k metrics, against scikit-learn and against plain loops."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from rcnn.results.metrics import average_precision, precision_recall_f1, top_k_hits


def case(seed, images=40, classes=7, values=(-1, 1)):
    """Scores without ties, and labels with at least one positive and one negative per class."""
    rng = np.random.default_rng(seed)
    scores = np.stack([rng.permutation(images) for _ in range(classes)], 1) / images - 0.5
    labels = rng.choice(values, (images, classes))
    labels[0], labels[1] = 1, -1
    return torch.tensor(scores, dtype=torch.float32), torch.tensor(labels)


@st.composite
def small_cases(draw, distinct=True):
    images, classes = draw(st.integers(1, 9)), draw(st.integers(1, 4))
    columns = [draw(st.permutations(range(images))) for _ in range(classes)]
    if not distinct:
        columns = [[value // 2 for value in column] for column in columns]
    row = st.lists(st.sampled_from([-1, 0, 1]), min_size=images, max_size=images)
    labels = [draw(row) for _ in range(classes)]
    return torch.tensor(columns, dtype=torch.float64).T, torch.tensor(labels, dtype=torch.int8).T


@pytest.mark.parametrize("seed", range(3))
def test_ap_equals_scikit_learn_when_all_labels_are_known(seed):
    scores, labels = case(seed)
    expected = [average_precision_score(labels[:, c] == 1, scores[:, c]) for c in range(labels.shape[1])]
    np.testing.assert_allclose(average_precision(scores, labels), expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_ap_equals_scikit_learn_on_the_images_with_known_labels(seed):
    scores, labels = case(seed, values=(-1, 0, 0, 1))
    known = labels != 0
    expected = [average_precision_score(labels[k, c] == 1, scores[k, c]) for c, k in enumerate(known.T)]
    np.testing.assert_allclose(average_precision(scores, labels), expected, atol=1e-6)


def test_ap_with_whole_weights_equals_scikit_learn_with_sample_weights():
    scores, labels = case(5, values=(-1, 0, 1))
    weights = torch.from_numpy(np.random.default_rng(5).integers(0, 4, (6, len(scores)))).double()
    weights[:, 0] = 1  # the positive that every class has
    expected = [
        [average_precision_score(labels[k, c] == 1, scores[k, c], sample_weight=w[k]) for c, k in enumerate((labels != 0).T)]
        for w in weights
    ]
    np.testing.assert_allclose(average_precision(scores, labels, weights), expected, atol=1e-9)


def test_ap_with_weights_of_one_equals_ap_without_weights():
    scores, labels = case(6, values=(-1, 0, 1))
    weighted = average_precision(scores, labels, torch.ones(2, len(scores)))
    assert weighted.shape == (2, scores.shape[1])
    np.testing.assert_allclose(weighted, average_precision(scores, labels).expand(2, -1), atol=1e-6)


def test_ap_with_a_weight_of_zero_equals_ap_without_that_image():
    scores, labels = case(7)
    weights = torch.ones(1, len(scores))
    weights[0, 3:9] = 0
    kept = weights[0] == 1
    np.testing.assert_allclose(
        average_precision(scores, labels, weights)[0], average_precision(scores[kept], labels[kept]), atol=1e-6
    )


def test_ap_of_a_class_without_positives_is_zero():
    scores, labels = case(8)
    labels[:, 2], labels[:, 4] = -1, 0
    ap, weighted = average_precision(scores, labels), average_precision(scores, labels, torch.ones(1, len(scores)))[0]
    for values in (ap, weighted):
        assert values[2] == values[4] == 0
        assert (values[[0, 1, 3, 5, 6]] > 0).all()


def test_ap_of_a_hand_computed_ranking():
    scores = torch.tensor([[0.9], [0.8], [0.7], [0.6], [0.5]])
    labels = torch.tensor([[1], [-1], [0], [1], [1]])  # ranks 1, 3 and 4 of the four known images
    np.testing.assert_allclose(average_precision(scores, labels), [(1 / 1 + 2 / 3 + 3 / 4) / 3], atol=1e-7)


def test_tied_images_share_the_rank_of_the_last_of_them():
    for labels in ([1, -1, -1, -1], [-1, -1, -1, 1]):
        np.testing.assert_allclose(average_precision(torch.zeros(4, 1), torch.tensor(labels)[:, None]), [0.25])


@pytest.mark.parametrize("seed", range(3))
def test_ap_with_ties_equals_scikit_learn_with_and_without_weights(seed):
    scores, labels = case(seed)
    scores = (scores * 5).round()
    expected = [average_precision_score(labels[:, c] == 1, scores[:, c]) for c in range(labels.shape[1])]
    np.testing.assert_allclose(average_precision(scores, labels), expected, atol=1e-6)
    weights = torch.from_numpy(np.random.default_rng(seed).integers(0, 4, (3, len(scores)))).double()
    weights[:, 0] = 1
    expected = [
        [average_precision_score(labels[:, c] == 1, scores[:, c], sample_weight=w) for c in range(labels.shape[1])]
        for w in weights
    ]
    np.testing.assert_allclose(average_precision(scores, labels, weights), expected, atol=1e-9)


def test_classes_tied_for_the_last_places_share_them():
    scores, labels = torch.tensor([[3.0, 1.0, 1.0, 1.0, 0.0]]), torch.tensor([[1, 1, -1, -1, 1]])
    assert top_k_hits(scores, labels, 2)[0].tolist() == pytest.approx([1 + 1 / 3])
    assert top_k_hits(scores, labels, 3)[0].tolist() == pytest.approx([1 + 2 / 3])
    assert top_k_hits(scores, labels, 4)[0].tolist() == [2]
    assert [top_k_hits(scores, labels, k)[2].item() for k in (1, 2, 3, 4, 5)] == [False, True, True, False, False]


def test_a_tie_among_classes_of_one_label_decides_nothing():
    scores = torch.tensor([[1.0, 1.0, 0.0]])
    assert not top_k_hits(scores, torch.tensor([[1, 1, -1]]), 1)[2].item()
    assert not top_k_hits(scores, torch.tensor([[-1, 0, 1]]), 1)[2].item()


@given(small_cases(distinct=False), st.integers(1, 4), st.randoms(use_true_random=False))
def test_no_metric_depends_on_the_order_of_images_or_classes_even_with_ties(drawn, k, random):
    scores, labels = drawn
    k = min(k, scores.shape[1])
    images, classes = (random.sample(range(n), n) for n in scores.shape)
    mixed = scores[images][:, classes], labels[images][:, classes]
    np.testing.assert_allclose(average_precision(*mixed), average_precision(scores, labels)[classes], atol=1e-7)
    for ours, other in zip(top_k_hits(*mixed, k), top_k_hits(scores, labels, k), strict=True):
        np.testing.assert_allclose(ours, other[images], atol=1e-12)


@given(small_cases(distinct=False))
def test_ap_does_not_change_under_increasing_transforms_of_the_scores(drawn):
    scores, labels = drawn
    expected = average_precision(scores, labels)
    for transform in (lambda s: s**3, lambda s: 2 * s - 100, torch.exp):
        assert torch.equal(average_precision(transform(scores), labels), expected)


@given(small_cases(), st.randoms(use_true_random=False))
def test_ap_does_not_depend_on_the_order_of_images_without_ties(drawn, random):
    scores, labels = drawn
    order = random.sample(range(len(scores)), len(scores))
    assert torch.equal(average_precision(scores[order], labels[order]), average_precision(scores, labels))


@given(small_cases(distinct=False), st.integers(1, 4), st.randoms(use_true_random=False))
def test_all_metrics_lie_between_zero_and_one(drawn, k, random):
    scores, labels = drawn
    k = min(k, scores.shape[1])
    weights = torch.tensor([[random.randint(0, 3) for _ in scores] for _ in range(3)], dtype=torch.float64)
    counts = top_k_hits(scores, labels, k)[:2]
    for values in (
        average_precision(scores, labels),
        average_precision(scores, labels, weights),
        precision_recall_f1(*counts, k),
        precision_recall_f1(*counts, k, weights),
    ):
        assert ((values >= 0) & (values <= 1 + 1e-12)).all()


@given(small_cases(distinct=False))
def test_no_metric_changes_its_input(drawn):
    scores, labels = drawn
    weights = torch.ones(2, len(scores), dtype=torch.float64)
    before = scores.clone(), labels.clone()
    average_precision(scores, labels)
    average_precision(scores, labels, weights)
    counts = top_k_hits(scores, labels, 1)[:2]
    kept = counts[0].clone(), counts[1].clone()
    precision_recall_f1(*counts, 1, weights)
    assert torch.equal(scores, before[0])
    assert torch.equal(labels, before[1])
    assert torch.equal(weights, torch.ones_like(weights))
    assert torch.equal(counts[0], kept[0])
    assert torch.equal(counts[1], kept[1])


def micro(scores, labels, k, weights):
    """Precision, recall, F1 by loops over images and classes."""
    hits = predicted = positives = 0.0
    for row, truth, weight in zip(scores.tolist(), labels.tolist(), weights, strict=True):
        best = sorted(range(len(row)), key=lambda c: -row[c])[:k]
        hits += weight * sum(truth[c] == 1 for c in best)
        predicted += weight * k
        positives += weight * sum(v == 1 for v in truth)
    precision, recall = hits / predicted, hits / positives
    return [precision, recall, 2 * precision * recall / (precision + recall)]


@pytest.mark.parametrize("k", [1, 3, 7])
def test_precision_recall_f1_equal_loops_over_images(k):
    rng = np.random.default_rng(k)
    scores = torch.from_numpy(np.stack([rng.permutation(7) for _ in range(30)])).float()
    labels = torch.from_numpy(rng.choice([-1, 0, 1], (30, 7)))
    counts = top_k_hits(scores, labels, k)[:2]
    np.testing.assert_allclose(precision_recall_f1(*counts, k), micro(scores, labels, k, [1] * 30), atol=1e-12)
    weights = rng.integers(0, 4, (4, 30))
    np.testing.assert_allclose(
        precision_recall_f1(*counts, k, torch.from_numpy(weights).double()),
        [micro(scores, labels, k, w.tolist()) for w in weights],
        atol=1e-12,
    )


def test_precision_recall_f1_are_zero_and_finite_without_hits_or_positives():
    scores, labels = torch.rand(4, 3), -torch.ones(4, 3)
    assert precision_recall_f1(*top_k_hits(scores, labels, 2)[:2], 2).tolist() == [0, 0, 0]


def test_top_k_hits_are_counted_per_image():
    scores = torch.tensor([[0.3, 0.2, 0.1], [0.1, 0.2, 0.3]])
    labels = torch.tensor([[1, -1, 1], [1, 0, 1]])
    hits, positives, _ = top_k_hits(scores, labels, 2)
    assert hits.tolist() == [1, 1]
    assert positives.tolist() == [2, 2]


@pytest.mark.parametrize(("scores", "labels"), [((4, 3), (4, 2)), ((4, 3), (3, 4)), ((4,), (4,)), ((2, 4, 3), (2, 4, 3))])
def test_scores_and_labels_of_wrong_shapes_are_refused(scores, labels):
    scores, labels = torch.zeros(scores), torch.ones(labels)
    with pytest.raises(ValueError, match="one shape"):
        average_precision(scores, labels)
    with pytest.raises(ValueError, match="one shape"):
        top_k_hits(scores, labels, 1)[:2]


@pytest.mark.parametrize("k", [0, -1, 4])
def test_k_outside_the_number_of_classes_is_refused(k):
    with pytest.raises(ValueError, match=f"expected 1 to 3.*got {k}"):
        top_k_hits(torch.zeros(2, 3), torch.ones(2, 3), k)
