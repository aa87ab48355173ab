"""Whether too much of a data set, or of one of its classes, was lost on the way in.

Pure. Called by `prepare`.
"""

from __future__ import annotations

from collections.abc import Mapping

from pipelines.data.account import Account
from pipelines.data.formats import missing_extra_of_many
from pipelines.errors import DataError

#: Why images that can be read are left out. One of a kind is kept of the first; of the second none.
COPY = "exact copies of another image"
CONFLICT = "copies under two labels"


def check_classes(
    counted: Account, max_loss: float, names: Mapping[str, str], where: str, task: str
) -> None:
    """Nothing, if each class keeps enough of its images.

    Args:
        counted: files by label. Exact copies of an image that is kept are no loss.
        max_loss: largest share of a class's files, rows without a file included, that may be lost.
        names: what people call each label.
        where: the raw folder, for messages.
        task: slug.

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
        counted: files by label.
        first: path and reason of the first files that cannot be used.
        max_fraction: largest share of them.
        where: the raw folder, for messages.
        task: slug.

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
