"""Cut-offs: without labels, fitted to checked photos, how good they are, and their file."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from rcnn.files import sealed, write_json
from rcnn.tagging import cutoffs
from rcnn.tagging.cutoffs import PRICES, STEPS, Cutoffs, Statistics, assess, best, fit, fitted, label_free

NAMES = ["dog", "cat", "boat", "tree", "house", "duck"]
ROUND = st.integers(-20, 20).map(lambda n: n / 8)  # many equal values, exact in float32
SEEDS = st.integers(0, 2**32 - 1)


def statistics_of(scores):
    statistics = Statistics(scores.shape[1])
    statistics.add(scores)
    return statistics


def collection(seed=0, photos=400, classes=6, separation=2.0):
    """Scores whose classes differ in mean and width, higher by `separation` deviations where the class is present."""
    rng = np.random.default_rng(seed)
    present = rng.random((photos, classes)) < np.linspace(0.3, 0.1, classes)
    z = rng.normal(size=(photos, classes)) + separation * present
    return (rng.uniform(0.1, 0.3, classes) + rng.uniform(0.01, 0.05, classes) * z).astype(np.float32), present


@pytest.fixture
def checked():
    scores, present = collection()
    return scores[:50], present[:50], statistics_of(scores)


@given(arrays.arrays(np.float32, (23, 3), elements=st.floats(-1, 1, width=32)), st.lists(st.integers(0, 9), max_size=6))
def test_statistics_of_batches_of_any_size_are_those_of_the_whole_collection(scores, sizes):
    statistics = Statistics(3)
    for batch in np.split(scores, np.minimum(np.cumsum(sizes, dtype=int), len(scores))):
        statistics.add(batch)
    assert statistics.count == 23
    np.testing.assert_allclose(statistics.mean, scores.mean(0, dtype=float), atol=1e-12)
    std = scores.std(0, dtype=float)
    np.testing.assert_allclose(statistics.std, np.where(std > 1e-6, std, 1), atol=1e-9)


def test_without_labels_a_photo_gets_five_tags_on_average_where_scores_are_normal():
    scores = np.random.default_rng(0).normal(0.2, 0.03, (2000, 100))
    tags = (scores >= label_free(statistics_of(scores))).sum(1)
    assert tags.mean() == pytest.approx(5, abs=0.2)
    assert tags.min() < 5 < tags.max()


@pytest.mark.parametrize("classes", [1, 3, 6])
def test_of_a_short_list_most_photos_lack_each_class_without_labels(classes):
    scores = np.random.default_rng(0).normal(0.2, 0.03, (2000, classes))
    assert (scores >= label_free(statistics_of(scores))).mean() == pytest.approx(0.16, abs=0.02)


def test_a_class_that_scores_all_photos_alike_is_given_to_none_without_labels():
    scores = np.full((50, 2), 0.25, np.float32)
    scores[:, 1] = np.linspace(0, 1, 50)
    tags = scores >= label_free(statistics_of(scores))
    assert not tags[:, 0].any()
    assert tags[:, 1].any()


@given(arrays.arrays(float, 9, elements=ROUND), arrays.arrays(bool, 9))
def test_a_class_alone_gets_at_each_price_the_cut_off_that_gains_most(z, present):
    def gain(cutoff, price):
        return STEPS * (present & (z >= cutoff)).sum() - price * (z >= cutoff).sum()

    for price, (cutoff,) in zip(PRICES, best(z[:, None], present[:, None]), strict=True):
        assert gain(cutoff, price) == max(gain(other, price) for other in [*z, np.inf])


def test_classes_that_separate_are_cut_between_present_and_absent():
    scores, present = collection(separation=30)
    thresholds, held_out = fit(scores[:50], present[:50], statistics_of(scores))
    assert (held_out == present[:50]).mean() > 0.99
    assert ((scores >= thresholds) == present).mean() > 0.99


def test_a_class_with_few_labels_stays_near_the_cut_off_of_all_and_one_with_many_goes_its_own_way():
    z = np.tile(np.linspace(-3, 3, 60)[:, None], (1, 20))  # in each class the same, and its mean 0
    present = np.repeat(z[:, :1] > 1.0, 20, axis=1)
    present[:, 18], present[:, 19] = z[:, 18] > 2.85, z[:, 19] > -1.0  # two positives, and forty
    deviations = fit(z, present, statistics_of(z))[0] / z.std(0)
    shared, few, many = deviations[0], deviations[18], deviations[19]
    assert shared == pytest.approx(1.0 / z[:, 0].std(), abs=0.1)
    assert 0.1 < (few - shared) / (2.85 / z[:, 0].std() - shared) < 0.5
    assert (shared - many) / (shared + 1.0 / z[:, 0].std()) > 0.85


def test_a_class_without_labels_gets_as_many_deviations_as_all_classes_together():
    scores, present = collection()
    statistics = statistics_of(scores)
    present[:50, 3] = False
    z = (fit(scores[:50], present[:50], statistics)[0] - statistics.mean) / statistics.std
    of_all = best(statistics.standardise(scores[:50]).reshape(-1, 1), present[:50].reshape(-1, 1))
    assert np.isclose(z[3], of_all).any()


def test_the_best_f1_of_held_out_photos_is_nearly_that_of_any_precision():
    scores, present = collection(photos=200)
    statistics = statistics_of(scores)

    def f1(precision=None):
        return assess(fit(scores, present, statistics, precision)[1], present, 0)["micro F1"][0]

    assert f1() > max(f1(precision) for precision in np.arange(0.2, 0.9, 0.05)) - 0.03


@settings(max_examples=20)
@given(SEEDS)
def test_stretching_or_moving_the_scores_of_a_class_moves_its_cut_off_alike(seed):
    scores, present = collection(seed, photos=40)
    scores = scores.astype(float)
    factor, step = np.array([1, 2, 4, 0.5, 8, 1]), np.arange(6.0)
    thresholds, held_out = fit(scores, present, statistics_of(scores))
    moved, same = fit(scores * factor + step, present, statistics_of(scores * factor + step))
    np.testing.assert_allclose(moved, thresholds * factor + step, rtol=1e-9)
    assert (same == held_out).all()


@settings(max_examples=20)
@given(SEEDS, st.floats(0.05, 0.8))
def test_a_wanted_precision_is_reached_on_photos_that_were_held_out(seed, precision):
    scores, present = collection(seed, photos=30, separation=4)
    _, held_out = fit(scores, present, statistics_of(scores), precision)
    assert held_out.any()
    assert (held_out & present).sum() / held_out.sum() >= precision


@settings(max_examples=20)
@given(SEEDS, st.floats(0.05, 0.8), st.floats(0.05, 0.8))
def test_a_higher_precision_never_lowers_a_cut_off(seed, one, other):
    scores, present = collection(seed, photos=30, separation=4)
    low, high = (fit(scores, present, statistics_of(scores), p) for p in sorted([one, other]))
    assert (low[0] <= high[0]).all()
    assert (low[1] >= high[1]).all()


def test_a_precision_that_no_cut_offs_reach_is_refused_with_the_highest_that_there_is(checked):
    scores, present, statistics = checked
    present = ~(scores > np.quantile(scores, 0.2, axis=0))  # the highest scores are wrong
    with pytest.raises(ValueError, match=r"no cut-offs reach a precision of 0.95 on held-out photos; the highest is 0\.\d\d"):
        fit(scores, present, statistics, 0.95)


@pytest.mark.parametrize("precision", [0, -0.5, 1.5, 90, float("nan"), float("inf")])
def test_a_precision_that_is_no_share_is_refused(checked, precision):
    with pytest.raises(ValueError, match=r"precision: expected a share above 0 and at most 1, such as 0\.9, got"):
        fit(*checked, precision)


def test_too_few_checked_photos_are_refused_and_so_are_photos_without_any_label(checked):
    scores, present, statistics = checked
    with pytest.raises(ValueError, match="expected at least 10 checked photos, better 50, got 9"):
        fit(scores[:9], present[:9], statistics)
    with pytest.raises(ValueError, match="no checked photo shows any of the classes"):
        fit(scores, present & False, statistics)
    assert fit(scores[:10], present[:10], statistics)[0].shape == (6,)


def test_a_single_class_can_be_fitted():
    scores, present = collection(classes=1, separation=8)
    thresholds, _ = fit(scores[:50], present[:50], statistics_of(scores))
    assert ((scores >= thresholds) == present).mean() > 0.98


@pytest.mark.parametrize("seed", range(3))
def test_what_is_reported_is_measured_on_photos_that_the_cut_offs_were_not_fitted_to(seed):
    scores, present = collection(seed, separation=1, classes=40)
    statistics, checked, others = statistics_of(scores), slice(40), slice(40, None)
    thresholds, held_out = fit(scores[checked], present[checked], statistics)
    reported = assess(held_out, present[checked])
    of_same, of_others = (assess(scores[i] >= thresholds, present[i], 0)["macro F1"][0] for i in (checked, others))
    assert reported["macro F1"][0] < of_same - 0.02
    assert reported["macro F1"][0] == pytest.approx(of_others, abs=0.05)
    names = [*map(str, range(40))]
    assert fitted(names, "identity", scores[checked], present[checked], statistics).facts["held_out"] == reported


def test_neighbours_which_may_show_the_same_scene_are_judged_without_each_other(checked, monkeypatch):
    monkeypatch.setattr(cutoffs, "PRICES", np.array([12]))
    scores, present, statistics = checked
    other = present.copy()
    other[:5] = ~present[:5]
    before, after = fit(scores, present, statistics), fit(scores, other, statistics)
    assert (before[0] != after[0]).any()
    assert (before[1][:5] == after[1][:5]).all()


def test_precision_recall_and_f1_are_those_counted_by_hand():
    present = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]], bool)
    predicted = np.array([[1, 0, 1], [1, 0, 0], [1, 0, 0]], bool)
    found = {name: value[0] for name, value in assess(predicted, present).items()}
    assert found == pytest.approx({
        "micro precision": 2 / 4, "micro recall": 2 / 4, "micro F1": 4 / 8,
        "macro precision": (2 / 3 + 0) / 2, "macro recall": (1 + 0) / 2, "macro F1": (4 / 5 + 0) / 2,
    })  # fmt: skip


def test_intervals_hold_the_value_and_are_narrower_with_more_photos():
    scores, present = collection(photos=1000)
    predicted = scores >= fit(scores, present, statistics_of(scores))[0]
    few, many = assess(predicted[:50], present[:50]), assess(predicted, present)
    for name in few:
        assert few[name][1] < few[name][0] < few[name][2]
        assert many[name][2] - many[name][1] < few[name][2] - few[name][1]


def test_intervals_hold_what_the_whole_collection_shows_about_as_often_as_they_say():
    inside = []
    for seed in range(40):
        scores, present = collection(seed, photos=2000)
        thresholds, held_out = fit(scores[:60], present[:60], statistics_of(scores))
        _, low, high = assess(held_out, present[:60], 200)["micro F1"]
        inside.append(low <= assess(scores[60:] >= thresholds, present[60:], 0)["micro F1"][0] <= high)
    assert sum(inside) >= 34


@pytest.fixture
def saved(tmp_path, checked):
    found = fitted(NAMES, "0" * 64, *checked, 0.6, {"grids": [2, 3]})
    found.save(tmp_path / "names.cutoffs.json")
    return found, tmp_path / "names.cutoffs.json"


def test_cut_offs_are_read_as_they_were_written(saved):
    before, path = saved
    again = Cutoffs.load(path, "0" * 64, NAMES)
    assert (again.thresholds == before.thresholds).all()
    assert (again.class_names, again.facts) == (NAMES, dict(before.facts))
    assert again.facts["photos"] == 50
    assert again.facts["collection"] == 400
    assert again.facts["precision"] == 0.6


def test_cut_offs_of_another_class_list_are_refused(saved):
    for names in (NAMES[:5], NAMES[::-1]):
        with pytest.raises(ValueError, match=rf"another class list \(6 names, here {len(names)}\); run rcnn calibrate again"):
            Cutoffs.load(saved[1], "0" * 64, names)


def test_cut_offs_of_another_model_or_other_grids_are_refused_and_what_they_were_made_with_is_said(saved):
    with pytest.raises(ValueError, match=r"another model, other class embeddings or other grids .*'grids': \[2, 3\]"):
        Cutoffs.load(saved[1], "1" * 64, NAMES)


def test_damaged_cut_offs_are_refused_wherever_the_damage_is(saved):
    _, path = saved
    text = path.read_text()
    for place in range(0, len(text), 97):
        other = text[:place] + ("7" if text[place] != "7" else "8") + text[place + 1 :]
        path.write_text(other)
        try:
            same = json.loads(other) == json.loads(text)
        except ValueError:
            same = False
        if not same:
            with pytest.raises(ValueError, match=r"names\.cutoffs\.json"):
                Cutoffs.load(path, "0" * 64, NAMES)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"thresholds": [1]}', "[" * 5000])
def test_a_file_without_cut_offs_is_refused(tmp_path, content):
    (tmp_path / "cutoffs.json").write_text(content)
    with pytest.raises(ValueError, match=r"cutoffs\.json"):
        Cutoffs.load(tmp_path / "cutoffs.json", "0" * 64, NAMES)


def test_another_file_of_ours_with_a_checksum_is_refused(tmp_path):
    write_json(tmp_path / "cutoffs.json", sealed({"made_from": "1"}))
    with pytest.raises(ValueError, match="has no cut-offs of this version of the code"):
        Cutoffs.load(tmp_path / "cutoffs.json", "0" * 64, NAMES)
