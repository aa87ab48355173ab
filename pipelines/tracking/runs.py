"""One run, as MLflow sees it, and how to add to it so that a repeated call adds nothing."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pipelines.tracking.lineage import DESCRIPTION_TAG, OWN_DESCRIPTION_TAG, WEIGHTS_TAG, flatten
from pipelines.tracking.mlflow_store import Kind, Tracker

#: MLflow takes at most so many characters of a parameter's value.
_MAX_VALUE = 500


class Said(NamedTuple):
    """One value of a metric, as MLflow keeps it."""

    step: int
    value: float
    time_ms: int


class Run:
    """One training, as MLflow sees it; where tracking is off every call does nothing."""

    def __init__(self, tracker: Tracker, run_id: str | None, name: str, *, is_new: bool) -> None:
        """Take over the run with MLflow's ``run_id``, or none at all where that is None."""
        self.run_id = run_id
        self._is_new = is_new
        #: What the run has been told by metric; of a run that was there before.
        self._said: dict[str, list[Said]] = {}
        self._tracker = tracker
        self._name = name

    def _do(self, action: Callable[[Any], object]) -> None:
        if self.run_id is not None:
            self._tracker.call(action)

    def _log(self, kind: Kind, rows: Sequence[tuple[Any, ...]]) -> None:
        if self.run_id is not None:
            self._tracker.log(self.run_id, kind, rows)

    def params(self, values: Mapping[str, object]) -> None:
        """Record what was asked for.

        Args:
            values: nested mappings become dotted names.
        """
        self._log("params", [(key, str(v)[:_MAX_VALUE]) for key, v in flatten(values).items()])

    def epoch(self, step: int, metrics: Mapping[str, object]) -> None:
        """Record the metrics of one epoch; what is not a number is left out.

        A training that was killed between this and its checkpoint says the epoch once more; what
        the run has been told already is not added again.

        Args:
            step: epoch, counted through all phases.
            metrics: nested mappings become dotted names.
        """
        now_ms = int(time.time() * 1000)
        numbers = {key: v for key, v in flatten(metrics).items() if isinstance(v, int | float)}
        self._remember(numbers)
        rows = []
        for key, value in numbers.items():
            said = self._said.get(key, [])
            if (step, value) in [(each.step, each.value) for each in said]:
                continue
            # MLflow shows the value of the latest time, and a clock may have been put back.
            latest_ms = max((each.time_ms for each in said), default=-1)
            rows.append((key, value, max(now_ms, latest_ms + 1), step))
        if rows:
            self._log("metrics", rows)

    def _remember(self, keys: Mapping[str, object]) -> None:
        """Ask once for each metric what an older run has been told of it."""
        unknown = [key for key in keys if key not in self._said]
        if self._is_new or self.run_id is None or not unknown:
            return
        run_id = self.run_id

        def look(client: Any) -> dict[str, list[Said]]:
            known = client.get_run(run_id).data.metrics
            return {
                key: [
                    Said(entry.step, entry.value, entry.timestamp)
                    for entry in client.get_metric_history(run_id, key)
                ]
                for key in unknown
                if key in known
            }

        found = self._tracker.call(look) or {}
        self._said |= {key: found.get(key, []) for key in unknown}

    def tags(self, values: Mapping[str, str]) -> None:
        """Tag the run; the weights' hash also becomes part of its name.

        Args:
            values: by name, see `lineage.training_tags`.
        """
        self._log("tags", list(values.items()))
        if WEIGHTS_TAG in values:
            name = f"{self._name}-{values[WEIGHTS_TAG][:8]}"
            self._do(lambda client: client.update_run(self.run_id, name=name))

    def describe(self, text: str) -> None:
        """Say in words what the run came to; what a person wrote there is left alone.

        Args:
            text: Markdown.
        """

        def look(client: Any) -> bool:
            tags = client.get_run(self.run_id).data.tags
            there = tags.get(DESCRIPTION_TAG, "")
            return not there or _sha256(there) == tags.get(OWN_DESCRIPTION_TAG)

        if self.run_id is not None and self._tracker.call(look):
            self._log("tags", [(DESCRIPTION_TAG, text), (OWN_DESCRIPTION_TAG, _sha256(text))])

    def figure(self, name: str, png: bytes) -> None:
        """Keep a figure.

        Args:
            name: file name, e.g. ``curves.png``.
            png: its bytes.
        """
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / name
            path.write_bytes(png)
            self.artifact(path, "figures")

    def artifact(self, path: Path, folder: str | None = None) -> None:
        """Keep a file, or a folder with all that it holds.

        Args:
            path: the file or folder.
            folder: where in the run; the top by default.
        """
        self._do(lambda client: client.log_artifact(self.run_id, str(path), folder))

    def close(self, status: Literal["FINISHED", "FAILED", "KILLED"]) -> None:
        """End the run.

        Args:
            status: anything but FINISHED lets `start` go on with it.
        """
        self._do(lambda client: client.set_terminated(self.run_id, status))

    @contextmanager
    def reopened(self) -> Iterator[None]:
        """Add to a run that has ended; killed in the middle, it is left RUNNING, not as if whole.

        Its end stays the end of the training.
        """
        ended = None
        if self.run_id is not None:
            found = self._tracker.call(lambda client: client.get_run(self.run_id))
            ended = found.info.end_time if found is not None else None
        self._do(lambda client: client.update_run(self.run_id, status="RUNNING"))
        yield
        self._do(lambda client: client.set_terminated(self.run_id, "FINISHED", end_time=ended))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
