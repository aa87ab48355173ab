"""report: all tasks that were tested, as reports/RESULTS.md and reports/index.html.

The gate's verdict is worked out anew, since a refusal leaves no file. Real pictures
are not put into the page: it may travel further than the images are allowed to.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from pipelines.atomic import write_text
from pipelines.card import DatasetCard, load_card
from pipelines.config.params import Params, TaskParams
from pipelines.errors import ConfigError, DataError, MissingDataError
from pipelines.paths import Paths, TaskPaths
from pipelines.reports.pages import (
    TaskResult,
    html_page,
    model_card,
    real_results_markdown,
    results_markdown,
)
from pipelines.serving.bundle import Bundle
from pipelines.stages.gate import check, read_tested
from pipelines.validation.external import VALIDATION_FILE, Validation

_LOG = logging.getLogger(__name__)

#: In the names of figures that show pictures of the data set.
_PICTURES = ("samples", "label_issues", "file_facts")


def run(paths: Paths, params: Params) -> None:
    """Write the report on every task that has metrics.

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

    Raises:
        ConfigError: if a task was measured on synthetic images, or its card is not there.
        MissingDataError: as `run`.
        BundleError: as `run`.
    """
    results = collect(paths, params)
    _refuse_synthetic(results, out)
    cards = {found.bundle.task: load_card(paths.task(found.bundle.task).card) for found in results}
    results = [
        replace(found, published=cards[found.bundle.task].published_figures or "")
        for found in results
    ]
    publishers = {task: _publisher(card) for task, card in cards.items()}
    write_text(out, real_results_markdown(results, publishers))


def write_cards(paths: Paths, params: Params, folder: Path) -> None:
    """Write <task>.md, a model card, for each task that was measured on real images.

    Raises:
        ConfigError: as `write_results`.
        MissingDataError: as `run`.
        BundleError: as `run`.
    """
    results = collect(paths, params)
    _refuse_synthetic(results, folder)
    for found in results:
        task = found.bundle.task
        card = load_card(paths.task(task).card)
        found = replace(found, published=card.published_figures or "")
        text = model_card(found, card, _asked(params.task(task)))
        write_text(folder / f"{task}.md", text)


def _asked(section: TaskParams) -> dict[str, float]:
    """The bounds of the changes that the behavioural tests make of this task's images."""
    may_flip = section.train.augment.horizontal_flip
    bounds = section.evaluate.max_changed
    return {kind: bound for kind, bound in bounds.items() if kind != "flip" or may_flip}


def _refuse_synthetic(results: Sequence[TaskResult], out: Path) -> None:
    synthetic = [found.bundle.task for found in results if found.bundle.is_sample]
    if synthetic:
        raise ConfigError(
            f"{out}: not written: {', '.join(synthetic)} ran on sample data, which is never quoted "
            f"as a result. Give fetch.source real images, or use a workspace (`make real`)."
        )


def _publisher(card: DatasetCard) -> str:
    return f"{card.source.publisher}, {card.source.version} ({card.licence.spdx})"


def collect(paths: Paths, params: Params) -> list[TaskResult]:
    """What there is to say of each task that has metrics, in the order of params.yaml.

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
        figures = _figures(files, bundle)
        results.append(
            TaskResult(bundle, metrics, failed, figures, external=_external(files, bundle))
        )
    if not results:
        raise MissingDataError(
            f"{paths.reports_dir}: no task has metrics yet. Run `dvc repro` first."
        )
    return results


def _external(files: TaskPaths, bundle: Bundle) -> tuple[Validation, ...]:
    """What `validate` found of this very model; what it found of an older one does not count."""
    found = []
    for path in sorted(files.external_dir.glob(f"*/{VALIDATION_FILE}")):
        try:
            validation = Validation.model_validate_json(path.read_text(encoding="utf-8"))
        except ValidationError as err:
            raise DataError(
                f"{path}: not a report that this version of `fieldlens validate` wrote "
                f"({err.errors()[0]['msg']}). Run it again, or remove the folder."
            ) from err
        if validation.model_sha256 == bundle.files[validation.precision].sha256:
            found.append(validation)
        else:
            _LOG.warning("%s: is of an older model, and not in the report", path)
    return tuple(found)


def _figures(files: TaskPaths, bundle: Bundle) -> dict[str, bytes]:
    return {
        f"{folder.name}: {path.stem.replace('_', ' ')}": path.read_bytes()
        for folder in (files.test_figures_dir, files.audit_dir, files.training_figures_dir)
        for path in sorted(folder.glob("*.png"))
        if bundle.is_sample or not any(word in path.stem for word in _PICTURES)
    }
