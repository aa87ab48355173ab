"""`fieldlens workspace`: a second DVC workspace, for folders of real images (`make real`).

The same pipeline and code on other data, with a lock, outputs and MLflow store of its own, so that
the sample run's are not touched. The copy of pipelines/ is there for DVC to watch; what runs is the
installed package.
"""

from __future__ import annotations

import argparse
import copy
import io
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipelines import atomic
from pipelines.card import DEFAULT_KIND, DatasetCard, GitSource, PublishedSource, load_card
from pipelines.columns import table
from pipelines.commands.answer import Answer
from pipelines.config.params import Params, RealParams, load_params
from pipelines.data.layout import read_folder
from pipelines.errors import ConfigError, DataError, MissingDataError, PipelineError, SourceError
from pipelines.paths import Paths
from pipelines.sources.download import public_name
from pipelines.sources.git import check_reach
from pipelines.strict_yaml import overlay, read_yaml, validate

_HEADER = (
    "# Written by `fieldlens workspace` from the project's params.yaml: the tasks that the data\n"
    "# folder has, with the overlays below `real:`. Edit that file, not this one.\n"
)

#: In a workspace of published images: the tasks that it goes without, a line each.
_LEFT_OUT = "left_out.txt"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Where the workspace is made, and of which images."""
    parser.add_argument("folder", type=Path, help="where to make it, e.g. .real")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="holds <task>/<class>/… folders (default: what the cards say is published, fetched)",
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """Make the workspace, or bring it up to date; outputs that it has stay.

    Of published images alone, the exit code is 4 where a task must go without.
    """
    folder, data = arguments.folder, arguments.data
    params = load_params(paths.params)
    own = Paths(folder)
    _check_place(paths, own)
    if data is None:
        return _of_published(paths, params, own)
    if not data.is_dir():
        raise MissingDataError(f"--data: there is no folder {data}.")
    folders = {task: data / (_real(params, task).data or task) for task in params.tasks}
    present = [task for task in params.tasks if folders[task].is_dir()]
    if not present:
        raise MissingDataError(
            f"{data}: expected a folder named after a task ({', '.join(params.tasks)}), found none."
        )
    labels = {task: _labels(load_card(paths.task(task).card), folders[task]) for task in present}
    fetch = {
        task: {"source": {"kind": "folder", "path": str(folders[task].resolve())}}
        for task in present
    }
    document = _params(paths, params, fetch, labels)
    for task in present:
        others = [folders[task].resolve().parent / name for name in _real(params, task).validate_on]
        if there := [str(other) for other in others if other.is_dir()]:
            document.setdefault("real", {})[task] = {"validate_on": there}
    _make(paths, own, document, watches_folders=True)
    rows = []
    for task, found in labels.items():
        gone = [label for label in load_card(paths.task(task).card).labels if label not in found]
        rows.append((task, str(len(found)), ", ".join(found), ", ".join(gone)))
    absent = [task for task in params.tasks if task not in present]
    lines = [f"{folder}: {len(present)} tasks with images in {data}.", ""]
    lines.append(table(("TASK", "CLASSES", "LABELS", "OF THE CARD, NOT THERE"), rows))
    if absent:
        lines += ["", f"Left out, having no folder in {data}: {', '.join(absent)}."]
    return Answer("\n".join(lines))


def _of_published(paths: Paths, params: Params, own: Paths) -> Answer:
    cards = {task: load_card(paths.task(task).card) for task in params.tasks}
    sources, left_out = _reachable(cards)
    if not sources:
        raise MissingDataError(
            f"no published images can be fetched: {' '.join(left_out)} Name a folder of "
            f"<task>/<class>/… by --data."
        )
    labels = {task: published_labels(cards[task], each) for task, each in sources.items()}
    fetch = {
        task: {"source": each.source.model_dump(mode="json")} for task, each in sources.items()
    }
    _make(paths, own, _params(paths, params, fetch, labels), watches_folders=False)
    # For the end of `make real`, when this is long out of sight.
    _write(own.root / _LEFT_OUT, "".join(f"{line}\n" for line in left_out).encode())
    head = f"{own.root}: {len(fetch)} tasks, to be fetched from their publishers by `dvc repro`."
    text = f"{head}\n\n{_announcement(cards, sources)}"
    return Answer(text, tuple(left_out), exit_code=4 if left_out else 0)


def _reachable(cards: Mapping[str, DatasetCard]) -> tuple[dict[str, PublishedSource], list[str]]:
    """The published sources that this machine can reach; and a line on each other task, why."""
    sources: dict[str, PublishedSource] = {}
    left_out = []
    for task, card in cards.items():
        published = card.source.fetch
        by_hand = card.source.by_hand or f"Get it at {card.source.url}"
        if published is None:
            left_out.append(f"{task} is left out: {by_hand.rstrip('.')}; then name it by --data.")
            continue
        try:
            if isinstance(published.source, GitSource):
                check_reach(task, published.source.repository)
        except SourceError as err:
            left_out.append(f"{task} is left out: {err} {by_hand.rstrip('.')}.")
            continue
        sources[task] = published
    return sources, left_out


def published_labels(card: DatasetCard, published: PublishedSource) -> tuple[str, ...]:
    """The labels that a source has images of, in the card's order."""
    found = set(published.source.labels.values()) or set(card.labels)
    return tuple(label for label in card.labels if label in found)


