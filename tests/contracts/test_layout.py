"""The rooms of the house: what may lie where, and who may load whom."""

from __future__ import annotations

import ast
import re
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from tests.processes import ROOT, python, ran, tracked_or_new

DOMAINS = ("agriculture", "medical", "reference", "safety")
FORBIDDEN_STEMS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
BRUSHES = ("canvas", "cutout", "face_masks", "pen", "portrait")
#: What a task's own module may import of this project: a reader's contract, a painter's brushes.
FOR_READERS = {
    "pipelines.card",
    "pipelines.errors",
    *(f"pipelines.data.{name}" for name in ("manifest", "images")),
}
FOR_PAINTERS = {f"pipelines.samples.{name}" for name in BRUSHES}
SERVING_IS_FREE_OF = {"torch", "mlflow", "dvc", "onnx", "sklearn", "pydicom", "pillow_heif"}


def package_files() -> list[Path]:
    return [
        file
        for package in ("pipelines", "apps")
        for file in sorted((ROOT / package).rglob("*.py"))
        if "__pycache__" not in file.parts
    ]


def task_files() -> list[Path]:
    return [
        file
        for file in package_files()
        if file.parent.name in (*DOMAINS, "samples")
        and file.stem not in ("__init__", "folder", *BRUSHES)
    ]


def test_datasets_hold_no_python():
    assert not [file for file in (ROOT / "datasets").rglob("*") if file.suffix == ".py"]


def drawn() -> list[list[str]]:
    """The rooms of docs/architecture.md, a list a line, from the top."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    drawing = text.split("## The rooms, and who may call whom")[1].split("```")[1]
    # What a room is for stands to the right of the longest line of names.
    width = len("medical  agriculture  safety  reference")
    return [line[:width].split() for line in drawing.splitlines() if line.strip()]


def test_drawing_of_the_rooms_is_the_contract_that_import_linter_holds():
    """Which is exhaustive: a room that is missing in it fails, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (layers,) = [
        contract
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    ]
    assert layers["exhaustive"]
    assert not layers.get("ignore_imports")
    ordered = [sorted(re.findall(r"\w+", line)) for line in layers["layers"]]
    assert [sorted(line) for line in drawn()] == ordered


def test_modules_have_telling_names():
    assert not FORBIDDEN_STEMS & {file.stem for file in package_files()}


def test_only_the_command_line_prints():
    printing = [
        file.relative_to(ROOT).as_posix()
        for file in package_files()
        if re.search(r"^\s*print\(", file.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert printing == ["pipelines/cli.py"]


@pytest.mark.parametrize("file", task_files(), ids=lambda file: file.stem)
def test_a_tasks_own_module_imports_little(file):
    modules = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module in (
            "pipelines.data",
            "pipelines.samples",
        ):
            modules |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    allowed = FOR_PAINTERS if file.parent.name == "samples" else FOR_READERS
    assert {name for name in modules if name.startswith("pipelines")} <= allowed


def test_repository_holds_no_large_file_and_no_picture_but_documentation():
    for file in map(ROOT.joinpath, tracked_or_new()):
        assert file.stat().st_size < 500_000, file
        if file.suffix.lower() in {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif"}:
            inside = file.relative_to(ROOT)
            # A web app that can be installed needs its icon as pixels.
            is_icon = inside.parent.as_posix() == "apps/phone/public" and "icon" in inside.name
            assert is_icon or inside.parts[0] in {"docs", "tests"}, file
        assert file.suffix not in {".pkl", ".pickle", ".pt", ".pth", ".onnx", ".safetensors"}, file


def test_import_rules_hold():
    program = Path(sys.executable).with_name("lint-imports")
    if not program.is_file():
        pytest.skip("import-linter is not installed")
    ran(program, "--no-cache")


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("pipelines.cli", {"torch", "mlflow", "dvc", "numpy", "onnxruntime"}),
        ("pipelines.config", {"torch", "mlflow", "dvc", "numpy", "onnxruntime"}),
        ("pipelines.serving.predictor", SERVING_IS_FREE_OF),
        ("pipelines.commands.predict", SERVING_IS_FREE_OF),
        ("pipelines.commands.explain", {"torch", "mlflow", "dvc", "onnx", "sklearn", "cv2"}),
        ("pipelines.commands.stress", {"torch", "mlflow", "dvc", "onnx", "sklearn", "cv2"}),
        ("pipelines.stages.fetch", {"torch", "mlflow", "sklearn", "matplotlib"}),
        ("pipelines.stages.prepare", {"torch", "mlflow", "sklearn", "matplotlib"}),
        ("pipelines.stages.evaluate", {"torch", "mlflow", "torchvision"}),
        ("pipelines.stages.gate", {"torch", "mlflow", "torchvision"}),
        ("pipelines.commands.doctor", {"torch", "mlflow", "dvc"}),
    ],
)
def test_module_loads_nothing_heavy(module, forbidden):
    code = (
        f"import importlib, sys\nimportlib.import_module({module!r})\n"
        f"print(*sorted({forbidden!r} & set(sys.modules)))"
    )
    assert python(code).split() == []


def test_make_alone_shows_every_target():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shown = ran("make").stdout
    targets = "setup repro test test-all check fix ui bench dist clean real"
    for target in targets.split(" "):
        assert re.search(rf"^  make {target} +\S", shown, re.MULTILINE), target


def test_ci_runs_what_a_person_runs():
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert "make check docs test repro test-slow" in script.read_text()
