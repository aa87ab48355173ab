from __future__ import annotations

from pipelines.quiet import SWITCHES, go_quiet


def test_go_quiet_sets_what_is_not_set():
    environ = {}
    go_quiet(environ)
    assert environ == SWITCHES
    assert environ["NO_ALBUMENTATIONS_UPDATE"] == "1"


def test_go_quiet_leaves_the_users_choice():
    environ = {"MLFLOW_DISABLE_TELEMETRY": "false"}
    go_quiet(environ)
    assert environ["MLFLOW_DISABLE_TELEMETRY"] == "false"