def _announcement(cards: Mapping[str, DatasetCard], sources: Mapping[str, PublishedSource]) -> str:
    """A table of what will be downloaded, and from whom."""
    rows = []
    for task, published in sources.items():
        card, source = cards[task], published.source
        place = source.repository if isinstance(source, GitSource) else source.location
        folder = getattr(source, "subfolder", "")
        what = f"{public_name(place)}{f', {folder}' if folder else ''}: {published.what}"
        labels = f"{len(published_labels(card, published))} of {len(card.labels)}"
        publisher = _short(card.source.publisher)
        rows.append((task, publisher, card.licence.spdx, f"{published.n_bytes:,}", labels, what))
    total = sum(published.n_bytes for published in sources.values())
    rows.append(("all", "", "", f"{total:,}", "", ""))
    return table(("TASK", "PUBLISHER", "LICENCE", "BYTES", "CLASSES", "WHAT IS DOWNLOADED"), rows)


def _short(words: str, length: int = 40) -> str:
    return words if len(words) <= length else f"{words[: length - 1].rstrip(' ,(')}…"


def _make(paths: Paths, own: Paths, document: dict[str, Any], *, watches_folders: bool) -> None:
    validate(Params, document, own.params)
    (own.root / _LEFT_OUT).unlink(missing_ok=True)
    _mirror(paths, own, document["tasks"], watches_folders=watches_folders)
    _write(own.params, (_HEADER + _dump(document)).encode())
    _share_weights(paths, own)
    _init_dvc(own)


def _check_place(paths: Paths, own: Paths) -> None:
    root, target = paths.root.resolve(), own.root.resolve()
    if root == target or target in root.parents:
        raise ConfigError(f"workspace: {own.root}: expected a folder other than the project's.")
    if own.root.is_dir() and any(own.root.iterdir()) and not _is_ours(own):
        raise ConfigError(
            f"workspace: {own.root}: is no workspace, and not empty. Choose another folder."
        )


def _is_ours(own: Paths) -> bool:
    return own.params.is_file() and own.params.read_text(encoding="utf-8").startswith(_HEADER)


def _labels(card: DatasetCard, folder: Path) -> tuple[str, ...]:
    """Labels of the card that a folder has images of, in the card's order.

    Where the truth is no folder a class, those of the card: `fetch` reads the folder.
    """
    if card.kind != DEFAULT_KIND:
        return card.labels
    layout = read_folder(folder, card)
    by_name = {name: card.label_of(name) for name in layout.by_class}
    unknown = [name for name, label in by_name.items() if label is None]
    if unknown:
        raise DataError(
            f"{folder}: {', '.join(map(repr, unknown))} is no class of the card. Expected some of "
            f"{', '.join(card.labels)}, or a source_names entry in "
            f"datasets/{card.task}/card.yaml."
        )
    empty = layout.without_images
    for name, files in empty.items():
        if card.label_of(name) is not None:
            raise DataError(
                f"{folder}: class {name!r} holds {len(files)} file(s) and no image. Expected "
                f"images; convert them, or take the folder away to leave the class out."
            )
    labels = tuple(label for label in card.labels if label in by_name.values())
    if len(labels) < 2:
        raise DataError(
            f"{folder}: expected images of at least 2 classes of the card "
            f"({', '.join(card.labels)}), got {', '.join(by_name) or 'none'}."
        )
    return labels


