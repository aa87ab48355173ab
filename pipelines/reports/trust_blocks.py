"""What a report says of how far a model can be trusted: audit, int8, calibration, abstention.

Each gives a `Block`, or None where a bundle is too old to tell. Called by the pages of `report`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipelines.reports.blocks import Block, share, with_interval
from pipelines.reports.results import TaskResult, best_blind
from pipelines.serving.trust import AuditReport, AuditScore, Interval

#: What the precision says of int8 against fp32, by key in metrics.json.
_PAIRED = {
    "accuracy_drop": "drop of accuracy",
    "macro_f1_drop": "drop of macro-F1",
    "agreement": "same answer",
}


def shortcut_words(found: TaskResult) -> str | None:
    """What a shortcut means for figures on these data, ours and others'; None where there is none.

    Args:
        found: of one task.
    """
    audit = found.bundle.audit
    best = best_blind(audit)
    if audit is None or best is None or audit.verdict != "shortcut":
        return None
    f1 = found.interval("macro_f1")
    accepted = f" Accepted all the same, because: {audit.accepted}" if audit.accepted else ""
    return (
        f"{found.bundle.task}: the data hold a shortcut. A model that never looks at the subject "
        f"({best.sees}) reaches macro-F1 {with_interval(best.macro_f1)}; the linear probe on the "
        f"pictures reaches {with_interval(audit.probe)}, and our network "
        f"{with_interval(f1, found.served['macro_f1'])} on its test split."
        f"{_published(found)} {_what_it_means(best, f1)}{accepted}"
    )


def _published(found: TaskResult) -> str:
    if not found.published:
        return ""
    return f" Published accuracies on data like these: {found.published.rstrip('.')}."


def _what_it_means(best: AuditScore, f1: Interval | None) -> str:
    reading = (
        "reading the size and type of the file"
        if best.name == "file_facts"
        else f"reading no more than {best.sees}"
    )
    if f1 is None or f1.low <= best.macro_f1.high:
        return (
            f"None of these figures, ours included, can be told apart from {reading}: none shows "
            f"that the subject is recognised."
        )
    # The network is above the blind model; the same shortcut may have taken it there.
    return (
        f"Figures up to about {best.macro_f1.high:.2f} cannot be told apart from {reading}. What "
        f"lies above may come from the subject or from finer traces of the same shortcut, and a "
        f"test split that has the shortcut too cannot say which. None of these figures, ours "
        f"included, shows that the subject is recognised."
    )


def audit_block(audit: AuditReport | None, title: str) -> Block:
    """All audits of one task.

    Args:
        audit: None where it was not made.
        title: of the block.
    """
    if audit is None:
        return Block(title, ("Not measured: run `fieldlens audit`, then evaluate again.",))
    rows = [("majority class", "nothing", share(audit.chance), "0.00", "", "")]
    rows += [
        (
            score.name,
            score.sees,
            with_interval(score.macro_f1),
            f"{score.share:.2f}",
            score.verdict,
            "yes" if score.decides else "no",
        )
        for score in audit.scores
    ]
    rows.append(("linear probe", "the picture", with_interval(audit.probe), "1.00", "", ""))
    words = [
        f"Verdict: {audit.verdict}. Macro-F1 of models that see next to nothing, cross-validated "
        f"by group ({audit.folds} folds) on the {audit.n_images:,} images of {audit.n_groups:,} "
        f"groups of train and val. Share: of the way from chance to the linear probe; suspicious "
        f"from {audit.suspicious_share:.2f}, shortcut from {audit.shortcut_share:.2f}. What a "
        f"thumbnail or colours show may be the subject itself, so they do not decide."
    ]
    if audit.accepted is not None:
        words.append(f"Accepted, because: {audit.accepted}")
    if audit.source_purity:
        purest = ", ".join(
            f"{source} {purity:.2f}" for source, purity in audit.source_purity.items()
        )
        words.append(f"Share of each source's images that have its commonest label: {purest}.")
    if audit.n_label_doubts:
        words.append(
            f"{audit.n_label_doubts:,} labels are doubted by the other images (confident "
            f"learning); reports/{audit.task}/audit lists them."
        )
    header = ("audit", "sees", "macro-F1", "share", "verdict", "decides")
    return Block(title, tuple(words), header, tuple(rows))


def paired_block(results: Sequence[TaskResult]) -> Block | None:
    """What int8 costs against fp32, one row a task.

    Args:
        results: of all tasks; those without a paired bootstrap are left out.
    """
    rows = [
        (
            found.bundle.task,
            *(
                with_interval(_interval(found.metrics["paired"], key), sign=sign)
                for key, sign in (("accuracy_drop", "+"), ("macro_f1_drop", "+"), ("agreement", ""))
            ),
        )
        for found in results
        if "paired" in found.metrics
    ]
    if not rows:
        return None
    words = (
        "fp32 minus int8 on the same images and the same resamples of groups. Where the interval "
        "holds 0, no loss is shown.",
    )
    return Block("What int8 costs", words, ("Task", *_PAIRED.values()), tuple(rows))


def _interval(intervals: Mapping[str, Any], key: str) -> Interval | None:
    return Interval.model_validate(intervals[key]) if key in intervals else None


def calibration_block(results: Sequence[TaskResult]) -> Block | None:
    """Calibration of the served file before and after the temperature, one row a task.

    Args:
        results: of all tasks; those without are left out.
    """
    rows = [
        (
            found.bundle.task,
            f"{found.bundle.temperature:.3f}",
            share(each["ece_before"]),
            with_interval(found.interval("ece"), each["ece_after"]),
            share(each["brier_before"]),
            with_interval(found.interval("brier"), each["brier_after"]),
        )
        for found in results
        if (each := found.metrics.get("calibration"))
    ]
    if not rows:
        return None
    words = (
        "Test split, served file. The temperature was fitted on val; ECE: expected calibration "
        "error, whose interval leans upwards (a resample's gaps are counted without sign).",
    )
    header = ("Task", "temperature", "ECE before", "ECE after", "Brier before", "Brier after")
    return Block("Calibration", words, header, tuple(rows))


def operating_block(results: Sequence[TaskResult]) -> Block | None:
    """From which probability on a label is answered with yes, one row a label.

    Args:
        results: of all tasks; those without operating points are left out.
    """
    rows = []
    for found in results:
        tested = found.metrics.get("operating_points") or {}
        for label, point in found.bundle.operating_points.items():
            test = tested.get(label, {})
            rows.append(
                (
                    found.bundle.task,
                    found.bundle.name_of(label),
                    f"{point.min_specificity:.2f}",
                    f"{point.threshold:.3f}",
                    f"{point.sensitivity:.3f} / {point.specificity:.3f}",
                    _on_test(found, label, test, "sensitivity"),
                    _on_test(found, label, test, "specificity"),
                )
            )
    if not rows:
        return None
    header = (
        *("Task", "label", "specificity asked", "threshold", "val sensitivity / specificity"),
        *("test sensitivity", "test specificity"),
    )
    words = (
        "The threshold of greatest sensitivity at the specificity that was asked for, chosen on "
        "val and measured on test.",
    )
    return Block("Operating points", words, header, tuple(rows))


def _on_test(found: TaskResult, label: str, test: Mapping[str, Any], name: str) -> str:
    return with_interval(found.interval(f"point.{name}.{label}"), test.get(name))


def external_block(results: Sequence[TaskResult]) -> Block | None:
    """What the models are worth on images from elsewhere, one row a folder.

    Args:
        results: of all tasks; those that were validated nowhere are left out.
    """
    rows = []
    for found in results:
        for each in found.external:
            best = max(
                (score for score in each.blind if score.decides),
                key=lambda score: score.macro_f1.value,
                default=None,
            )
            refused = each.abstained.refused if each.abstained is not None else None
            rows.append(
                (
                    each.task,
                    each.folder,
                    f"{each.n_images:,}",
                    ", ".join(each.absent_labels) or "none",
                    with_interval(each.intervals.get("accuracy")),
                    with_interval(each.drops["accuracy"].drop, sign="+")
                    if "accuracy" in each.drops
                    else "n/a",
                    f"{with_interval(best.macro_f1)} {best.name}" if best is not None else "n/a",
                    with_interval(refused),
                )
            )
    if not rows:
        return None
    header = (
        *("Task", "images from", "images", "labels without images", "accuracy"),
        *("below the internal test by", "blind macro-F1 there", "called foreign"),
    )
    words = (
        "`fieldlens validate` on folders of other makers; copies of the project's own images do "
        "not count. Blind: what a model that does not see the subject learns of that folder.",
    )
    return Block("External checks", words, header, tuple(rows))


def abstention_block(results: Sequence[TaskResult]) -> Block | None:
    """How often the model calls an image of its own kind foreign, one row a task.

    Args:
        results: of all tasks; those without abstention are left out.
    """
    rows = []
    for found in results:
        each = found.metrics.get("abstention")
        abstention = found.bundle.abstention
        if each and abstention is not None:
            rows.append(
                (
                    found.bundle.task,
                    abstention.score,
                    f"{abstention.acceptance:.2f}",
                    with_interval(found.interval("refused"), each["refused"]),
                    with_interval(
                        found.interval("accuracy_of_accepted"), each["accuracy_of_accepted"]
                    ),
                )
            )
    if not rows:
        return None
    words = (
        "Share of the test images, all of the model's own kind, that it calls unlike those that it "
        "knows; the threshold accepts the stated share of val.",
    )
    header = ("Task", "score", "accepted of val", "refused of test", "accuracy on the others")
    return Block("Abstention", words, header, tuple(rows))
