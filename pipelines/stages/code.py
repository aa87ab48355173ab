"""pipelines/ -> reports/code/: what code each stage and each backbone is made of, a line a file.

The other stages depend on their list instead of on forty files each, so that DVC re-runs what a
change of code can alter, and nothing else, and its lock stays short (ADR 0016). What only one task
brings, its painter and its module, stands in reports/code/<stage>/<task>.txt: there for a plain
task, too, because DVC refuses a dependency that is not. What is hashed is the syntax tree without
its docstrings: comments, line breaks and words for people re-run nothing.

Backbones are found by their name, so that no import leads to them. Each has a list of its own, and
the stages that build networks depend on that of the backbone that params.yaml names. A family's
file is hashed without its other entries: one more of them re-runs nothing.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path

from pipelines.atomic import new_folder, write_text
from pipelines.backbones.architecture import is_line, parse
from pipelines.config.params import load_params
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
        "pipelines/tracking/runs.py",
    }
)
#: What each of them finds of one task by its name, where no import statement shows it.
_FINDERS = {
    "pipelines/tasks.py": "pipelines/{domain}/{task}.py",
    "pipelines/samples/folder.py": "pipelines/samples/{task}.py",
}
#: Stages that one of these finders serves.
FINDING = ("fetch", "prepare")
#: Holds the entries of backbones, and what a list of theirs leaves out: it stands in the stages'.
_FAMILIES, _KNOWN = "pipelines/backbones/families", "pipelines/backbones/weights.py"
_ENTRY = "BackboneSpec"
#: Builds what lines of text describe.
_SEARCHED = f"{_FAMILIES}/searched.py"
#: Makes the cells of a board; what reads and shows them alters none.
_OBJECTIVE = "pipelines/search/objective.py"
#: Score the networks of a search.
_SCORES = ("pipelines/search/accuracy.py", "pipelines/search/latency.py")
#: Stages whose output is made by another stage's file too: the page shows what `evaluate` draws.
_ALSO = {"report": ("evaluate",)}
#: The list of a plain task; DVC warns of an empty file.
_NOTHING = "# Nothing of its own.\n"


def run(paths: Paths) -> None:
    """Write the lists of each stage and backbone; one that stays the same re-runs nothing.

    Args:
        paths: of the project, whose ``pipelines`` folder and params.yaml are read.

    Raises:
        ConfigError: if params.yaml is not valid.
        StorageError: if the disk is full.
    """
    tasks = load_params(paths.params).tasks
    for stage in STAGES:
        write_text(paths.code_list(stage), _lines(code_of(stage, paths.root), paths.root))
    for stage in FINDING:
        for old in paths.code_list(stage).with_suffix("").glob("*.txt"):
            if old.stem not in tasks:
                old.unlink()
        for task, section in tasks.items():
            own = own_code(stage, task, section.domain, paths.root)
            write_text(paths.code_list(stage, task), _lines(own, paths.root) or _NOTHING)
    with new_folder(paths.backbone_code_dir) as folder:
        for name in backbone_files(paths.root):
            write_text(folder / f"{name}.txt", backbone_code(name, paths.root))
        for name in {section.train.backbone for section in tasks.values()}:
            if is_line(name):
                write_text(folder / f"{name}.txt", backbone_code(name, paths.root))


def board_code(backbone: str, root: Path) -> str:
    """The code that a cell of a board is made by, a line a file.

    Args:
        backbone: of the cell.
        root: holds ``pipelines``; where it does not, there is no line.
    """
    base = parse(backbone).base if is_line(backbone) else backbone
    own = backbone_code(backbone, root) if base in backbone_files(root) else ""
    return _lines(sorted(closure([_OBJECTIVE], root)), root) + own


def search_code(root: Path) -> str:
    """The code that the scores of a search are made by, a line a file.

    Args:
        root: holds ``pipelines``; where it does not, there is no line.
    """
    return _lines(sorted(closure(_SCORES, root)), root)


def backbone_code(name: str, root: Path) -> str:
    """The code of a backbone that no stage's list has, a line a file.

    Args:
        name: of its entry, or a line that describes it: then its base's code is among it.
        root: holds ``pipelines``.
    """
    if is_line(name):
        own = closure([_SEARCHED], root) - closure([_KNOWN], root)
        return _lines(sorted(own), root) + backbone_code(parse(name).base, root)
    family = backbone_files(root)[name]
    found = closure([family], root) - closure([_KNOWN], root)
    hashes = {file: code_sha256(root / file) for file in sorted(found - {family})}
    hashes[family] = code_sha256(root / family, entry=name)
    return _text(hashes)


def _lines(files: Iterable[str], root: Path) -> str:
    return _text({file: code_sha256(root / file) for file in files})


def _text(hashes: Mapping[str, str]) -> str:
    return "".join(f"{sha256}  {file}\n" for file, sha256 in hashes.items())


def code_of(stage: str, root: Path) -> list[str]:
    """The files that can alter a stage's output, whatever the task.

    Args:
        stage: one of `STAGES`.
        root: holds ``pipelines``.

    Returns:
        Sorted paths relative to ``root``, with slashes.
    """
    stages = (stage, *_ALSO.get(stage, ()))
    return sorted(closure([f"pipelines/stages/{name}.py" for name in stages], root))


def own_code(stage: str, task: str, domain: str, root: Path) -> list[str]:
    """The files that can alter a stage's output for one task, beside those of `code_of`.

    Args:
        stage: one of `STAGES`.
        root: holds ``pipelines``.

    Returns:
        The task's module and painter, if the stage finds them, and what they alone import.
    """
    shared = set(code_of(stage, root))
    found = [where for finder, where in _FINDERS.items() if finder in shared]
    starts = [where.format(domain=domain, task=task) for where in found]
    return sorted(closure(starts, root) - shared)


def backbone_files(root: Path) -> dict[str, str]:
    """The family's file of each backbone, by the backbone's name.

    Args:
        root: holds ``pipelines``.
    """
    return {
        name: file.relative_to(root).as_posix()
        for file in sorted((root / _FAMILIES).glob("*.py"))
        for name in map(_entry_name, ast.parse(file.read_text(encoding="utf-8")).body)
        if name is not None
    }


def _entry_name(node: ast.stmt) -> str | None:
    """What a top-level ``name = BackboneSpec(...)`` names; None of any other statement."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.Call(func=ast.Name(id=kind))):
            return name if kind == _ENTRY else None
    return None


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
    names = _imported_names(file.read_text(encoding="utf-8"))
    return {name for name in names if (root / name).is_file()}


# Of the text and not of the file: many lists ask for the same one, and a text never changes.
@cache
def _imported_names(source: str) -> frozenset[str]:
    """What may be files of `pipelines` among the names that a module imports, as their paths."""
    names: set[str] = set()
    for node in _run_time_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return frozenset(
        f"{name.replace('.', '/')}.py" for name in names if name.startswith("pipelines.")
    )


def _run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _run_time_nodes(ast.Module(body=node.orelse, type_ignores=[]))
        else:
            yield node
            yield from _run_time_nodes(node)


def code_sha256(file: Path, entry: str | None = None) -> str:
    """A hash of what a module does, whatever is said in it.

    Fields of a node that are empty are left out: newer versions of Python know more of them.

    Args:
        file: Python source.
        entry: of a family's file, the backbone whose entry counts; None counts all of them.
    """
    return _sha256(file.read_text(encoding="utf-8"), entry)


@cache
def _sha256(source: str, entry: str | None) -> str:
    tree = ast.parse(source)
    if entry is not None:
        tree.body = [node for node in tree.body if _entry_name(node) in {None, entry}]
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
