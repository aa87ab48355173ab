"""`fieldlens export TASK`: the stage, or the programs that ExecuTorch runs on a phone."""

from __future__ import annotations

import argparse

from pipelines.commands import stage
from pipelines.commands.answer import Answer
from pipelines.paths import Paths


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The task, and which files."""
    stage.add_arguments(parser)
    parser.add_argument(
        "--format",
        choices=("onnx", "pte"),
        default="onnx",
        help="onnx: the stage's files (default); pte: ExecuTorch programs of a released model, "
        "for a native app, beside them (needs the extra executorch)",
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Run the stage, or make programs."""
    if arguments.format == "onnx":
        return stage.main(arguments, paths)
    from pipelines.commands import pte

    return pte.make(arguments.task, paths)
