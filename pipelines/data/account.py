"""What became of every file of a source: read, refused by reason, or passed over by kind.

Each file is counted once, by construction, so that the counts add up to the files that there are;
and too great a loss, of a data set or of one of its classes, is an error. Called by `new`, `fetch`,
`prepare` and `validate`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.columns import shown, table
from pipelines.data.tree import EXTRAS, File, missing_extra, missing_extra_of_many, suffix_of
from pipelines.errors import DataError

#: By kind of file, in words.
_WORDS = {
    "image": "images without a class",
    "table": "tables",
    "other": "no images",
    "hidden": "hidden names",
    "system": "left by a system",
    "dangling": "links to nothing",
    "loop": "links in a circle",
    "special": "pipes and devices",
}
#: Reasons and suffixes that one line names.
_NAMED = 4
_DETAIL = re.compile(r" \(.*|; .*", re.DOTALL)
#: Said whole: what to install is the point.
_EXTRAS = frozenset(missing_extra(form) for form in EXTRAS)
_DIGITS = re.compile(r"\d[\d,.]*")


@dataclass(frozen=True, slots=True)
class Account:
    """The files of a source, each counted once; and rows of a table that have none.

    Attributes:
        read: images by class.
        refused: by class and reason.
        passed: by kind and, where it helps, suffix.
        missing: by class, rows whose file is not there; no files, so not in the sum.
    """

    read: Counter[str]
    refused: Counter[tuple[str, str]]
    passed: Counter[tuple[str, str]]
    missing: Counter[str]

    @property
    def n_files(self) -> int:
        """All files."""
        return self.read.total() + self.refused.total() + self.passed.total()

    @property
    def classes(self) -> list[str]:
        """Names of the classes, in the order in which they came."""
        named = (*self.read, *(name for name, _ in self.refused), *self.missing)
        return list(dict.fromkeys(named))

    def refused_of(self, name: str) -> Counter[str]:
        """By reason, the refused files of one class."""
        return Counter({why: n for (owner, why), n in self.refused.items() if owner == name})

    def as_text(self, what: str, names: Mapping[str, str] | None = None, read: str = "read") -> str:
        """The account as a table for a terminal.

        Args:
            what: heads the first column.
            names: what people call a class, where that differs.
            read: heads the column of images that passed; `fetch` does not open them.
        """
        names = names or {}
        rows = []
        for name in self.classes:
            refused = self.refused_of(name)
            why = [f"{n:,} {reason}" for reason, n in refused.most_common(_NAMED)]
            if len(refused) > _NAMED:
                why.append(f"{sum(n for _, n in refused.most_common()[_NAMED:]):,} others")
            if self.missing[name]:
                why.append(f"besides {self.missing[name]:,} listed that are not there")
            rows.append(
                _cells(names.get(name, name), self.read[name], refused.total(), 0, "; ".join(why))
            )
        for kind in dict.fromkeys(kind for kind, _ in self.passed):
            details = Counter({d: n for (found, d), n in self.passed.items() if found == kind})
            why = [f"{detail} {n:,}" for detail, n in details.most_common(_NAMED) if detail]
            rows.append(_cells(kind, 0, 0, details.total(), ", ".join(why)))
        sums = (self.read.total(), self.refused.total(), self.passed.total())
        rows.append(_cells("all", *sums, ""))
        header = (what.upper(), "FILES", read.upper(), "REFUSED", "PASSED OVER", "WHY")
        return table(header, rows)

    def as_json(self) -> dict[str, Any]:
        """The account as values for summary.json."""
        return {
            "n_files": self.n_files,
            "read": dict(self.read),
            "refused": {
                name: dict(sorted(self.refused_of(name).items()))
                for name in self.classes
                if self.refused_of(name)
            },
            "passed_over": {
                kind: sum(n for (found, _), n in self.passed.items() if found == kind)
                for kind in sorted({kind for kind, _ in self.passed})
            },
            "listed_but_not_there": dict(self.missing),
        }


def account(
    files: Iterable[File],
    read: Mapping[str, str],
    refused: Mapping[str, tuple[str, str]],
    classes: Iterable[str] = (),
    unused: Mapping[str, str] | None = None,
) -> Account:
    """Count every file once.

    Args:
        read: by path, the class of each image that was read.
        refused: by path, the class and the reason of each that was not; a path that is no file is
            a row of a table whose file is not there.
        classes: in the order to show them, those without any file too.
        unused: by path, images that nobody asked for, and why.
    """
    unused = unused or {}
    names = list(dict.fromkeys((*classes, *read.values(), *(name for name, _ in refused.values()))))
    counted = Account(Counter(dict.fromkeys(names, 0)), Counter(), Counter(), Counter())
    here = set[str]()
    for file in files:
        path = str(file.path)
        here.add(path)
        if path in read:
            counted.read[read[path]] += 1
        elif path in refused:
            name, reason = refused[path]
            counted.refused[name, _in_short(reason)] += 1
        elif path in unused:
            counted.passed[unused[path], ""] += 1
        else:
            detail = (suffix_of(file.path) or "no suffix") if file.kind == "other" else ""
            counted.passed[_WORDS[file.kind], detail] += 1
    for path, (name, _) in refused.items():
        if path not in here:
            counted.missing[name] += 1
    return counted


def _in_short(reason: str) -> str:
    """A reason without what differs from file to file, so that like ones are counted together."""
    if reason in _EXTRAS:
        return reason
    return _DIGITS.sub("…", _DETAIL.sub("", reason)) or reason


def _cells(name: str, n_read: int, n_refused: int, n_passed: int, why: str) -> tuple[str, ...]:
    counts = (n_read + n_refused + n_passed, n_read, n_refused, n_passed)
    return (shown(name), *(f"{n:,}" if n else "-" for n in counts), why)


# -- losses ---------------------------------------------------------------------------------------
#: Why images that can be read are left out. One of a kind is kept of the first; of the second none.
COPY = "exact copies of another image"
CONFLICT = "copies under two labels"


def check_classes(
    counted: Account, max_loss: float, names: Mapping[str, str], where: str, task: str
) -> None:
    """Nothing, if each class keeps enough of its images; exact copies of a kept one are no loss.

    Args:
        max_loss: largest share of a class's files, rows without a file included, that may be lost.
        names: what people call each label.
        where: the raw folder, for messages.

    Raises:
        DataError: names each class that lost more, with its counts and the reasons.
    """
    lost = []
    for label in counted.classes:
        reasons = counted.refused_of(label)
        n_copies = reasons.pop(COPY, 0)
        if counted.missing[label]:
            reasons["listed and not there"] = counted.missing[label]
        n_lost, n_kept = reasons.total(), counted.read[label]
        n_all = n_lost + n_kept + n_copies
        if n_lost and (not n_kept or n_lost > max_loss * n_all):
            name = f"{label} ({names[label]})" if names[label] != label else label
            why = "; ".join(
                missing_extra_of_many(n, name, reason) or f"{n} {reason}"
                for reason, n in reasons.most_common()
            )
            lost.append((label, f"of class {name} {n_kept} of {n_all} files are left: {why}"))
    if lost:
        left = [label for label in counted.classes if label not in dict(lost)]
        or_name = (
            f", or name the classes to use in params.yaml: tasks.{task}.prepare.classes: "
            f"[{', '.join(left)}]"
            if len(left) > 1
            else ""
        )
        raise DataError(
            f"{where}: {'. '.join(line[0].upper() + line[1:] for _, line in lost)}. Expected at "
            f"most {max_loss:.0%} of a class to be lost (max_class_loss). Mend the files and run "
            f"`fieldlens fetch {task}` again{or_name}."
        )


def check_all(
    counted: Account, first: Mapping[str, str], max_fraction: float, where: str, task: str
) -> None:
    """Nothing, if the files that cannot be used are few enough.

    Args:
        first: path and reason of the first files that cannot be used.
        max_fraction: largest share of them.
        where: the raw folder, for messages.

    Raises:
        DataError: counts by class and reason, and the first files.
    """
    reasons = {key: n for key, n in counted.refused.items() if key[1] not in {COPY, CONFLICT}}
    n_refused = sum(reasons.values()) + counted.missing.total()
    n_all = counted.read.total() + counted.refused.total() + counted.missing.total()
    if n_refused > max_fraction * n_all:
        lines = [
            missing_extra_of_many(n, label, reason) or f"{n} of {label}: {reason}"
            for (label, reason), n in reasons.items()
        ]
        lines += [f"{n} of {label}: listed and not there" for label, n in counted.missing.items()]
        named = "; ".join(f"{path!r}: {reason}" for path, reason in first.items())
        raise DataError(
            f"{where}: {n_refused} of {n_all} images cannot be used ({'; '.join(lines)}; the "
            f"first: {named}). Expected at most {max_fraction:.0%} (max_quarantine_fraction). Mend "
            f"the source and run `fieldlens fetch {task}` again."
        )
