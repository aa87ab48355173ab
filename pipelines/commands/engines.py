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


def add_workers(parser: argparse._ActionsContainer, *, what: str) -> None:
    """How many work at once on a cluster, for a command that else does one after another.

    Args:
        what: a worker does.
    """
    parser.add_argument(
        "--workers", type=int, metavar="N", help=f"of Ray: {what} at a time, one a free processor"
    )


def check(arguments: argparse.Namespace, *of_ray: str) -> None:
    """Nothing, if options that are Ray's stand beside it, and some worker works.

    Args:
        of_ray: by attribute, the options beside ``workers`` that are Ray's.

    Raises:
        ConfigError: if one is given without Ray, or no worker is asked for.
    """
    if not is_ray(arguments):
        for option in ("workers", *of_ray):
            if getattr(arguments, option):
                raise ConfigError(
                    f"--{option.replace('_', '-')}: is of Ray. Add --engine ray, or leave it out: "
                    f"without, one is done after another, to its end."
                )
    if arguments.workers is not None and arguments.workers < 1:
        raise ConfigError(f"--workers: expected at least 1 (got {arguments.workers}).")


def is_ray(arguments: argparse.Namespace) -> bool:
    """Whether Ray was asked for.

    Raises:
        ConfigError: if it was not, and the address of a cluster was given.
    """
    if arguments.engine == "local" and arguments.address is not None:
        raise ConfigError("--address: is of a Ray cluster. Leave out --engine local, or this.")
    return arguments.engine == "ray" or arguments.address is not None
