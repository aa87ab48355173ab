"""audit: what labels can be known without a look at the subject, and which labels may be wrong.

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
    class_index_of,
    preprocess_of,
    read_manifest,
    read_summary,
)
from pipelines.data.pixel_range import Reading
from pipelines.data.workers import ordered_map
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
    class_index = class_index_of(entries, labels)
    groups = [entry.group for entry in entries]
    shared = shortcuts.blind(class_index, len(labels), groups, params.folds, seed, resamples)
    features = _features(task, entries, train, summary.reading, seed, paths)

    embeddings = features.pop("embedding")
    probed = shortcuts.out_of_fold(
        shortcuts.probe, embeddings, class_index, len(labels), shared.folds
    )
    features |= _sources(entries, embeddings, shared)
    guesses = {
        name: shortcuts.out_of_fold(
            lambda: shortcuts.forest(seed), features[name], class_index, len(labels), shared.folds
        )
        for name in shortcuts.AUDITS
        if name in features
    }
    issues = label_issues(class_index, probed)
    report = _report(task, params, entries, shared, probed, guesses, len(issues))
    facts = guesses["file_facts"]
    with new_folder(files.audit_dir) as folder:
        write_text(folder / files.label_issues.name, issues_csv(issues, entries, labels))
        for name, figure in (
            ("audit.png", audit_bars(report)),
            ("label_issues.png", issues_sheet(issues, entries, labels, files, summary.reading)),
            ("file_facts.png", facts_sheet(facts, entries, labels, files, summary.reading)),
        ):
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
    entries: Sequence[Entry], embeddings: NDArray[np.generic], shared: shortcuts.Blind
) -> dict[str, NDArray[np.generic]]:
    """The recorded source, and the one that a probe takes a picture for; empty without two."""
    names, place = np.unique([entry.source for entry in entries], return_inverse=True)
    if len(names) < 2:
        return {}
    guessed = shortcuts.out_of_fold(
        shortcuts.probe, embeddings, place, len(names), shared.folds
    ).argmax(axis=1)
    return {
        "source": shortcuts.one_hot(place),
        "source_from_pixels": shortcuts.one_hot(guessed),
    }


# -- what is written ------------------------------------------------------------------------------
def _report(
    task: str,
    params: AuditParams,
    entries: Sequence[Entry],
    shared: shortcuts.Blind,
    probed: NDArray[np.float64],
    guesses: Mapping[str, NDArray[np.float64]],
    n_issues: int,
) -> AuditReport:
    probe = shared.interval(probed.argmax(axis=1))
    scores = [
        shortcuts.score(name, found.argmax(axis=1), probe.value, shared, params)
        for name, found in guesses.items()
    ]
    return AuditReport(
        task=task,
        n_images=len(entries),
        n_groups=len(set(shared.groups.tolist())),
        folds=len(shared.folds),
        chance=shared.chance(),
        probe=probe,
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
