from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

from pipelines.errors import DataError
from pipelines.metrics.abstention import (
    MAX_DIRECTIONS,
    Before,
    accepting_threshold,
    expected_lengths,
    fit_abstention,
    principal_directions,
)
from pipelines.serving.out_of_distribution import OutOfDistribution, residuals, rooted, unpack
from pipelines.serving.trust import MAX_ABSTENTION_BYTES

D = 40


def embedded(n: int, seed: int, *, is_ood: bool = False, d: int = D) -> np.ndarray:
    """Sums of a few patterns, as pooled features are; out-of-distribution ones of others."""
    patterns = np.random.default_rng(100 + is_ood).exponential(size=(4, d)) ** 2
    rng = np.random.default_rng(seed)
    values = rng.exponential(size=(n, 4)) @ patterns + rng.exponential(0.05, size=(n, d))
    return values.astype(np.float32)


def test_out_of_distribution_embeddings_are_told_and_known_ones_accepted():
    fitted = fit_abstention(embedded(300, 0), embedded(200, 1), 0.95)
    novelty = OutOfDistribution.load(fitted, D)
    known, is_refused = novelty.judge(embedded(1000, 2))
    ood, _ = novelty.judge(embedded(1000, 3, is_ood=True))
    assert 0.02 < is_refused.mean() < 0.09
    truth = np.repeat([0, 1], 1000)
    assert roc_auc_score(truth, np.concatenate([known, ood])) > 0.98
    assert (fitted.n_train, fitted.n_val, fitted.acceptance) == (300, 200, 0.95)
    # The val images themselves: what was asked for.
    assert 0.95 <= 1 - novelty.judge(embedded(200, 1))[1].mean() <= 0.97


def test_all_of_it_fits_a_phone():
    # MobileNetV2's two levels, the wider of the backbones'.
    widths = (1280, 960)
    train, val = (embedded(n, seed, d=sum(widths)) for n, seed in ((150, 0), (20, 1)))
    fitted = fit_abstention(train, val, 0.95, widths=widths)
    shapes = {name: array.shape for name, array in fitted.arrays.items()}
    assert shapes == {
        **{"mean": (2240,), "centre": (2,), "spread": (2,)},
        **{"basis_0": (MAX_DIRECTIONS, 1280), "basis_1": (MAX_DIRECTIONS, 960)},
    }
    assert sum(len(array.data) for array in fitted.arrays.values()) < 0.8 * MAX_ABSTENTION_BYTES


def test_val_images_have_standard_scores_at_each_level():
    train, val = embedded(300, 0), embedded(200, 1)
    fitted = fit_abstention(train, val, 0.95, widths=(30, 10))
    arrays = {name: unpack(array) for name, array in fitted.arrays.items()}
    scores = (residuals(val, arrays) - arrays["centre"]) / arrays["spread"]
    np.testing.assert_allclose(scores.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scores.std(axis=0), 1, atol=1e-5)
    np.testing.assert_allclose(OutOfDistribution.load(fitted, D).judge(val)[0], scores.max(axis=1))


def test_what_one_level_does_not_show_the_other_tells():
    """The head's level of those pictures is that of known ones; the inner level is not."""
    widths = (D, D)
    train, val, known = (np.hstack([embedded(300, s), embedded(300, s + 50)]) for s in (0, 1, 2))
    ood = np.hstack([embedded(300, 3), embedded(300, 53, is_ood=True)])
    novelty = OutOfDistribution.load(fit_abstention(train, val, 0.95, widths=widths), sum(widths))
    assert novelty.judge(known)[1].mean() < 0.1
    assert novelty.judge(ood)[1].mean() > 0.9


def test_same_embeddings_give_the_same_bytes():
    first, again = (fit_abstention(embedded(60, 0), embedded(20, 1), 0.95) for _ in range(2))
    assert first.model_dump_json() == again.model_dump_json()


@pytest.mark.parametrize(
    ("train", "k"),
    [
        pytest.param(embedded(1, 0), 1, id="one image"),
        pytest.param(np.ones((9, D), np.float32), 1, id="all alike"),
        pytest.param(np.zeros((9, D), np.float32), 1, id="zeros"),
        pytest.param(np.repeat(embedded(2, 0), 10, axis=0), 1, id="two images, ten times each"),
        pytest.param(embedded(7, 0), 3, id="half as many as images"),
        pytest.param(embedded(50, 0), 20, id="half as many as features"),
    ],
)
def test_few_or_dull_images_can_be_fitted(train, k):
    fitted = fit_abstention(train, train, 0.95)
    assert fitted.arrays["basis_0"].shape == (k, D)
    novelty = OutOfDistribution.load(fitted, D)
    assert not novelty.judge(train)[1].all()
    assert novelty.judge(-embedded(5, 3))[1].all()


