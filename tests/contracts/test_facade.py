"""`fieldlens`, the library's public face: what it offers, and what asking for it loads."""

from __future__ import annotations

import ast
import importlib
import re
import tomllib

import numpy as np
import pytest
from PIL import Image

import fieldlens
import pipelines
from tests.conftest import LABELS, SIDE_PX, TASK
from tests.processes import CLI, ROOT, python, ran

#: What users rely on. A name that goes or comes is told in CHANGELOG.md.
PUBLIC = {
    *("Bundle", "BundleError", "CorruptImageError", "FieldlensError", "Paths", "Prediction"),
    *("Predictor", "PreparedData", "TrainJob", "TrainResult", "__version__", "load_bundle"),
    *("load_params", "train"),
}
#: What trains, and loads torch.
TRAINING = {"PreparedData", "TrainJob", "TrainResult", "train"}


def imported_for_type_checkers() -> dict[str, str]:
    """By public name, module and attribute of the imports under `if TYPE_CHECKING`."""
    tree = ast.parse((ROOT / "fieldlens/__init__.py").read_text(encoding="utf-8"))
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_public_names_are_these():
    assert set(fieldlens.__all__) == PUBLIC
    assert fieldlens.__all__ == sorted(fieldlens.__all__)
    assert set(dir(fieldlens)) >= PUBLIC


def test_type_checkers_are_told_of_the_same_places():
    assert imported_for_type_checkers() == fieldlens._PLACES
    assert {*fieldlens._PLACES, "__version__"} == PUBLIC


@pytest.mark.parametrize("name", sorted(fieldlens._PLACES))
def test_name_is_what_the_rooms_have(name):
    module, attribute = fieldlens._PLACES[name].split(":")
    assert getattr(fieldlens, name) is getattr(importlib.import_module(module), attribute)


def test_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="module 'fieldlens' has no attribute 'Predicter'"):
        _ = fieldlens.Predicter
    with pytest.raises(ImportError, match="cannot import name 'Predicter' from 'fieldlens'"):
        exec("from fieldlens import Predicter")


def test_import_loads_nothing_but_the_switches():
    loaded = python("import sys; old = set(sys.modules); import fieldlens; print(*sys.modules)")
    ours = {name for name in loaded.split() if name.startswith(("fieldlens", "pipelines"))}
    assert ours == {"fieldlens", "pipelines", "pipelines.quiet"}
    assert not {"numpy", "onnxruntime", "pydantic", "PIL"} & set(loaded.split())


def test_names_for_serving_load_no_library_of_training():
    heavy = {"torch", "mlflow", "dvc", "onnx", "sklearn", "matplotlib"}
    asked = sorted(PUBLIC - TRAINING)
    code = f"import sys; from fieldlens import {', '.join(asked)}; print(*sys.modules)"
    loaded = set(python(code).split())
    assert "onnxruntime" in loaded
    assert not heavy & loaded


def test_model_is_used_through_the_face_alone(tiny_project):
    path = tiny_project.task(TASK).candidate
    bundle = fieldlens.load_bundle(path)
    assert bundle.labels == LABELS
    pixels = np.full((SIDE_PX, SIDE_PX, 3), (60, 60, 200), np.uint8)
    answer = fieldlens.Predictor.load(path).predict(Image.fromarray(pixels))
    assert isinstance(answer, fieldlens.Prediction)
    assert answer.label == "blue_tile"


def test_bundle_and_picture_may_be_named_by_strings(tested_project):
    files = tested_project.task(TASK)
    predictor = fieldlens.Predictor.load(str(files.mobile_dir))
    assert predictor.bundle == fieldlens.load_bundle(str(files.bundle))
    picture = next((files.raw_dir / "blue_tile").glob("test_*.png"))
    (said,) = predictor.predict_many([str(picture)])
    assert said.probabilities == predictor.predict(picture).probabilities


def test_faults_are_caught_by_the_root_of_the_tree(tiny_project):
    files = tiny_project.task(TASK)
    with pytest.raises(fieldlens.FieldlensError, match="cannot be used as an image"):
        fieldlens.Predictor.load(files.candidate).predict(b"no picture")
    files.onnx_int8.write_bytes(b"changed")
    with pytest.raises(fieldlens.FieldlensError, match="is not the one that the bundle names"):
        fieldlens.load_bundle(files.candidate)
    assert issubclass(fieldlens.BundleError, fieldlens.FieldlensError)
    assert issubclass(fieldlens.CorruptImageError, fieldlens.FieldlensError)


def test_version_is_that_of_the_newest_section_of_the_changelog():
    assert fieldlens.__version__ == pipelines.__version__
    headings = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == fieldlens.__version__
    assert re.fullmatch(r" - \d{4}-\d{2}-\d{2}", headings[1][1])


def test_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["dynamic"] == ["version"]
    assert ran(*CLI, "--version").stdout == f"fieldlens {fieldlens.__version__}\n"
