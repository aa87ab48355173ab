from __future__ import annotations

import json
import re
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from pipelines.config.params import Params, load_params
from pipelines.errors import BundleError, ConfigError, DataError, MissingDataError
from pipelines.stages import report
from tests.html_pages import Wellformed

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


def tables_of(text: str) -> list[list[str]]:
    """The tables of a Markdown text, by line."""
    return [found.splitlines() for found in re.findall(r"(?:^\|.*\n?)+", text, re.MULTILINE)]


def shown(interval: dict[str, float]) -> str:
    return f"{interval['value']:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


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
    header, _, row = tables_of(text)[0]
    cells = dict(zip(header.split(" | "), row.split(" | "), strict=True))
    assert cells["| Task"] == "| tiny"
    assert cells["Data"] == "sample"
    interval = metrics["intervals"]["int8"]["accuracy"]
    assert cells["Accuracy"] == shown(interval)
    assert cells["Accuracy"].startswith(f"{metrics['int8']['accuracy']:.3f} (")
    assert cells["Macro-F1"] == shown(metrics["intervals"]["int8"]["macro_f1"])
    assert cells["Blind macro-F1"] == "0.300 (0.200 to 0.400) border"
    assert cells["Linear probe macro-F1"] == "1.000 (1.000 to 1.000)"
    assert cells["Audit"] == "clean"
    assert cells["Test images"] == "36"
    assert cells["Test groups"] == "18"
    assert cells["Gate |"] == "passes |"
    assert "untested" not in text
    assert "they say nothing about real pictures" in text


def test_report_shows_every_audit_and_what_int8_costs(tested, params):
    report.run(tested, params)
    text = tested.results_page.read_text()
    page = unescape(tested.html_page.read_text())
    metrics = json.loads(tested.task("tiny").metrics.read_text())
    drop = metrics["paired"]["accuracy_drop"]
    signed = f"{drop['value']:+.3f} ({drop['low']:+.3f} to {drop['high']:+.3f})"
    for said in (text, page):
        for words in (
            "Verdict: clean.",
            "the outermost 4 % of each side of the model's view",
            "What int8 costs",
            signed,
            "Calibration",
        ):
            assert words in said
    # The toy has neither operating points nor abstention.
    assert "Operating points" not in text
    assert "Abstention" not in text
    assert "shortcut." not in text


def with_audit(tested, **change) -> None:
    files = tested.task("tiny")
    document = json.loads(files.bundle.read_text())
    score = document["audit"]["scores"][0] | change.pop("score", {})
    document["audit"] |= {"scores": [score], **change}
    files.bundle.write_text(json.dumps(document))


FACTS = {
    "name": "file_facts",
    "sees": "size, mode and type of the file",
    "macro_f1": {"value": 0.9, "low": 0.87, "high": 0.93},
    "share": 1.1,
    "verdict": "shortcut",
}


def test_report_says_what_a_shortcut_means(tested, params, tmp_path):
    as_real(tested)
    with_audit(tested, score=FACTS, verdict="shortcut")
    card = tested.task("tiny").card
    card.write_text(CARD.replace("consent", "published_figures: 99 % (Nobody 2020)\nconsent"))
    report.write_results(tested, params, tmp_path / "RESULTS.md")
    text = (tmp_path / "RESULTS.md").read_text()
    assert "tiny: the data hold a shortcut." in text
    assert "Published accuracies on data like these: 99 % (Nobody 2020)." in text
    assert "ours included, can be told apart from reading the size and type of the file" in text
    assert tables_of(text)[0][2].split(" | ")[7] == "shortcut"
    assert "fails: audit: file_facts" in text
    report.run(tested, params)
    page = tested.html_page.read_text()
    assert "tiny: the data hold a shortcut." in page
    assert "audit: shortcut" in page


def test_report_a_network_above_the_blind_model_is_not_called_the_same(tested, params):
    low = FACTS | {"macro_f1": {"value": 0.4, "low": 0.35, "high": 0.45}}
    with_audit(tested, score=low, verdict="shortcut")
    report.run(tested, params)
    text = tested.results_page.read_text()
    assert "Figures up to about 0.45 cannot be told apart from reading the size" in text
    assert "finer traces of the same shortcut" in text


