"""Another folder whose truth is more than a label: measured as `evaluate` measures a test split.

Boxes, masks and identities go through the kind's own half (`pipelines.kinds.evaluate`), with the
two files of the bundle, so that a figure here and one of the test split are of one making. Called
by `validate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipelines.config.evaluate import EvaluateParams
from pipelines.data.manifest import Entry, in_split
from pipelines.errors import DataError
from pipelines.kinds.evaluate import KINDS, Answers, answered
from pipelines.metrics.classification import rounded
from pipelines.metrics.intervals import Draws, by_mean, draw, rounded_interval
from pipelines.serving.predictor import Predictor
from pipelines.serving.sessions import Precision
from pipelines.serving.trust import Interval
from pipelines.validation.external import Abstained
from pipelines.validation.new_images import Project


@dataclass(frozen=True, slots=True)
class AsTested:
    """What the folder shows of the served file.

    Attributes:
        metrics: as in metrics.json, of the served file; beside them what is reached without a look
            (``blind``), and how far int8 and fp32 agree here.
        table: the text of predictions.csv.
        figures: PNG files by name.
    """

    metrics: dict[str, Any]
    intervals: dict[str, Interval]
    abstained: Abstained | None
    draws: Draws
    table: str
    figures: dict[str, bytes]


def as_tested(
    predictors: Mapping[Precision, Predictor[Any]],
    entries: Sequence[Entry],
    folder: Path,
    project: Project | None,
    params: EvaluateParams,
    seed: int,
) -> AsTested:
    """The folder's figures.

    Args:
        predictors: of both files of the bundle, fp32 first.
        entries: that count, with truth.
        project: whose train split tells what is reached blindly; None where it is not here.

    Raises:
        DataError: if the truth is not what the model answers, or too little to measure.
        CorruptImageError: if a picture cannot be used.
    """
    bundle = next(iter(predictors.values())).bundle
    kind = KINDS[bundle.kind]
    unknown = kind.unknown(entries, bundle)
    if unknown is not None:
        raise DataError(f"{folder}: {unknown}. Expected what the model was taught.")
    answers = replace(
        answered(predictors, entries, folder, doing="asking the model"),
        train=_train(project),
        train_dir=None if project is None else project.raw_dir,
        name=folder.resolve().name,
    )
    served = bundle.served.precision
    # First: it refuses answers that are no numbers.
    found = rounded({**kind.metrics(answers, params), **kind.trust(answers, params)})
    metrics = {**found[served], **{key: of for key, of in found.items() if key not in predictors}}
    draws = draw([entry.group for entry in entries], params.resamples, seed)
    certainty = kind.certainty(answers, draws, params)
    return AsTested(
        metrics=metrics,
        intervals=certainty.intervals[served],
        abstained=_abstained(answers, draws),
        draws=draws,
        table=kind.tables(answers)[0],
        figures=kind.figures(answers, params),
    )


def _train(project: Project | None) -> list[Entry]:
    """The train split, if its files are here."""
    if project is None:
        return []
    train = in_split(project.entries, "train")
    return train if all((project.raw_dir / entry.path).is_file() for entry in train) else []


def _abstained(answers: Answers, draws: Draws) -> Abstained | None:
    refused = None if answers.is_ood is None else by_mean(draws, answers.is_ood)
    if refused is None:
        return None
    return Abstained(
        refused=rounded_interval(refused), accuracy_of_accepted=None, macro_f1_of_accepted=None
    )
