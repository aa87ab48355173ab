from __future__ import annotations

from pathlib import Path

import pytest

import pipelines.reference
from pipelines.errors import ConfigError
from pipelines.tasks import load_task


@pytest.fixture
def reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules are found in `pipelines.reference`."""
    monkeypatch.setattr(pipelines.reference, "__path__", [str(tmp_path)])
    return tmp_path


def test_load_task_finds_the_module_by_name(reference: Path) -> None:
    (reference / "found_task.py").write_text("def records(raw_dir, card):\n    return [card]\n")
    assert load_task("reference", "found_task").records(Path(), "card") == ["card"]


@pytest.mark.parametrize(
    ("domain", "task"), [("reference", "no_such_task"), ("no_such_domain", "a_task")]
)
def test_load_task_absent_names_the_file(domain: str, task: str) -> None:
    with pytest.raises(ConfigError, match=f"^pipelines/{domain}/{task}.py: there is no such"):
        load_task(domain, task)


def test_load_task_without_records_is_an_error(reference: Path) -> None:
    (reference / "empty_task.py").write_text("")
    with pytest.raises(ConfigError, match=r"pipelines/reference/empty_task\.py: .* records"):
        load_task("reference", "empty_task")


def test_load_task_with_a_broken_import_is_a_bug_not_an_absent_module(reference: Path) -> None:
    (reference / "broken_task.py").write_text("import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_task("reference", "broken_task")