@pytest.mark.parametrize("n", [25, 90], ids=["fewer images than features", "more"])
def test_directions_are_the_principal_ones(n):
    rows = np.random.default_rng(5).normal(size=(n, D)) * np.linspace(1, 3, D)
    basis = principal_directions(rows - rows.mean(axis=0), 6)
    np.testing.assert_allclose(basis @ basis.T, np.eye(6), atol=1e-9)
    expected = PCA(6).fit(rows).components_
    np.testing.assert_allclose(np.abs(np.sum(basis * expected, axis=1)), 1, atol=1e-9)
    assert (basis.max(axis=1) >= -basis.min(axis=1)).all()


@pytest.mark.parametrize(
    ("n", "acceptance", "rank"),
    [(1, 0.95, 1), (6, 0.95, 6), (18, 0.95, 18), (19, 0.95, 19), (39, 0.95, 38), (99, 0.9, 90)],
)
def test_threshold_is_the_conformal_one(n, acceptance, rank):
    scores = np.random.default_rng(0).permutation(n).astype(float) + 1
    assert accepting_threshold(scores, acceptance) == rank


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=60), st.sampled_from([0.6, 0.9, 0.95]))
def test_threshold_accepts_as_many_as_asked(values, acceptance):
    scores = np.array(values)
    threshold = accepting_threshold(scores, acceptance)
    assert (scores <= threshold).mean() >= acceptance - 1e-9
    assert threshold <= scores.max() + 1e-6


# -- a network that has seen val ------------------------------------------------------------------
def around_patterns(n: int, seed: int, noise: float) -> np.ndarray:
    """Embeddings whose roots are sums of four patterns, and noise that is left over."""
    patterns = np.random.default_rng(7).normal(size=(4, D))
    rng = np.random.default_rng(seed)
    roots = rng.normal(3, 1, size=(n, 4)) @ patterns + rng.normal(0, noise, size=(n, D))
    return (np.sign(roots) * roots**2).astype(np.float32)


def test_network_that_was_trained_on_val_accepts_new_images_as_promised():
    # To each network what it was trained on is nearer than what is new, by a third, and to the
    # second one all is nearer.
    before = Before(around_patterns(300, 0, 0.6), around_patterns(200, 1, 0.9))
    train, val = around_patterns(300, 2, 0.2), around_patterns(200, 3, 0.2)
    new = around_patterns(1000, 4, 0.3)
    naive = fit_abstention(train, val, 0.95, 4)
    fitted = fit_abstention(train, val, 0.95, 4, before=before)
    assert OutOfDistribution.load(naive, D).judge(new)[1].mean() > 0.3
    assert 0.02 < OutOfDistribution.load(fitted, D).judge(new)[1].mean() < 0.09
    # It is described by all that was trained on, and judged by what was not.
    assert (fitted.n_train, fitted.n_val) == (500, 200)


def test_expected_lengths_are_as_many_times_those_of_trained_images():
    rng = np.random.default_rng(3)
    trained_before = rng.uniform(1, 3, (50, 2))
    trained = trained_before[:40] ** 0 * np.exp(np.log(trained_before).mean(axis=0)) * [0.5, 4.0]
    new = rng.uniform(1, 3, (30, 2))
    np.testing.assert_allclose(
        expected_lengths(trained, trained_before, new), new * [0.5, 4.0], rtol=1e-12
    )
    assert np.isfinite(expected_lengths(np.zeros((3, 2)), np.zeros((4, 2)), new)).all()


EMBEDDINGS = ("train", "val", "train before the refit", "val before the refit")


@pytest.mark.parametrize("what", EMBEDDINGS)
@pytest.mark.parametrize("rows", [np.zeros((0, D)), np.full((3, D), np.nan)], ids=["none", "NaN"])
def test_embeddings_that_say_nothing_are_refused(what, rows):
    given = {name: embedded(9, seed) for seed, name in enumerate(EMBEDDINGS)}
    train, val, *before = (given | {what: rows.astype(np.float32)}).values()
    with pytest.raises(DataError, match=f"abstention needs finite embeddings of {what} images"):
        fit_abstention(train, val, 0.95, before=Before(*before))


def test_the_packed_arrays_lose_nothing_that_matters():
    train, val = embedded(200, 0), embedded(50, 1)
    fitted = fit_abstention(train, val, 0.95)
    roots = rooted(train)
    exact = principal_directions(roots - roots.mean(axis=0), MAX_DIRECTIONS)
    x = rooted(val) - roots.mean(axis=0)
    expected = np.linalg.norm(x - x @ exact.T @ exact, axis=1)
    assert unpack(fitted.arrays["basis_0"]).shape == exact.shape
    got = residuals(val, {name: unpack(array) for name, array in fitted.arrays.items()})
    np.testing.assert_allclose(got[:, 0], expected, atol=0.004)
