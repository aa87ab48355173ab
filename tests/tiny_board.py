"""A project whose one task is prepared: colours, and a network for a board that trains at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.backbones.spec import backbones
from pipelines.export.latency import Latency
from pipelines.paths import Paths
from pipelines.search.cells import Cell, CellResult, Variant
from pipelines.serving.trust import Interval
from tests.backbones.toy_family import toy
from tests.tiny_params import PARAMS, PHASE

LABELS = ("red_tile", "green_tile", "blue_tile")
CARD = """\
title: Tiny tiles
task: tiny
domain: reference
source: {publisher: us, url: "https://example.org", version: "1", retrieved: "2026-01-01"}
licence: {spdx: Apache-2.0, url: "https://example.org", redistribution: Yes.}
citation: {text: None needed.}
classes:
  - {label: red_tile, meaning: A red tile.}
  - {label: green_tile, meaning: A green tile.}
  - {label: blue_tile, meaning: A blue tile.}
unit_of_observation: one tile
group_key: tile
image: {modality: painting, channels: 3, bit_depth: 8}
splits: made
known_biases: [It is painted.]
consent_and_privacy: Nobody is on it.
intended_use: tests
not_for: [anything else]
"""
_SHORT = {**PHASE, "epochs": 1, "warmup_fraction": 0.0}
_SHARES = ("min_accuracy", "min_macro_f1", "min_agreement", "max_accuracy_drop", "max_recall_drop")
SECTIONS: dict[str, Any] = {
    "domain": "reference",
    "fetch": {"source": {"kind": "folder", "path": "tiles"}},
    "prepare": {
        "classes": None,
        "val_fraction": 0.2,
        "test_fraction": 0.2,
        "near_duplicate_bits": 4,
        "max_quarantine_fraction": 0.1,
        "max_class_loss": 0.5,
        "min_side_px": 16,
    },
    "audit": {"folds": 5, "suspicious_share": 0.5, "shortcut_share": 0.8, "accepted": None},
    "train": PARAMS
    | {"backbone": "toy", "strategy": "full", "views": 1, "batch_size": 6}
    | {"head_phase": _SHORT, "tail_phase": _SHORT},
    "export": {
        "calibration_images": 12,
        "remedies": ["minmax"],
        "min_agreement": 0.0,
        "max_accuracy_drop": 1.0,
        "max_macro_f1_drop": 1.0,
        # No network is so small: a board does not mind.
        "max_int8_bytes": 1,
        "min_speedup": 0.001,
        "acceptance": 0.95,
    },
    "evaluate": {"calibration_bins": 10, "resamples": 200},
    "gate": dict.fromkeys(_SHARES, 0.5) | {"max_int8_bytes": 10**8},
    "board": {
        "backbones": {"toy": [1.0, 0.5]},
        "image_px": [32],
        "resamples": 200,
        "reference": {"backbone": "toy", "image_px": 64},
    },
}


def make_project(paths: Paths, **board: Any) -> Paths:
    """params.yaml, card and summary of the task ``tiny``, whose images are there.

    Args:
        paths: of the tests' tiny project.
        board: laid over its section.
    """
    task = SECTIONS | {"board": SECTIONS["board"] | board}
    paths.params.write_text(json.dumps({"seed": 7, "tasks": {"tiny": task}}))
    files = paths.task("tiny")
    files.card.write_text(CARD)
    summary = {"labels": LABELS, "data_source": "sample"}
    files.prepare_summary.write_text(json.dumps(summary))
    return paths


def with_toy(patch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the toy be a backbone, of two widths that are the same network."""
    entry = toy(folder)
    widths = {width: entry.widths[1.0] for width in (1.0, 0.5)}
    patch.setitem(backbones(), "toy", replace(entry, widths=widths))


def interval(value: float) -> Interval:
    return Interval(value=value, low=value / 2, high=(1 + value) / 2)


def variant(
    accuracy: float,
    ratio: float,
    mb: float,
    *,
    steady: bool = True,
    reference_ms: float = 10.0,
    recall: float = 0.9,
    n_images: int = 36,
) -> Variant:
    """Made-up figures of one file; the first images are those that it knows."""
    timed = Latency(
        ms=ratio * reference_ms,
        reference_ms=reference_ms,
        ratio=ratio,
        gap=0.0 if steady else 0.4,
        n_passes=2 if steady else 6,
        is_steady=steady,
    )
    truth = [i * len(LABELS) // n_images for i in range(n_images)]
    n_right = round(accuracy * n_images)
    answers = [t if i < n_right else (t + 1) % len(LABELS) for i, t in enumerate(truth)]
    return Variant(
        accuracy=interval(accuracy),
        macro_f1=interval(accuracy),
        recall={LABELS[0]: interval(recall)},
        answers=tuple(answers),
        size_bytes=int(mb * 1e6),
        peak_bytes=1000,
        latency=timed,
    )


def result(
    cell: Cell | str, fp32: Variant, int8: Variant, adds: int = 1, missed: tuple[str, ...] = ()
) -> CellResult:
    """Made-up figures of one cell."""
    if isinstance(cell, str):
        cell = Cell(backbone=cell, width=1.0, image_px=96)
    return CellResult(
        cell=cell,
        multiply_adds=adds,
        parameters=1,
        variants={"fp32": fp32, "int8": int8},
        int8_remedy="minmax",
        int8_agreement=1.0,
        int8_missed=missed,
        processor="some processor",
    )
