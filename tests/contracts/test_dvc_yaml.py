"""dvc.yaml against the code: a stage's deps are what it imports, its params what it takes.

`python tests/contracts/test_dvc_yaml.py` prints the import closure of each stage, and with
`--write` puts it into dvc.yaml.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from pipelines.config import TaskParams, load_params
from pipelines.paths import Paths
from pipelines.strict_yaml import read_yaml

ROOT = Path(__file__).resolve().parents[2]
DOMAINS = ("agriculture", "medical", "reference", "safety")
STAGES = ("fetch", "prepare", "audit", "train", "export", "evaluate", "gate", "report")
#: Cannot alter an output, so a change of theirs re-runs nothing.
HARMLESS = {
    "pipelines/errors.py",
    "pipelines/locks.py",
    "pipelines/paths.py",
    "pipelines/progress.py",
    "pipelines/quiet.py",
    "pipelines/training/blank_store.py",
    "pipelines/training/lineage.py",
    "pipelines/training/mlflow_store.py",
    "pipelines/training/runs.py",
    "pipelines/training/tracking.py",
}
#: Finds task modules by name, where no import statement shows it.
FINDER = "pipelines/tasks.py"
TASK_MODULE = "pipelines/${item.domain}/${key}.py"


# -- the import closure ---------------------------------------------------------------------------
def imported(file: Path) -> set[str]:
    """The project's modules that a file imports, at its top or inside a function, as paths."""
    found: set[str] = set()
    for node in _run_time_nodes(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            candidate = f"{name.replace('.', '/')}.py"
            if name.startswith("pipelines.") and (ROOT / candidate).is_file():
                found.add(candidate)
    return found


def _run_time_nodes(tree: ast.AST):
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from _run_time_nodes(other)
            continue
        yield node
        yield from _run_time_nodes(node)


def closure(*starts: str) -> set[str]:
    """All modules that the starts reach, themselves included, the harmless ones left out."""
    seen: set[str] = set()
    waiting = [start for start in starts if (ROOT / start).is_file()]
    while waiting:
        module = waiting.pop()
        if module in seen or module in HARMLESS:
            continue
        seen.add(module)
        waiting.extend(imported(ROOT / module))
    return seen


def task_modules() -> list[str]:
    return sorted(
        file.relative_to(ROOT).as_posix()
        for domain in DOMAINS
        for file in (ROOT / "pipelines" / domain).glob("*.py")
        if file.name != "__init__.py"
    )


def expected_code_deps(stage: str) -> set[str]:
    """What dvc.yaml must list for a stage, with the task's own module as DVC's template."""
    starts = [f"pipelines/stages/{stage}.py"]
    if stage == "report":
        # Its page shows the figures that `evaluate` draws.
        starts.append("pipelines/stages/evaluate.py")
    found = closure(*starts)
    if FINDER in found:
        found |= closure(*task_modules())
    own = found & set(task_modules())
    return (found - own) | ({TASK_MODULE} if own else set())


# -- dvc.yaml -------------------------------------------------------------------------------------
def template(stage: str) -> dict:
    entry = read_yaml(ROOT / "dvc.yaml")["stages"][stage]
    return entry.get("do", entry)


def code_deps(stage: str) -> set[str]:
    return {dep for dep in template(stage)["deps"] if dep.endswith(".py")}


def out_paths(stage: str) -> list[str]:
    entry = template(stage)
    outs = [*entry.get("outs", []), *entry.get("metrics", []), *entry.get("plots", [])]
    return [next(iter(out)) if isinstance(out, dict) else out for out in outs]


def test_stages_are_the_files_in_stages():
    files = {file.stem for file in (ROOT / "pipelines/stages").glob("*.py")} - {"__init__"}
    assert set(read_yaml(ROOT / "dvc.yaml")["stages"]) == files == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_the_import_closure(stage):
    expected, got = expected_code_deps(stage), code_deps(stage)
    hint = "python tests/contracts/test_dvc_yaml.py --write"
    assert not expected - got, f"{stage} reaches these; list them ({hint})"
    assert not got - expected, f"{stage} does not reach these; take them out ({hint})"


def test_closure_sees_a_lazy_import_and_no_type_checking_block(tmp_path):
    file = tmp_path / "stage.py"
    file.write_text(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from pipelines.config import Params\n"
        "def run():\n    from pipelines.data import images\n    import pipelines.card\n"
    )
    assert imported(file) == {"pipelines/data/images.py", "pipelines/card.py"}


def test_packages_hold_no_code_so_deps_need_not_name_them():
    for file in (ROOT / "pipelines").rglob("__init__.py"):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        code = [node for node in body if not isinstance(node, ast.Expr)]
        assert not code, f"{file} holds code; dvc.yaml would not see a change of it"


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "report"])
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


