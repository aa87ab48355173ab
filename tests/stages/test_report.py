from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipelines.config import Params, load_params
from pipelines.errors import BundleError, ConfigError, MissingDataError
from pipelines.stages import report

ROOT = Path(__file__).resolve().parents[2]
CARD = """
title: Tiny tiles
task: tiny
domain: reference
source: {publisher: The tile makers, url: https://example.org, version: v7, retrieved: '2026-01-02'}
licence: {spdx: CC0-1.0, url: https://example.org, redistribution: allowed}
citation: {text: none}
classes:
  - {label: red_tile, meaning: a red tile}
  - {label: green_tile, meaning: a green tile}
  - {label: blue_tile, meaning: a blue tile}
unit_of_observation: one tile
group_key: batch
image: {modality: photograph, channels: 3, bit_depth: 8}
splits: made
known_biases: [painted]
consent_and_privacy: nobody is shown
intended_use: tests
not_for: [anything else]
"""


class Wellformed(HTMLParser):
    """Knows which tags are open, and every address that a browser would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in {"src", "href"}]
        if tag not in {"meta", "img", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def params() -> Params:
    easy = {"min_accuracy": 0.5, "min_macro_f1": 0.5, "min_agreement": 0.5}
    easy |= {"max_accuracy_drop": 0.5, "max_recall_drop": 0.5}
    section = load_params(ROOT / "params.yaml").task("cats_dogs")
    section = section.model_copy(update={"gate": section.gate.model_copy(update=easy)})
    return Params(seed=1, tasks={"tiny": section, "untested": section})


@pytest.fixture
def tested(tested_project):
    tested_project.task("tiny").card.write_text(CARD)
    return tested_project


def as_real(tested) -> None:
    files = tested.task("tiny")
    for path in (files.bundle, files.metrics):
        path.write_text(path.read_text().replace('"sample"', '"folder"'))


def test_report_table_has_a_row_a_tested_task(tested, params):
    report.run(tested, params)
    text = tested.results_page.read_text()
    metrics = json.loads(tested.task("tiny").metrics.read_text())
    header, _, row = (line for line in text.splitlines() if line.startswith("|"))
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert cells["| Task"] == "| tiny"
    assert cells["Data"] == "sample"
    assert cells["Accuracy"] == f"{metrics['int8']['accuracy']:.3f}"
    assert cells["Test images"] == "36"
    assert cells["Test groups"] == "18"
    assert cells["Gate |"] == "passes |"
    assert "untested" not in text
    assert "they say nothing about real pictures" in text


def test_report_gate_is_worked_out_anew(tested, params):
    strict = params.task("tiny").gate.model_copy(update={"min_accuracy": 1.0})
    section = params.task("tiny").model_copy(update={"gate": strict})
    report.run(tested, Params(seed=1, tasks={"tiny": section}))
    assert "fails: accuracy (int8)" in tested.results_page.read_text()
    assert "gate fails: accuracy (int8)" in tested.html_page.read_text()


def test_report_page_is_whole_and_loads_nothing(tested, params):
    report.run(tested, params)
    page = Wellformed()
    page.feed(tested.html_page.read_text())
    assert page.open == []
    assert len(page.addresses) == 3
    assert all(address.startswith("data:image/png;base64,") for address in page.addresses)
    assert not re.search(r"url\(|@import|<script", tested.html_page.read_text())
    assert "width=device-width" in tested.html_page.read_text()


def test_report_words_of_a_card_cannot_become_markup(tested, params):
    files = tested.task("tiny")
    for path in (files.bundle,):
        path.write_text(path.read_text().replace("Tiny tiles", "<script>alert(1)</script>"))
    report.run(tested, params)
    assert "<script" not in tested.html_page.read_text()
    assert "&lt;script&gt;alert(1)" in tested.html_page.read_text()


def test_report_twice_gives_the_same_bytes(tested, params):
    report.run(tested, params)
    first = (tested.results_page.read_bytes(), tested.html_page.read_bytes())
    report.run(tested, params)
    assert (tested.results_page.read_bytes(), tested.html_page.read_bytes()) == first
    assert str(tested.root).encode() not in first[0] + first[1]


def test_report_real_data_carries_no_sample_note(tested, params):
    as_real(tested)
    report.run(tested, params)
    assert "painted" not in tested.results_page.read_text()
    assert "sample data" not in tested.html_page.read_text().lower()


def test_report_real_pictures_stay_out_of_the_page(tested, params):
    folder = tested.task("tiny").training_figures_dir
    folder.mkdir()
    for name in ("curves.png", "val_samples.png"):
        (folder / name).write_bytes(b"a figure")
    report.run(tested, params)
    assert "training: val samples" in tested.html_page.read_text()
    as_real(tested)
    report.run(tested, params)
    assert "training: val samples" not in tested.html_page.read_text()
    assert "training: curves" in tested.html_page.read_text()


def test_write_results_refuses_sample_data(tested, params, tmp_path):
    out = tmp_path / "RESULTS.md"
    with pytest.raises(ConfigError, match="tiny ran on sample data"):
        report.write_results(tested, params, out)
    assert not out.exists()


def test_write_results_says_what_was_measured(tested, params, tmp_path):
    as_real(tested)
    out = tmp_path / "RESULTS.md"
    report.write_results(tested, params, out)
    text = out.read_text()
    for words in (
        "The tile makers, v7 (CC0-1.0)",
        "folder",
        "12 / 12 / 36",
        "6 / 6 / 18",
        "mobilenet_v2",
        "imagenet",
        "Every number is of the test split",
        "| green_tile | ",
    ):
        assert words in text
    tables = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert len(tables) == 3
    assert all(len({line.count("|") for line in table.splitlines()}) == 1 for table in tables)


def test_report_of_nothing(tiny_project, params):
    with pytest.raises(MissingDataError, match="no task has metrics"):
        report.run(tiny_project, params)


def test_report_metrics_of_another_model(tested, params):
    files = tested.task("tiny")
    text = files.metrics.read_text()
    metrics = json.loads(text)
    metrics["fp32"]["n"] = 99
    files.metrics.write_text(json.dumps(metrics))
    with pytest.raises(BundleError, match="another model"):
        report.run(tested, params)
