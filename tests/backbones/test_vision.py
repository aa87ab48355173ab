from __future__ import annotations

import subprocess
import sys

import pytest


def run(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_torchvision_imports_through_the_door_in_a_fresh_process():
    done = run(
        "from pipelines.backbones.spec import torchvision_models as door\n"
        "first = door()\n"
        "assert door() is first and first.__name__ == 'torchvision.models'\n"
        "import torch\n"
        "net = first.mobilenet_v2().eval()\n"
        "print(tuple(net(torch.zeros(1, 3, 32, 32)).shape))\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "(1, 1000)"


@pytest.mark.slow
def test_timm_imports_through_the_door_in_a_fresh_process():
    done = run(
        "from pipelines.backbones.spec import timm\n"
        "print(timm().create_model('mobilenetv2_050', pretrained=False).num_features)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "1280"


def test_operators_are_declared_once():
    from pipelines.backbones import spec as vision

    vision.torchvision_models()
    declared = list(vision._DECLARED)
    vision.torchvision_models()
    assert declared
    assert declared == vision._DECLARED
