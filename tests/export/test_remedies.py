from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pipelines.config.export import ExportParams
from pipelines.errors import ConfigError
from pipelines.export import remedies
from pipelines.export.attempts import Attempt, Recipe, best_of, max_bytes
from pipelines.export.graphs import blocks_of, logits_of
from pipelines.export.quantize import equalized, rounded, stem_nodes
from pipelines.export.remedies import REMEDIES, Search
from pipelines.kinds.classification.export import ExportedClassification
from pipelines.metrics.classification import agreement, sqnr_db
from pipelines.serving.bundle import Candidate

LOOSE = {
    "calibration_images": 48,
    "remedies": (
        "minmax",
        "float_stem",
        "equalize",
        "round",
        "exact",
        "bias_correction",
        "percentile",
    ),
    "min_agreement": 0.0,
    "max_accuracy_drop": 1.0,
    "max_macro_f1_drop": 1.0,
    "max_int8_bytes": 10**9,
    "min_speedup": 1.0,
    "acceptance": 0.95,
}


def params(**changes) -> ExportParams:
    return ExportParams.model_validate({**LOOSE, **changes})


@pytest.fixture
def data(doctored_onnx, make_pictures):
    """Calibration batches, val pictures, and val labels with which fp32 is right but for a few."""
    val = make_pictures(40, 9)
    truth = logits_of(doctored_onnx, val).argmax(axis=1)
    truth[::10] = (truth[::10] + 1) % 4
    return [make_pictures(16, seed) for seed in (1, 2, 3)], val, truth


def judge_of(truth, asked):
    return lambda reference: ExportedClassification().judge(reference, truth, asked)


def search_int8(fp32, calibration, val, truth, asked) -> list[Attempt]:
    return remedies.search_int8(fp32, calibration, val, judge_of(truth, asked), asked)


def search_of(fp32, calibration, val, truth, asked, folder) -> Search:
    return Search(fp32, calibration, val, judge_of(truth, asked), asked, folder)


def remedies_of(attempts) -> list[str]:
    return [attempt.candidate.remedy for attempt in attempts]


def test_search_stops_at_the_first_that_holds_the_bounds(doctored_onnx, data):
    attempts = search_int8(doctored_onnx, *data, params())
    assert remedies_of(attempts) == ["minmax"]
    assert attempts[0].candidate.holds_bounds
    assert attempts[0].candidate.is_chosen


def test_search_goes_on_until_a_remedy_helps(doctored_onnx, data):
    tried = search_int8(
        doctored_onnx, *data, params(remedies=("minmax", "equalize"), max_int8_bytes=1)
    )
    first, second = (attempt.candidate.agreement for attempt in tried)
    # The doctored model needs the second remedy; the bound lies between the two.
    assert first < second
    bound = (first + second) / 2
    attempts = search_int8(
        doctored_onnx, *data, params(remedies=("minmax", "equalize"), min_agreement=bound)
    )
    assert remedies_of(attempts) == ["minmax", "equalize"]
    assert [a.candidate.holds_bounds for a in attempts] == [False, True]
    assert [a.candidate.is_chosen for a in attempts] == [False, True]


def test_where_nothing_holds_all_are_tried_and_the_best_is_chosen(doctored_onnx, data):
    attempts = search_int8(doctored_onnx, *data, params(max_int8_bytes=1))
    names = remedies_of(attempts)
    assert names == list(LOOSE["remedies"])
    assert not any(attempt.candidate.holds_bounds for attempt in attempts)
    chosen = [attempt for attempt in attempts if attempt.candidate.is_chosen]
    assert len(chosen) == 1
    assert chosen[0].candidate.sqnr_db == max(a.candidate.sqnr_db for a in attempts)


