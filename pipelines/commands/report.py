"""`fieldlens report`: one page over all tasks, and on demand the pages of real images."""

from __future__ import annotations

import argparse
from pathlib import Path

from pipelines.commands.answer import Answer
from pipelines.config.params import load_params
from pipelines.paths import Paths
from pipelines.stages import report


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where else to write."""
    parser.add_argument(
        "--results", type=Path, metavar="FILE", help="also write the results of real images there"
    )
    parser.add_argument(
        "--cards", type=Path, metavar="DIR", help="also write a model card a task there"
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Write the report."""
    params = load_params(paths.params)
    report.run(paths, params)
    if arguments.results is not None:
        report.write_results(paths, params, arguments.results)
    if arguments.cards is not None:
        report.write_cards(paths, params, arguments.cards)
    return Answer()
