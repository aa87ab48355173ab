"""What all benchmarks share: Markdown on stdout, with what a figure means nothing without.

Each script here runs alone and prints an entry that can go into a page of
docs/experiments as it is.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

# What the command line does before it starts anything.
from pipelines.errors import ConfigError, MissingDataError, PipelineError
from pipelines.paths import Paths
from pipelines.quiet import go_quiet

ROOT = Path(__file__).resolve().parents[1]
#: Whose versions decide how fast things are.
_LIBRARIES = ("onnxruntime", "torch", "pillow", "numpy")


def say(*lines: str) -> None:
    """Write lines to stdout, at once."""
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def header(title: str) -> None:
    """Write the heading of a section: command, processor, load, commit and versions."""
    # Not at the top: see `files_in` of prepare.py.
    from pipelines.serving.predictor import processor_name

    command = ["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in _LIBRARIES)
    say(
        f"### {title}",
        "",
        f"Command: `{shlex.join(command)}`  ",
        f"Processor: {processor_name()}, {os.cpu_count()} cores; load before the start "
        f"{os.getloadavg()[0]:.1f}  ",
        f"Commit {_commit()}; {versions}",
        "",
    )


def _commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Write a table, each row once it is there, and an empty line."""
    say(f"| {' | '.join(columns)} |", "|---" * len(columns) + "|")
    for row in rows:
        say(f"| {' | '.join(row)} |")
    say("")


def run(work: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser) -> int:
    """Exit code of a benchmark: 2, after one line on stderr, for what the user can mend."""
    arguments = parser.parse_args()
    go_quiet()
    # To stderr: stdout is the report.
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    try:
        work(arguments)
    except PipelineError as err:
        sys.stderr.write(f"{parser.prog}: {err}\n")
        return 2
    return 0


def make_parser(description: str | None, *, has_root: bool = False) -> argparse.ArgumentParser:
    """A parser whose help is the script's docstring."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if has_root:
        parser.add_argument("--root", type=Path, default=Path(), help="project or workspace")
    return parser


def name_and_width(network: str) -> tuple[str, float]:
    """Name and width of a network as the command line spells it."""
    name, _, width = network.partition(":")
    try:
        return name, float(width or 1)
    except ValueError:
        raise ConfigError(
            f"--networks {network}: expected NAME or NAME:WIDTH, e.g. mobilenet_v2:0.5."
        ) from None


def tasks_with(paths: Paths, file: str, wanted: Sequence[str] | None, at_least: int) -> list[str]:
    """Tasks that have such a file beside their models, and are wanted; None wants all.

    Raises:
        MissingDataError: if they are fewer than needed.
    """
    found = sorted(path.parents[1].name for path in paths.models_dir.glob(f"*/mobile/{file}"))
    tasks = [task for task in found if wanted is None or task in wanted]
    if len(tasks) < at_least:
        raise MissingDataError(
            f"{paths.models_dir}: expected at least {at_least} models/<task>/mobile/{file}, found "
            f"{len(tasks)}. Run `make repro` first."
        )
    return tasks
