"""How long `make repro` takes after set-up, how much memory, and what it runs again.

In a fresh clone of the last commit: set-up, a first run, a run with nothing changed, a run after
one task's card was edited, and a run after the card was put back. With --here in this checkout, as
it stands, without clone and set-up; the card is put back there too.

    python benchmarks/repro.py
    python benchmarks/repro.py --here --task fish_species
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from memory import peak_memory
from report import ROOT, header, make_parser, run, say, table

from pipelines.errors import ConfigError, MissingDataError, PipelineError
from pipelines.paths import Paths

#: What DVC says of a stage that it runs.
_RUNNING = re.compile(r"^Running stage '([^']+)'")
_KEY = "known_biases:\n"
_EDIT = "  - Added by benchmarks/repro.py, to see what runs again.\n"
#: A make inside a make inherits these, and with them the variables of `make bench`.
_NOT_INHERITED = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES", "MLFLOW_TRACKING_URI")


@dataclass(frozen=True, slots=True)
class Made:
    """One `make`, what it and its processes took, and the stages that ran."""

    elapsed_s: float
    peak_bytes: int
    stages: list[str]
    returncode: int

    def row(self, what: str) -> list[str]:
        """The cells of its row."""
        took = [f"{self.elapsed_s:.1f}", f"{self.peak_bytes / 1e6:,.0f}"]
        return [what, *took, str(len(self.stages)), str(self.returncode)]


def main() -> int:
    """Parse, run, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--here", action="store_true", help="in this checkout; no clone")
    parser.add_argument("--task", default="weld_defect", help="whose card is edited (weld_defect)")
    return run(measure, parser)


def measure(arguments: argparse.Namespace) -> None:
    """Print a table with a row a run."""
    header("`make repro`")
    with place(here=arguments.here) as root:
        card = Paths(root).task(arguments.task).card
        original = read_card(card)
        rows = []
        if not arguments.here:
            made = make("setup", root)
            rows.append(made.row("make setup"))
            if made.returncode != 0:
                raise PipelineError(f"make setup ended with {made.returncode} in a fresh clone.")
        first = make("repro", root)
        again = make("repro", root)
        card.write_text(edited(original, card), encoding="utf-8")
        try:
            changed = make("repro", root)
        finally:
            card.write_text(original, encoding="utf-8")
        back = make("repro", root)
    rows += [
        first.row("make repro"),
        again.row("again, nothing changed"),
        changed.row(f"one card changed ({arguments.task})"),
        back.row("the card put back"),
    ]
    table(["run", "s", "peak MB of all processes", "stages that ran", "exit code"], rows)
    say(
        f"Stages that ran after the card changed: {names(changed.stages)}  ",
        f"With nothing changed: {names(again.stages)}",
        "",
    )


@contextlib.contextmanager
def place(*, here: bool) -> Iterator[Path]:
    """This checkout, or a fresh clone that goes afterwards."""
    if here:
        yield ROOT
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "clone"
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(root)], check=True)
        yield root


def make(target: str, root: Path) -> Made:
    """Run a target; what it says goes on to stderr."""
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    start = time.perf_counter()
    with (
        subprocess.Popen(
            ["make", target],
            cwd=root,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
        peak_memory(process.pid) as peak,
    ):
        lines = []
        for line in process.stdout or ():
            sys.stderr.write(line)
            lines.append(line)
        returncode = process.wait()
    elapsed_s = time.perf_counter() - start
    return Made(elapsed_s, peak.n_bytes, stages_run(lines), returncode)


def stages_run(lines: Sequence[str]) -> list[str]:
    """Names of the stages that DVC says it runs."""
    return [found[1] for line in lines if (found := _RUNNING.match(line))]


def names(stages: Sequence[str]) -> str:
    """A list for a sentence."""
    return ", ".join(f"`{stage}`" for stage in stages) or "none"


def read_card(card: Path) -> str:
    """The text of a card.

    Raises:
        MissingDataError: if there is none.
    """
    if not card.is_file():
        raise MissingDataError(f"{card}: there is no such card. Name one of `fieldlens tasks`.")
    return card.read_text(encoding="utf-8")


def edited(text: str, card: Path) -> str:
    """A card's text with one more known bias, which no stage computes with.

    Raises:
        ConfigError: if it has no list of known biases.
    """
    if text.count(_KEY) != 1:
        raise ConfigError(f"{card}: known_biases: expected a list of one item a line.")
    return text.replace(_KEY, _KEY + _EDIT)


if __name__ == "__main__":
    sys.exit(main())
