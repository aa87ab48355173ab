"""The page that holds the documents' figures to ours: its commands are real, and print its figures.

Those that take seconds are run. The others train or need real images: they must be commands that
the command line, DVC or a script would take.
"""

from __future__ import annotations

import re
import shlex
import sys
from typing import NamedTuple

import pytest

from pipelines.cli import main, make_parser
from pipelines.strict_yaml import read_yaml
from tests.processes import ROOT, ran

PAGE = ROOT / "docs/experiments/documents.md"


class Row(NamedTuple):
    """A command of a table, as words, and the figures that stand in bold beside it."""

    command: tuple[str, ...]
    figures: tuple[str, ...]

    @property
    def is_quick(self) -> bool:
        """Whether it needs no images, no training and no quiet minute."""
        return self.command[:2] == ("fieldlens", "cost") or self.command[:2] == ("python", "-c")


def rows() -> list[Row]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if len(cells) == 4 and cells[2].startswith("`"):
            command = shlex.split(cells[2].strip("`"))
            found.append(Row(tuple(command), tuple(re.findall(r"\*\*(.+?)\*\*", cells[3]))))
    return found


ROWS = rows()


def test_the_page_has_its_tables():
    assert sum(row.is_quick for row in ROWS) > 20
    assert len({row.command for row in ROWS if not row.is_quick}) > 12


@pytest.mark.parametrize(
    "command",
    [
        # Every network is built once and looked through: ten seconds.
        pytest.param(each, marks=[pytest.mark.slow] if each == ("fieldlens", "cost") else [])
        for each in sorted({row.command for row in ROWS if row.is_quick})
    ],
    ids=" ".join,
)
def test_command_prints_the_figures_beside_it(command, capsys):
    figures = [figure for row in ROWS if row.command == command for figure in row.figures]
    assert figures
    if command[0] == "fieldlens":
        assert main(command[1:]) == 0
    else:
        # No process of its own: torch takes seconds to load.
        exec(command[2], {})
    printed = capsys.readouterr().out
    for figure in figures:
        assert re.search(rf"(?<![\d.,]){re.escape(figure)}(?!\d)", printed), figure


@pytest.mark.parametrize(
    "command", sorted({row.command for row in ROWS if not row.is_quick}), ids=" ".join
)
def test_command_that_takes_long_would_be_taken(command):
    program, *words = command
    if program == "fieldlens":
        arguments = make_parser(words).parse_args(words)
        tasks = [*getattr(arguments, "tasks", []), *filter(None, [getattr(arguments, "task", "")])]
        assert set(tasks) <= set(read_yaml(ROOT / "params.yaml")["tasks"])
        recipe = getattr(arguments, "recipe", None)
        assert recipe is None or (ROOT / recipe).is_file()
    elif program == "dvc":
        verb, target = words
        stage, task = target.split("@")
        assert verb == "repro"
        assert task in read_yaml(ROOT / "params.yaml")["tasks"]
        assert stage in read_yaml(ROOT / "dvc.yaml")["stages"]
    else:
        script, *rest = words
        assert program == "python"
        help_of_it = ran(sys.executable, ROOT / script, "--help").stdout
        assert {word for word in rest if word.startswith("--")} <= set(help_of_it.split())


def test_bold_stands_for_what_a_command_prints():
    for row in ROWS:
        assert row.is_quick or not row.figures, row
