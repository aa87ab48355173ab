"""The rooms of the house: what may lie where, and who may load whom."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOMAINS = ("agriculture", "medical", "reference", "safety")
FORBIDDEN_STEMS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager"}
BRUSHES = ("canvas", "cutout", "pen")
#: What a task's own module may import of this project: a reader's contract, a painter's brushes.
FOR_READERS = {
    "pipelines.card",
    "pipelines.errors",
    *(f"pipelines.data.{name}" for name in ("manifest", "images")),
}
FOR_PAINTERS = {f"pipelines.samples.{name}" for name in BRUSHES}


def tracked_or_new() -> list[Path]:
    """Files that are in Git or would be added to it."""
    listing = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).is_file()]


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


def room_of(module: str) -> str:
    return module.split(".")[1]


def imported_rooms(file: Path) -> set[str]:
    """Rooms that a module of pipelines/ imports from, type checkers' imports included."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module == "pipelines":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pipelines."):
            found.add(room_of(node.module or ""))
        elif isinstance(node, ast.Import):
            found |= {room_of(a.name) for a in node.names if a.name.startswith("pipelines.")}
    return found


def test_drawing_of_the_rooms_names_all_that_there_are():
    there = {file.parent.name for file in (ROOT / "pipelines").glob("*/__init__.py")}
    there |= {file.stem for file in (ROOT / "pipelines").glob("*.py")} - {"__init__"}
    assert sorted(name for line in drawn() for name in line) == sorted(there)


def test_drawing_of_the_rooms_is_true():
    height = {name: level for level, line in enumerate(drawn()) for name in line}
    wrong = [
        f"{file.relative_to(ROOT).as_posix()} imports {other}"
        for file in package_files()
        if file.parts[len(ROOT.parts)] == "pipelines" and file.name != "__init__.py"
        for own in [file.relative_to(ROOT / "pipelines").with_suffix("").parts[0]]
        for other in imported_rooms(file)
        if other in height and other != own and height[other] <= height[own]
    ]
    assert wrong == []


@pytest.mark.parametrize("file", package_files(), ids=lambda file: str(file.relative_to(ROOT)))
def test_module_has_a_telling_name(file):
    assert file.stem not in FORBIDDEN_STEMS


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
    for file in tracked_or_new():
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
    done = subprocess.run(
        [program, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("module", "forbidden"),
    [
        ("pipelines.cli", {"torch", "mlflow", "dvc", "numpy", "onnxruntime"}),
        ("pipelines.config", {"torch", "mlflow", "dvc", "numpy", "onnxruntime"}),
        (
            "pipelines.serving.predictor",
            {"torch", "mlflow", "dvc", "onnx", "sklearn", "pydicom", "pillow_heif"},
        ),
        (
            "pipelines.commands.predict",
            {"torch", "mlflow", "dvc", "onnx", "sklearn", "pydicom", "pillow_heif"},
        ),
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
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_make_alone_shows_every_target():
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = "setup repro test test-all check fix ui bench dist clean real"
    for target in targets.split(" "):
        assert re.search(rf"^  make {target} +\S", shown, re.MULTILINE), target


def test_ci_runs_what_a_person_runs():
    script = ROOT / ".ci/run"
    assert script.stat().st_mode & 0o111
    assert "make check docs test repro test-slow" in script.read_text()
