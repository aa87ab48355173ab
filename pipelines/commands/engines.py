"""The options of commands whose work this machine does alone, or a Ray cluster."""

from __future__ import annotations

import argparse

from pipelines.errors import ConfigError


def add_arguments(parser: argparse._ActionsContainer, *, local: str) -> None:
    """The engine, and the address of a cluster.

    Args:
        local: what the engine of this machine is.
    """
    parser.add_argument(
        "--engine",
        choices=("local", "ray"),
        help=f"local: {local}; ray: a cluster (default: local, or ray where an --address is given)",
    )
    parser.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster that runs")


def is_ray(arguments: argparse.Namespace) -> bool:
    """Whether Ray was asked for.

    Raises:
        ConfigError: if it was not, and the address of a cluster was given.
    """
    if arguments.engine == "local" and arguments.address is not None:
        raise ConfigError("--address: is of a Ray cluster. Leave out --engine local, or this.")
    return arguments.engine == "ray" or arguments.address is not None
