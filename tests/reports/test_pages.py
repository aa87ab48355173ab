from __future__ import annotations

import json
from typing import Any

import pytest

from pipelines.reports.pages import run_markdown
from pipelines.reports.results import SAMPLE_NOTE
from pipelines.serving.bundle import Bundle, read_bundle
from pipelines.serving.trust import read_audit


@pytest.fixture
def described(tested_project):
    """Describes the run of the tiny task, its audit and its source of data changed."""
    files = tested_project.task("tiny")
    bundle = read_bundle(files.bundle).model_dump()
    audit = read_audit(files.audit, "tiny").model_dump()

    def make(data_source: str = "folder", **of_audit: Any) -> str:
        provenance = bundle["provenance"] | {"data_source": data_source}
        changed = bundle | {"audit": audit | of_audit, "provenance": provenance}
        metrics = json.loads(files.metrics.read_text())
        return run_markdown(Bundle.model_validate(changed), metrics)

    return make


def test_run_markdown_has_the_blind_models_beside_the_accuracy(described):
    text = described()
    names = [line.split(" | ")[0].strip("| ") for line in text.splitlines() if line[:1] == "|"]
    assert names.index("Accuracy") < names.index("Blind macro-F1") < names.index("Test images")
    assert "Gate" not in names
    assert ">" not in text


def test_run_markdown_warns_of_a_shortcut_and_of_painted_pictures(described):
    text = described("sample", verdict="shortcut")
    assert f"> **{SAMPLE_NOTE}**" in text
    assert "> **tiny: the data hold a shortcut." in text
