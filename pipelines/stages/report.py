"""report: all tasks that were tested, as reports/RESULTS.md and reports/index.html.

The gate's verdict is worked out anew, because the gate writes nothing. Real pictures
are not put into the page: it may travel further than the images are allowed to.
"""

from __future__ import annotations

import logging
from pathlib import Path

from pipelines.atomic import write_text
from pipelines.card import load_card
from pipelines.config import Params
from pipelines.errors import ConfigError, MissingDataError
from pipelines.evaluation.pages import (
    TaskResult,
    html_page,
    real_results_markdown,
    results_markdown,
)
from pipelines.mobile.bundle import Bundle
from pipelines.paths import Paths, TaskPaths
from pipelines.stages.gate import check, read_tested

_LOG = logging.getLogger(__name__)

#: In the name of a figure that shows pictures of the data set.
_PICTURES = "samples"


def run(paths: Paths, params: Params) -> None:
    """Write the report on every task that has metrics.

    Args:
        paths: of the project.
        params: the gates of the tasks.

    Raises:
        MissingDataError: if no task has metrics.
        BundleError: if a bundle is incomplete or changed, or has other metrics than metrics.json.
    """
    results = collect(paths, params)
    write_text(paths.results_page, results_markdown(results))
    write_text(paths.html_page, html_page(results))
    _LOG.info("report on %d tasks: %s", len(results), paths.html_page)


def write_results(paths: Paths, params: Params, out: Path) -> None:
    """Write the results on real images to a file that may be quoted.

    Args:
        paths: of the project.
        params: the gates of the tasks.
        out: the Markdown file, e.g. docs/RESULTS.md.

    Raises:
        ConfigError: if a task was measured on painted images, or its card is not there.
        MissingDataError: as `run`.
        BundleError: as `run`.
    """
    results = collect(paths, params)
    painted = [found.bundle.task for found in results if found.bundle.is_sample]
    if painted:
        raise ConfigError(
            f"{out}: not written: {', '.join(painted)} ran on sample data, which is never quoted "
            f"as a result. Give fetch.source real images, or use a workspace (`make real`)."
        )
    publishers = {found.bundle.task: _publisher(paths, found.bundle.task) for found in results}
    write_text(out, real_results_markdown(results, publishers))


def _publisher(paths: Paths, task: str) -> str:
    card = load_card(paths.task(task).card)
    return f"{card.source.publisher}, {card.source.version} ({card.licence.spdx})"


def collect(paths: Paths, params: Params) -> list[TaskResult]:
    """What there is to say of each task that has metrics, in the order of params.yaml.

    Args:
        paths: of the project.
        params: the gates of the tasks.

    Raises:
        MissingDataError: if no task has metrics.
        BundleError: as `run`.
    """
    results = []
    for task, section in params.tasks.items():
        files = paths.task(task)
        if not files.metrics.is_file():
            continue
        bundle, metrics = read_tested(files)
        checks = check(metrics, bundle, section.gate)
        failed = tuple(entry.metric for entry in checks if not entry.passed)
        results.append(TaskResult(bundle, metrics, failed, _figures(files, bundle)))
    if not results:
        raise MissingDataError(
            f"{paths.reports_dir}: no task has metrics yet. Run `dvc repro` first."
        )
    return results


def _figures(files: TaskPaths, bundle: Bundle) -> dict[str, bytes]:
    return {
        f"{folder.name}: {path.stem.replace('_', ' ')}": path.read_bytes()
        for folder in (files.test_figures_dir, files.training_figures_dir)
        for path in sorted(folder.glob("*.png"))
        if bundle.is_sample or _PICTURES not in path.stem
    }
