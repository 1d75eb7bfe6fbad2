"""Unknown labels, classes without positives, intervals and standardised scores, against recomputations of our own."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made_up import made_up
from sklearn.metrics import average_precision_score

from rcnn.config import EvaluateConfig
from rcnn.results import measure, measuring, metrics, table
from rcnn.results.result import STANDARDISED, TaskClasses
from rcnn.score import standardised
from rcnn.score.score_file import Mean
from rcnn.score.standardised import Standardised

UNKNOWN, WITHOUT = ("always", "with_negatives"), ("zero", "excluded")
few = settings(max_examples=40)


@st.composite
def tasks(draw):
    """Scores without ties within an image, labels of which many are unknown, images in use, the first column of the task."""
    images, classes = draw(st.integers(2, 12)), draw(st.integers(2, 6))
    seed = draw(st.integers(0, 2**32 - 1))
    scores = np.stack([np.random.default_rng([seed, i]).permutation(classes) for i in range(images)]).astype(np.float32)
    labels = draw(arrays(np.int8, (images, classes), elements=st.sampled_from([0, 0, -1, 1])))
    labels *= draw(arrays(np.int8, classes, elements=st.sampled_from([0, 1, 1, 1])))  # classes without any known label
    used = draw(arrays(np.bool_, images))
    first = draw(st.integers(0, classes - 2))
    assume((labels[used, first:] == 1).any())
    return SimpleNamespace(scores=scores, labels=labels, used=used, first=first)


def of_measure(task, top_k=(), weights=None, **settings):
    labels, used, settings = torch.from_numpy(task.labels), torch.from_numpy(task.used), EvaluateConfig(**settings)
    as_absent = measure.positive_or_unknown(labels, task.first, used) if settings.unknown == "with_negatives" else None
    return measure.measure(task.scores, labels, task.first, used, top_k, weights, settings, as_absent)


def class_ap(scores, labels, unknown, without):
    """AP of every class by scikit-learn; None where it is in no mean."""
    out = []
    for s, y in zip(scores.T, labels.T, strict=True):
        ranked = y != 0 if unknown == "always" or -1 in y else np.full(len(y), True)
        if not y.any() or (1 not in y and without == "excluded"):
            out.append(None)
        else:
            out.append(average_precision_score(y[ranked] == 1, s[ranked]) if 1 in y else 0)
    return out


@pytest.mark.parametrize(("unknown", "without"), list(itertools.product(UNKNOWN, WITHOUT)))
@few
@given(task=tasks())
def test_average_precision_with_unknown_labels_equals_scikit_learn_under_every_setting(unknown, without, task):
    found = of_measure(task, unknown=unknown, classes_without_positives=without)
    expected = class_ap(task.scores[task.used, task.first :], task.labels[task.used, task.first :], unknown, without)
    np.testing.assert_allclose(found.class_ap, [np.nan if ap is None else ap for ap in expected], atol=1e-6)
    assert found.values["mAP"] == pytest.approx(100 * np.mean([ap for ap in expected if ap is not None]), rel=1e-5)


@few
@given(task=tasks(), k=st.integers(1, 2), unknown=st.sampled_from(UNKNOWN))
def test_precision_recall_f1_with_unknown_labels_equal_numpy_and_unknown_is_no_hit(task, k, unknown):
    found = of_measure(task, (k,), unknown=unknown).values
    s, y = task.scores[task.used, task.first :], task.labels[task.used, task.first :]
    best = np.argsort(-s, axis=1)[:, :k]
    hits = (np.take_along_axis(y, best, 1) == 1).sum()
    precision, recall = hits / best.size, hits / (y == 1).sum()
    expected = [precision, recall, 2 * precision * recall / (precision + recall) if hits else 0]
    assert [found[f"{name}@{k}"] for name in ("P", "R", "F1")] == pytest.approx([100 * value for value in expected])


@few
@given(task=tasks())
def test_without_unknown_labels_and_with_positives_no_setting_changes_a_bit(task):
    task.labels[task.labels == 0] = -1
    task.labels[np.flatnonzero(task.used)[0]] = 1
    found = [of_measure(task, unknown=u, classes_without_positives=w) for u, w in itertools.product(UNKNOWN, WITHOUT)]
    plain = metrics.average_precision(*(torch.from_numpy(a[task.used, task.first :]) for a in (task.scores, task.labels)))
    for other in found:
        assert torch.equal(other.class_ap, plain)
        assert other.values["mAP"] == 100 * plain.mean().item()


@few
@given(task=tasks())
def test_classes_are_counted_by_the_labels_of_the_images_in_use(task):
    y = task.labels[task.used, task.first :]
    found = measure.count_classes(torch.from_numpy(task.labels), task.first, torch.from_numpy(task.used))
    ap = {(u, w): class_ap(np.zeros(y.shape), y, u, w) for u, w in itertools.product(UNKNOWN, WITHOUT)}
    assert found.scored == y.shape[1]
    assert found.known == sum(value is not None for value in ap["always", "zero"])
    assert found.positive == sum(value is not None for value in ap["always", "excluded"])
    # all scores are equal, so a class ranked against more images that do not show it has another AP
    assert found.positive_or_unknown == sum(
        a != b for a, b in zip(ap["always", "zero"], ap["with_negatives", "zero"], strict=True)
    )


def direct(scores, labels, weights):
    """Weighted AP by one cumulative sum over all images, the plain formula: (R, C)."""
    columns = []
    for s, y in zip(scores.T, labels.T, strict=True):
        order = s.argsort(descending=True, stable=True)
        order = order[y[order] != 0]
        _, tie, sizes = torch.unique_consecutive(s[order], return_inverse=True, return_counts=True)
        weight, last = weights.T[order], (sizes.cumsum(0) - 1)[tie]
        own = weight * (y[order] == 1)[:, None]
        terms = own * own.cumsum(0)[last] / weight.cumsum(0)[last].clamp(min=1e-12)
        columns.append(terms.sum(0) / own.sum(0).clamp(min=1e-12))
    return torch.stack(columns, 1)


@pytest.mark.parametrize("shares", [(0.1, 0.9, 0.0), (0.02, 0.03, 0.95), (0.9, 0.1, 0.0)], ids=["dense", "sparse", "frequent"])
@pytest.mark.parametrize("digits", [0, 1, 6], ids=["many ties", "ties", "no ties"])
@pytest.mark.parametrize("unknown", UNKNOWN)
def test_resampled_average_precision_is_that_of_the_plain_formula(shares, digits, unknown):
    rng = np.random.default_rng(digits)
    scores = rng.normal(size=(300, 9)).astype(np.float32).round(digits)
    labels = rng.choice(np.array([1, -1, 0], np.int8), (300, 9), p=shares)
    labels[:, 3] = np.abs(labels[:, 3])  # no absent label
    labels[0, :3], labels[0, 4:], labels[:, 8] = 1, 1, -1
    weights = measure.image_weights(300, 70, [1, 2])
    task = SimpleNamespace(scores=scores, labels=labels, used=np.full(300, True), first=0)
    found = of_measure(task, weights=weights, unknown=unknown)
    y = torch.from_numpy(labels)
    if unknown == "with_negatives":
        y = torch.where((y == 0) & ~(y == -1).any(0), -1, y)
    expected = 100 * direct(torch.from_numpy(scores), y, weights.double()).mean(1)
    torch.testing.assert_close(found.resampled["mAP"], expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize(("images", "resamples"), [(1, 3), (50, 5), (40, 2 * metrics.RESAMPLES + 7)])
def test_weights_are_those_of_one_multinomial_draw_and_stored_image_by_image(images, resamples):
    found = measure.image_weights(images, resamples, [3, 4])
    expected = np.random.default_rng([3, 4]).multinomial(images, np.full(images, 1 / images), resamples)
    assert torch.equal(found, torch.from_numpy(expected).float())
    assert found.T.is_contiguous()
    assert measure.image_weights(images, 0, [3, 4]) is None


@pytest.fixture(params=["table", "mean of two"])
def scored(request, monkeypatch):
    """Scores with images and classes on scales of their own, of which a block holds a few images."""
    monkeypatch.setattr(standardised, "VALUES", 50)
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(60, 11)) * rng.uniform(0.5, 3, (60, 1)) + rng.normal(size=(60, 1)) + rng.normal(size=11)
    scores, used = scores.astype(np.float32), rng.random(60) < 0.7
    labels = rng.choice(np.array([1, -1, 0], np.int8), (60, 11))
    given = scores if request.param == "table" else Mean(scores - 1, scores + 1)
    return SimpleNamespace(given=given, scores=np.array(given[:, :]), used=used, labels=labels)


@pytest.mark.parametrize("first", [0, 4])
def test_standardised_scores_equal_a_direct_computation_however_they_are_sliced(scored, first):
    z = scored.scores[:, first:].astype(np.float64)
    z = (z - z.mean(1, keepdims=True)) / z.std(1, ddof=1, keepdims=True)
    expected = (z - z[scored.used].mean(0)) / z[scored.used].std(0, ddof=1)
    found = Standardised(scored.given, first, scored.used)
    np.testing.assert_allclose(found[:, first:], expected, atol=1e-9)
    np.testing.assert_allclose(found[:, first + 2 : first + 5], expected[:, 2:5], atol=1e-9)
    np.testing.assert_allclose(found[7:30, first:], expected[7:30], atol=1e-9)
    np.testing.assert_allclose(found[:, first:][scored.used].mean(0), 0, atol=1e-9)


@pytest.mark.parametrize("first", [0, 4])
def test_average_precision_feels_the_first_step_of_standardising_alone_and_top_k_the_second(scored, first):
    z = scored.scores[:, first:].astype(np.float64)
    by_image = np.concatenate([scored.scores[:, :first], (z - z.mean(1, keepdims=True)) / z.std(1, ddof=1, keepdims=True)], 1)
    twice, once, never = (
        of_measure(SimpleNamespace(scores=s, labels=scored.labels, used=scored.used, first=first), (3,))
        for s in (Standardised(scored.given, first, scored.used), by_image, scored.scores)
    )
    torch.testing.assert_close(twice.class_ap, once.class_ap)
    assert not torch.allclose(twice.class_ap, never.class_ap, atol=1e-3)
    assert once.values["F1@3"] == pytest.approx(never.values["F1@3"])
    assert abs(twice.values["F1@3"] - once.values["F1@3"]) > 0.1


def test_standardised_scores_are_finite_where_nothing_varies():
    scores = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    scores[2] = 0.7  # an image whose scores are all the same
    one = np.array([False, True, False, False, False])
    for table_of, used in ((scores, np.full(5, True)), (scores, one), (np.full((5, 4), 0.3, np.float32), one)):
        for first in (0, 3):  # 3: a task of one class
            assert np.isfinite(Standardised(table_of, first, used)[:, first:]).all()


def test_standardised_rows_are_compared_with_the_class_name_on_the_same_resampled_images(scored):
    used = torch.from_numpy(scored.used)
    classes = SimpleNamespace(tasks={"zsl": 4, "gzsl": 0})
    tables = {("baseline", "mssa"): scored.given, ("mine", "mssa"): -scored.scores}
    settings = EvaluateConfig(top_k=[3], bootstrap=20)
    labels = torch.from_numpy(scored.labels)
    of = [
        measuring.Unit(row, lambda owner, table=table: {"total": table}, list(classes.tasks), row == ("mine", "mssa"))
        for row, table in tables.items()
    ]
    found = measuring.measure_all(of, labels, dict.fromkeys(classes.tasks, used), classes, settings, 0).rows
    key = ("mine" + STANDARDISED, "mssa")
    for task, first in classes.tasks.items():
        assert list(found[task]) == [*tables, key]
        alone = of_measure(
            SimpleNamespace(
                scores=Standardised(-scored.scores, first, scored.used), labels=scored.labels, used=scored.used, first=first
            ),
            (3,),
        )
        assert found[task][key].values == alone.values
        compared = measure.compare(found[task], key, "baseline")["F1@3"]
        assert compared.versus_baseline.value == compared.value - found[task]["baseline", "mssa"].values["F1@3"]
        low, high = compared.versus_baseline.interval
        assert low < high


def notes(*overrides, **classes):
    result = made_up("coco", *overrides)
    return table.protocol(result.model_copy(update={"classes": {"gzsl": TaskClasses(**classes)}}))


def test_nothing_is_said_of_classes_that_all_have_positives():
    assert notes(scored=9, known=9, positive=9, positive_or_unknown=0) == []


def test_classes_without_a_known_label_are_counted_in_the_notes():
    assert notes(scored=7586, known=5128, positive=5128, positive_or_unknown=0) == [
        "GZSL: 2,458 of 7,586 classes have no known label and are in no mean."
    ]


@pytest.mark.parametrize(
    ("unknown", "said"), [("always", "left out of their AP"), ("with_negatives", "ranked as absent, as in the authors' code")]
)
def test_classes_on_which_the_setting_of_unknown_labels_decides_are_counted_in_the_notes(unknown, said):
    assert notes(f"evaluate.unknown={unknown}", scored=9, known=9, positive=9, positive_or_unknown=4) == [
        "GZSL: 4 classes have positive and unknown labels and no absent ones; "
        f"the unknown are {said} (evaluate.unknown={unknown})."
    ]


@pytest.mark.parametrize(
    ("without", "other", "over", "factor"),
    [("zero", "count 0", "the 4 classes with a positive", 5 / 4), ("excluded", "are left out", "all 5 classes with", 4 / 5)],
)
def test_both_map_values_are_printed_where_classes_have_no_positive(without, other, over, factor):
    (said,) = notes(f"evaluate.classes_without_positives={without}", scored=9, known=5, positive=4, positive_or_unknown=0)[1:]
    value = made_up("coco").rows["cnr_pbl"]["mssa"]["gzsl"]["mAP"].value
    assert f"1 of 5 classes have no positive and {other} (evaluate.classes_without_positives={without}); " in said
    assert f"mAP over {over}" in said
    assert f"CNR + PBL (learned names) + MSSA {factor * value:.1f} (every mAP × {factor:.4f})." in said


@few
@given(task=tasks())
def test_the_printed_factor_turns_one_map_into_the_other(task):
    zero, excluded = (of_measure(task, classes_without_positives=w).values["mAP"] for w in WITHOUT)
    found = measure.count_classes(torch.from_numpy(task.labels), task.first, torch.from_numpy(task.used))
    assert zero * found.known / found.positive == pytest.approx(excluded, rel=1e-5)
