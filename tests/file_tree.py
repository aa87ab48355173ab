"""What a folder holds, to compare before and after, or one run with another."""

from __future__ import annotations

from pathlib import Path

from pipelines.paths import Paths


def file_tree(root: Path, *folders: Path) -> dict[str, bytes]:
    """The bytes of each file below a folder (or some folders in it) by its path from there."""
    return {
        path.relative_to(root).as_posix(): path.read_bytes()
        for folder in folders or (root,)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def results(paths: Paths) -> dict[str, bytes]:
    """What the stages of a project leave: its models and reports."""
    return file_tree(paths.root, paths.models_dir, paths.reports_dir)
