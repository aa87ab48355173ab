"""The wheel: what is in it, and that it answers where nothing but its own requirements is there."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

from pipelines import __version__
from pipelines.serving.predictor import Predictor
from tests.conftest import TASK
from tests.processes import ROOT, ran, tracked_or_new

PACKAGES = ("apps", "fieldlens", "pipelines")
TRAINING = ("torch", "mlflow", "dvc", "onnx", "sklearn", "matplotlib", "streamlit")
#: Serving is for all of them; the one that runs the tests is tried without the index, too.
PYTHONS = ("3.11", "3.12", "3.13")
PROGRAM = """
import importlib.util, json, sys
from pathlib import Path
import fieldlens
from fieldlens import Predictor

answer = Predictor.load(Path(sys.argv[1])).predict(Path(sys.argv[2]))
print(json.dumps({
    "version": fieldlens.__version__,
    "file": fieldlens.__file__,
    "probabilities": answer.probabilities,
    "importable": [name for name in sys.argv[3:] if importlib.util.find_spec(name)],
}))
"""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def alone(
    *command: object, cwd: Path, environ: Mapping[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    """The command, run where neither the checkout nor this environment is in the way."""
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG") if name in os.environ}
    return ran(*command, cwd=cwd, environ={**kept, **(environ or {})}, code=code, timeout_s=600)


def packed_files() -> set[str]:
    """What a wheel should hold: all files of the packages, but for the phone page's sources."""
    return {
        name
        for name in tracked_or_new()
        if name.startswith(tuple(f"{package}/" for package in PACKAGES))
        and not name.startswith("apps/phone/")
    }


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with wheel and sdist, of a copy: a build writes into the folder that it builds."""
    pytest.importorskip("build")
    folder = tmp_path_factory.mktemp("built") / "checkout"
    for name in tracked_or_new():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    # What must not get in, wherever it lies about.
    for name in ("apps/phone/node_modules/left/__init__.py", "apps/phone/dist/page.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    alone(sys.executable, "-m", "build", "--no-isolation", folder, cwd=folder.parent)
    return folder / "dist"


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    return built / f"fieldlens-{__version__}-py3-none-any.whl"


@pytest.fixture
def empty(tmp_path: Path, wheel: Path) -> Path:
    """A Python with the wheel, and of this environment what the wheel requires and no more."""
    folder = tmp_path / "empty"
    venv.create(folder, symlinks=True)
    python = folder / "bin/python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    alone(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=tmp_path)
    links = tmp_path / "required"
    links.mkdir()
    for found in required(wheel).values():
        for top in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__"}:
            (links / top).symlink_to(found.locate_file(top))
    (site_packages(folder) / "required.pth").write_text(f"{links}\n")
    alone(*pip, "check", cwd=tmp_path)
    return folder


def required(wheel: Path) -> dict[str, metadata.Distribution]:
    """By name, the installed distributions that the wheel requires without an extra."""
    with zipfile.ZipFile(wheel) as packed:
        text = packed.read(f"fieldlens-{__version__}.dist-info/METADATA").decode()
    waiting = re.findall(r"^Requires-Dist: (.+)$", text, re.MULTILINE)
    found: dict[str, metadata.Distribution] = {}
    while waiting:
        requirement = Requirement(waiting.pop())
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        if name in found or (marker is not None and not marker.evaluate({"extra": ""})):
            continue
        found[name] = metadata.distribution(name)
        waiting += found[name].requires or []
    return found


def site_packages(folder: Path) -> Path:
    (found,) = folder.glob("lib/python3*/site-packages")
    return found


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "green.png"
    Image.fromarray(np.full((40, 36, 3), (60, 200, 60), np.uint8)).save(path)
    return path


def answers_as_here(folder: Path, bundle: Path, picture: Path) -> None:
    """The environment's command line and library say of a picture what this process says."""
    cwd, program = picture.parent, folder / "bin/fieldlens"
    expected = Predictor.load(bundle).predict(picture)
    assert alone(program, "--version", cwd=cwd).stdout == f"fieldlens {__version__}\n"
    done = alone(program, "predict", picture, "--bundle", bundle, "--json", cwd=cwd)
    (answer,) = json.loads(done.stdout)["images"]
    assert answer["label"] == expected.label == "green_tile"
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    python = folder / "bin/python"
    said = json.loads(alone(python, "-c", PROGRAM, bundle, picture, *TRAINING, cwd=cwd).stdout)
    assert said["version"] == __version__
    assert Path(said["file"]).is_relative_to(folder)
    assert said["probabilities"] == pytest.approx(expected.probabilities, abs=1e-6)
    assert said["importable"] == []


