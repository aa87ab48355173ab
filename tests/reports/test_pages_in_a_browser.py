"""Pages as a person opens them: nothing is cut off at the width of a desk or of a phone."""

from __future__ import annotations

import json

import pytest

from pipelines.reports.pages import TaskResult, external_page, html_page
from pipelines.serving.bundle import read_bundle
from pipelines.validation.external import Excluded, Validation
from tests.apps.browsing import chromium

TASKS = (
    *("chest_xray", "skin_lesion", "tomato_leaf", "fish_species", "mask_detection"),
    *("weld_defect", "cats_dogs"),
)

#: Widths of the page and of each table, of each table's frame, and how the frame scrolls.
MEASURE = """() => ({
  page: document.documentElement.scrollWidth,
  window: window.innerWidth,
  frames: [...document.querySelectorAll('table')].map((table) => ({
    table: table.scrollWidth,
    frame: table.parentElement.clientWidth,
    overflow: getComputedStyle(table.parentElement).overflowX,
    right: table.parentElement.getBoundingClientRect().right,
    hidden: table.parentElement.scrollHeight - table.parentElement.clientHeight,
    rows: table.rows.length,
  })),
  images: [...document.images].every((image) => image.complete && image.naturalWidth > 0),
})"""


@pytest.fixture(scope="module")
def browser():
    program = chromium()
    if program is None:
        pytest.skip("no Chromium here")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def report_page(tested_project) -> str:
    """The report on seven tasks with as many figures as real ones."""
    files = tested_project.task("tiny")
    bundle, metrics = read_bundle(files.bundle), json.loads(files.metrics.read_text())
    drawn = [path.read_bytes() for path in sorted(files.test_figures_dir.glob("*.png"))]
    figures = {f"figure {index}": drawn[index % len(drawn)] for index in range(9)}
    return html_page(
        [
            TaskResult(bundle.model_copy(update={"task": task}), metrics, ("accuracy",), figures)
            for task in TASKS
        ]
    )


@pytest.fixture
def wide_page(tested_project) -> str:
    """A page of `validate` with long words, paths and sentences in its tables."""
    metrics = json.loads(tested_project.task("tiny").metrics.read_text())
    figure = {"value": 0.912, "low": 0.87, "high": 0.948}
    aside = [
        Excluded(
            path=f"folder_{index}/a_very_long_name_of_a_photograph_{index:08d}.jpeg",
            kind="known",
            reason=f"a near duplicate of 'folder_{index}/another_photograph.jpeg' (train)",
        )
        for index in range(60)
    ]
    return external_page(
        Validation(
            **{"task": "tiny", "title": "Wide", "folder": "elsewhere", "precision": "int8"},
            **{"model_sha256": "0" * 64, "data_source": "folder", "folder_sha256": "1" * 64},
            labels=tuple(metrics["int8"]["per_class"]),
            absent_labels=(),
            **{"n_found": 96, "n_images": 36, "n_groups": 18, "set_aside": aside},
            duplicates_sought="exact and near duplicates of all 60 images of the project",
            metrics=metrics["int8"],
            intervals={"accuracy": figure, "macro_f1": figure},
            drops={
                name: {"internal": figure, "external": figure, "drop": figure}
                | {"do_intervals_overlap": True}
                for name in ("accuracy", "balanced_accuracy", "macro_f1", "ece")
            },
            abstained=None,
            chance=0.2,
            blind=[
                {"name": "border", "sees": "the outermost 4 % of each side of the model's view"}
                | {"decides": True, "macro_f1": figure}
            ],
            blind_missing="",
            **{"resamples": 2000, "seed": 1},
        )
    )


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("kind", ["report", "wide"])
def test_no_table_is_cut_off(browser, report_page, wide_page, tmp_path, kind, width):
    text = report_page if kind == "report" else wide_page
    assert len(text.encode()) < 3_000_000
    file = tmp_path / "page.html"
    file.write_text(text, encoding="utf-8")
    tab = browser.new_page(viewport={"width": width, "height": 900})
    tab.goto(file.as_uri())
    found = tab.evaluate(MEASURE)
    tab.close()
    assert found["page"] <= width
    assert found["images"]
    assert found["frames"]
    for frame in found["frames"]:
        assert frame["right"] <= width
        assert frame["hidden"] <= 1 or frame["rows"] > 60, "rows below the frame's edge"
        # What does not fit can be scrolled to, inside its own frame.
        assert frame["table"] <= frame["frame"] or frame["overflow"] == "auto"
    if kind == "report" and width == 1200:
        assert all(frame["table"] <= frame["frame"] for frame in found["frames"])