def test_report_prints_why_a_shortcut_is_accepted(tested, params):
    reason = "Teaching <b>material</b> & more; | nobody decides by it"
    with_audit(tested, score=FACTS, verdict="shortcut", accepted=reason)
    report.run(tested, params)
    text = tested.results_page.read_text()
    assert text.count("nobody decides by it") == 3  # table, warning, audit
    assert "fails" not in tables_of(text)[0][2]
    page = tested.html_page.read_text()
    # Escaped, and once only.
    assert reason in unescape(page)
    assert "<b>" not in page


def test_report_of_a_bundle_without_audit_and_intervals(tested, params):
    files = tested.task("tiny")
    document = json.loads(files.bundle.read_text()) | {"audit": None, "intervals": None}
    files.bundle.write_text(json.dumps(document))
    metrics = json.loads(files.metrics.read_text())
    for key in ("intervals", "paired", "calibration", "operating_points", "abstention"):
        metrics.pop(key)
    files.metrics.write_text(json.dumps(metrics))
    report.run(tested, params)
    row = tables_of(tested.results_page.read_text())[0][2]
    assert f"| {metrics['int8']['accuracy']:.3f} |" in row
    assert row.count("not measured") == 3


def test_report_shows_operating_points_and_abstention_where_there_are_any(tested, params):
    files = tested.task("tiny")
    bundle = json.loads(files.bundle.read_text())
    point = {"threshold": 0.4, "min_specificity": 0.9, "sensitivity": 0.8, "specificity": 0.95}
    bundle["operating_points"] = {"red_tile": point | {"n_positive": 4, "n_negative": 8}}
    interval = {"value": 0.75, "low": 0.5, "high": 0.9}
    bundle["intervals"]["int8"]["point.sensitivity.red_tile"] = interval
    files.bundle.write_text(json.dumps(bundle))
    metrics = json.loads(files.metrics.read_text())
    metrics["operating_points"] = {"red_tile": {"sensitivity": 0.75, "specificity": 1.0}}
    files.metrics.write_text(json.dumps(metrics))
    report.run(tested, params)
    (row,) = (
        line
        for line in tested.results_page.read_text().splitlines()
        if line.startswith("| tiny | red_tile")
    )
    wanted = ["0.900", "0.400", "0.800", "0.950", shown(interval), "1.000 |"]
    assert row.split(" | ")[2:] == wanted


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
    assert all(address.startswith("data:image/webp;base64,") for address in page.addresses)
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
        Image.new("RGB", (40, 30), "red").save(folder / name)
    report.run(tested, params)
    assert "training: val samples" in tested.html_page.read_text()
    as_real(tested)
    report.run(tested, params)
    assert "training: val samples" not in tested.html_page.read_text()
    assert "training: curves" in tested.html_page.read_text()


def test_report_names_a_figure_that_cannot_be_read(tested, params):
    folder = tested.task("tiny").training_figures_dir
    folder.mkdir()
    (folder / "curves.png").write_bytes(b"a figure")
    with pytest.raises(DataError, match=r"tiny: the figure 'training: curves' .* `dvc repro`"):
        report.run(tested, params)


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
        "which no training and no choice has seen",
        "| green_tile | ",
    ):
        assert words in text
    tables = tables_of(text)
    # All tasks, audit, int8, calibration, what was measured, labels.
    assert len(tables) == 6
    assert all(len({line.count("|") for line in table}) == 1 for table in tables)
    label = next(row for row in tables[-1] if "green_tile" in row)
    metrics = json.loads(tested.task("tiny").metrics.read_text())
    assert shown(metrics["intervals"]["int8"]["precision.green_tile"]) in label


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


def test_cards_are_one_a_task_of_real_images(tested, params, tmp_path):
    as_real(tested)
    report.write_cards(tested, params, tmp_path / "cards")
    assert [path.name for path in (tmp_path / "cards").iterdir()] == ["tiny.md"]
    text = (tmp_path / "cards/tiny.md").read_text()
    assert text.startswith("# Model card: Tiny tiles\n")
    assert "The tile makers" in text
    assert str(tested.root) not in text


def test_cards_of_painted_images_are_refused(tested, params, tmp_path):
    with pytest.raises(ConfigError, match="tiny ran on sample data"):
        report.write_cards(tested, params, tmp_path / "cards")
    assert not (tmp_path / "cards").exists()
