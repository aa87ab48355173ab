from __future__ import annotations

import pytest

from pipelines.quiet import SWITCHES, go_quiet, switch_off_reports
from tests.processes import python


def test_go_quiet_sets_what_is_not_set():
    environ = {}
    go_quiet(environ)
    assert SWITCHES.items() <= environ.items()
    assert environ["OMP_WAIT_POLICY"] == "PASSIVE"


def test_a_command_loads_numpy_after_it_has_said_on_how_many_threads():
    """A library that is loaded has read its environment; only `go_quiet` may come first."""
    code = "import sys, pipelines.cli; print('numpy' in sys.modules)"
    assert python(code, environ={}).strip() == "False"


@pytest.mark.parametrize("act", [go_quiet, switch_off_reports])
def test_users_choice_is_left_alone(act):
    environ = {"MLFLOW_DISABLE_TELEMETRY": "false"}
    act(environ)
    assert environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
    assert environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


@pytest.mark.parametrize("package", ["pipelines", "apps", "fieldlens"])
def test_import_of_the_package_switches_off_reports_and_does_nothing_else(package):
    """A program that uses the predictor as a library keeps its own threads as they are."""
    code = (
        f"import os, sys; before = dict(os.environ)\nimport {package}\n"
        "for name in sorted(os.environ.items() - before.items()): print(*name, sep='=')\n"
        "print(*sys.modules)"
    )
    *changed, loaded = python(code, environ={}).splitlines()
    assert dict(line.split("=") for line in changed) == SWITCHES
    rooms = {name.partition(".")[0] for name in loaded.split()}
    assert package in rooms
    assert not {"numpy", "onnxruntime", "pydantic", "streamlit"} & rooms