def test_what_is_written_of_an_attempt_is_what_its_file_does(doctored_onnx, data):
    _, val, truth = data
    reference = logits_of(doctored_onnx, val)
    for attempt in search_int8(doctored_onnx, *data, params(max_int8_bytes=1)):
        candidate, logits = attempt.candidate, logits_of(attempt.model, val)
        assert candidate.size_bytes == len(attempt.model)
        assert candidate.agreement == pytest.approx(agreement(reference, logits), abs=1e-6)
        assert candidate.metrics["accuracy"] == pytest.approx(
            (logits.argmax(1) == truth).mean(), abs=1e-6
        )
        assert candidate.sqnr_db == pytest.approx(sqnr_db(reference, logits), abs=1e-3)
        assert candidate.float_nodes == attempt.recipe.float_nodes


@pytest.mark.parametrize(
    ("bound", "said"),
    [
        ({"max_int8_bytes": 1}, r"^[\d,]+ bytes \(bound 1\)$"),
        ({"min_agreement": 1.0}, r"^agreement with fp32 [\d.]+% \(bound 100.0%\)$"),
        ({"max_accuracy_drop": 0.0}, r"^drop of accuracy 0\.\d+ \(bound 0\)$"),
        ({"max_macro_f1_drop": 0.0}, r"^drop of macro-F1 0\.\d+ \(bound 0\)$"),
    ],
    ids=["bytes", "agreement", "accuracy", "macro_f1"],
)
def test_each_bound_counts_and_is_named(bound, said, doctored_onnx, data):
    calibration, val, _ = data
    # As if fp32 were always right: then each error of int8 costs.
    truth = logits_of(doctored_onnx, val).argmax(axis=1)
    (attempt,) = search_int8(
        doctored_onnx, calibration, val, truth, params(remedies=("minmax",), **bound)
    )
    assert attempt.candidate.agreement < 1
    assert not attempt.candidate.holds_bounds
    assert attempt.candidate.is_chosen
    (missed,) = attempt.missed
    assert re.search(said, missed)


def test_the_bound_on_bytes_follows_the_number_of_classes():
    assert [max_bytes(2_600_000, n) for n in (2, 10, 11, 200)] == [
        2_600_000,
        2_600_000,
        2_601_300,
        2_847_000,
    ]


def test_search_is_deterministic(doctored_onnx, data):
    some = params(remedies=("minmax", "equalize+round"), max_int8_bytes=1)
    assert search_int8(doctored_onnx, *data, some) == search_int8(doctored_onnx, *data, some)


def test_unknown_remedy_is_refused_with_those_there_are(doctored_onnx, data):
    asked = params(remedies=("minmax", "hope"))
    with pytest.raises(ConfigError, match=r"export\.remedies: there is no remedy 'hope'") as caught:
        search_int8(doctored_onnx, *data, asked)
    assert all(name in str(caught.value) for name in REMEDIES)


def test_no_remedy_is_refused(doctored_onnx, data):
    with pytest.raises(ConfigError, match=r"export\.remedies: expected at least one"):
        search_int8(doctored_onnx, *data, params(remedies=()))


# -- one remedy at a time -------------------------------------------------------------------------
@pytest.fixture
def search(doctored_onnx, data, tmp_path) -> Search:
    return search_of(doctored_onnx, *data, params(), tmp_path)


def test_leave_out_adds_whole_blocks_the_most_telling_first(search, doctored_onnx, data):
    recipes = list(search.leave_out(Recipe(doctored_onnx)))
    blocks = {frozenset(block) for block in blocks_of(doctored_onnx)}
    before: set[str] = set()
    for recipe in recipes:
        nodes = set(recipe.float_nodes)
        assert before < nodes
        assert frozenset(nodes - before) in blocks
        before = nodes
    pixels = np.concatenate(data[0])[:32]
    reference = logits_of(doctored_onnx, pixels)
    gains = [
        sqnr_db(reference, logits_of(search.int8(Recipe(doctored_onnx, float_nodes=block)), pixels))
        for block in blocks_of(doctored_onnx)
    ]
    # The first and the last of the five are single convolutions, which ONNX Runtime would quantise.
    assert len(recipes) == 3
    first = blocks_of(doctored_onnx)[1 + int(np.argmax(gains[1:4]))]
    assert set(recipes[0].float_nodes) == set(first)


