"""What families keep to, whichever of them is asked first in a process."""

from __future__ import annotations

import ast
import subprocess
import sys

import pytest

from pipelines.backbones.architecture import MOBILENET_V2
from tests.processes import ROOT

FILES = sorted((ROOT / "pipelines/backbones/families").glob("*.py"))


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_large_no_squeeze", "nasnet_mobile", MOBILENET_V2.line]
)
def test_a_network_can_be_the_first_that_is_built(name):
    """torchvision and timm cannot be imported before the operators that they lack are declared."""
    code = f"from pipelines.backbones.spec import backbone; backbone({name!r}).build()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_torchvision_and_timm_are_imported_only_where_those_two_are_built(file):
    """The others come through the doors of `spec`: a new file is looked at above, first of all."""
    names = {
        node.module.partition(".")[0]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module
    }
    assert not names & {"torchvision", "timm"} or file.stem in {
        "mobilenet_v3",
        "nasnet",
        "searched",
    }
