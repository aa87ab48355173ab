"""Commands in a process of their own, as a person starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV_BIN = Path(sys.executable).parent
CLI = (sys.executable, "-m", "pipelines.cli")


def ran(
    *command: object,
    cwd: Path = ROOT,
    environ: Mapping[str, str] | None = None,
    code: int | None = 0,
    timeout_s: float = 300,
) -> subprocess.CompletedProcess[str]:
    """A command that has ended, with what it said.

    Args:
        environ: its whole environment; None for this process's.
        code: that it must end with; None for any.
    """
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env=environ,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout_s,
    )
    assert code in (None, done.returncode), done.stdout[-2000:] + done.stderr[-2000:]
    return done


def python(code: str, *arguments: object, environ: Mapping[str, str] | None = None) -> str:
    """What a fresh Python prints that works through some code without an error."""
    return ran(sys.executable, "-c", code, *arguments, environ=environ).stdout


def dvc(root: Path, *arguments: str) -> str:
    """What DVC prints in a project."""
    return ran(sys.executable, "-m", "dvc", *arguments, cwd=root).stdout


def with_venv() -> dict[str, str]:
    """This process's environment, with the programs that stand beside this Python."""
    return {**os.environ, "PATH": f"{VENV_BIN}:{os.environ['PATH']}"}


def tracked_or_new() -> list[str]:
    """Files of the checkout that are in Git or would be added to it, with slashes."""
    listing = ran("git", "ls-files", "--cached", "--others", "--exclude-standard", "-z").stdout
    return [name for name in listing.split("\0") if name and (ROOT / name).is_file()]
