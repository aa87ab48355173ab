from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.commands.workspace import overlay
from pipelines.config.params import load_params
from pipelines.paths import Paths
from pipelines.stages import code


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two of the three toy classes, one under its published name."""
    folder = tmp_path / "data"
    for name in ("Rot", "blue"):
        (folder / "toy" / name).mkdir(parents=True)
        for shot in range(3):
            Image.fromarray(np.zeros((20, 20, 3), np.uint8)).save(
                folder / "toy" / name / f"{shot}.png"
            )
    (folder / "unheard_of").mkdir()
    return folder


def workspace(root: Path, folder: Path, data: Path) -> int:
    return cli.main(["workspace", str(folder), "--data", str(data), "--root", str(root)])


@pytest.fixture
def made(toy_project: Path, data: Path) -> Path:
    folder = toy_project / ".real"
    assert workspace(toy_project, folder, data) == 0
    return folder


def test_workspace_has_the_tasks_that_the_data_have(made, toy_project, data, capsys):
    main = load_params(toy_project / "params.yaml")
    params = load_params(made / "params.yaml")
    assert list(params.tasks) == ["toy"]
    assert params.seed == main.seed
    section = params.task("toy")
    assert section.fetch.source.kind == "folder"
    assert section.fetch.source.path == str(data / "toy")
    assert section.prepare.classes == ("red", "blue"), "in the card's order"
    assert section.train.views == 7, "the overlay below real:"
    assert main.task("toy").train.views != 7
    assert section.train.backbone == main.task("toy").train.backbone
    assert params.real == {}
    # Its boards are asked for by name, as the project's.
    boards = [Paths(root).boards_dvc_yaml.read_bytes() for root in (made, toy_project)]
    assert boards[0] == boards[1]


def test_workspace_says_what_is_left_out(toy_project, data, capsys):
    assert workspace(toy_project, toy_project / ".real", data) == 0
    out = capsys.readouterr().out
    assert "Left out, having no folder in" in out
    assert "other" in out
    assert "red, blue" in out


def test_workspace_all_classes_present_leaves_classes_open(toy_project, data):
    (data / "toy/green").mkdir()
    Image.new("RGB", (20, 20)).save(data / "toy/green/1.png")
    assert workspace(toy_project, toy_project / ".real", data) == 0
    assert load_params(toy_project / ".real/params.yaml").task("toy").prepare.classes is None


def test_workspace_is_a_dvc_project_without_git_that_reports_nothing(made):
    config = (made / ".dvc/config").read_text()
    assert "no_scm = True" in config
    assert "analytics = false" in config
    stages = subprocess.run(
        [sys.executable, "-m", "dvc", "stage", "list", "--name-only"],
        cwd=made,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.split()
    assert "train@toy" in stages
    assert not [stage for stage in stages if stage.endswith("@other")]


def test_workspace_watches_the_folder_of_images(made, toy_project, data):
    def stale() -> set[str]:
        command = [sys.executable, "-m", "dvc", "status", "--json", "fetch@toy"]
        done = subprocess.run(
            command, cwd=made, capture_output=True, text=True, check=True, timeout=60
        )
        return set(json.loads(done.stdout))

    (made / "dvc.yaml").write_text(_without_other_deps((made / "dvc.yaml").read_text()))
    code.run(Paths(made))
    command = [sys.executable, "-m", "dvc", "commit", "-q", "-f", "fetch@toy"]
    (made / "datasets/toy/raw").mkdir()
    subprocess.run(command, cwd=made, capture_output=True, check=True, timeout=60)
    assert stale() == set()
    (data / "toy/blue/new.png").write_bytes(b"one more")
    assert stale() == {"fetch@toy"}


def _without_other_deps(dvc_yaml: str) -> str:
    """Only the stage's own module is in the toy project."""
    lines = dvc_yaml.splitlines(keepends=True)
    return "".join(line for line in lines if "- pipelines/$" not in line)


def test_workspace_shares_the_weights_and_nothing_else(made, toy_project):
    link = made / ".cache/weights"
    assert link.resolve() == (toy_project / ".cache/weights").resolve()
    assert link.is_dir()
    assert sorted(path.name for path in (made / ".cache").iterdir()) == ["weights"]


def test_workspace_again_touches_only_what_changed(made, toy_project, data):
    (made / "models/toy").mkdir(parents=True)
    (made / "models/toy/kept.bin").write_bytes(b"an output")
    (made / "dvc.lock").write_text("a lock")
    stage = toy_project / "pipelines/stages/fetch.py"
    (toy_project / "pipelines/stages/gone.py").write_text("x = 1\n")
    assert workspace(toy_project, made, data) == 0
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    stage.write_text("stage = 'changed'\n")
    (toy_project / "pipelines/stages/gone.py").unlink()
    assert workspace(toy_project, made, data) == 0
    after = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    changed = {
        path.relative_to(made).as_posix() for path in before if after.get(path) != before[path]
    }
    assert changed == {"pipelines/stages/fetch.py", "pipelines/stages/gone.py"}
    assert (made / "pipelines/stages/fetch.py").read_text() == "stage = 'changed'\n"
    assert not (made / "pipelines/stages/gone.py").exists()


@pytest.mark.parametrize("target", [".", "..", "docs"])
def test_workspace_in_a_folder_with_other_things_is_refused(target, toy_project, data, capsys):
    (toy_project / "docs").mkdir()
    (toy_project / "docs/mine.md").write_text("mine")
    assert workspace(toy_project, toy_project / target, data) == 2
    assert "workspace: " in capsys.readouterr().err
    assert not (toy_project / target / ".dvc").exists()


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("absent", "there is no folder"),
        ("empty", "expected a folder named after a task (toy, other)"),
        ("one class", "at least 2 classes of the card (red, green, blue), got Rot"),
    ],
)
def test_workspace_bad_data_is_one_line_and_writes_nothing(
    spoil, says, toy_project, data, tmp_path, capsys
):
    if spoil == "absent":
        data = tmp_path / "absent"
    elif spoil == "empty":
        data = data / "unheard_of"
    else:
        for file in (data / "toy/blue").iterdir():
            file.unlink()
    assert workspace(toy_project, toy_project / ".real", data) == 2
    message = capsys.readouterr().err
    assert says in message
    assert message.count("\n") == 1
    assert not (toy_project / ".real").exists()


def test_overlay_joins_mappings_and_replaces_the_rest():
    below = {"a": {"b": 1, "c": [1, 2]}, "d": 4}
    above = {"a": {"c": [3]}, "d": {"e": 5}}
    assert overlay(below, above) == {"a": {"b": 1, "c": [3]}, "d": {"e": 5}}
    assert below == {"a": {"b": 1, "c": [1, 2]}, "d": 4}


def test_images_may_lie_in_a_folder_of_another_name(toy_project, data, capsys):
    """What `real.<task>.data` and `validate_on` name, beside one another in the data folder."""
    (data / "toy").rename(data / "toy_2026")
    for name in ("Rot", "blue"):
        (data / "elsewhere" / name).mkdir(parents=True)
    text = (toy_project / "params.yaml").read_text(encoding="utf-8")
    above = text.replace(
        "  toy: {train:", "  toy: {data: toy_2026, validate_on: [elsewhere, gone], train:"
    )
    assert above != text
    (toy_project / "params.yaml").write_text(above, encoding="utf-8")
    assert workspace(toy_project, toy_project / ".real", data) == 0
    params = load_params(toy_project / ".real/params.yaml")
    assert params.task("toy").fetch.source.path == str((data / "toy_2026").resolve())
    assert params.real["toy"].validate_on == (str((data / "elsewhere").resolve()),)
