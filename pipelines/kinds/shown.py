"""What a page shows of a task, as data: which figures, under which headings, with which words.

A kind lists them in its `report` module; `pipelines.reports` fills them in. What no task of a page
has is left out, so that a figure that only some tasks have needs no page of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

#: In a path and in the key of an interval, stands for each label in turn.
LABEL = "{label}"


class Figure(NamedTuple):
    """One cell.

    Attributes:
        path: keys of metrics.json, joined by dots; ``served`` stands for the file that is served,
            ``bundle`` for bundle.json.
        interval: key of its interval among those of the served file; empty where it has none.
    """

    path: str
    interval: str = ""


#: Of a column that another kind has.
NOWHERE = Figure("")


def served(metric: str) -> Figure:
    """A metric of the served file, with its interval."""
    return Figure(f"served.{metric}", metric)


def of_label(of: str, metric: str) -> Figure:
    """The same of each label; ``of`` is the key below which metrics.json has the labels."""
    return Figure(f"served.{of}.{LABEL}.{metric}", f"{metric}.{LABEL}")


class Table(NamedTuple):
    """A table with a row a task, or a row a task and label where paths have `LABEL`.

    Attributes:
        title: tables of one title stand below one heading, whatever their kinds.
        words: what stands above it.
        columns: by heading.
        needs: path without which a task has no row; empty: any figure will do.
        missing: what a model card says where there is no row; empty: nothing.
    """

    title: str
    words: str
    columns: Mapping[str, Figure]
    needs: str = ""
    missing: str = ""

    @property
    def is_by_label(self) -> bool:
        """Whether labels have rows of their own."""
        return any(LABEL in figure.path for figure in self.columns.values())


@dataclass(frozen=True, slots=True)
class Shown:
    """What the pages show of all tasks of a kind.

    Attributes:
        title: of the kind's table.
        headline: by heading, the metrics of the served file that count most; the last is what the
            audit is measured in. ``paired`` has ``<metric>_drop`` of each.
        columns: of the kind's table, beside those that every kind has.
        how: what the columns mean, blind baselines included.
        why: why these metrics, for model cards.
        measure: what the audit's metric is called where its usual name is too long for a table.
        by_label: by heading, what is told of each label.
        tables: further ones.
    """

    title: str
    headline: Mapping[str, str]
    columns: Mapping[str, Figure]
    how: str
    why: str
    measure: str = ""
    by_label: Mapping[str, Figure] = field(default_factory=dict)
    tables: Sequence[Table] = ()


def abstention(others: Figure, refused: str = "refused") -> Table:
    """How many of its own pictures a model refuses, and how good it is on the others.

    Args:
        others: what counts most of the kind; `NOWHERE` where it is not measured.
        refused: path of the share.
    """
    return Table(
        "Abstention",
        "Share of the test images, all of the model's own kind, that it calls unlike those that it "
        "knows; the threshold accepts the stated share of val.",
        {
            "score": Figure("bundle.abstention.score"),
            "accepted of val": Figure("bundle.abstention.acceptance"),
            "refused of test": Figure(refused, "refused"),
            "accuracy or Dice on the others": others,
        },
        missing="None: every picture is answered, whatever it shows.",
    )
