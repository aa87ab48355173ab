"""What is told of a cluster before any work: Ray itself waits without a word, or for minutes."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from pipelines.errors import ConfigError
from pipelines.scale import cluster as module
from pipelines.scale.cluster import joined
from tests.loopback import closed_port


@pytest.fixture
def ray(monkeypatch) -> SimpleNamespace:
    """Stands for Ray: a cluster of two processors, of which one is free."""
    fake = SimpleNamespace(
        __version__="0",
        exceptions=SimpleNamespace(RayError=OSError),
        init=lambda *_, **__: None,
        shutdown=lambda: fake.calls.append("shutdown"),
        cluster_resources=lambda: {"CPU": 2.0},
        available_resources=lambda: {"CPU": 1.0},
        calls=[],
    )
    monkeypatch.setitem(sys.modules, "ray", fake)
    monkeypatch.setattr(module, "_FREED_S", 0.0)
    return fake


@pytest.mark.parametrize(("asked", "found"), [(None, 1), (1, 1)])
def test_workers_are_those_that_have_a_processor(ray, asked, found):
    with joined(asked, None) as cluster:
        assert cluster.n_workers == found
    assert ray.calls == ["shutdown"]


@pytest.mark.parametrize(
    ("asked", "total", "words"),
    [
        (3, 2.0, "--workers: 3 asked, but the cluster has 2 processors. Ask for at most 2."),
        (2, 2.0, "--workers: 2 asked, but of the cluster's 2 processors 1 are free."),
        (None, 0.0, "--address: the cluster has no processor. Start a node with one"),
    ],
)
def test_a_shortage_of_processors_is_told(ray, asked, total, words):
    ray.cluster_resources = lambda: {"CPU": total}
    with pytest.raises(ConfigError, match=f"^{words}"), joined(asked, None):
        pass
    assert ray.calls == ["shutdown"]


def test_ray_of_another_version_is_told(ray):
    def refuses(*_, **__):
        raise RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.0")

    ray.init = refuses
    says = r"Ray 0 cannot join \(Version mismatch: The cluster was started with: Ray: 2.0\)"
    with pytest.raises(ConfigError, match=says), joined(1, None):
        pass


@pytest.mark.parametrize(
    ("address", "words"),
    [(f"127.0.0.1:{closed_port()}", "nothing answers at"), ("there", "expected HOST:PORT")],
    # The same in every process of the tests.
    ids=["silent", "no_port"],
)
def test_an_address_is_tried_first(address, words):
    with pytest.raises(ConfigError, match=f"--address: {words}"), joined(1, address):
        pass


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"pip install 'fieldlens\[scale\]'"), joined(1, None):
        pass
