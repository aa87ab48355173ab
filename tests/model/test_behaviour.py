"""The trained models do not waver: small harmless changes of a picture turn few answers.

``FIELDLENS_ROOT`` names the project folder whose models are tried (e.g. ``.real``); the checkout by
default. Bounds: params.yaml, ``evaluate.max_changed``; `fieldlens stress TASK` shows the table.
"""

from __future__ import annotations

import os
from argparse import Namespace
from pathlib import Path

import pytest

from pipelines.commands import stress
from pipelines.config.params import load_params
from pipelines.paths import Paths

CHECKOUT = Path(__file__).resolve().parents[2]
PATHS = Paths(Path(os.environ.get("FIELDLENS_ROOT", CHECKOUT)))
TASKS = list(load_params(PATHS.params).tasks)


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_harmless_changes_turn_no_more_answers_than_params_allow(task):
    files = PATHS.task(task)
    if not files.bundle.is_file():
        pytest.skip(f"{files.bundle}: there is no model; `dvc repro evaluate@{task}` makes it")
    if not files.manifest.is_file():
        pytest.skip(f"{files.manifest}: there are no images; `dvc repro prepare@{task}` makes it")
    answer = stress.main(Namespace(task=task, split="test"), PATHS)
    assert answer.complaints == (), answer.text
    assert answer.exit_code == 0
    # A row a change: nothing was left out.
    assert len(answer.text.splitlines()) >= 2 + 8
