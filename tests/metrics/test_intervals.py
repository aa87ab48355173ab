from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from pipelines.errors import DataError
from pipelines.metrics import intervals as iv
from pipelines.metrics.certainty import metric_intervals
from pipelines.metrics.classification import (
    accuracy,
    brier_scores,
    classification_metrics,
    confusion_counts,
    expected_calibration_error,
    macro_f1,
    reliability_bins,
)
from pipelines.metrics.intervals import (
    accuracies,
    balanced_accuracies,
    draw,
    macro_f1s,
    precisions,
    recalls,
    resampled,
    roc_auc,
    specificities,
)

C = 3


@st.composite
def answered(draw):
    """Groups, true classes and two sets of answers of the same images."""
    n = draw(st.integers(2, 40))
    column = st.lists(st.integers(0, C - 1), min_size=n, max_size=n)
    groups = draw(st.lists(st.integers(0, 9), min_size=n, max_size=n))
    return [np.array(each) for each in (groups, draw(column), draw(column), draw(column))]


def made(n=600, g=60, skill=0.8, seed=0, c=C):
    rng = np.random.default_rng(seed)
    true = rng.integers(c, size=n)
    answers = np.where(rng.random(n) < skill, true, rng.integers(c, size=n))
    return np.sort(rng.integers(g, size=n)), true, answers


def by_asking(draws, metric) -> dict[str, float]:
    """The interval of any metric of numbers of images, asked of every resample; None: undefined."""
    every = np.arange(len(draws.place))
    chosen = (np.repeat(every, times[draws.place]) for times in draws.times)
    found = np.array([metric(images) for images in chosen], float)
    low, high = np.nanpercentile(found, [2.5, 97.5])
    return {"value": metric(every), "low": low, "high": high}


@given(answered())
@settings(max_examples=60, deadline=None)
def test_value_is_the_metric_itself(case):
    groups, true, a, _ = case
    draws = draw(groups, 100, 1)
    found = iv.by_counts(draws, true, a, C, accuracies)
    assert found.value == pytest.approx(accuracy(true, a))
    assert iv.by_mean(draws, true == a).value == pytest.approx(found.value)
    assert iv.by_counts(draws, true, a, C, macro_f1s).value == pytest.approx(macro_f1(true, a, C))
    balanced = iv.by_counts(draws, true, a, C, balanced_accuracies)
    counts = confusion_counts(true, a, C)
    seen = counts.sum(axis=1) > 0
    assert balanced.value == pytest.approx(
        np.mean(np.diag(counts)[seen] / counts.sum(axis=1)[seen])
    )
    sums = resampled(draws, true, a, C)
    for index, (recall, precision) in enumerate(
        zip(
            iv.of_counts(draws, sums, recalls),
            iv.of_counts(draws, sums, precisions),
            strict=True,
        )
    ):
        assert (recall is None) == (counts[index].sum() == 0)
        assert (precision is None) == (counts[:, index].sum() == 0)
        if precision is not None:
            assert precision.value == pytest.approx(counts[index, index] / counts[:, index].sum())


@given(answered())
@settings(max_examples=60, deadline=None)
def test_interval_holds_the_median_of_its_resamples_and_stays_in_bounds(case):
    groups, true, a, _ = case
    draws = draw(groups, 100, 1)
    found = iv.by_mean(draws, true == a)
    assert 0 <= found.low <= found.high <= 1
    if draws.n_groups > 1:
        right, n = (np.bincount(draws.place, weights) for weights in (true == a, None))
        assert found.low <= np.median(draws.times @ right / (draws.times @ n)) <= found.high


@given(answered(), st.permutations(range(10)))
@settings(max_examples=40, deadline=None)
def test_what_groups_are_called_does_not_matter(case, names):
    groups, true, a, _ = case
    renamed = [f"patient {names[group]}" for group in groups]
    one, other = (draw(found, 100, 7) for found in (groups, renamed))
    assert np.array_equal(one.times, other.times)
    assert iv.by_counts(one, true, a, C, macro_f1s) == iv.by_counts(other, true, a, C, macro_f1s)


@given(answered())
@settings(max_examples=40, deadline=None)
def test_identical_answers_differ_by_nothing(case):
    groups, true, a, _ = case
    draws = draw([*groups, 100], 100, 3)  # at least two groups
    true, a = np.append(true, 0), np.append(a, 0)
    for metric in (accuracies, macro_f1s):
        found = iv.paired(draws, true, a, a, C, metric)
        assert (found.value, found.low, found.high) == (0, 0, 0)


