from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from pipelines.config.export import ExportParams
from pipelines.errors import ConfigError
from pipelines.export.attempts import WEIGHTS_ALONE, Attempt, Recipe, best_of, max_bytes
from pipelines.export.graphs import blocks_of, logits_of, operators_of
from pipelines.export.quantize import equalized, rounded
from pipelines.export.remedies import REMEDIES, Search
from pipelines.kinds.classification.export import ExportedClassification
from pipelines.metrics.classification import agreement, sqnr_db
from pipelines.serving.bundle import Candidate
from tests.tiny_network import pictures

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


@pytest.fixture(scope="module")
def val() -> np.ndarray:
    return pictures(40, 9)


@pytest.fixture(scope="module")
def truth(doctored_onnx, val) -> np.ndarray:
    """Val labels with which fp32 is right but for a few."""
    found = logits_of(doctored_onnx, val).argmax(axis=1)
    found[::10] = (found[::10] + 1) % 4
    return found


@pytest.fixture
def search_of(doctored_onnx, batches, val, truth, tmp_path):
    """Makes the search of the doctored model."""

    def made(
        truth=truth, folder=tmp_path, model=doctored_onnx, keeps_pace=lambda _: True, **changes
    ) -> Search:
        asked = ExportParams.model_validate({**LOOSE, **changes})

        def judge(reference):
            return ExportedClassification().judge(reference, truth, asked)

        return Search(model, batches, val, judge, asked, folder, keeps_pace)

    return made


def tried_by(search: Search) -> dict[str, Candidate]:
    return {attempt.candidate.remedy: attempt.candidate for attempt in search.run()}


def test_search_stops_at_the_first_that_holds_the_bounds(search_of):
    tried = tried_by(search_of())
    assert list(tried) == ["minmax"]
    assert tried["minmax"].holds_bounds
    assert tried["minmax"].is_chosen


def test_search_goes_on_until_a_remedy_helps(search_of):
    tried = tried_by(search_of(remedies=("minmax", "equalize"), max_int8_bytes=1))
    first, second = (candidate.agreement for candidate in tried.values())
    # The doctored model needs the second remedy; the bound lies between the two.
    assert first < second
    bound = (first + second) / 2
    tried = tried_by(search_of(remedies=("minmax", "equalize", "round"), min_agreement=bound))
    assert list(tried) == ["minmax", "equalize"]
    assert [candidate.holds_bounds for candidate in tried.values()] == [False, True]
    assert [candidate.is_chosen for candidate in tried.values()] == [False, True]


def test_where_nothing_holds_all_are_tried_and_the_best_is_chosen(
    search_of, doctored_onnx, val, truth
):
    attempts = search_of(max_int8_bytes=1).run()
    assert [attempt.candidate.remedy for attempt in attempts] == list(LOOSE["remedies"])
    assert not any(attempt.candidate.holds_bounds for attempt in attempts)
    (chosen,) = (attempt.candidate for attempt in attempts if attempt.candidate.is_chosen)
    assert chosen.sqnr_db == max(a.candidate.sqnr_db for a in attempts)
    # What is written of each is what its file does.
    reference = logits_of(doctored_onnx, val)
    for attempt in attempts:
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
def test_each_bound_counts_and_is_named(bound, said, search_of, doctored_onnx, val):
    # As if fp32 were always right: then each error of int8 costs.
    truth = logits_of(doctored_onnx, val).argmax(axis=1)
    (attempt,) = search_of(truth, remedies=("minmax",), **bound).run()
    assert attempt.candidate.agreement < 1
    assert not attempt.candidate.holds_bounds
    assert attempt.candidate.is_chosen
    (missed,) = attempt.missed
    assert re.search(said, missed)


def test_the_bound_on_bytes_follows_the_number_of_classes():
    more = [max_bytes(2_600_000, n) - 2_600_000 for n in (2, 10, 11, 200)]
    assert more == [0, 0, 1_300, 247_000]


def test_search_is_deterministic(search_of, tmp_path_factory):
    first, again = (
        search_of(
            folder=tmp_path_factory.mktemp("search"),
            remedies=("minmax", "equalize+round"),
            max_int8_bytes=1,
        ).run()
        for _ in range(2)
    )
    assert first == again


def test_unknown_remedy_and_none_at_all_are_refused(search_of):
    with pytest.raises(ConfigError, match=r"export\.remedies: there is no remedy 'hope'") as caught:
        search_of(remedies=("minmax", "hope")).run()
    assert all(name in str(caught.value) for name in REMEDIES)
    with pytest.raises(ConfigError, match=r"export\.remedies: expected at least one"):
        search_of(remedies=()).run()


