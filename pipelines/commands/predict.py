"""`fieldlens predict`: what a bundle says about pictures, and how long it takes to say it.

Goes through `pipelines.mobile.predictor` alone, as the apps do; loads no torch, MLflow or DVC.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from pipelines.commands.answer import Answer, shown, table
from pipelines.errors import BundleError, ConfigError, CorruptImageError
from pipelines.mobile.bundle import Bundle
from pipelines.mobile.predictor import Prediction, Predictor, processor_name
from pipelines.mobile.sessions import Precision
from pipelines.paths import Paths

_BUNDLE = "bundle.json"
#: Labels shown for one picture; --json gives all.
_SHOWN_LABELS = 5
FOREIGN_WARNING = "I do not know this kind of picture: do not believe what stands here."
SAMPLE_WARNING = (
    "This model has seen painted sample images only: its answers mean nothing for real pictures."
)


def run(
    paths: Paths,
    images: Sequence[Path],
    *,
    task: str | None = None,
    bundle_path: Path | None = None,
    precision: Precision | None = None,
    n_threads: int = 1,
    as_json: bool = False,
) -> Answer:
    """The answers for pictures; a bad picture is complained about and the others answered.

    Args:
        paths: where the bundles are looked for.
        images: files.
        task: whose bundle; may be None where there is one only.
        bundle_path: a bundle.json or its folder, instead of a task's.
        precision: which model file; None for the one that the bundle serves.
        n_threads: threads of ONNX Runtime, at least 1.
        as_json: give JSON instead of tables.

    Raises:
        ConfigError: if it is not clear which bundle is meant.
        BundleError: if the bundle is missing, incomplete or changed.
    """
    if n_threads < 1:
        raise ConfigError(f"--threads: expected at least 1 (got {n_threads}).")
    predictor = Predictor.load(
        find_bundle(paths, task, bundle_path), precision, n_threads=n_threads
    )
    _warm_up(predictor)
    predictions: list[tuple[Path, Prediction]] = []
    complaints: list[tuple[Path, str]] = []
    for image in images:
        try:
            predictions.append((image, predictor.predict(image)))
        except CorruptImageError as err:
            complaints.append((image, str(err)))
    text = (
        _as_json(predictor, predictions, complaints)
        if as_json
        else _as_text(predictor, predictions)
    )
    return Answer(text, tuple(line for _, line in complaints), exit_code=2 if complaints else 0)


def find_bundle(paths: Paths, task: str | None, bundle_path: Path | None) -> Path:
    """The bundle that a command line means; never a guess between several.

    Args:
        paths: where the bundles are looked for.
        task: a task, or None.
        bundle_path: a bundle.json or its folder, or None.

    Raises:
        ConfigError: if both are given, or neither and there are several bundles.
        BundleError: if there is none.
    """
    if bundle_path is not None:
        if task is not None:
            raise ConfigError("--task and --bundle: expected one of them (got both).")
        return bundle_path / _BUNDLE if bundle_path.is_dir() else bundle_path
    found = {path.parents[1].name: path for path in paths.models_dir.glob(f"*/mobile/{_BUNDLE}")}
    choices = ", ".join(sorted(found))
    if task is not None:
        if task not in found:
            there_are = f"Models: {choices}. " if choices else ""
            raise BundleError(
                f"{paths.task(task).bundle}: there is no model of {task!r}. {there_are}"
                f"Run `dvc repro evaluate@{task}` to make it."
            )
        return found[task]
    if not found:
        raise BundleError(
            f"{paths.models_dir}: there is no model yet. Run `make repro`, or name one by --bundle."
        )
    if len(found) > 1:
        raise ConfigError(f"--task: there are {len(found)} models; expected one of {choices}.")
    return next(iter(found.values()))


def _warm_up(predictor: Predictor) -> None:
    """Make what only the first picture pays for (decoder tables, the session's arena) be paid."""
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(buffer, "JPEG")
    predictor.predict(buffer.getvalue())


def _as_text(predictor: Predictor, predictions: Sequence[tuple[Path, Prediction]]) -> str:
    if not predictions:
        return ""
    bundle = predictor.bundle
    lines = [f"{bundle.title} ({bundle.task}, {bundle.provenance.backbone}, {predictor.precision})"]
    if bundle.is_sample:
        lines.append(SAMPLE_WARNING)
    for path, prediction in predictions:
        ranked = sorted(prediction.probabilities.items(), key=lambda item: (-item[1], item[0]))
        rows = [
            (bundle.name_of(label), f"{probability:.3f}", bundle.label_meanings.get(label, ""))
            for label, probability in ranked[:_SHOWN_LABELS]
        ]
        lines += ["", shown(str(path))]
        if prediction.is_foreign:
            lines.append(f"{FOREIGN_WARNING} {_foreignness(bundle, prediction)}")
        lines.append(table(("LABEL", "PROBABILITY", "MEANING"), rows))
        if len(ranked) > _SHOWN_LABELS:
            lines.append(f"and {len(ranked) - _SHOWN_LABELS} more labels (--json shows all)")
        if not prediction.is_foreign:
            lines += _calls(bundle, prediction)
            if prediction.foreignness is not None:
                lines.append(f"A kind of picture that I know. {_foreignness(bundle, prediction)}")
        lines.append(f"{prediction.elapsed_ms:.1f} ms")
    threads = "1 thread" if predictor.n_threads == 1 else f"{predictor.n_threads} threads"
    lines += [
        "",
        f"Time is that of one run a picture, decoding included, after one warm-up run: {threads} "
        f"of {processor_name()}. Not a phone's.",
        f"For: {bundle.intended_use}",
        f"Not for: {'; '.join(limit.rstrip('.') for limit in bundle.not_for)}.",
    ]
    return "\n".join(lines)


def _calls(bundle: Bundle, prediction: Prediction) -> list[str]:
    """One line a label with an operating point: yes or no, and what that is worth."""
    return [
        f"{bundle.name_of(label)}: {'yes' if is_yes else 'no'} (yes from {point.threshold:.3f}; on "
        f"val that found {point.sensitivity:.0%} and said no to {point.specificity:.0%} of the "
        f"others)"
        for label, is_yes in prediction.positives.items()
        for point in [bundle.operating_points[label]]
    ]


def _foreignness(bundle: Bundle, prediction: Prediction) -> str:
    if bundle.abstention is None or prediction.foreignness is None:
        return ""
    return f"(foreignness {prediction.foreignness:.3f}, bound {bundle.abstention.threshold:.3f})"


def _as_json(
    predictor: Predictor,
    predictions: Sequence[tuple[Path, Prediction]],
    complaints: Sequence[tuple[Path, str]],
) -> str:
    bundle = predictor.bundle
    document = {
        "task": bundle.task,
        "precision": predictor.precision,
        "model_sha256": bundle.files[predictor.precision].sha256,
        "data_source": bundle.provenance.data_source,
        "n_threads": predictor.n_threads,
        "processor": processor_name(),
        "images": [
            {
                "path": str(path),
                "label": prediction.label,
                "name": bundle.name_of(prediction.label),
                "probabilities": prediction.probabilities,
                "is_foreign": prediction.is_foreign,
                "foreignness": prediction.foreignness,
                "positives": prediction.positives,
                "elapsed_ms": round(prediction.elapsed_ms, 3),
            }
            for path, prediction in predictions
        ],
        "errors": [{"path": str(path), "error": error} for path, error in complaints],
    }
    return json.dumps(document, indent=2)
