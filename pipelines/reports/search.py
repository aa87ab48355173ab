"""reports/<task>/search/SEARCH.md and its figures: what a search asked, and what it found."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ruamel.yaml import YAML

from pipelines.atomic import write_bytes, write_text
from pipelines.backbones.architecture import parse
from pipelines.paths import TaskPaths
from pipelines.reports.pages import search_markdown
from pipelines.search import shown
from pipelines.search.run import Elite, Finalist, Search, Trained


@dataclass(frozen=True)
class Found:
    """What a search has come to.

    Attributes:
        studies: by controller, the candidates of each seed.
        elites: highest reward first.
        minutes: of this call: supernet and studies; elites and finalists.
    """

    search: Search
    studies: shown.Studies
    elites: Sequence[Elite]
    trained: Trained
    minutes: tuple[float, float]

    @property
    def task(self) -> str:
        """Slug."""
        return self.search.objective.task

    @property
    def files(self) -> TaskPaths:
        """Of the task."""
        return self.search.objective.paths.task(self.task)

    @property
    def page(self) -> Path:
        """Where the page lies."""
        return self.files.search_page

    @cached_property
    def head(self) -> str:
        """What was asked, in a sentence or two."""
        asked, scope = self.search.objective.search, self.search.evaluation.scope
        n_asked = len({each.network for each in shown.every(self.studies)})
        aim = asked.reward
        target = (
            f"{aim.target:g} of the reference's latency"
            if aim.target_ms is None
            else f"{aim.target_ms:g} ms"
        )
        table = self.search.evaluation.device_table
        device = f"the table {table}" if table else "this machine, one thread"
        return (
            f"{self.task}: {n_asked} of {scope.space.size:.2g} networks asked by "
            f"{', '.join(self.studies)}; reward accuracy x (latency / target)^w, w {aim.alpha:g} "
            f"up to the target of {target} and {aim.beta:g} above it. Latency in {asked.precision} "
            f"of {device}, beside {scope.space.base.base} at {scope.image_px} px."
        )

    @cached_property
    def rows(self) -> list[tuple[str, ...]]:
        """A row a finalist: name, accuracy, its interval, gain, its interval, latency, refusal."""
        return [
            (
                each.row.result.cell.title,
                f"{each.row.accuracy:.3f}",
                f"{each.row.variant.accuracy.low:.3f} to {each.row.variant.accuracy.high:.3f}",
                f"{100 * each.gain.value:+.1f}",
                f"{100 * each.gain.low:+.1f} to {100 * each.gain.high:+.1f}",
                "-" if each.ratio is None else f"{each.ratio:.2f}",
                each.row.refusal or "",
            )
            for each in self.trained.finalists
        ]

    @cached_property
    def best(self) -> Finalist | None:
        """The most accurate finalist, of several the quickest; None where each is refused.

        Not the quickest of which no loss is shown: the fewer test images, the less is shown.
        """
        sound = [
            each
            for each in self.trained.finalists
            if each.row.refusal is None and each.ratio is not None
        ]
        return max(sound, key=lambda each: (each.row.accuracy, -(each.ratio or 0)), default=None)

    @cached_property
    def advice(self) -> list[str]:
        """What to write into params.yaml, or that nothing was found."""
        best = self.best
        if best is None:
            return [
                "Every finalist is refused. Ask for more candidates or finalists, or for another "
                "target."
            ]
        verdict = (
            "a gain is shown"
            if best.gain.low > 0
            else "a loss is shown"
            if best.gain.high < 0
            else "neither gain nor loss is shown"
        )
        return [
            f"{best.row.result.cell.title} takes {best.ratio:.2f} of the base's time; {verdict} "
            f"({100 * best.gain.value:+.1f} points, 95 %, paired: {100 * best.gain.low:+.1f} to "
            f"{100 * best.gain.high:+.1f}). To make it the task's network, in params.yaml:",
            "",
            self.params_of(best),
        ]

    def params_of(self, finalist: Finalist) -> str:
        """The lines of params.yaml by which `dvc repro` makes a finalist, without a search."""
        objective = self.search.objective
        asked = objective.params_of(finalist.row.result.cell).model_dump(mode="json")
        own = objective.train.model_dump(mode="json")
        train = {name: value for name, value in asked.items() if own.get(name) != value}
        buffer = io.StringIO()
        yaml = YAML()
        # A line of text that describes a network is one line.
        yaml.width = 4096
        yaml.dump({"tasks": {self.task: {"train": train}}}, buffer)
        return buffer.getvalue().rstrip()


def write(found: Found) -> None:
    """Figures first, the page last.

    Raises:
        StorageError: if the disk is full.
    """
    files, title = found.files, f"{found.task}: search"
    asked = found.search.objective.search
    write_bytes(files.search_front, shown.fronts(found.studies, found.elites, asked.reward, title))
    write_bytes(files.search_rewards, shown.rewards(found.studies, title))
    best = found.best
    base = found.search.evaluation.scope.space.base
    named = found.elites[0].network.architecture if found.elites else base
    if best is not None:
        named = parse(best.row.result.cell.backbone)
    records = {each.network: each.record for each in shown.every(found.studies)}
    write_text(
        files.search_page,
        search_markdown(
            found=found,
            title_of=shown.title_of,
            seconds=sum(record.seconds for record in records.values()),
            line=named.line,
            differences=shown.differences(named, base),
        ),
    )
