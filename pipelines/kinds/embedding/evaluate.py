"""The half of `embedding` that `evaluate` asks: retrieval and verification of unseen identities."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.config.evaluate import EvaluateParams
from pipelines.data.images import open_image
from pipelines.data.manifest import Entry
from pipelines.kinds.embedding.truth import identity_of, known_of
from pipelines.metrics.certainty import Certainty, Gain, defined, gain_of, gain_of_means
from pipelines.metrics.intervals import DIFFERENCE, Draws, by_mean, rounded_intervals
from pipelines.metrics.retrieval import (
    Known,
    PairRates,
    Pairs,
    agreements,
    check_asked,
    drop_interval,
    equal_error_rates,
    map_at_r,
    pairs_of,
    ranked,
    rate_interval,
    rates_at,
    recall_at,
    resampled_rates,
)
from pipelines.plots.retrieval import neighbour_sheet, verification
from pipelines.serving.bundle import Bundle
from pipelines.serving.embedding import N_NEIGHBOURS, SAME, VECTOR_NAME, distances
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import Interval

if TYPE_CHECKING:
    from pipelines.kinds.evaluate import Answers

#: What fp32 and int8 are compared in.
_COMPARED = ("recall_at_1", "map_at_r", "eer")
#: Pictures that the sheet asks for.
_N_SHOWN = 8


@dataclass(frozen=True, slots=True)
class _Found:
    """What one file says.

    Attributes:
        distance: (n, n).
        hits: by metric, (n,) of each picture that is asked for, else NaN.
        pairs: the same ones for both files.
    """

    distance: NDArray[np.float64]
    hits: dict[str, NDArray[np.float64]]
    pairs: Pairs


class TestedEmbedding:
    """Each picture of the test split is asked for among the others."""

    #: Or pytest would look for tests in it.
    __test__ = False

    def unknown(self, entries: Sequence[Entry], bundle: Bundle) -> str | None:
        """Nothing: what was never seen is what is asked."""
        return None

    def metrics(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """Recall, MAP@R and EER, and the error rates at the distance that was chosen on val."""
        known, found = answers.once(_found)
        by_precision: dict[str, dict[str, float]] = {
            key: _measured(of, _bound(answers)) for key, of in found.items()
        }
        fp32, int8 = by_precision["fp32"], by_precision["int8"]
        same = agreements(found["fp32"].distance, found["int8"].distance, known)
        return {
            **by_precision,
            "agreement": float(same.mean()),
            # Of an error rate, below 0 where int8 is worse.
            **{f"{name}_drop": fp32[name] - int8[name] for name in _COMPARED},
        }

    def trust(self, answers: Answers, params: EvaluateParams) -> dict[str, Any]:
        """What the figures rest on, and what is refused."""
        known, found = answers.once(_found)
        of = found[answers.bundle.served.precision]
        asked = np.isfinite(of.hits["recall_at_1"])
        refused = answers.is_ood
        return {
            "n_identities": len(np.unique(known[:, 0])),
            "n_asked": int(asked.sum()),
            "n_pairs": {
                "same": int(of.pairs.is_same.sum()),
                "different": int((~of.pairs.is_same).sum()),
            },
            "same_up_to": _bound(answers),
            "refused": None if refused is None else float(refused.mean()),
        }

    def certainty(self, answers: Answers, draws: Draws, params: EvaluateParams) -> Certainty:
        """By identity: whole identities are drawn."""
        known, found = answers.once(_found)
        bound = _bound(answers)
        rates = {key: resampled_rates(draws, of.pairs, bound) for key, of in found.items()}
        intervals = {key: _intervals(draws, of, rates[key]) for key, of in found.items()}
        fp32, int8 = found["fp32"], found["int8"]
        paired = {
            f"{name}_drop": by_mean(draws, fp32.hits[name] - int8.hits[name], DIFFERENCE)
            for name in ("recall_at_1", "map_at_r")
        }
        paired["eer_drop"] = drop_interval(draws, rates["fp32"].eer, rates["int8"].eer)
        paired["agreement"] = by_mean(draws, agreements(fp32.distance, int8.distance, known))
        return Certainty(intervals, rounded_intervals(paired))

    def tables(self, answers: Answers) -> tuple[str, str]:
        """A row a picture with its nearest; nothing is confused."""
        known, found = answers.once(_found)
        of, bound = found[answers.bundle.served.precision], _bound(answers)
        near = ranked(of.distance, known, 1)[:, 0]
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(
            ["path", "identity", "nearest_path", "nearest_identity", "distance", "is_same"]
        )
        for row, (entry, other) in enumerate(zip(answers.entries, near.tolist(), strict=True)):
            said = ["", "", "", ""]
            if other >= 0:
                far, nearest = float(of.distance[row, other]), answers.entries[other]
                is_same = str(far <= bound).lower()
                said = [nearest.path, identity_of(nearest.truth), f"{far:.6f}", is_same]
            writer.writerow([entry.path, identity_of(entry.truth), *said])
        return buffer.getvalue(), "actual,predicted\n"

    def figures(self, answers: Answers, params: EvaluateParams) -> dict[str, bytes]:
        """Error rates, and some pictures with their nearest."""
        known, found = answers.once(_found)
        of = found[answers.bundle.served.precision]
        return {
            "verification.png": verification(of.pairs, _bound(answers)),
            # Its name keeps it out of pages on real images.
            "neighbour_samples.png": _sheet(answers, of, known),
        }

    def gains(self, one: Answers, other: Answers, draws: Draws) -> dict[str, Gain]:
        """Recall, MAP@R, and the rates of errors at the distance that each chose on val."""
        (first, rates), (second, others) = (
            (found, resampled_rates(draws, found.pairs, _bound(each)))
            for each in (one, other)
            for found in (each.once(_found)[1][each.only],)
        )
        hits = {
            name: gain_of_means(draws, of, second.hits[name]) for name, of in first.hits.items()
        }
        errors = {
            name: gain_of(draws, getattr(rates, name), getattr(others, name))
            for name in ("eer", "false_match", "false_non_match")
        }
        return defined(hits | errors)

    kept_of = "the five nearest of the other pictures, which stay unchanged"

    def kept(self, before: Answers, after: Answers) -> NDArray[np.float64]:
        """The changed pictures are asked for among the others as they were."""
        one, other = (each.outputs[each.only][VECTOR_NAME] for each in (before, after))
        known = known_of(before.entries)
        return agreements(distances(one, one), distances(other, one), known)

    def summary(self, metrics: Mapping[str, Any], certainty: Certainty) -> str:
        """Recall, EER and agreement."""
        served = metrics["served"]
        recall, rate = (certainty.intervals[served][name] for name in ("recall_at_1", "eer"))
        return (
            f"{served} recall@1 {recall.value:.3f} (95 %: {recall.low:.3f} to {recall.high:.3f}), "
            f"EER {rate.value:.3f} ({rate.low:.3f} to {rate.high:.3f}), agreement of int8 and fp32 "
            f"{metrics['agreement']:.3f}"
        )


def _bound(answers: Answers) -> float:
    return 1 - answers.bundle.operating_points[SAME].threshold


def _found(answers: Answers) -> tuple[Known, dict[Precision, _Found]]:
    known = known_of(answers.entries)
    check_asked(known, answers.name)
    found: dict[Precision, _Found] = {}
    pairs: Pairs | None = None
    for precision, outputs in answers.outputs.items():
        distance = distances(outputs[VECTOR_NAME], outputs[VECTOR_NAME])
        hits = {
            "recall_at_1": recall_at(distance, known, 1),
            "recall_at_5": recall_at(distance, known, 5),
            "map_at_r": map_at_r(distance, known),
        }
        pairs = pairs_of(distance, known) if pairs is None else pairs.by(distance)
        found[precision] = _Found(distance, hits, pairs)
    return known, found


def _measured(found: _Found, bound: float) -> dict[str, float]:
    matches, misses = rates_at(found.pairs, bound)
    return {
        **{name: float(np.nanmean(hits)) for name, hits in found.hits.items()},
        "eer": float(equal_error_rates(found.pairs)[0][0]),
        "false_match": float(matches[0]),
        "false_non_match": float(misses[0]),
    }


def _intervals(draws: Draws, found: _Found, rates: PairRates) -> dict[str, Interval]:
    return rounded_intervals(
        {
            **{name: by_mean(draws, hits) for name, hits in found.hits.items()},
            "eer": rate_interval(draws, rates.eer),
            "false_match": rate_interval(draws, rates.false_match),
            "false_non_match": rate_interval(draws, rates.false_non_match),
            # The same as pages on operating points ask for them.
            f"point.sensitivity.{SAME}": rate_interval(draws, 1 - rates.false_non_match),
            f"point.specificity.{SAME}": rate_interval(draws, 1 - rates.false_match),
        }
    )


def _sheet(answers: Answers, found: _Found, known: Known) -> bytes:
    """Pictures from all over the split, half of them such whose nearest is wrong, if there are."""
    hits = found.hits["recall_at_1"]
    asked, wrong = np.flatnonzero(np.isfinite(hits)), np.flatnonzero(hits == 0)
    spread = [
        rows[np.linspace(0, len(rows) - 1, min(_N_SHOWN // 2, len(rows))).round().astype(int)]
        for rows in (asked, wrong)
        if len(rows)
    ]
    shown = list(dict.fromkeys(np.concatenate(spread).tolist()))
    near = ranked(found.distance, known, N_NEIGHBOURS)
    reading = answers.bundle.preprocess.build().reading

    def picture(row: int) -> NDArray[np.uint8]:
        path = answers.raw_dir / answers.entries[row].path
        return np.asarray(open_image(path, reading=reading).rgb)

    return neighbour_sheet(
        [
            (
                picture(row),
                identity_of(answers.entries[row].truth),
                [
                    (
                        picture(other),
                        f"{identity_of(answers.entries[other].truth)} "
                        f"{found.distance[row, other]:.2f}",
                        bool(known[other, 0] == known[row, 0]),
                    )
                    for other in near[row].tolist()
                    if other >= 0
                ],
            )
            for row in shown
        ]
    )
