"""Joins a Ray cluster, or starts one on this machine for a block (extra ``scale``)."""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any, NamedTuple

from pipelines.errors import ConfigError

#: Seconds in which a cluster takes a connection.
_PATIENCE_S = 5.0
#: Of what Ray says where it cannot join: the versions stand below its first line.
_MAX_WORDS = 200
#: Seconds in which the processors of a command that has just ended are free again.
_FREED_S = 15.0


class Cluster(NamedTuple):
    """A cluster that was joined."""

    ray: Any
    #: That may work at once, on a processor each.
    n_workers: int


@contextmanager
def joined(n_workers: int | None, address: str | None) -> Iterator[Cluster]:
    """Ray, connected; where it was started here it is ended.

    Work for which there is no processor would wait for ever without a word, so a shortage is told.
    Ray prints what it has to say of lost processes; here it goes to stderr, as all that is printed.

    Args:
        n_workers: processors that shall be free; None for as many as are.
        address: of a running cluster, HOST:PORT; None starts one on this machine.

    Raises:
        ConfigError: if Ray is not installed, the address does not answer, runs another version, or
            has fewer free processors than workers.
    """
    if address is not None:
        _answers(address)
    # Ray reports its use to its makers otherwise.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        import ray
    except ImportError as err:
        raise ConfigError(
            "--engine ray: ray is not installed. Run pip install 'fieldlens[scale]'."
        ) from err
    own = {"include_dashboard": False} if address is None else {}
    try:
        ray.init(address or "local", logging_level=logging.ERROR, log_to_driver=False, **own)
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as err:
        words = " ".join(str(err).split())[:_MAX_WORDS]
        raise ConfigError(
            f"--address: {address or 'this machine'}: Ray {ray.__version__} cannot join "
            f"({words}). Expected the address of a cluster that runs, of the same "
            f"version of Ray and Python, and its token in RAY_AUTH_TOKEN."
        ) from err
    try:
        with redirect_stdout(sys.stderr):
            yield Cluster(ray, _free(ray, n_workers))
    finally:
        ray.shutdown()


def _free(ray: Any, n_workers: int | None) -> int:
    """As many workers as have a processor."""
    n_cpus = int(ray.cluster_resources().get("CPU", 0))
    wanted = n_workers or 1
    if wanted > n_cpus:
        raise ConfigError(
            f"--workers: {wanted} asked, but the cluster has {n_cpus} processors. Ask for at most "
            f"{n_cpus}."
            if n_cpus
            else "--address: the cluster has no processor. Start a node with one (ray start "
            "--num-cpus)."
        )
    until = time.monotonic() + _FREED_S
    while (free := int(ray.available_resources().get("CPU", 0))) < wanted:
        if time.monotonic() > until:
            raise ConfigError(
                f"--workers: {wanted} asked, but of the cluster's {n_cpus} processors {free} are "
                f"free. Wait until others have ended, or ask for fewer."
            )
        time.sleep(0.5)
    return n_workers or free


def _answers(address: str) -> None:
    """Nothing, if something listens there; Ray itself tries for minutes."""
    host, _, port = address.rpartition(":")
    try:
        if not (host and port.isdecimal()):
            raise ConfigError(f"--address: expected HOST:PORT (got {address!r}).")
        with socket.create_connection((host, int(port)), _PATIENCE_S):
            return
    except OSError as err:
        raise ConfigError(
            f"--address: nothing answers at {address} ({err}). Start a cluster there (ray start "
            f"--head), or leave out --address for one on this machine."
        ) from err


def first_line(err: BaseException) -> str:
    """What an error of Ray says, without its lines of advice."""
    return (str(err).strip() or type(err).__name__).splitlines()[0]
