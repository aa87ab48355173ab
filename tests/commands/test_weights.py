from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pipelines import cli
from pipelines.backbones.spec import BackboneSpec, Pretrained
from tests.backbones.toy_family import as_pretrained, build, toy


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with two backbones, one with weights in its cache and one that has none."""
    monkeypatch.delenv("FIELDLENS_WEIGHTS", raising=False)
    bare = BackboneSpec(
        name="bare", family="toy", build=build, licence="MIT", widths={0.5: Pretrained()}
    )
    known = {"toy": toy(tmp_path / ".cache" / "weights"), "bare": bare}
    monkeypatch.setattr("pipelines.backbones.spec.backbones", lambda: known)
    return tmp_path


def answer(root: Path, *arguments: str) -> int:
    return cli.main(["weights", *arguments, "--root", str(root)])


def rows(text: str) -> list[list[str]]:
    return [[cell for cell in line.split("  ") if cell] for line in text.splitlines()]


def test_list_names_every_backbone_and_whether_its_file_is_here(root, capsys):
    assert answer(root, "list") == 0
    head, *found = rows(capsys.readouterr().out)
    assert [cell.strip() for cell in head] == ["BACKBONE", "WIDTH", "PROVIDER", "LICENCE", "HERE"]
    local = ["toy", "local file toy.safetensors", "MIT"]
    assert [row[0].strip() for row in found] == ["toy", "bare"]
    assert [cell.strip() for cell in found[0]] == [local[0], "1", *local[1:], "yes"]
    assert [cell.strip() for cell in found[1]] == ["bare", "0.5", "none known"]
    file = root / ".cache/weights/toy.safetensors"
    file.write_bytes(b"something else")
    answer(root, "list")
    assert capsys.readouterr().out.splitlines()[1].endswith("changed")
    file.unlink()
    answer(root, "list")
    assert capsys.readouterr().out.splitlines()[1].endswith("-")


def test_verify_says_what_changed(root, capsys):
    assert answer(root, "verify") == 0
    assert "1 files are as they should be, 0 are not" in capsys.readouterr().out
    file = root / ".cache/weights/toy.safetensors"
    file.write_bytes(b"something else")
    assert answer(root, "verify") == 2
    captured = capsys.readouterr()
    assert "0 files are as they should be, 1 are not" in captured.out
    assert captured.err.startswith(f"fieldlens: {file} is not the expected file: sha256 ")
    file.unlink()
    assert answer(root, "verify") == 0


def test_fetch_brings_a_file_here_or_says_what_was_tried(root, capsys):
    assert answer(root, "fetch", "toy") == 0
    assert "toy: local file toy.safetensors, licence MIT, sha256 " in capsys.readouterr().out
    (root / ".cache/weights/toy.safetensors").unlink()
    assert answer(root, "fetch", "toy") == 2
    fetching, error = capsys.readouterr().err.splitlines()
    assert fetching == "toy: fetching imagenet weights: local file toy.safetensors"
    assert error.startswith("fieldlens: toy: no provider gave imagenet weights")
    assert answer(root, "fetch", "bare", "--width", "0.5") == 2
    # There is no file that could be put anywhere.
    assert "FIELDLENS_WEIGHTS" not in capsys.readouterr().err


def test_import_takes_a_file_in_and_fetch_then_gives_it(root, capsys):
    torch.manual_seed(9)
    file = root / "mine.safetensors"
    save_file(as_pretrained(build()).state_dict(), file)
    assert answer(root, "import", "bare", str(file), "--width", "0.5", "--licence", "CC0-1.0") == 0
    assert "bare x0.5: taken in as " in capsys.readouterr().out
    assert answer(root, "fetch", "bare", "--width", "0.5") == 0
    assert "imported file bare-x0.5.imported-" in capsys.readouterr().out
    answer(root, "list")
    assert "CC0-1.0" in capsys.readouterr().out
    (imported,) = (root / ".cache/weights").glob("bare*")
    imported.write_bytes(b"something else")
    # Neither its licence nor its weights are believed.
    assert answer(root, "list") == 0
    assert "CC0-1.0" not in capsys.readouterr().out
    assert answer(root, "fetch", "bare", "--width", "0.5") == 2


def test_import_of_a_file_that_a_provider_knows_says_so(root, capsys):
    file = (root / ".cache/weights/toy.safetensors").rename(root / "mine")
    assert answer(root, "import", "toy", str(file)) == 0
    assert "toy: the file is that of local file toy.safetensors" in capsys.readouterr().out
    assert answer(root, "verify") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fetch",), "expected `fieldlens weights fetch NAME`, got 0 names"),
        (("import", "toy"), "expected `fieldlens weights import NAME FILE`, got 1 names"),
        (("list", "toy"), "expected `fieldlens weights list`, got 1 names"),
        (("verify", "toy", "mine"), "expected `fieldlens weights verify`, got 2 names"),
        (("fetch", "tou"), "there is no backbone 'tou'. Expected one of toy, bare"),
        (("fetch", "toy", "--width", "0.5"), "toy has no width 0.5. Expected one of 1"),
        (("import", "toy", "nowhere.pth"), "nowhere.pth: there is no such file"),
    ],
)
def test_what_cannot_be_done_is_one_line(arguments, message, root, capsys):
    assert answer(root, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