@pytest.mark.parametrize("stage", STAGES)
def test_outs_are_spelt_as_in_paths(stage):
    paths = Paths(Path())
    task = paths.task("${key}")
    known = {
        getattr(owner, name).as_posix()
        for owner in (paths, task)
        for name in dir(type(owner))
        if isinstance(getattr(owner, name), Path)
    }
    assert set(out_paths(stage)) <= known
    assert {dep for dep in template(stage)["deps"] if not dep.endswith(".py")} <= known


@pytest.mark.parametrize("stage", STAGES)
def test_outs_are_ignored_by_git_but_the_metrics(stage):
    # A pattern that ends in a slash speaks for folders only, and git cannot tell what is not there.
    paths = [out.replace("${key}", "tomato_leaf") for out in out_paths(stage)]
    asked = "\n".join([*paths, *(f"{path}/" for path in paths)])
    answer = subprocess.run(
        ["git", "check-ignore", "--no-index", "--stdin"],
        cwd=ROOT,
        input=asked,
        capture_output=True,
        text=True,
        check=False,
    )
    ignored = {line.rstrip("/") for line in answer.stdout.splitlines()}
    assert set(paths) - ignored == {
        path for path in paths if path.endswith(("metrics.json", "audit.json"))
    }


def test_cmd_is_one_program():
    for stage in STAGES:
        assert re.fullmatch(rf"fieldlens {stage}( \$\{{key\}})?", template(stage)["cmd"])


def test_lock_holds_no_orphan_stage():
    lock = ROOT / "dvc.lock"
    if not lock.is_file():
        pytest.skip("no dvc.lock yet: nothing has run")
    tasks = load_params(ROOT / "params.yaml").tasks
    expected = {f"{stage}@{task}" for stage in STAGES for task in tasks} | {"report"}
    # By hand of DVC, and longer than what pipelines.strict_yaml takes from a person.
    stages = YAML(typ="safe", pure=True).load(lock.read_text(encoding="utf-8"))["stages"]
    assert set(stages) <= expected


# -- by hand --------------------------------------------------------------------------------------
def _write(path: Path) -> None:
    """Put the closure of each stage in place of the .py lines among its deps (at least one)."""
    mark, lines, stage = "\0", [], ""  # the mark says: this block is written already
    for line in path.read_text(encoding="utf-8").splitlines():
        if match := re.fullmatch(r"  (\w+):", line):
            stage = match[1]
        if match := re.fullmatch(r"( +)- (pipelines/\S+\.py)", line):
            if not lines[-1].endswith(mark):
                deps = expected_code_deps(stage) or {match[2]}
                lines += [f"{match[1]}- {dep}{mark}" for dep in sorted(deps)]
            continue
        lines.append(line)
    path.write_text("".join(line.removesuffix(mark) + "\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    for name in STAGES:
        sys.stdout.write("\n  - ".join([f"{name}:", *sorted(expected_code_deps(name))]) + "\n")
    if "--write" in sys.argv:
        _write(ROOT / "dvc.yaml")