def test_leave_out_takes_no_block_that_is_float_already_or_too_large(doctored_onnx, data, tmp_path):
    blocks = blocks_of(doctored_onnx)
    search = search_of(doctored_onnx, *data, params(), tmp_path)
    start = Recipe(doctored_onnx, float_nodes=blocks[2])
    recipes = list(search.leave_out(start))
    assert {frozenset(recipes[-1].float_nodes)} == {frozenset(blocks[1] + blocks[2] + blocks[3])}
    sizes = [len(search.int8(Recipe(doctored_onnx, float_nodes=block))) for block in blocks]
    bound = sorted(sizes[1:4])[0]
    tight = search_of(doctored_onnx, *data, params(max_int8_bytes=bound), tmp_path)
    (only,) = tight.leave_out(Recipe(doctored_onnx))
    assert set(only.float_nodes) == set(blocks[sizes.index(bound)])


def test_float_stem_is_the_first_blocks(search, doctored_onnx):
    (recipe,) = search.float_stem(Recipe(doctored_onnx))
    blocks = blocks_of(doctored_onnx)
    assert recipe == Recipe(doctored_onnx, float_nodes=blocks[0] + blocks[1])


def test_joined_remedies_are_one_attempt_and_do_the_same(doctored_onnx, data):
    asked = params(remedies=("float_stem+equalize+round",), max_int8_bytes=1)
    (joined,) = search_int8(doctored_onnx, *data, asked)
    assert joined.candidate.remedy == "float_stem+equalize+round"
    recipe = Recipe(doctored_onnx, float_nodes=stem_nodes(doctored_onnx))
    model = equalized(recipe.model, data[0])
    assert joined.recipe == replace(recipe, model=rounded(model, data[0], recipe.float_nodes))


def test_bias_correction_moves_the_mean_error_towards_zero(search, doctored_onnx, data):
    pixels = np.concatenate(data[0])
    reference = logits_of(doctored_onnx, pixels)
    recipe = Recipe(doctored_onnx)
    (corrected,) = search.correct_bias(recipe)
    before, after = (
        np.abs((reference - logits_of(search.int8(r), pixels)).mean(axis=0)).max()
        for r in (recipe, corrected)
    )
    assert before > 1e-3
    # Not to 0: the logits themselves are rounded to int8 after the shift.
    assert after < 0.75 * before
    assert corrected == replace(recipe, model=corrected.model)


@pytest.mark.parametrize("name", ["minmax", "percentile"])
def test_calibrators_keep_what_remedies_did(name, search, doctored_onnx):
    start = Recipe(b"rewritten", "minmax", ("a", "b"))
    (recipe,) = REMEDIES[name](search, start)
    assert recipe == Recipe(b"rewritten", name, ("a", "b"))


def test_best_of_none_is_none():
    assert best_of([], 10**9) is None


def test_best_of_looks_at_bytes_then_noise_then_agreement():
    def attempt(agreement: float, sqnr: float, size_bytes: int = 1) -> Attempt:
        candidate = Candidate(
            remedy="x",
            calibrator="minmax",
            float_nodes=(),
            agreement=agreement,
            metrics={"accuracy": 0.5},
            sqnr_db=sqnr,
            size_bytes=size_bytes,
            holds_bounds=False,
            is_chosen=False,
        )
        return Attempt(candidate, Recipe(b""), b"")

    lucky, clear, both = attempt(0.95, 10), attempt(0.9, 40), attempt(0.95, 40)
    assert best_of([lucky, clear], 10**9) is clear
    assert best_of([clear, both, lucky], 10**9) is both
    # What is over the bound on bytes is kept only where nothing is under it.
    large = attempt(0.99, 50, size_bytes=100)
    assert best_of([lucky, large, clear], 99) is clear
    assert best_of([large], 99) is large
