from __future__ import annotations

from pathlib import Path

import pytest

import pipelines.reference
import pipelines.samples
from pipelines.errors import ConfigError
from pipelines.samples.folder import load_painter
from pipelines.tasks import load_task
from tests.published_set import read


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose modules are found as readers of `reference` and as painters."""
    for package in (pipelines.reference, pipelines.samples):
        monkeypatch.setattr(package, "__path__", [str(tmp_path)])
    return tmp_path


def test_module_of_a_task_is_found_by_its_name(modules: Path) -> None:
    (modules / "found_task.py").write_text(
        "def records(raw_dir, card):\n    return [card]\n"
        "def paint(label, subject, shot, side_px):\n    return label\n"
    )
    assert load_task("reference", "found_task").records(Path(), "card") == ["card"]
    assert load_painter("found_task")("red", None, None, 8) == "red"


def test_plain_task_is_read_as_its_card_says(tmp_path: Path) -> None:
    assert read("cats_dogs", tmp_path, "cat/1.jpg") == {"cat/1.jpg": ("cats", "cat/1.jpg")}
    assert not list(Path(pipelines.reference.__path__[0]).glob("cats_dogs.py"))


def test_task_without_a_painter_says_what_to_do(modules: Path) -> None:
    (modules / "dumb_task.py").write_text("paint = None\n")
    for task in ("dumb_task", "no_such_task"):
        with pytest.raises(
            ConfigError, match=rf"samples/{task}\.py: .* tasks\.{task}\.fetch\.source"
        ):
            load_painter(task)


def test_module_without_records_is_an_error(modules: Path) -> None:
    (modules / "empty_task.py").write_text("")
    with pytest.raises(ConfigError, match=r"pipelines/reference/empty_task\.py: .* records"):
        load_task("reference", "empty_task")


def test_broken_import_is_a_bug_and_not_an_absent_module(modules: Path) -> None:
    (modules / "broken_task.py").write_text("import no_such_library\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_task("reference", "broken_task")
    with pytest.raises(ModuleNotFoundError, match="no_such_library"):
        load_painter("broken_task")