@given(answered())
@settings(max_examples=40, deadline=None)
def test_a_difference_changes_its_sign_with_the_order(case):
    groups, true, a, b = case
    draws = draw(groups, 100, 3)
    one, other = (iv.paired(draws, true, *pair, C, macro_f1s) for pair in ((a, b), (b, a)))
    assert one.value == pytest.approx(macro_f1(true, a, C) - macro_f1(true, b, C))
    assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_all_right_has_no_width():
    groups, true, _ = made()
    draws = draw(groups, 200, 1)
    counts = resampled(draws, true, true, C)
    for metric in (accuracies, macro_f1s, balanced_accuracies, recalls, precisions, specificities):
        for found in iv.of_counts(draws, counts, metric):
            assert (found.value, found.low, found.high) == (1, 1, 1)


@pytest.mark.parametrize("n", [1, 50])
def test_one_group_says_nothing_about_others(n):
    draws = draw(["one patient"] * n, 100, 1)
    true = np.zeros(n, int)
    found = iv.by_counts(draws, true, true, C, accuracies)
    assert (found.value, found.low, found.high) == (1, 0, 1)
    found = iv.paired(draws, true, true, true, C, accuracies)
    assert (found.value, found.low, found.high) == (0, -1, 1)
    found = iv.by_mean(draws, np.full(n, 0.5), bounds=(0, 2))
    assert (found.value, found.low, found.high) == (0.5, 0, 2)


def test_no_image_is_refused():
    with pytest.raises(DataError, match="at least one image"):
        draw([], 100, 1)


def test_quick_and_slow_ways_agree():
    groups, true, answers = made(n=300, g=40)
    draws = draw(groups, 300, 1)
    counts = resampled(draws, true, answers, C)
    for quick, index, slow in (
        (accuracies, 0, lambda i: accuracy(true[i], answers[i])),
        (macro_f1s, 0, lambda i: macro_f1(true[i], answers[i], C)),
        (precisions, 1, lambda i: sk.precision_score(true[i], answers[i], average=None)[1]),
        (recalls, 2, lambda i: sk.recall_score(true[i], answers[i], average=None)[2]),
        (specificities, 2, lambda i: sk.recall_score(true[i] != 2, answers[i] != 2)),
        (balanced_accuracies, 0, lambda i: sk.balanced_accuracy_score(true[i], answers[i])),
    ):
        fast = iv.of_counts(draws, counts, quick)[index]
        assert fast.model_dump() == pytest.approx(by_asking(draws, slow))


def test_ece_and_brier_are_those_of_the_metrics():
    groups, true, _ = made(n=300, g=40)
    probabilities = np.random.default_rng(5).dirichlet(np.ones(C), size=300).astype(np.float32)
    draws = draw(groups, 200, 1)

    def slow(i):
        return expected_calibration_error(reliability_bins(true[i], probabilities[i], 10))

    quick = iv.ece(draws, true, probabilities, 10)
    assert quick.model_dump() == pytest.approx(by_asking(draws, slow))
    metrics = classification_metrics(true, probabilities, ("a", "b", "c"), 10)
    assert quick.value == pytest.approx(metrics["ece"])
    scores = brier_scores(true, probabilities)
    assert scores.mean() == pytest.approx(metrics["brier"])
    assert metrics["brier"] == pytest.approx(
        sk.brier_score_loss(true, probabilities / probabilities.sum(axis=1, keepdims=True)),
        abs=1e-6,
    )


def test_resamples_of_one_class_do_not_count_for_the_area():
    draws = draw(["a", "b", "c", "d"], 200, 1)
    assert any(times[0] == 0 for times in draws.times)
    scores = np.array([0.1, 0.4, 0.35, 0.8])
    macro, by_class = roc_auc(draws, np.array([0, 1, 1, 1]), np.stack([1 - scores, scores], axis=1))
    for found in (macro, *by_class):
        assert (found.value, found.low, found.high) == (1, 1, 1)


@pytest.mark.parametrize("ties", [False, True])
def test_roc_auc_is_that_of_scikit_learn_on_every_resample(ties):
    groups, true, _ = made(n=120, g=30)
    probabilities = np.random.default_rng(3).dirichlet(np.ones(C), size=120)
    probabilities[np.arange(120), true] += 0.3
    if ties:
        probabilities = np.round(probabilities, 1)
    draws = draw(groups, 150, 1)
    macro, by_class = roc_auc(draws, true, probabilities)

    def slow(index):
        def area(i):
            is_class = true[i] == index
            defined = is_class.any() and not is_class.all()
            return sk.roc_auc_score(is_class, probabilities[i, index]) if defined else None

        return area

    for index in range(C):
        expected = by_asking(draws, slow(index))
        assert by_class[index].model_dump() == pytest.approx(expected)
    expected = by_asking(draws, lambda i: np.mean([slow(k)(i) for k in range(C)]))
    assert macro.model_dump() == pytest.approx(expected)


