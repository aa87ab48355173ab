"""`fieldlens code`: which code each stage is made of, for DVC to watch."""

from __future__ import annotations

import argparse

from pipelines.commands.answer import Answer
from pipelines.paths import Paths
from pipelines.stages import code


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """None of its own."""


def main(_: argparse.Namespace, paths: Paths) -> Answer:
    """Write the lists."""
    code.run(paths)
    return Answer()
