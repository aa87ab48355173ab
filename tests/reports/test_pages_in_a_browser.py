"""Pages as a person opens them: nothing is cut off at the width of a desk or of a phone."""

from __future__ import annotations

import json

import pytest

from pipelines.reports.blocks import Block, html, page
from pipelines.reports.pages import html_page
from pipelines.reports.results import TaskResult
from pipelines.serving.bundle import read_bundle
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


def wide_page() -> str:
    """A table as `validate` and the audits have them: long words, paths, many columns."""
    rows = tuple(
        (
            f"folder_{index}/a_very_long_name_of_a_photograph_{index:08d}.jpeg",
            "0.912 (0.870 to 0.948)",
        )
        + ("near duplicate of another photograph",) * 7
        for index in range(60)
    )
    return page(
        "Wide", html(Block("Set aside", ("Words.",), ("image", "figure", *"abcdefg"), rows))
    )


@pytest.mark.slow
@pytest.mark.parametrize("width", [1200, 390])
@pytest.mark.parametrize("kind", ["report", "wide"])
def test_no_table_is_cut_off(browser, report_page, tmp_path, kind, width):
    text = report_page if kind == "report" else wide_page()
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
