"""Files that somebody brings: those that fit are found from then on, others are told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipelines.backbones.by_hand import import_file
from pipelines.backbones.spec import Backbone, backbone, backbones, timm, torchvision_models
from pipelines.backbones.weights import Imported, found_sha256, inspect, load_imagenet
from pipelines.errors import MissingDataError, WeightsError
from tests.backbones.toy_family import as_pretrained, toy

State = dict[str, Tensor]


@pytest.fixture(autouse=True)
def _no_folder_of_the_user(monkeypatch):
    monkeypatch.delenv("FIELDLENS_WEIGHTS", raising=False)


def of_torchvision(**options: object) -> nn.Module:
    return as_pretrained([torchvision_models().mobilenet_v2(**options)])[0]


def of_timm(model: str) -> nn.Module:
    return as_pretrained([timm().create_model(model)])[0]


def own_names(network: Backbone) -> State:
    return as_pretrained(network.build()).state_dict()


def written(state: State, folder: Path, suffix: str = ".pth") -> Path:
    path = folder / f"brought{suffix}"
    if suffix == ".pth":
        torch.save(state, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)
    return path


# -- files that fit -------------------------------------------------------------------------------
def without_classifier(state: State) -> State:
    return {name: tensor for name, tensor in state.items() if not name.startswith("classifier")}


def halved(state: State) -> State:
    return {n: t.half() if t.is_floating_point() else t for n, t in state.items()}


def without_counters(state: State) -> State:
    return {n: t for n, t in state.items() if not n.endswith("num_batches_tracked")}


@pytest.mark.parametrize(
    ("network", "state", "suffix"),
    [
        (("mobilenet_v2", 1.0), lambda: of_torchvision().state_dict(), ".pth"),
        (("mobilenet_v2", 1.0), lambda: without_classifier(of_torchvision().state_dict()), ".pth"),
        (("mobilenet_v2", 1.0), lambda: halved(of_torchvision().state_dict()), ".safetensors"),
        (("mobilenet_v2", 0.5), lambda: of_timm("mobilenetv2_050").state_dict(), ".safetensors"),
        # nobody publishes it: the names of our own blocks are the only ones
        (("mobilenet_v2", 1.3), lambda: own_names(backbone("mobilenet_v2", 1.3)), ".safetensors"),
        (
            ("mobilenet_v3_large_minimal", 1.0),
            lambda: without_counters(of_timm("tf_mobilenetv3_large_minimal_100").state_dict()),
            ".safetensors",
        ),
    ],
)
def test_file_that_fits_is_what_load_imagenet_gives(network, state, suffix, tmp_path):
    network = backbone(*network)
    torch.manual_seed(1)
    brought = state()
    provider = import_file(network, written(brought, tmp_path, suffix), tmp_path / "kept", "MIT")
    loaded = load_imagenet(network.spec.name, tmp_path / "kept", network.width)
    assert (loaded.provider, loaded.licence) == (provider.title, "MIT")
    blocks = nn.ModuleList(network.build())
    blocks.load_state_dict(loaded.tensors)
    expected = [t.float() for t in brought.values() if t.dim() == 4]
    got = [t for t in blocks.state_dict().values() if t.dim() == 4]
    assert len(got) > 15
    for ours, theirs in zip(got, expected, strict=False):
        assert torch.equal(ours, theirs)


def test_file_that_a_provider_knows_is_kept_as_that_providers(tmp_path, monkeypatch):
    spec = toy(tmp_path / "published")
    monkeypatch.setitem(backbones(), "toy", spec)
    network, kept = backbone("toy"), tmp_path / "kept"
    with pytest.raises(WeightsError):
        load_imagenet("toy", kept)
    file = (tmp_path / "published" / "toy.safetensors").rename(tmp_path / "download(1).bin")
    assert import_file(network, file, kept, "NOASSERTION") is network.weights[0]
    assert [path.name for path in kept.iterdir()] == ["toy.safetensors"]
    assert load_imagenet("toy", kept).licence == "MIT"


@pytest.fixture
def toy_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """The toy, whose own weights are in the folder ``kept``."""
    monkeypatch.setitem(backbones(), "toy", toy(tmp_path / "kept"))
    return backbone("toy")


def other_weights(network: Backbone, folder: Path, seed: int) -> Path:
    torch.manual_seed(seed)
    return written(own_names(network), folder, ".safetensors")


def test_imported_file_goes_before_all_others_and_a_newer_takes_its_place(toy_network, tmp_path):
    kept = tmp_path / "kept"
    assert load_imagenet("toy", kept).provider == "local file toy.safetensors"
    hashes = {found_sha256("toy", kept)}
    for seed in (1, 2):
        provider = import_file(toy_network, other_weights(toy_network, tmp_path, seed), kept, "MIT")
        loaded = load_imagenet("toy", kept)
        assert loaded.provider == provider.title
        assert found_sha256("toy", kept) == loaded.sha256
        hashes.add(loaded.sha256)
    assert len(hashes) == 3
    assert len(list(kept.glob("*imported*"))) == 1
    provider.path.unlink()
    assert load_imagenet("toy", kept).provider == "local file toy.safetensors"


def test_imported_file_is_found_in_the_folder_of_the_environment_too(
    toy_network, tmp_path, monkeypatch
):
    """As a run in a copy of the project finds it."""
    file = other_weights(toy_network, tmp_path, 1)
    provider = import_file(toy_network, file, tmp_path / "kept", "MIT")
    monkeypatch.setenv("FIELDLENS_WEIGHTS", str(tmp_path / "kept"))
    assert load_imagenet("toy", tmp_path / "copy").provider == provider.title


def test_the_same_file_is_kept_under_the_same_name(toy_network, tmp_path):
    file = other_weights(toy_network, tmp_path, 1)
    names = {import_file(toy_network, file, tmp_path / "kept", "MIT").path.name for _ in range(3)}
    assert len(names) == 1
    assert names.pop().startswith("toy-x1.imported-")


def test_imported_file_that_changed_is_an_error_and_nothing_takes_its_place(toy_network, tmp_path):
    kept = tmp_path / "kept"
    provider = import_file(toy_network, other_weights(toy_network, tmp_path, 1), kept, "MIT")
    data = bytearray(provider.path.read_bytes())
    data[-1] ^= 1
    provider.path.write_bytes(bytes(data))
    with pytest.raises(WeightsError, match=r"is not the expected file.*Import it again, or remove"):
        load_imagenet("toy", kept)
    (found,) = [each for each in inspect(kept) if isinstance(each.provider, Imported)]
    assert found.path is None
    assert "is not the expected file" in found.fault


def test_imported_file_of_a_network_that_has_changed_since_is_an_error(toy_network, tmp_path):
    kept = tmp_path / "kept"
    provider = import_file(toy_network, other_weights(toy_network, tmp_path, 1), kept, "MIT")
    state = load_file(provider.path)
    state.pop("0.conv.weight")
    save_file(state, tmp_path / "less")
    data = (tmp_path / "less").read_bytes()
    digits = hashlib.sha256(data).hexdigest()[:16]
    provider.path.with_name(f"toy-x1.imported-{digits}.safetensors").write_bytes(data)
    provider.path.unlink()
    with pytest.raises(WeightsError, match=r"is of another network: it lacks 0\.conv\.weight"):
        load_imagenet("toy", kept)


# -- files that do not fit ------------------------------------------------------------------------
def changed(name: str, tensor: Tensor) -> Callable[[], State]:
    return lambda: of_torchvision().state_dict() | {name: tensor}


def lacking(name: str) -> Callable[[], State]:
    return lambda: {n: t for n, t in of_torchvision().state_dict().items() if n != name}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        pytest.param(
            lambda: of_torchvision(num_classes=10).state_dict(),
            r"its classifier is another's: classifier\.1\.\w+ has the shape \(10.*Name the network",
            id="another head",
        ),
        pytest.param(
            lambda: of_torchvision(width_mult=0.35).state_dict(),
            r"features\.\S+ has the shape .*; expected ",
            id="another width, of torchvision's names",
        ),
        pytest.param(
            lambda: of_timm("mobilenetv2_050").state_dict(), r"Say --width 0\.5", id="another width"
        ),
        pytest.param(
            lambda: torchvision_models().mobilenet_v3_small().state_dict(),
            "is no file of mobilenet_v2: ",
            id="another network of the same names",
        ),
        pytest.param(
            lambda: torchvision_models().resnet18().state_dict(),
            r"it lacks \d+ tensors of .*, e\.g\. conv",
            id="another network",
        ),
        pytest.param(
            changed("features.3.extra", torch.ones(1)),
            r"1 of its tensors are not in torchvision's mobilenet_v2, e\.g\. features\.3\.extra",
            id="a tensor too many",
        ),
        pytest.param(
            lacking("features.3.conv.2.weight"),
            r"it lacks 1 tensors of torchvision's mobilenet_v2, e\.g\. features\.3\.conv\.2\.wei",
            id="a tensor too few",
        ),
        pytest.param(
            changed("features.0.0.weight", torch.full((32, 3, 3, 3), float("nan"))),
            r"features\.0\.0\.weight has values that are no numbers",
            id="not numbers",
        ),
        pytest.param(dict, "it lacks 260 tensors", id="empty"),
    ],
)
def test_file_of_another_head_width_or_network_is_an_error(state, message, tmp_path):
    with pytest.raises(WeightsError, match=message) as caught:
        import_file(backbone("mobilenet_v2"), written(state(), tmp_path), tmp_path / "kept", "MIT")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "brought.pth") in str(caught.value)
    assert not (tmp_path / "kept").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no weights",
        b"PK\x03\x04 half an archive",
        # a pickle of a list, as older files of torch begin
        b"\x80\x02]q\x00.",
        SimpleNamespace(x=1),
        {"state_dict": {"a": torch.ones(1)}},
        [torch.ones(1)],
    ],
    ids=lambda content: str(content)[:12],
)
def test_file_of_something_else_is_an_error(content, tmp_path):
    path = tmp_path / "brought.pth"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(WeightsError, match="expected tensors by name"):
        import_file(backbone("mobilenet_v2"), path, tmp_path / "kept", "MIT")
    assert not (tmp_path / "kept").exists()


def test_no_file_is_an_error(tmp_path):
    with pytest.raises(MissingDataError, match="there is no such file"):
        import_file(backbone("mobilenet_v2"), tmp_path, tmp_path / "kept", "MIT")
