from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines import cli
from pipelines.card import load_card
from pipelines.commands.workspace import published_labels
from pipelines.config.params import load_params
from pipelines.sources.git import fetch_git
from pipelines.sources.intake import Intake
from pipelines.strict_yaml import read_yaml
from tests.file_tree import file_tree
from tests.shipped import SHIPPED

ROOT = Path(__file__).resolve().parents[2]
ADDRESS = "https://git.example.org/somebody/colours"


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
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
        subprocess.run(["git", "-C", str(folder), *identity, *arguments], check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{folder.as_uri()}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", ADDRESS)
    done = subprocess.run(
        ["git", "-C", str(folder), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def _publish(root: Path, revision: str, repository: str = ADDRESS, label: str = "red") -> None:
    """State the source in the toy card, and nothing in the other one."""
    card = root / "datasets/toy/card.yaml"
    document = read_yaml(card)
    source = {"kind": "git", "repository": repository, "revision": revision, "subfolder": "set"}
    source |= {"labels": {"*/Rot/*": label, "*/Blau/*": "blue"}, "leave_out": ["*_original_*"]}
    document["source"]["fetch"] = {"source": source, "n_bytes": 1234, "what": "both parts pooled"}
    document["source"]["by_hand"] = "Ask the painter at https://example.org/colours"
    # JSON is YAML.
    card.write_text(json.dumps(document), encoding="utf-8")


def _workspace(root: Path) -> int:
    return cli.main(["workspace", str(root / ".real"), "--root", str(root)])


def test_workspace_without_data_announces_and_fetches_what_is_published(
    mirror: str, toy_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _publish(toy_project, mirror)
    assert _workspace(toy_project) == 4
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


def test_workspace_again_with_data_forgets_what_was_left_out(
    mirror: str, toy_project: Path, tmp_path: Path
) -> None:
    _publish(toy_project, mirror)
    _workspace(toy_project)
    for name in ("red", "blue"):
        (tmp_path / "data/toy" / name).mkdir(parents=True)
        Image.new("RGB", (20, 20)).save(tmp_path / "data/toy" / name / "1.png")
    command = ["workspace", str(toy_project / ".real"), "--root", str(toy_project)]
    assert cli.main([*command, "--data", str(tmp_path / "data")]) == 0
    assert not (toy_project / ".real/left_out.txt").exists()


def test_workspace_goes_on_without_a_publisher_that_cannot_be_reached(
    mirror: str, toy_project: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _publish(toy_project, mirror, (tmp_path / "gone").as_uri())
    assert _workspace(toy_project) == 2
    message = capsys.readouterr().err
    assert "no published images can be fetched" in message
    assert "toy is left out: toy: git says: fatal: " in message
    assert "Ask the painter at https://example.org/colours." in message
    assert message.count("\n") == 1
    assert not (toy_project / ".real").exists()


def test_card_of_a_published_source_names_its_classes_only(
    toy_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _publish(toy_project, "main", label="pink")
    assert _workspace(toy_project) == 2
    assert "source.fetch names no class: pink" in capsys.readouterr().err


@pytest.mark.parametrize("task", SHIPPED)
def test_cards_of_the_project_say_how_their_images_are_had(task: str) -> None:
    card = load_card(ROOT / f"datasets/{task}/card.yaml")
    stated = card.source.fetch
    assert stated is not None or card.source.by_hand
    if stated is not None:
        assert len(stated.source.revision) == 40
        assert stated.source.repository.startswith("https://")
        assert set(published_labels(card, stated)) == set(stated.source.labels.values())
