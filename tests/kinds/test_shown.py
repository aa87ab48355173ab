"""What pages show of a kind is what its stages write: no heading stands over nothing for ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.config.params import load_params
from pipelines.kinds.report import KINDS
from pipelines.kinds.shown import LABEL, NOWHERE, Figure, Shown
from pipelines.serving.bundle import Abstention, Bundle
from pipelines.serving.trust import AuditReport, BoxPoint, OperatingPoint

ROOT = Path(__file__).resolve().parents[2]
#: A metrics.json that is older than these has them not.
YOUNG = ("by_size", "counting_error", "counting_bias", "in_count_band")
PARTS = {
    "abstention": Abstention,
    "audit": AuditReport,
    "box_points": BoxPoint,
    "operating_points": OperatingPoint,
}


def figures(of: Shown) -> Iterator[Figure]:
    yield from of.columns.values()
    yield from of.by_label.values()
    for table in of.tables:
        yield from table.columns.values()


def metrics_in_git() -> dict[str, list[dict[str, Any]]]:
    """By kind, the metrics of the painted samples that lie in Git."""
    found: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for task in load_params(ROOT / "params.yaml").tasks:
        file = ROOT / f"reports/{task}/metrics.json"
        # A task that has not been run here yet has none.
        if not file.is_file():
            continue
        metrics = json.loads(file.read_text(encoding="utf-8"))
        of = metrics[metrics["served"]]
        marks = {"ap50": "detection", "dice": "segmentation", "eer": "embedding"}
        kind = next((kind for mark, kind in marks.items() if mark in of), "classification")
        found[kind].append(metrics)
    return found


def stands(metrics: dict[str, Any], path: str) -> bool:
    places: list[Any] = [{**metrics, "served": metrics[metrics["served"]]}]
    for key in path.split("."):
        places = [
            value
            for place in places
            if isinstance(place, dict)
            for name, value in place.items()
            if key in (name, LABEL)
        ]
    return bool(places)


@pytest.mark.parametrize("kind", KINDS)
def test_every_figure_is_written_by_a_stage(kind):
    for figure in figures(KINDS[kind]):
        first, *rest = figure.path.split(".")
        if figure == NOWHERE or any(key in YOUNG for key in rest):
            continue
        if first != "bundle":
            assert any(stands(metrics, figure.path) for metrics in metrics_in_git()[kind]), figure
        else:
            assert rest[0] in Bundle.model_fields
            assert len(rest) == 1 or rest[-1] in PARTS[rest[0]].model_fields


@pytest.mark.parametrize("kind", KINDS)
def test_every_interval_is_one_of_evaluate(kind):
    for figure in figures(KINDS[kind]):
        if not figure.interval or any(word in figure.path for word in YOUNG):
            continue
        start = figure.interval.removesuffix(LABEL)
        keys = {
            key
            for metrics in metrics_in_git()[kind]
            for key in metrics["intervals"][metrics["served"]]
            if key == start or (start.endswith(".") and key.startswith(start))
        }
        # How many are refused has an interval where the kind gives it one.
        assert keys or figure.interval == "refused", figure


@pytest.mark.parametrize("kind", KINDS)
def test_what_counts_most_stands_in_the_table_of_the_kind(kind):
    of = KINDS[kind]
    shown = {figure.interval for figure in of.columns.values()}
    assert set(of.headline.values()) <= shown
    for metrics in metrics_in_git()[kind]:
        assert {f"{name}_drop" for name in of.headline.values()} <= set(metrics["paired"])
