"""params.yaml itself: it parses, and an experiment on one task leaves the others alone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines.config.params import load_params
from pipelines.strict_yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
TASKS = list(load_params(ROOT / "params.yaml").tasks)


@pytest.mark.parametrize("task", [TASKS[0], TASKS[-1]])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prepare.val_fraction", 0.25),
        ("train.views", 9),
        ("train.head.dropout", 0.5),
        ("train.head_phase.epochs", 33),
        ("train.tail_phase.epochs", 33),
        ("train.augment.hue", 0.5),
        ("train.view.grey", True),
        ("export.min_speedup", 9.0),
        ("evaluate.calibration_bins", 33),
        ("gate.max_int8_bytes", 12345),
    ],
)
def test_exp_run_set_param_changes_that_task_alone(task, key, value, tmp_path):
    # With `train: *train` DVC sets the shared mapping once a task, and the last task wins: the
    # experiment would run with the old value, and say nothing.
    from dvc.utils.hydra import apply_overrides

    path = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", path)
    before = load_params(path)
    apply_overrides(path, [f"tasks.{task}.{key}={value}"])
    after = load_params(path)
    changed = [name for name in before.tasks if after.task(name) != before.task(name)]
    assert changed == [task]
    got: object = after.task(task)
    for part in key.split("."):
        got = getattr(got, part)
    assert got == value


def test_dvc_reads_the_file_as_we_do():
    # DVC's parser is C where ruamel.yaml.clib is there, ours never is.
    from dvc.utils.serialize import parse_yaml

    path = ROOT / "params.yaml"
    theirs = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    assert {key: value for key, value in theirs.items() if key[0] != "_"} == read_yaml(path)
