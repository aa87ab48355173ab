from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.card import load_card
from pipelines.commands.workspace import overlay, published_labels
from pipelines.config.params import load_params
from pipelines.paths import Paths
from pipelines.sources.git import fetch_git
from pipelines.sources.intake import Intake
from pipelines.stages import code
from pipelines.strict_yaml import read_yaml
from tests.file_tree import file_tree
from tests.processes import ROOT, dvc, ran
from tests.shipped import SHIPPED

ADDRESS = "https://git.example.org/somebody/colours"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Two of the three toy classes, one under its published name."""
    folder = tmp_path / "data"
    for name in ("Rot", "blue"):
        (folder / "toy" / name).mkdir(parents=True)
        for shot in range(3):
            Image.new("RGB", (20, 20)).save(folder / "toy" / name / f"{shot}.png")
    (folder / "unheard_of").mkdir()
    return folder


def workspace(root: Path, *arguments: object, folder: str = ".real") -> int:
    words = ["workspace", root / folder, "--root", root, *arguments]
    return cli.main([*map(str, words)])


@pytest.fixture
def made(toy_project: Path, data: Path) -> Path:
    assert workspace(toy_project, "--data", data) == 0
    return toy_project / ".real"


def test_workspace_has_the_tasks_that_the_data_have(toy_project, data, capsys):
    assert workspace(toy_project, "--data", data) == 0
    out = capsys.readouterr().out
    assert re.search(r"Left out, having no folder in .*: other\.", out)
    assert "red, blue" in out
    made = toy_project / ".real"
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


def test_workspace_all_classes_present_leaves_classes_open(toy_project, data):
    (data / "toy/green").mkdir()
    Image.new("RGB", (20, 20)).save(data / "toy/green/1.png")
    assert workspace(toy_project, "--data", data) == 0
    assert load_params(toy_project / ".real/params.yaml").task("toy").prepare.classes is None


def test_workspace_is_a_dvc_project_without_git_that_reports_nothing(made):
    config = (made / ".dvc/config").read_text()
    assert "no_scm = True" in config
    assert "analytics = false" in config
    stages = dvc(made, "stage", "list", "--name-only").split()
    assert "train@toy" in stages
    assert not [stage for stage in stages if stage.endswith("@other")]


def test_workspace_watches_the_folder_of_images(made, toy_project, data):
    def stale() -> set[str]:
        return set(json.loads(dvc(made, "status", "--json", "fetch@toy")))

    code.run(Paths(made))
    (made / "datasets/toy/raw").mkdir()
    dvc(made, "commit", "-q", "-f", "fetch@toy")
    assert stale() == set()
    (data / "toy/blue/new.png").write_bytes(b"one more")
    assert stale() == {"fetch@toy"}


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
    assert workspace(toy_project, "--data", data) == 0
    before = {path: path.stat().st_mtime_ns for path in made.rglob("*") if path.is_file()}
    stage.write_text("stage = 'changed'\n")
    (toy_project / "pipelines/stages/gone.py").unlink()
    assert workspace(toy_project, "--data", data) == 0
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
    assert workspace(toy_project, "--data", data, folder=target) == 2
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
    assert workspace(toy_project, "--data", data) == 2
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
    assert workspace(toy_project, "--data", data) == 0
    params = load_params(toy_project / ".real/params.yaml")
    assert params.task("toy").fetch.source.path == str((data / "toy_2026").resolve())
    assert params.real["toy"].validate_on == (str((data / "elsewhere").resolve()),)


# -- what the cards say is published ---------------------------------------------------------------
@pytest.fixture
def mirror(tmp_path, monkeypatch) -> str:
    """A made-up publisher's repository, which git finds on this disk in the place of the web."""
    folder = tmp_path / "mirror"
    for shot in range(4):
        for name in ("train/Rot", "val/Rot", "train/Blau"):
            (folder / "set" / name).mkdir(parents=True, exist_ok=True)
            pixels = np.full((24, 24, 3), shot, np.uint8)
            Image.fromarray(pixels).save(folder / "set" / name / f"{shot}.png")
    (folder / "set/train/Rot/1_original_2.png").write_bytes(b"a copy")
    (folder / "set/train/Blau/notes.txt").write_bytes(b"notes")
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    for arguments in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "one"]):
        ran("git", *identity, *arguments, cwd=folder)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{folder.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", ADDRESS)
    return ran("git", "rev-parse", "HEAD", cwd=folder).stdout.strip()


def publish(root: Path, revision: str, repository: str = ADDRESS, label: str = "red"):
    """State the source in the toy card, and nothing in the other one."""
    card = root / "datasets/toy/card.yaml"
    document = read_yaml(card)
    source = {"kind": "git", "repository": repository, "revision": revision, "subfolder": "set"}
    source |= {"labels": {"*/Rot/*": label, "*/Blau/*": "blue"}, "leave_out": ["*_original_*"]}
    document["source"]["fetch"] = {"source": source, "n_bytes": 1234, "what": "both parts pooled"}
    document["source"]["by_hand"] = "Ask the painter at https://example.org/colours"
    # JSON is YAML.
    card.write_text(json.dumps(document), encoding="utf-8")


def test_workspace_without_data_announces_and_fetches_what_is_published(
    mirror, toy_project, capsys
):
    publish(toy_project, mirror)
    assert workspace(toy_project) == 4
    said = capsys.readouterr()
    assert "1 tasks, to be fetched from their publishers" in said.out
    assert "1,234" in said.out
    assert f"{ADDRESS}, set: both parts pooled" in said.out
    assert "fieldlens: other is left out: " in said.err
    real = toy_project / ".real"
    assert (real / "left_out.txt").read_text().startswith("other is left out: ")
    section = load_params(real / "params.yaml").task("toy")
    assert section.prepare.classes == ("red", "blue")
    # From an address that is nowhere, through the mirror.
    source = section.fetch.source
    assert source.kind == "git"
    (real / "raw").mkdir()
    intake = Intake(real / "raw", "toy", max_bytes=source.max_bytes, picked=source)
    assert fetch_git(source, intake, real, real / "downloads")["commit"] == mirror
    found = sorted(file_tree(real / "raw"))
    assert len(found) == 12
    assert found[0] == "blue/train/Blau/0.png"
    assert found[-1] == "red/val/Rot/3.png"
    assert intake.skipped == {"left out": 1, "other": 1}


def test_workspace_again_with_data_forgets_what_was_left_out(mirror, toy_project, tmp_path):
    publish(toy_project, mirror)
    workspace(toy_project)
    for name in ("red", "blue"):
        (tmp_path / "data/toy" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "data/toy" / name / "1.png")
    assert workspace(toy_project, "--data", tmp_path / "data") == 0
    assert not (toy_project / ".real/left_out.txt").exists()


def test_workspace_goes_on_without_a_publisher_that_cannot_be_reached(
    mirror, toy_project, tmp_path, capsys
):
    publish(toy_project, mirror, (tmp_path / "gone").as_uri())
    assert workspace(toy_project) == 2
    message = capsys.readouterr().err
    assert "no published images can be fetched" in message
    assert "toy is left out: toy: git says: fatal: " in message
    assert "Ask the painter at https://example.org/colours." in message
    assert message.count("\n") == 1
    assert not (toy_project / ".real").exists()


def test_card_of_a_published_source_names_its_classes_only(toy_project, capsys):
    publish(toy_project, "main", label="pink")
    assert workspace(toy_project) == 2
    assert "source.fetch names no class: pink" in capsys.readouterr().err


@pytest.mark.parametrize("task", SHIPPED)
def test_cards_of_the_project_say_how_their_images_are_had(task: str):
    card = load_card(ROOT / f"datasets/{task}/card.yaml")
    stated = card.source.fetch
    assert stated is not None or card.source.by_hand
    if stated is not None:
        assert len(stated.source.revision) == 40
        assert stated.source.repository.startswith("https://")
        assert set(published_labels(card, stated)) == set(stated.source.labels.values())
