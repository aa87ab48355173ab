"""audit: what can be known without a look at the subject, and which labels may be wrong.

Train and val only: what is found out about the test split would be used. Nothing that is trained
depends on what is written here; `gate` and the reports do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pipelines.atomic import new_folder, write_bytes, write_text
from pipelines.audit import shortcuts
from pipelines.audit.features import BlindView, blind_features, blind_view, original_facts
from pipelines.audit.label_issues import facts_sheet, issues_csv, issues_sheet, label_issues
from pipelines.backbones.spec import backbone
from pipelines.config.audit import AuditParams
from pipelines.data.images import open_image, read_file
from pipelines.data.manifest import (
    Entry,
    preprocess_of,
    read_manifest,
    read_summary,
)
from pipelines.data.pixel_range import Reading
from pipelines.data.workers import ordered_map
from pipelines.kinds.audit import KINDS, AuditedKind, Blind
from pipelines.kinds.blind import one_hot, out_of_fold, probe
from pipelines.paths import Paths
from pipelines.plots.audit import audit_bars
from pipelines.progress import track
from pipelines.serving.trust import AuditReport
from pipelines.training.embedder import embed, embedder

if TYPE_CHECKING:
    from pipelines.config.train import TrainParams

_LOG = logging.getLogger(__name__)

#: Pictures that go through the backbone together.
_BATCH = 16


def run(
    task: str, params: AuditParams, train: TrainParams, resamples: int, seed: int, paths: Paths
) -> None:
    """Write audit.json, and reports/<task>/audit/ whole or not at all.

    Raises:
        MissingDataError: if `prepare` has not run.
        DataError: if a class has fewer than two groups in train and val.
        CorruptImageError: if an image changed since `prepare`.
        WeightsError: if pretrained weights cannot be had.
    """
    files = paths.task(task)
    summary = read_summary(files.prepare_summary)
    labels = summary.labels
    entries = [entry for entry in read_manifest(files.manifest) if entry.split != "test"]
    kind = KINDS[summary.kind]
    shared = kind.blind(entries, labels, files.raw_dir, params.folds, seed, resamples)
    features = _features(task, entries, train, summary.reading, seed, paths)

    embeddings = features.pop("embedding")
    probed = shared.told(embeddings, "probe")
    features |= _sources(entries, embeddings, shared)
    guesses = {
        name: shared.told(features[name], "forest") for name in shortcuts.AUDITS if name in features
    }
    classes = shared.class_index
    issues = [] if classes is None else label_issues(classes, probed)
    report = _report(task, kind, params, entries, shared, probed, guesses, len(issues))
    figures: dict[str, bytes | None] = {"audit.png": audit_bars(report)}
    if classes is not None:
        shown = (entries, labels, files, summary.reading)
        figures["label_issues.png"] = issues_sheet(issues, *shown)
        figures["file_facts.png"] = facts_sheet(guesses["file_facts"], *shown)
    with new_folder(files.audit_dir) as folder:
        write_text(folder / files.label_issues.name, issues_csv(issues, entries, labels))
        for name, figure in figures.items():
            if figure is not None:
                write_bytes(folder / name, figure)
    write_text(files.audit, report.model_dump_json(indent=2) + "\n")
    _LOG.info(
        "%s: %s; chance %.3f, probe %.3f; %s; %d labels to look at",
        task,
        report.verdict,
        report.chance,
        report.probe.value,
        ", ".join(f"{s.name} {s.macro_f1.value:.3f} ({s.verdict})" for s in report.scores),
        report.n_label_issues,
    )


# -- features -------------------------------------------------------------------------------------
def _features(
    task: str,
    entries: Sequence[Entry],
    train: TrainParams,
    reading: Reading,
    seed: int,
    paths: Paths,
) -> dict[str, NDArray[np.generic]]:
    """By audit, (n, d); the embedding besides."""
    raw_dir = paths.task(task).raw_dir
    expected = backbone(train.backbone, train.width).input
    preprocess = preprocess_of(train, reading, expected.interpolation)
    session = embedder(train, seed, paths)

    def seen(entry: Entry) -> tuple[BlindView, NDArray[np.uint8]]:
        data = read_file(raw_dir / entry.path, entry.path)
        pixels = preprocess(open_image(data, name=entry.path, reading=reading).rgb)
        return blind_view(data, entry.path, pixels), pixels

    views, waiting, embeddings = list[BlindView](), list[NDArray[np.uint8]](), list[Any]()
    ahead = ordered_map(seen, entries, window=2 * _BATCH)
    for one, pixels in track(ahead, f"{task}: auditing", len(entries)):
        views.append(one)
        waiting.append(pixels)
        if len(waiting) == _BATCH or len(views) == len(entries):
            embeddings.append(embed(session, np.stack(waiting)))
            waiting.clear()
    stated = original_facts(raw_dir)
    features = blind_features(views, [stated.get(entry.path, {}) for entry in entries])
    return {**features, "embedding": np.concatenate(embeddings)}


def _sources(
    entries: Sequence[Entry], embeddings: NDArray[np.generic], shared: Blind
) -> dict[str, NDArray[np.generic]]:
    """The recorded source, and the one that a probe takes a picture for; empty without two."""
    names, place = np.unique([entry.source for entry in entries], return_inverse=True)
    if len(names) < 2:
        return {}
    guessed = out_of_fold(probe, embeddings, place, len(names), shared.folds).argmax(axis=1)
    return {
        "source": one_hot(place),
        "source_from_pixels": one_hot(guessed),
    }


# -- what is written ------------------------------------------------------------------------------
def _report(
    task: str,
    kind: AuditedKind,
    params: AuditParams,
    entries: Sequence[Entry],
    shared: Blind,
    probed: NDArray[Any],
    guesses: Mapping[str, NDArray[Any]],
    n_issues: int,
) -> AuditReport:
    reached = shared.interval(probed)
    scores = [
        shortcuts.score(name, found, reached.value, shared, params)
        for name, found in guesses.items()
    ]
    return AuditReport(
        task=task,
        n_images=len(entries),
        n_groups=len({entry.group for entry in entries}),
        folds=len(shared.folds),
        metric=kind.metric,
        constant=kind.constant,
        chance=shared.chance(),
        probe=reached,
        scores=tuple(scores),
        verdict=shortcuts.worst(scores),
        accepted=params.accepted,
        suspicious_share=params.suspicious_share,
        shortcut_share=params.shortcut_share,
        source_purity=shortcuts.source_purity(
            [entry.source for entry in entries], [entry.label for entry in entries]
        ),
        n_label_issues=n_issues,
    )
