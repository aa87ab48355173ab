"""dvc.yaml against the code: stages are files, params are what `run` takes, outs are in paths."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipelines.config.params import TaskParams, load_params
from pipelines.data.manifest import preprocess_of
from pipelines.paths import Paths
from pipelines.stages.code import FINDING, HARMLESS, STAGES, code_of
from pipelines.strict_yaml import read_yaml
from pipelines.training.embedder import kept_at
from tests.processes import ROOT, ran

#: Stages that are not made once a task.
WHOLE = ("code", "report")
BACKBONE_CODE = "reports/code/backbones/${item.train.backbone}.txt"


# -- dvc.yaml -------------------------------------------------------------------------------------
def template(stage: str) -> dict:
    entry = read_yaml(ROOT / "dvc.yaml")["stages"][stage]
    return entry.get("do", entry)


def out_paths(stage: str) -> list[str]:
    entry = template(stage)
    outs = [*entry.get("outs", []), *entry.get("metrics", []), *entry.get("plots", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in outs]


def test_stages_are_the_files_in_stages():
    files = {file.stem for file in (ROOT / "pipelines/stages").glob("*.py")} - {"__init__"}
    assert set(read_yaml(ROOT / "dvc.yaml")["stages"]) == files == {"code", *STAGES}


@pytest.mark.parametrize("stage", STAGES)
def test_stage_depends_on_its_own_code(stage):
    deps = set(template(stage)["deps"])
    lists = {dep for dep in deps if dep.startswith("reports/code/")}
    expected = {Paths(Path()).code_list(stage)}
    if stage in FINDING:
        expected.add(Paths(Path()).code_list(stage, "${key}"))
    # One that builds a network finds it by name, as tasks are found.
    builds = "pipelines/backbones/spec.py" in code_of(stage, ROOT)
    own = {path.as_posix() for path in expected}
    assert lists == own | ({BACKBONE_CODE} if builds else set())
    assert not [dep for dep in deps if dep.endswith(".py")]


def test_stages_that_find_a_tasks_own_modules_are_those_with_a_list_a_task():
    assert set(FINDING) == {
        stage for stage in STAGES if "pipelines/tasks.py" in code_of(stage, ROOT)
    }


def test_harmless_files_are_there():
    assert {file for file in HARMLESS if not (ROOT / file).is_file()} == set()


def test_packages_hold_no_code_so_lists_need_not_name_them():
    # The first one switches reports off, before anything else is imported; no output depends on it.
    silent = ROOT / "pipelines/__init__.py"
    for file in set((ROOT / "pipelines").rglob("__init__.py")) - {silent}:
        body = ast.parse(file.read_text(encoding="utf-8")).body
        code = [ast.unparse(node) for node in body if not isinstance(node, ast.Expr)]
        if file.parent.name == "pipelines" and "pipelines/quiet.py" in HARMLESS:
            # Switches off what libraries report home: no output can differ by it.
            code.remove("from pipelines.quiet import switch_off_reports")
        assert not code, f"{file} holds code; `code` would not see a change of it"


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage not in WHOLE])
def test_params_are_the_section_that_run_takes(stage):
    listed = template(stage)["params"]
    assert f"tasks.${{key}}.{stage}" in listed
    assert stage in TaskParams.model_fields
    run = next(
        node
        for node in ast.parse((ROOT / f"pipelines/stages/{stage}.py").read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == "run"
    )
    names = {argument.arg for argument in run.args.args}
    assert ("seed" in names) == ("seed" in listed)
    assert ("domain" in names) == ("tasks.${key}.domain" in listed)


def test_audit_depends_on_all_that_it_reads_of_train(tmp_path):
    read = set()

    class Recording:
        def __getattribute__(self, name: str) -> object:
            read.add(name)
            return getattr(load_params(ROOT / "params.yaml").tasks["cats_dogs"].train, name)

    preprocess_of(Recording())
    kept_at(Recording(), 0, Paths(tmp_path))
    listed = {key for key in template("audit")["params"] if ".train" in key}
    assert listed == {f"tasks.${{key}}.train.{name}" for name in read}


@pytest.mark.parametrize("stage", ["code", *STAGES])
def test_outs_are_spelt_as_in_paths(stage):
    paths = Paths(Path())
    task = paths.task("${key}")
    known = {
        getattr(owner, name).as_posix()
        for owner in (paths, task)
        for name in dir(type(owner))
        # Python 3.11.2 leaves a __weakref__ on slotted dataclasses that raises when it is read.
        if not name.startswith("_") and isinstance(getattr(owner, name), Path)
    }
    known |= {paths.code_list(name).as_posix() for name in STAGES}
    known |= {paths.code_list(name, "${key}").as_posix() for name in FINDING}
    known |= {paths.code_list(name).with_suffix("").as_posix() for name in FINDING}
    assert set(out_paths(stage)) <= known
    assert {dep for dep in template(stage).get("deps", []) if not dep.endswith(".py")} <= known | {
        "pipelines",
        # The page's templates are no modules: the list of its code does not name them.
        "pipelines/reports/templates",
        BACKBONE_CODE,
    }


def test_the_page_is_made_anew_when_a_template_changes():
    templates = ROOT / "pipelines/reports/templates"
    assert templates.relative_to(ROOT).as_posix() in template("report")["deps"]
    # What the wheel and a workspace take along.
    assert {file.suffix for file in templates.iterdir()} == {".jinja"}


@pytest.mark.parametrize("stage", ["code", *STAGES])
def test_outs_are_ignored_by_git_but_the_metrics(stage):
    # A pattern that ends in a slash speaks for folders only, and git cannot tell what is not there.
    paths = [out.replace("${key}", "tomato_leaf") for out in out_paths(stage)]
    asked = [*paths, *(f"{path}/" for path in paths)]
    # 1: none of them is.
    answer = ran("git", "check-ignore", "--no-index", *asked, code=None)
    ignored = {line.rstrip("/") for line in answer.stdout.splitlines()}
    assert set(paths) - ignored == {
        path for path in paths if path.endswith(("metrics.json", "audit.json"))
    }


def test_cmd_is_one_program():
    for stage in ("code", *STAGES):
        assert re.fullmatch(rf"fieldlens {stage}( \$\{{key\}})?", template(stage)["cmd"])


def test_lock_holds_no_orphan_stage():
    lock = ROOT / "dvc.lock"
    if not lock.is_file():
        pytest.skip("no dvc.lock yet: nothing has run")
    tasks = load_params(ROOT / "params.yaml").tasks
    expected = {f"{stage}@{task}" for stage in STAGES for task in tasks} | set(WHOLE)
    # By hand of DVC, and longer than what pipelines.strict_yaml takes from a person.
    stages = YAML(typ="safe", pure=True).load(lock.read_text(encoding="utf-8"))["stages"]
    assert set(stages) <= expected


# -- boards/dvc.yaml ------------------------------------------------------------------------------
def test_board_is_asked_for_by_name_and_keeps_its_cells_while_it_runs():
    assert "board" not in read_yaml(ROOT / "dvc.yaml")["stages"]
    document = read_yaml(Paths(ROOT).boards_dvc_yaml)
    # Relative to the file; the tasks are those of the project.
    assert document["vars"] == ["../params.yaml"]
    [(name, entry)] = document["stages"].items()
    assert (name, entry["foreach"]) == ("board", "${tasks}")
    stage, task = entry["do"], Paths(Path()).task("${key}")
    assert (stage["cmd"], stage["wdir"]) == ("fieldlens board ${key}", "..")
    # DVC would remove what a killed board has done.
    assert stage["outs"] == [{task.board_dir.as_posix(): {"persist": True}}]
    read = {task.card, task.raw_dir, task.prepared_dir, Path("params.yaml"), Path("pipelines")}
    assert set(stage["deps"]) == {path.as_posix() for path in read}


def test_field_of_the_boards_section_concerns_no_stage():
    reached = {file for stage in STAGES if stage != "report" for file in code_of(stage, ROOT)}
    assert not {file for file in reached if "board" in file or "/search/" in file}
