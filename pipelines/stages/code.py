"""pipelines/ -> reports/code/<stage>.txt: what code each stage is made of, a line a file.

The other stages depend on their list instead of on forty files each, so that DVC re-runs what a
change of code can alter, and nothing else, and its lock stays short (ADR 0016). What is hashed is
the syntax tree without its docstrings: comments, line breaks and words for people re-run nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import get_args

from pipelines.atomic import write_text
from pipelines.card import Domain
from pipelines.paths import Paths

#: The stages whose code is listed, in the order of the pipeline.
STAGES = ("fetch", "prepare", "audit", "train", "export", "evaluate", "gate", "report")
#: Cannot alter an output, so a change of theirs re-runs nothing.
HARMLESS = frozenset(
    {
        "pipelines/errors.py",
        "pipelines/locks.py",
        "pipelines/paths.py",
        "pipelines/progress.py",
        "pipelines/quiet.py",
        "pipelines/tracking/mlflow_store.py",
        "pipelines/tracking/lineage.py",
        "pipelines/tracking/runs.py",
        "pipelines/tracking/stage.py",
    }
)
#: Finds task modules by name, where no import statement shows it.
_FINDER = "pipelines/tasks.py"
#: Stages whose output is made by another stage's file too: the page shows what `evaluate` draws.
_ALSO = {"report": ("evaluate",)}


def run(paths: Paths) -> None:
    """Write the list of each stage; one that stays the same re-runs nothing.

    Args:
        paths: of the project, whose ``pipelines`` folder is read.

    Raises:
        StorageError: if the disk is full.
    """
    for stage in STAGES:
        lines = [f"{code_sha256(paths.root / file)}  {file}" for file in code_of(stage, paths.root)]
        write_text(paths.code_list(stage), "".join(f"{line}\n" for line in lines))


def code_of(stage: str, root: Path) -> list[str]:
    """The files that can alter a stage's output, the task's own module left out.

    That one differs from task to task, so it stands in dvc.yaml beside the list. What any task
    module imports is in: stages that load one depend on all brushes.

    Args:
        stage: one of `STAGES`.
        root: holds ``pipelines``.

    Returns:
        Sorted paths relative to ``root``, with slashes.
    """
    found = closure(
        [f"pipelines/stages/{name}.py" for name in (stage, *_ALSO.get(stage, ()))], root
    )
    modules = set(task_modules(root))
    if _FINDER in found:
        found |= closure(modules, root)
    return sorted(found - modules)


def task_modules(root: Path) -> list[str]:
    """The files of all task modules.

    Args:
        root: holds ``pipelines``.
    """
    return sorted(
        file.relative_to(root).as_posix()
        for domain in get_args(Domain)
        for file in (root / "pipelines" / domain).glob("*.py")
        if file.name != "__init__.py"
    )


def closure(starts: Iterable[str], root: Path) -> set[str]:
    """All modules of the project that some files reach by imports, themselves included.

    Args:
        starts: paths relative to ``root``; one that is not there reaches nothing.
        root: holds ``pipelines``.

    Returns:
        Paths relative to ``root``; those in `HARMLESS`, and what only they reach, left out.
    """
    seen: set[str] = set()
    waiting = [start for start in starts if (root / start).is_file()]
    while waiting:
        module = waiting.pop()
        if module not in seen and module not in HARMLESS:
            seen.add(module)
            waiting.extend(imported(root / module, root))
    return seen


def imported(file: Path, root: Path) -> set[str]:
    """The project's modules that a file imports, at its top or inside a function.

    Imports for type checkers alone do not count.

    Args:
        file: Python source.
        root: holds ``pipelines``.

    Returns:
        Paths relative to ``root``.
    """
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
            if name.startswith("pipelines.") and (root / candidate).is_file():
                found.add(candidate)
    return found


def _run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _run_time_nodes(ast.Module(body=node.orelse, type_ignores=[]))
        else:
            yield node
            yield from _run_time_nodes(node)


def code_sha256(file: Path) -> str:
    """A hash of what a module does, whatever is said in it.

    Fields of a node that are empty are left out: newer versions of Python know more of them.

    Args:
        file: Python source.
    """
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return hashlib.sha256(repr(_plain(tree)).encode()).hexdigest()


def _plain(node: object) -> object:
    """A node as nested tuples, docstrings left out."""
    if isinstance(node, list):
        return tuple(_plain(each) for each in node)
    if not isinstance(node, ast.AST):
        return node
    fields = dict(ast.iter_fields(node))
    is_documented = isinstance(
        node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    )
    if is_documented and ast.get_docstring(node, clean=False) is not None:  # type: ignore[arg-type]
        fields["body"] = fields["body"][1:]
    kept = ((name, _plain(value)) for name, value in fields.items() if value not in (None, []))
    return (type(node).__name__, *kept)
