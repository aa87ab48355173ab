"""The trained models do not waver: small harmless changes of a picture turn few answers.

Bounds: params.yaml, ``evaluate.max_changed``; `fieldlens stress TASK` shows the table.
"""

from __future__ import annotations

from argparse import Namespace

import pytest

from pipelines.commands import stress
from tests.model.conftest import CLASSIFICATIONS, PATHS, trained


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("task", CLASSIFICATIONS)
def test_harmless_changes_turn_no_more_answers_than_params_allow(task):
    trained(task)
    answer = stress.main(Namespace(task=task, split="test"), PATHS)
    assert answer.complaints == (), answer.text
    assert answer.exit_code == 0
    # A row a change: nothing was left out.
    assert len(answer.text.splitlines()) >= 2 + 8