# -- one remedy at a time -------------------------------------------------------------------------
def test_leave_out_adds_whole_blocks_the_most_telling_first(search_of, doctored_onnx, batches):
    search = search_of()
    recipes = list(search.leave_out(Recipe(doctored_onnx)))
    blocks = {frozenset(block) for block in blocks_of(doctored_onnx)}
    before: set[str] = set()
    for recipe in recipes:
        nodes = set(recipe.float_nodes)
        assert before < nodes
        assert frozenset(nodes - before) in blocks
        before = nodes
    pixels = np.concatenate(batches)[:32]
    reference = logits_of(doctored_onnx, pixels)
    gains = [
        sqnr_db(reference, logits_of(search.int8(Recipe(doctored_onnx, float_nodes=block)), pixels))
        for block in blocks_of(doctored_onnx)
    ]
    # The first and the last of the five are single convolutions, which ONNX Runtime would quantise.
    assert len(recipes) == 3
    first = blocks_of(doctored_onnx)[1 + int(np.argmax(gains[1:4]))]
    assert set(recipes[0].float_nodes) == set(first)


def test_leave_out_takes_no_block_that_is_float_already_or_too_large(search_of, doctored_onnx):
    blocks = blocks_of(doctored_onnx)
    search = search_of()
    start = Recipe(doctored_onnx, float_nodes=blocks[2])
    recipes = list(search.leave_out(start))
    assert {frozenset(recipes[-1].float_nodes)} == {frozenset(blocks[1] + blocks[2] + blocks[3])}
    sizes = [len(search.int8(Recipe(doctored_onnx, float_nodes=block))) for block in blocks]
    bound = sorted(sizes[1:4])[0]
    (only,) = search_of(max_int8_bytes=bound).leave_out(Recipe(doctored_onnx))
    assert set(only.float_nodes) == set(blocks[sizes.index(bound)])


def test_joined_remedies_are_one_attempt_and_do_the_same(search_of, doctored_onnx, batches):
    (joined,) = search_of(remedies=("float_stem+equalize+round",), max_int8_bytes=1).run()
    assert joined.candidate.remedy == "float_stem+equalize+round"
    blocks = blocks_of(doctored_onnx)
    stem = blocks[0] + blocks[1]
    model = rounded(equalized(doctored_onnx, batches), batches, stem)
    assert joined.recipe == Recipe(model, float_nodes=stem)


def test_bias_correction_moves_the_mean_error_towards_zero(search_of, doctored_onnx, batches):
    search = search_of()
    pixels = np.concatenate(batches)
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
def test_calibrators_keep_what_remedies_did(name, search_of):
    (recipe,) = REMEDIES[name](search_of(), Recipe(b"rewritten", "minmax", ("a", "b")))
    assert recipe == Recipe(b"rewritten", name, ("a", "b"))


def test_weights_alone_are_near_fp32_and_need_no_ranges(search_of, doctored_onnx, val):
    (attempt,) = search_of(remedies=("weights",)).run()
    assert attempt.candidate.remedy == "weights"
    assert attempt.candidate.calibrator == WEIGHTS_ALONE
    assert attempt.candidate.float_nodes == ()
    assert "QuantizeLinear" not in operators_of(attempt.model)
    (rounded_too,) = search_of(remedies=("float_stem+equalize+round",)).run()
    assert attempt.candidate.sqnr_db > rounded_too.candidate.sqnr_db + 10


def test_after_a_slow_file_only_what_may_be_quicker_is_tried(search_of):
    steps = ("minmax", "equalize", "weights", "percentile")

    first, second = search_of(remedies=steps, keeps_pace=lambda _: False).run()
    assert (first.candidate.remedy, first.is_slow, first.candidate.is_chosen) == (
        *("minmax", True),
        False,
    )
    assert (second.candidate.remedy, second.is_slow, second.candidate.is_chosen) == (
        *("weights", False),
        True,
    )
    # What runs fp32's operators cannot be faster: the first that holds its bounds is reported.
    attempts = search_of(remedies=steps, keeps_pace=lambda _: False, min_speedup=1.5).run()
    assert [a.candidate.remedy for a in attempts] == ["minmax", "weights"]
    assert [a.candidate.is_chosen for a in attempts] == [True, False]
    assert all(a.is_slow and a.candidate.holds_bounds for a in attempts)


def test_pace_is_asked_of_files_that_hold_their_bounds_alone(search_of):
    asked: list[bytes] = []
    attempts = search_of(remedies=("minmax", "equalize"), max_int8_bytes=1, keeps_pace=asked.append)
    assert not any(attempt.is_slow for attempt in attempts.run())
    assert asked == []


def test_hard_swish_goes_to_its_weights_at_once(search_of, swish_onnx):
    steps = ("minmax", "equalize", "weights")
    (attempt,) = search_of(model=swish_onnx, remedies=steps).run()
    assert attempt.candidate.remedy == "weights"
    # Who does not ask for it gets what he asks for.
    (plain,) = search_of(model=swish_onnx, remedies=steps[:2]).run()
    assert plain.candidate.remedy == "minmax"


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
    assert best_of([], 99) is None