def test_wheel_holds_the_packages_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as packed:
        names = {name for name in packed.namelist() if ".dist-info/" not in name}
    assert {"apps/style.css", "apps/texts/id.yaml", "fieldlens/py.typed"} <= names
    assert names == packed_files()


def test_sdist_holds_what_the_wheel_is_built_from(built):
    above = f"fieldlens-{__version__}/"
    with tarfile.open(built / f"fieldlens-{__version__}.tar.gz") as packed:
        files = [member.name.removeprefix(above) for member in packed if member.isfile()]
    beside = {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "README.md", "constraints.txt"}
    made = {"PKG-INFO", "setup.cfg", "pyproject.toml"}
    names = {name for name in files if not name.startswith("fieldlens.egg-info/")}
    assert names == packed_files() | beside | made


def test_wheel_answers_where_there_is_no_torch(empty, tiny_project, picture):
    answers_as_here(empty, tiny_project.task(TASK).candidate, picture)


def test_verb_that_needs_an_extra_names_it(empty, tmp_path):
    shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml")
    done = alone(empty / "bin/fieldlens", "train", "fish_species", cwd=tmp_path, code=2)
    (line,) = done.stderr.splitlines()
    assert re.fullmatch(
        r"fieldlens: \w+ is not installed\. Install .+: pip install 'fieldlens\[train\]'\.",
        line,
    )


def test_users_program_is_type_checked(empty, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "from pathlib import Path\n"
        "from fieldlens import Predictor, Predicter, load_bundle\n"
        "labels: int = load_bundle(Path('bundle.json')).labels\n"
        "label: int = Predictor.load(Path('bundle.json')).predict(Path('leaf.jpg')).label\n"
    )
    mypy = [sys.executable, "-m", "mypy", "--python-executable", empty / "bin/python"]
    done = alone(*mypy, "--cache-dir", tmp_path / "cache", program, cwd=tmp_path, code=1)
    first, second, third, _ = done.stdout.splitlines()
    assert "[attr-defined]" in first
    assert 'expression has type "tuple[str, ...]", variable has type "int"' in second
    assert 'expression has type "str", variable has type "int"' in third


@pytest.mark.parametrize("version", PYTHONS)
def test_command_line_starts_under(version, wheel, tmp_path):
    """Without a single package: what the standard library of each version must have."""
    python, code = python_of(version), tmp_path / "code"
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(code)
    alone(python, "-W", "error", "-m", "compileall", "-q", code, cwd=tmp_path)
    command = [python, "-W", "error", "-m", "pipelines.cli"]
    environ = {"PYTHONPATH": str(code)}
    shown = alone(*command, "--help", cwd=tmp_path, environ=environ).stdout
    assert "labels and probabilities of pictures" in shown
    shown = alone(*command, "--version", cwd=tmp_path, environ=environ).stdout
    assert shown == f"fieldlens {__version__}\n"


@pytest.mark.network
@pytest.mark.parametrize("version", PYTHONS)
def test_wheel_answers_under(version, wheel, tmp_path, tiny_project, picture):
    """The index's newest packages that the wheel allows, on each Python that may serve."""
    folder = tmp_path / "served"
    alone(python_of(version), "-m", "venv", folder, cwd=tmp_path)
    python = folder / "bin/python"
    # The index as the user has set it.
    environ = {name: value for name, value in os.environ.items() if name.startswith("PIP_")}
    alone(python, "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path, environ=environ)
    answers_as_here(folder, tiny_project.task(TASK).candidate, picture)


def python_of(version: str) -> Path:
    """An interpreter of a version, from pyenv or the path; skips where there is none."""
    managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    on_path = shutil.which(f"python{version}")
    for found in (
        *sorted(managed.glob(f"{version}.*/bin/python3")),
        *([on_path] if on_path else []),
    ):
        # A shim of pyenv's may stand for a version that is not there.
        asked = [found, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        if ran(*asked, code=None).stdout.strip() == version:
            return Path(found)
    pytest.skip(f"there is no Python {version} here")


def test_wheel_says_which_pythons_it_serves(wheel):
    with zipfile.ZipFile(wheel) as packed:
        text = packed.read(f"fieldlens-{__version__}.dist-info/METADATA").decode()
    said = re.findall(r"^Classifier: Programming Language :: Python :: (.+)$", text, re.MULTILINE)
    assert tuple(said) == PYTHONS
    assert "\nRequires-Python: <3.14,>=3.11\n" in text