def test_roc_auc_without_a_class_or_with_one_group():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.6, 0.4, 0.0]])
    true = np.array([0, 1, 0])
    macro, by_class = roc_auc(draw(["a", "b", "c"], 200, 1), true, probabilities)
    assert macro is None
    assert by_class[2] is None
    assert by_class[0].value == 1
    _, by_class = roc_auc(draw(["a", "a", "a"], 200, 1), true, probabilities)
    assert (by_class[0].value, by_class[0].low, by_class[0].high) == (1, 0, 1)


def test_mean_skips_images_that_do_not_count():
    draws = draw(["a", "a", "b", "c"], 200, 1)
    values = np.array([1.0, np.nan, 0.0, np.nan])
    found = iv.by_mean(draws, values)
    assert found.value == 0.5
    assert (found.low, found.high) == (0, 1)
    assert iv.by_mean(draws, np.full(4, np.nan)) is None


def test_whole_groups_are_drawn_so_clusters_widen_the_interval():
    # 20 groups of 30 images that are all right or all wrong are 20 observations, not 600.
    right = np.repeat(np.random.default_rng(2).random(20) < 0.7, 30)
    by_group = iv.by_mean(draw(np.repeat(np.arange(20), 30), 2000, 1), right)
    by_image = iv.by_mean(draw(np.arange(600), 2000, 1), right)
    width = by_group.high - by_group.low
    assert width > 4 * (by_image.high - by_image.low)
    # Normal theory for 20 observations.
    p = right.mean()
    assert width == pytest.approx(2 * 1.96 * np.sqrt(p * (1 - p) / 20), rel=0.15)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(11)
    covered = 0
    for trial in range(300):
        skill = np.repeat(rng.beta(8, 2, size=60), 5)  # mean 0.8
        found = iv.by_mean(draw(np.repeat(np.arange(60), 5), 400, trial), rng.random(300) < skill)
        covered += found.low <= 0.8 <= found.high
    # 95 % of 300 is 285; the percentile interval of 60 groups is a little narrow.
    assert 268 <= covered <= 297


def test_same_seed_same_interval_and_other_seed_another():
    groups, true, answers = made()
    found = [iv.by_mean(draw(groups, 300, seed), true == answers) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    assert found[0].value == found[2].value


def test_large_tables_are_made_piece_by_piece_alike(monkeypatch):
    groups, true, answers = made()
    whole = draw(groups, 150, 1)
    expected = iv.by_counts(whole, true, answers, C, macro_f1s)
    monkeypatch.setattr(iv, "_CELLS", 500)
    pieces = draw(groups, 150, 1)
    assert np.array_equal(whole.times, pieces.times)
    assert iv.by_counts(pieces, true, answers, C, macro_f1s) == expected
    assert (whole.times.sum(axis=1) == whole.n_groups).all()


@given(st.integers(2, 6), st.integers(1, 40), st.integers(0, 2**16), st.booleans())
@settings(max_examples=40, deadline=None)
def test_both_ways_to_the_area_under_the_curve_give_the_same_numbers(c, g, seed, has_ties):
    rng = np.random.default_rng(seed)
    true = rng.integers(c, size=60)
    probabilities = rng.dirichlet(np.ones(c), 60)
    if has_ties:
        probabilities = np.round(probabilities, 1)
    draws = draw(rng.integers(g, size=60), 100, 1)
    all_at_once = iv._all_areas(draws, true, probabilities)
    for k in range(c):
        one = iv.areas(draws, true == k, probabilities[:, k])
        assert np.array_equal(all_at_once[:, k], one, equal_nan=True)


def test_intervals_of_two_hundred_classes_are_quick():
    rng = np.random.default_rng(0)
    true = np.arange(836) % 200
    probabilities = rng.dirichlet(np.full(200, 0.05), 836).astype(np.float32)
    probabilities[np.arange(836), true] += 0.3
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    labels = [f"c{index:03d}" for index in range(200)]
    start = time.perf_counter()
    draws = draw(np.arange(836), 2000, 1)
    found = metric_intervals(draws, true, probabilities, labels, 10)
    assert len(found) > 800
    # 2 s on one core of a busy machine; before it took minutes and 16 GB.
    assert time.perf_counter() - start < 20
