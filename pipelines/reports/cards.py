"""The model card of one task as Markdown: pure text from a bundle and a dataset card.

Nothing is written that was not measured: what a bundle does not hold is said to be missing. Called
by `report`, which reads the files and refuses painted images.

References:
    Mitchell et al. 2019, "Model cards for model reporting": the sections, and their order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pipelines.card import DatasetCard
from pipelines.reports.blocks import Block, markdown, markdown_table, with_interval
from pipelines.reports.results import (
    HOW_BLIND,
    HOW_MEASURED,
    TaskResult,
    best_blind,
    by_label,
    trained_on,
)
from pipelines.reports.trust_blocks import (
    abstention_block,
    audit_block,
    calibration_block,
    operating_block,
    paired_block,
    shortcut_words,
)
from pipelines.serving.bundle import Bundle
from pipelines.serving.sessions import Precision

NOT_A_MEDICAL_DEVICE = (
    "**This is not a medical device.** It has not been assessed by any regulator, and no clinical "
    "decision may rest on it."
)
_REFERENCE = (
    "The form of this card is that of Mitchell et al. 2019, *Model cards for model reporting*. "
    "Written by `fieldlens report --cards`; do not edit."
)
_PRECISIONS: tuple[Precision, ...] = ("fp32", "int8")
#: By key in metrics.json, what a person calls it; those that are absent are left out.
_FIGURES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "ece": "expected calibration error",
    "brier": "Brier score",
}


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a card is written from.

    Attributes:
        found: bundle, metrics and the gate's verdict.
        card: of the data set.
        max_changed: by kind, the largest share of answers that a harmless change may turn.
    """

    found: TaskResult
    card: DatasetCard
    max_changed: Mapping[str, float]


def model_card(facts: ModelFacts) -> str:
    """docs/cards/<task>.md.

    Args:
        facts: of a task that was measured on real images.
    """
    sections = {
        "Model details": _details(facts),
        "Intended use": _intended_use(facts),
        "Factors": _factors(facts),
        "Metrics": _metrics(facts),
        "Evaluation data": _evaluation_data(facts),
        "Training data": _training_data(facts),
        "Quantitative analyses": _analyses(facts),
        "Ethical considerations": _ethics(facts),
        "Caveats and recommendations": _caveats(facts),
    }
    body = "".join(f"\n## {heading}\n\n{text}" for heading, text in sections.items())
    title = _line(facts.found.bundle.title)
    return f"{_warnings(facts)}# Model card: {title}\n{body}\n{_REFERENCE}\n"


def _warnings(facts: ModelFacts) -> str:
    """What must be read before anything else."""
    words = [NOT_A_MEDICAL_DEVICE] if facts.card.domain == "medical" else []
    shortcut = shortcut_words(facts.found)
    if shortcut is not None:
        words.append(f"**{_line(shortcut)}**")
    if facts.found.failed:
        missed = ", ".join(facts.found.failed)
        words.append(f"**Not released.** The gate does not accept: {missed}.")
    return "".join(f"> {text}\n\n" for text in words)


def _details(facts: ModelFacts) -> str:
    bundle, made_of = facts.found.bundle, facts.found.bundle.provenance
    served = bundle.files[bundle.served.precision]
    prepared = bundle.preprocess
    taken_away = [
        *(["colour"] if prepared.grey else []),
        *([f"all but a shorter side of {prepared.side_px} px"] if prepared.side_px else []),
        *([f"{prepared.border_mask:.1%} of each edge"] if prepared.border_mask else []),
    ]
    rows = [
        ("Task", f"`{bundle.task}` ({bundle.domain})"),
        ("Answers", ", ".join(f"`{bundle.name_of(label)}`" for label in bundle.labels)),
        ("Backbone", f"{made_of.backbone}, initial weights {made_of.weights}"),
        ("Licence of the initial weights", made_of.weights_licence or "none were used"),
        ("Input", f"RGB, shorter side {prepared.resize_px} px, centre {prepared.crop_px} px"),
        ("Taken away from every picture", ", ".join(taken_away) or "nothing"),
        ("Served file", f"{bundle.served.precision}, {served.size_bytes:,} bytes"),
        ("Why that one", bundle.served.reason),
        ("sha256 of the served file", f"`{served.sha256}`"),
        ("sha256 of the float weights", f"`{made_of.float_sha256}`"),
        ("Gate", facts.found.verdict),
        ("Licence of the code", "Apache-2.0"),
    ]
    return markdown_table(("", ""), rows)


def _intended_use(facts: ModelFacts) -> str:
    limits = "".join(f"- {_line(limit)}\n" for limit in facts.found.bundle.not_for)
    return f"{_line(facts.found.bundle.intended_use)}\n\nNot for:\n\n{limits}"


def _factors(facts: ModelFacts) -> str:
    card = facts.card
    return (
        f"One observation is {_line(card.unit_of_observation)} ({_line(card.image.modality)}). "
        f"Figures are given by label. Groups that must not straddle splits, and by which every "
        f"interval is drawn: {_line(card.group_key)}. Sites, devices and people are not told apart "
        f"below where the data do not name them.\n"
    )


def _metrics(facts: ModelFacts) -> str:
    bounds = ", ".join(f"{kind} {share:.0%}" for kind, share in facts.max_changed.items())
    changed = (
        f"A harmless change of a picture may turn at most this share of the answers ("
        f"`fieldlens stress`): {bounds}.\n"
        if bounds
        else "The behavioural tests (`fieldlens stress`) have no bounds for this task.\n"
    )
    return (
        "Macro-F1, because it counts rare labels as much as common ones; accuracy, because others "
        "quote it; recall and specificity by label; the expected calibration error and the Brier "
        f"score, because a probability is shown.\n\n{HOW_MEASURED}\n\n{HOW_BLIND}\n\n{changed}"
    )