def _real(params: Params, task: str) -> RealParams:
    return params.real.get(task) or RealParams()


def _params(
    paths: Paths,
    params: Params,
    fetch: Mapping[str, dict[str, Any]],
    labels: Mapping[str, tuple[str, ...]],
) -> dict[str, Any]:
    """The workspace's params.yaml, with the labels that there are images of."""
    source = read_yaml(paths.params)
    tasks: dict[str, Any] = {}
    for task, found in labels.items():
        # Copied one by one: what an anchor shares must not change for all.
        block = copy.deepcopy(source["tasks"][task])
        block = overlay(block, copy.deepcopy(_real(params, task).sections))
        block["fetch"] = fetch[task]
        card = load_card(paths.task(task).card)
        if block["prepare"].get("classes") is None and found != card.labels:
            block["prepare"]["classes"] = list(found)
        tasks[task] = block
    return {"seed": source["seed"], "tasks": tasks}


def _dump(document: Mapping[str, Any]) -> str:
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    # No anchors: a shared value would be written as a reference.
    yaml.representer.ignore_aliases = lambda _: True
    buffer = io.StringIO()
    yaml.dump(document, buffer)
    return buffer.getvalue()


def _mirror(paths: Paths, own: Paths, present: Iterable[str], *, watches_folders: bool) -> None:
    """Copy what DVC watches; a file that is the same is not touched, one that went goes."""
    wanted = [*_watched(paths.root), paths.root / ".dvcignore", paths.boards_dvc_yaml]
    wanted += [paths.task(task).card for task in present]
    kept = {path.relative_to(paths.root) for path in wanted}
    for relative in sorted(kept):
        if (paths.root / relative).is_file():
            _write(own.root / relative, (paths.root / relative).read_bytes())
    dvc_yaml = paths.dvc_yaml.read_text(encoding="utf-8")
    _write(own.dvc_yaml, (_watching(dvc_yaml) if watches_folders else dvc_yaml).encode())
    for path in sorted(_watched(own.root)):
        if path.relative_to(own.root) not in kept:
            path.unlink()


def _watched(root: Path) -> list[Path]:
    """What an output is made by: modules, and the templates of the pages."""
    return [file for kind in ("*.py", "*.jinja") for file in (root / "pipelines").rglob(kind)]


def _watching(dvc_yaml: str) -> str:
    """dvc.yaml whose `fetch` also depends on the folder: where every source is one."""
    head = "cmd: fieldlens fetch ${key}\n      deps:\n"
    if head not in dvc_yaml:
        raise ConfigError(
            "dvc.yaml: stages.fetch: expected `cmd: fieldlens fetch ${key}` and `deps:` below it."
        )
    return dvc_yaml.replace(head, f"{head}        - ${{item.fetch.source.path}}\n")


def _write(path: Path, data: bytes) -> None:
    if not path.is_file() or path.read_bytes() != data:
        atomic.write_bytes(path, data)


def _share_weights(paths: Paths, own: Paths) -> None:
    """Let the workspace see the project's downloads, so that nothing is fetched twice."""
    target = paths.cache_dir.resolve() / "weights"
    link = own.cache_dir / "weights"
    with atomic.storage_errors(link):
        target.mkdir(parents=True, exist_ok=True)
        link.parent.mkdir(parents=True, exist_ok=True)
        if link.is_symlink() and link.readlink() != target:
            link.unlink()
        if not link.exists():
            link.symlink_to(target, target_is_directory=True)


def _init_dvc(own: Paths) -> None:
    if not (own.root / ".dvc" / "config").is_file():
        made = subprocess.run(
            [sys.executable, "-m", "dvc", "init", "--no-scm", "--quiet", "--force"],
            cwd=own.root,
            capture_output=True,
            text=True,
            check=False,
        )
        if made.returncode != 0:
            reason = " ".join(made.stderr.split())[-300:]
            raise PipelineError(f"{own.root}: `dvc init --no-scm` failed: {reason}")
    config = "[core]\n    no_scm = True\n    analytics = false\n    check_update = false\n"
    # As in the project's own: an output and its copy in the cache are one file on the disk.
    config += '[cache]\n    type = "hardlink,copy"\n'
    _write(own.root / ".dvc" / "config", config.encode())
