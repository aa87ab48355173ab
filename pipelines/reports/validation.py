"""validation.html: a released model on images from elsewhere, on one page for a person.

Pure text from `Validation`. Called by `validate`.
"""

from __future__ import annotations

from html import escape

from pipelines.reports.blocks import Block, html, page, share, tag, with_interval
from pipelines.validation.external import Drop, Validation

#: What metrics are called before people, in the order in which they are shown.
SAME_WORDS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro-F1",
    "ece": "expected calibration error",
}
_KINDS = {
    "refused": "not an image that may enter",
    "known": "a copy of an image that the project has",
    "copy": "a copy within the folder",
    "unknown_label": "of a class that the model was not taught",
}
#: Images set aside that the page lists; validation.json lists all.
_LISTED = 50
#: Fewer groups than this: a bootstrap interval is too narrow to be quoted.
_FEW_GROUPS = 20
_SAMPLE = (
    "The model was trained on painted sample images: none of these figures says anything about "
    "real pictures."
)


def external_page(found: Validation) -> str:
    """The whole page, complete in itself.

    Args:
        found: validation.json.
    """
    blocks = (
        _headline(found),
        _drops(found),
        _by_label(found),
        _blind(found),
        _abstention(found),
        _aside(found),
        _how(found),
    )
    body = "".join(f"<section>\n{html(block)}</section>\n" for block in blocks if block is not None)
    if found.data_source == "sample":
        body = html(Block("", (_SAMPLE,), is_warning=True)) + body
    tags = " ".join(tag(text, tone) for text, tone in _tags(found))
    return page(
        f"{found.title}: on other images",
        f"<p><code>{escape(found.folder)}</code> {tags}</p>\n{body}",
    )


def _tags(found: Validation) -> list[tuple[str, str]]:
    tags = [("sample data", "warn")] if found.data_source == "sample" else []
    accuracy = found.drops.get("accuracy")
    if accuracy is not None:
        tags.append(
            ("below the internal test", "bad")
            if _is_worse(accuracy)
            else ("no drop in accuracy shown", "good")
        )
    return tags


def _is_worse(drop: Drop) -> bool:
    return drop.drop.low > 0


def _headline(found: Validation) -> Block:
    words = [
        f"{found.n_images:,} images of {found.n_groups:,} groups count, of {found.n_found:,} in "
        f"the folder. Accuracy {with_interval(found.intervals.get('accuracy'))}, macro-F1 "
        f"{with_interval(found.intervals.get('macro_f1'))} (95 % intervals, bootstrap by group)."
    ]
    telling = [each for each in found.blind if each.decides]
    best = max(telling, key=lambda each: each.macro_f1.value, default=None)
    f1 = found.intervals.get("macro_f1")
    if best is not None and f1 is not None and best.macro_f1.high >= f1.low:
        words.append(
            f"A model that does not see the subject reaches macro-F1 "
            f"{with_interval(best.macro_f1)} on this folder ({best.sees}), when it is taught on "
            f"it. The folder gives its labels away, so a good figure on it means little."
        )
    if found.absent_labels:
        words.append(
            f"No image here is {', '.join(map(found.name_of, found.absent_labels))}: macro-F1 and "
            f"accuracy are of "
            f"other classes than on the internal test, and their drop is to be read with care."
        )
    if found.n_groups < _FEW_GROUPS:
        words.append(
            f"{found.n_groups} groups are few: the true figures may well lie outside of the "
            f"intervals."
        )
    return Block("In short", tuple(words))


def _drops(found: Validation) -> Block:
    if not found.drops:
        return Block(
            "Against the internal test",
            ("The bundle has no intervals of its test split; run `fieldlens evaluate` again.",),
        )
    rows = []
    for name, words in SAME_WORDS.items():
        drop = found.drops.get(name)
        if drop is not None:
            rows.append(
                (
                    words,
                    with_interval(drop.internal),
                    with_interval(drop.external),
                    with_interval(drop.drop, sign="+"),
                    "yes" if drop.do_intervals_overlap else "no",
                )
            )
    accuracy = found.drops.get("accuracy")
    said: list[str] = []
    if accuracy is not None and _is_worse(accuracy):
        said.append(
            "Accuracy is lower here than on the internal test, by more than luck: the interval of "
            "the drop leaves 0 out. The internal figure does not hold for images like these."
        )
    elif accuracy is not None:
        said.append(
            "The interval of the drop in accuracy holds 0 or lies below it: no drop is shown. That "
            "is no proof that there is none."
        )
    said.append("Drop: internal minus here; above 0 the model is worse here (for ECE: better).")
    return Block(
        "Against the internal test",
        tuple(said),
        ("metric", "internal test", "here", "drop", "intervals overlap"),
        tuple(rows),
    )


def _by_label(found: Validation) -> Block:
    per_class = found.metrics["per_class"]
    rows = [
        (
            found.name_of(label),
            with_interval(found.intervals.get(f"recall.{label}")),
            share(per_class[label]["precision"]),
            f"{per_class[label]['support']:,}",
        )
        for label in found.labels
    ]
    return Block("By label", (), ("label", "recall", "precision", "images"), tuple(rows))


def _blind(found: Validation) -> Block:
    title = "Without seeing the subject"
    if not found.blind:
        return Block(title, (f"No blind baseline: {found.blind_missing}",))
    rows = [("commonest label", "nothing", f"{found.chance:.3f}")]
    rows += [(each.name, each.sees, with_interval(each.macro_f1)) for each in found.blind]
    rows.append(("the model", "the picture", with_interval(found.intervals.get("macro_f1"))))
    words = (
        "Forests taught and tested on this folder, cross-validated by group. A high figure here "
        "means that the folder tells its labels by something other than what its pictures show.",
    )
    return Block(title, words, ("name", "sees", "macro-F1"), tuple(rows))


def _abstention(found: Validation) -> Block | None:
    if found.abstained is None:
        return None
    rows = (
        ("called foreign", with_interval(found.abstained.refused)),
        ("accuracy on the others", with_interval(found.abstained.accuracy_of_accepted)),
        ("macro-F1 on the others", with_interval(found.abstained.macro_f1_of_accepted)),
    )
    words = (
        "Share of the images that the model calls unlike those that it knows; on its own kind it "
        "should be near 5 %. A large share means that this folder is another kind of picture. The "
        "figures above count these images too.",
    )
    return Block("Abstention", words, ("what", "share"), rows)


def _aside(found: Validation) -> Block:
    words = [f"Copies of the project's images were looked for: {found.duplicates_sought}."]
    for kind, n in found.n_by_kind.items():
        words.append(f"{n:,} set aside: {_KINDS[kind]}.")
    if not found.set_aside:
        words.append("Nothing was set aside.")
    if len(found.set_aside) > _LISTED:
        words.append(f"The first {_LISTED} are listed here, all in validation.json.")
    rows = tuple((each.path, _KINDS[each.kind], each.reason) for each in found.set_aside[:_LISTED])
    return Block("Set aside", tuple(words), ("image", "why", "more"), rows)


def _how(found: Validation) -> Block:
    return Block(
        "How this was measured",
        (
            f"Model {found.model_sha256[:12]} ({found.precision}), through the predictor that "
            f"apps run; images that count {found.folder_sha256[:12]}. Intervals: percentile "
            f"bootstrap of {found.resamples:,} resamples of whole groups, seed {found.seed}; near "
            f"duplicates are one group. The drop's interval is that of two independent samples "
            f"(Newcombe 1998, method 10).",
        ),
    )