def _evaluation_data(facts: ModelFacts) -> str:
    made_of, metrics = facts.found.bundle.provenance, facts.found.metrics
    by_whom = "made here, by group and stratified by label; near duplicates share a group"
    if made_of.is_split_given:
        by_whom = f"given by the publisher (straddling: {facts.card.straddling_accepted or 'none'})"
    return (
        f"The test split: {metrics['n_images']:,} images of {metrics['n_groups']:,} groups that "
        f"no training and no choice has seen. Splits are {by_whom}. "
        f"Data sha256 `{made_of.data_sha256[:12]}`.\n"
    )


_REFIT = (
    " A training on train alone came first: val chose its epoch, and what it made of val set the "
    "temperature, the operating points and how foreign a picture may be. What is said here of int8 "
    "on val is of images that the released network was trained on, and leans to the good; the test "
    "split judges it."
)


def _training_data(facts: ModelFacts) -> str:
    card, made_of = facts.card, facts.found.bundle.provenance
    rows = [
        ("Data set", card.title),
        ("Publisher", card.source.publisher),
        (
            "Where, which, when",
            f"{card.source.url}, {card.source.version}, {card.source.retrieved}",
        ),
        ("Licence", f"{card.licence.spdx} ({card.licence.url}). {card.licence.redistribution}"),
        (
            "Citation",
            card.citation.text + (f" doi:{card.citation.doi}" if card.citation.doi else ""),
        ),
    ]
    counts = [
        (split, f"{made_of.n_images.get(split, 0):,}", f"{made_of.n_groups.get(split, 0):,}")
        for split in ("train", "val", "test")
    ]
    return (
        f"{markdown_table(('', ''), rows)}\n"
        f"{markdown_table(('split', 'images', f'groups ({card.group_key})'), counts)}\n"
        f"Trained on {trained_on(made_of)}.{_REFIT if made_of.is_refit else ''}\n"
    )


def _analyses(facts: ModelFacts) -> str:
    found = facts.found
    bundle = found.bundle
    header = ("metric", "fp32", "int8", "best model that sees no subject")
    blocks = (
        audit_block(bundle.audit, "Without a look at the subject"),
        _titled(by_label(found), "By label"),
        calibration_block([found]) or Block("Calibration", ("Not measured.",)),
        operating_block([found])
        or Block("Operating points", ("None: the most probable label is the answer.",)),
        abstention_block([found]) or Block("Abstention", (_abstention(bundle),)),
        paired_block([found]) or Block("What int8 costs", ("No interval was measured.",)),
        _int8_block(bundle),
    )
    return f"{markdown_table(header, _figure_rows(found))}\n" + "\n".join(
        markdown(block, 3).rstrip("\n") + "\n" for block in blocks
    )


def _figure_rows(found: TaskResult) -> list[list[str]]:
    """One row a metric of the test split: its name, fp32, int8, and the best blind model."""
    intervals = found.bundle.intervals or {}
    best = best_blind(found.bundle.audit)
    blind = f"{with_interval(best.macro_f1)}, {best.name}" if best is not None else "not measured"
    return [
        [
            name,
            *(
                with_interval(intervals.get(p, {}).get(key), found.metrics[p].get(key))
                for p in _PRECISIONS
            ),
            blind if key == "macro_f1" else "",
        ]
        for key, name in _FIGURES.items()
        if key in found.served
    ]


def _titled(block: Block, title: str) -> Block:
    return Block(title, block.words, block.header, block.rows)


def _abstention(bundle: Bundle) -> str:
    found = bundle.abstention
    if found is None:
        return "None: every picture is answered, whatever it shows."
    return (
        f"Score {found.score}; the threshold accepts {found.acceptance:.0%} of the val images. "
        f"Not measured on the test split."
    )


def _int8_block(bundle: Bundle) -> Block:
    """One row a quantisation that was tried."""
    rows = [
        (
            each.remedy,
            each.calibrator,
            f"{len(each.float_nodes)}",
            f"{each.agreement:.3f}",
            f"{each.accuracy:.3f}",
            f"{each.macro_f1:.3f}",
            f"{each.sqnr_db:.1f}",
            f"{each.size_bytes:,}",
            "yes" if each.holds_bounds else "no",
            "yes" if each.is_chosen else "no",
        )
        for each in bundle.int8_path
    ]
    words = "Quantisations in the order in which they were tried, on the val split."
    header = (
        *("remedy", "calibrator", "nodes left in float", "agreement with fp32", "accuracy"),
        *("macro-F1", "SQNR in dB", "bytes", "holds its bounds", "chosen"),
    )
    return Block("The way to int8", (words if rows else "Not recorded.",), header, tuple(rows))


def _ethics(facts: ModelFacts) -> str:
    medical = f"\n{NOT_A_MEDICAL_DEVICE}\n" if facts.card.domain == "medical" else ""
    return f"{_line(facts.card.consent_and_privacy)}\n{medical}"


def _caveats(facts: ModelFacts) -> str:
    biases = "".join(f"- {_line(bias)}\n" for bias in facts.card.known_biases)
    return (
        f"Known biases of the data:\n\n{biases}\n"
        "Measure on images of your own before you believe a figure here: "
        f"`fieldlens validate {facts.found.bundle.task} FOLDER`.\n"
    )


def _line(text: str) -> str:
    """Words of a card on one line, whatever breaks it had."""
    return " ".join(text.split())
