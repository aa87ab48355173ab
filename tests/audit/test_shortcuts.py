"""Blind models: what they must catch, what they must not, and by which rule they are judged."""

from __future__ import annotations

import numpy as np
import pytest

from pipelines.audit import shortcuts
from pipelines.config.audit import AuditParams
from pipelines.errors import DataError
from pipelines.kinds.blind import forest, out_of_fold
from pipelines.kinds.classification import audit
from pipelines.kinds.classification.audit import BlindClasses
from pipelines.serving.trust import AuditScore, Interval

BOUNDS = AuditParams(folds=5, suspicious_share=0.5, shortcut_share=0.8)
N_GROUPS, PER_GROUP = 40, 3
CLASS_INDEX = np.repeat(np.arange(N_GROUPS) % 2, PER_GROUP)
GROUPS = np.repeat([f"g{number:02d}" for number in range(N_GROUPS)], PER_GROUP)


def blind(class_index=CLASS_INDEX, groups=GROUPS, n_classes=2, folds=5) -> BlindClasses:
    return audit.blind(class_index, n_classes, groups, folds, 1, 200)


def reached(features: np.ndarray, shared: BlindClasses) -> Interval:
    guessed = shared.told(features, "forest")
    np.testing.assert_allclose(guessed.sum(axis=1), 1)
    return shared.interval(guessed)


def test_no_group_is_in_both_parts_of_a_fold_and_each_image_answers_once():
    shared = blind()
    for learn, answer in shared.folds:
        assert not set(GROUPS[learn]) & set(GROUPS[answer])
        assert len(learn) + len(answer) == len(GROUPS)
    answered = np.concatenate([answer for _, answer in shared.folds])
    assert sorted(answered) == list(range(len(GROUPS)))


def test_what_tells_the_label_is_found_and_noise_is_not():
    shared = blind()
    rng = np.random.default_rng(3)
    noise = rng.normal(size=(len(GROUPS), 4))
    assert reached(noise, shared).low < 0.5
    telling = noise.copy()
    telling[:, 2] += 6 * CLASS_INDEX
    assert reached(telling, shared).value > 0.95
    assert reached(telling, blind()) == reached(telling, shared)


def test_what_tells_only_the_group_does_not_help():
    """A column that names the group, whose label is the group's: by image it tells all."""
    shared = blind()
    signature = np.random.default_rng(4).permutation(N_GROUPS).astype(float)
    features = np.repeat(signature, PER_GROUP)[:, np.newaxis]
    assert reached(features, shared).value < 0.7
    by_image = blind(groups=np.array([str(number) for number in range(len(GROUPS))]))
    assert reached(features, by_image).value > 0.9


def test_fewer_folds_where_a_class_has_few_groups():
    class_index = np.array([0] * 8 + [1] * 3)
    groups = np.array([f"a{n}" for n in range(8)] + [f"b{n}" for n in range(3)])
    assert len(blind(class_index, groups).folds) == 3
    with pytest.raises(DataError, match="at least 2 groups"):
        blind(class_index, np.array([*groups[:8], "b", "b", "b"]))


def test_class_that_a_fold_did_not_learn_has_probability_0():
    features = np.eye(4)
    folds = [(np.array([0, 1]), np.array([2, 3])), (np.array([2]), np.array([0, 1]))]
    guessed = out_of_fold(lambda: forest(1), features, np.array([0, 1, 2, 2]), 3, folds)
    assert (guessed[2:, 2] == 0).all()
    np.testing.assert_array_equal(guessed[:2], [[0, 0, 1], [0, 0, 1]])


def test_chance_is_the_majority_class():
    shared = blind(np.array([0] * 6 + [1] * 3), np.array([f"{n}" for n in range(9)]))
    # F1 of the majority: precision 6/9, recall 1; the other class has 0.
    assert shared.chance() == pytest.approx(0.8 / 2)


@pytest.mark.parametrize(
    ("value", "chance", "probe", "expected"),
    [
        (0.2, 0.2, 0.8, 0.0),
        (0.8, 0.2, 0.8, 1.0),
        (0.5, 0.2, 0.8, 0.5),
        (0.1, 0.2, 0.8, -1 / 6),
        (0.95, 0.2, 0.8, 1.25),
        # A probe that sees nothing: the way is taken to be 0.05 long, and not nothing.
        (0.25, 0.2, 0.2, 1.0),
        (0.25, 0.2, 0.1, 1.0),
    ],
)
def test_share_of_way(value, chance, probe, expected):
    assert shortcuts.share_of_way(value, chance, probe) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("share", "low", "expected"),
    [
        (-0.1, 0.6, "clean"),
        (0.499999, 0.6, "clean"),
        (0.5, 0.6, "suspicious"),
        (0.799999, 0.6, "suspicious"),
        (0.8, 0.6, "shortcut"),
        (1.4, 0.6, "shortcut"),
        # Not told apart from drawing answers by the labels' frequencies (1/2 for two classes).
        (1.4, 0.5, "clean"),
        (1.4, 0.500001, "shortcut"),
    ],
)
def test_verdict_by_the_bounds(share, low, expected):
    assert shortcuts.verdict_of(share, low, 1 / 2, BOUNDS) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ([], "clean"),
        ([("clean", True), ("suspicious", True)], "suspicious"),
        ([("shortcut", True), ("clean", True)], "shortcut"),
        ([("shortcut", False), ("clean", True)], "clean"),
    ],
)
def test_worst_of_those_that_decide(given, expected):
    point = Interval(value=0.5, low=0.4, high=0.6)
    scores = [
        AuditScore(name="a", sees="b", macro_f1=point, share=0, verdict=verdict, decides=decides)
        for verdict, decides in given
    ]
    assert shortcuts.worst(scores) == expected


def test_only_what_is_never_the_disease_decides():
    deciding = {name for name, audit in shortcuts.AUDITS.items() if audit.decides}
    assert deciding == {"file_facts", "border", "source"}


def test_source_purity_leaves_out_what_has_no_source():
    found = shortcuts.source_purity(["x", "x", "x", "y", ""], ["a", "a", "b", "b", "b"])
    assert found == {"x": pytest.approx(2 / 3, abs=1e-6), "y": 1.0}
    assert shortcuts.source_purity(["", ""], ["a", "b"]) == {}
