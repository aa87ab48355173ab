"""docs/THIRD_PARTY.md against the lock, the table of weights and the cards."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import pytest

from pipelines.commands import licences
from pipelines.config.params import load_params
from pipelines.errors import MissingDataError
from pipelines.paths import Paths
from tests.shipped import SHIPPED

PATHS = Paths(Path(__file__).resolve().parents[2])
PAGE = (PATHS.root / "docs/THIRD_PARTY.md").read_text(encoding="utf-8")
PINS = licences.read_lock(PATHS.constraints)
#: Of the packages that a phone or an app gets: none may force its terms on the app.
COPYLEFT = re.compile(r"\b(?:A?GPL|LGPL|EPL|MPL|CC-BY-SA)")


def section(heading: str) -> list[list[str]]:
    """Cells of the rows below a heading, without the table's head."""
    body = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in body.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows[2:]]


def is_installed(name: str, version: str) -> bool:
    try:
        return metadata.version(name).partition("+")[0] == version
    except metadata.PackageNotFoundError:
        return False


def test_every_package_has_a_licence():
    without = [
        row[0] for row in section("Dependencies") if row[2] in {"", "NOASSERTION", "UNKNOWN"}
    ]
    assert without == []


def test_what_serving_needs_is_named_and_free_of_copyleft():
    serving = {row[0]: row[2] for row in section("Dependencies") if row[3] == "yes"}
    assert {"numpy", "onnxruntime", "pillow", "pydantic", "ruamel.yaml"} <= set(serving)
    assert not {"torch", "mlflow", "dvc", "pygit2"} & set(serving)
    assert {name for name, licence in serving.items() if COPYLEFT.search(licence)} == set()


def test_page_is_what_the_generator_gives():
    if set(load_params(PATHS.params).tasks) != set(SHIPPED):
        pytest.skip("a task of your own is here: the page is of what the project ships")
    absent = [name for name, version in PINS.items() if not is_installed(name, version)]
    if absent:
        pytest.skip(f"not installed as pinned: {', '.join(absent[:5])}; `make setup` installs them")
    assert licences.page(PATHS) == PAGE, "run `fieldlens licences --out docs/THIRD_PARTY.md`"


def test_package_of_another_version_is_named(tmp_path):
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    (tmp_path / "constraints.txt").write_text("numpy==0.0.1\n")
    with pytest.raises(MissingDataError, match=r"numpy: expected 0\.0\.1, installed is "):
        licences.page(Paths(tmp_path))
    (tmp_path / "constraints.txt").write_text("no-such-package-here==1\n")
    with pytest.raises(MissingDataError, match="no-such-package-here is not installed"):
        licences.page(Paths(tmp_path))
