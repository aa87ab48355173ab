from __future__ import annotations

import re

import pytest

from pipelines import cli
from tests.tiny_params import params_of

CHANGES = 9


@pytest.fixture
def project(tested_project):
    """The tested project, with the repository's params."""
    tested_project.params.write_text(params_of("cats_dogs", "tiny", "other"))
    return tested_project


def stress(project, *arguments: str) -> int:
    return cli.main(["stress", *arguments, "--root", str(project.root)])


def bounded(project, bound: float) -> None:
    text = project.params.read_text()
    kinds = ", ".join(f"{kind}: {bound}" for kind in ("jpeg", "brightness", "rotation", "flip"))
    old = next(line for line in text.splitlines() if line.startswith("_max_changed:"))
    project.params.write_text(text.replace(old, f"_max_changed: &max_changed {{{kinds}}}"))


def test_stress_shows_a_row_a_change_with_its_bound(project, capsys):
    bounded(project, 1.0)
    assert stress(project, "tiny") == 0
    title, header, *rows = capsys.readouterr().out.splitlines()
    assert title == "tiny, int8, 36 test images"
    assert header.split()[:4] == ["CHANGE", "CHANGED", "SHARE", "BOUND"]
    assert len(rows) == CHANGES
    assert all(row.split("  ")[-1].strip() == "0" for row in rows)
    assert all("1.000" in row for row in rows)
    assert stress(project, "tiny", "--split", "val") == 0
    assert capsys.readouterr().out.startswith("tiny, int8, 12 val images\n")


def test_stress_over_a_bound_names_it_and_exits_like_the_gate(project, capsys):
    bounded(project, 0.0)
    assert stress(project, "tiny") == 3
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2 + CHANGES
    complaints = shown.err.splitlines()
    missed = [line for line in complaints if "evaluate.max_changed." in line]
    assert missed
    assert all(line.startswith("fieldlens: tiny: ") for line in missed)


def test_stress_refuses_other_splits_than_the_models(project, capsys):
    manifest = project.task("tiny").manifest
    swapped = {'"test"': '"val"', '"val"': '"test"'}
    text = re.sub("|".join(swapped), lambda match: swapped[match[0]], manifest.read_text())
    manifest.write_text(text)
    assert stress(project, "tiny") == 2
    assert "may have been train images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("task", "says"), [("other", "there is no bundle"), ("tinny", "Expected one of tiny, other")]
)
def test_stress_without_a_task_or_a_model_says_what_there_is(project, task, says, capsys):
    assert stress(project, task) == 2
    assert says in capsys.readouterr().err
