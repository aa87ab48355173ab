"""The phone page's own tests, run by Node from Python's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.processes import ROOT, ran

PHONE_DIR = ROOT / "apps/phone"


def vitest(folder: Path, *names: str, **environ: object) -> list[str]:
    """Titles of the tests that passed, none having failed; skips where there is no Node.

    Args:
        folder: for the report.
        names: of test files; without one, all of them.
        environ: what the tests are told.
    """
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("there is no Node (make phone installs one)")
    if not (PHONE_DIR / "node_modules/vitest").is_dir():
        pytest.skip("the phone page's packages are not installed (make phone)")
    report = folder / "vitest.json"
    ran(
        *(npm, "test", "--silent", "--", "--reporter=json", f"--outputFile={report}", *names),
        cwd=PHONE_DIR,
        environ={**os.environ, **{key: str(value) for key, value in environ.items()}, "CI": "true"},
        code=None,
        timeout_s=240,
    )
    suites = json.loads(report.read_text(encoding="utf-8"))["testResults"]
    failed = [suite["message"] for suite in suites if suite["message"]]
    results = [test for suite in suites for test in suite["assertionResults"]]
    failed += [message for test in results for message in test["failureMessages"]]
    assert not failed, failed
    return [test["title"] for test in results if test["status"] == "passed"]
