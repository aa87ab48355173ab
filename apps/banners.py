"""What must be said before an answer: who may not use it, and how far it can be believed."""

from __future__ import annotations

from html import escape

import streamlit as st

from apps.frame import symbol
from apps.models import Model
from apps.texts import Texts
from pipelines.data.pixel_range import words
from pipelines.serving.trust import AuditReport, AuditScore

_SIGNS = {"sample": "brush", "medical": "health_and_safety", "alarm": "warning", "warn": "warning"}


def show(t: Texts, model: Model) -> None:
    """The banners of a model, the gravest first."""
    bundle = model.bundle
    if bundle.domain == "medical":
        use = t.of_card(model.task, "intended_use", bundle.intended_use)
        title = t("banners.medical_title")
        rest = use.replace(title, "").strip()
        st.html(
            _note(
                "medical", f"<b>{escape(title)}</b> {escape(t('banners.medical'))} {escape(rest)}"
            )
        )
    if bundle.is_sample:
        st.html(_note("sample", escape(t("banners.sample"))))
    worst = worst_score(bundle.audit) if bundle.audit else None
    if bundle.audit and worst and bundle.audit.verdict != "clean":
        found = t(
            f"banners.{bundle.audit.verdict}",
            metric=bundle.audit.measure,
            sees=worst.sees,
            value=worst.macro_f1.value,
        )
        st.html(_note("alarm" if bundle.audit.verdict == "shortcut" else "warn", escape(found)))


def beyond_range(t: Texts, model: Model, outside: float) -> str:
    """What must be said of a picture of which a share was clipped to the training data's range."""
    if not outside:
        return ""
    return _note(
        "warn", escape(t("answer.outside", share=outside, range=words(model.reading.range)))
    )


def worst_score(audit: AuditReport) -> AuditScore | None:
    """The blind model that got farthest among those that count; None if none counts."""
    deciding = [score for score in audit.scores if score.decides]
    return max(deciding, key=lambda score: score.macro_f1.value) if deciding else None


def about(t: Texts, model: Model) -> None:
    """What the model is, what it is for, and what it is not for."""
    bundle = model.bundle
    use = t.of_card(model.task, "intended_use", bundle.intended_use)
    not_for = t.lines(f"cards.{model.task}.not_for") or list(bundle.not_for)
    n_images = bundle.provenance.n_images
    served = bundle.served
    facts = [
        t("about.for", text=use),
        f"**{t('about.not_for')}**",
        *(f"- {line}" for line in not_for),
        "",
        t(
            "about.facts",
            backbone=bundle.provenance.network,
            precision=served.precision,
            reason=served.reason,
        ),
        t("about.trained", train=n_images.get("train", 0), test=n_images.get("test", 0)),
        t("about.hash", sha256=f"`{bundle.files[served.precision].sha256[:16]}`"),
    ]
    if model.card is not None:
        source, licence = model.card.source.publisher, model.card.licence.spdx
        facts.append(t("about.source", publisher=source, licence=licence))
    with st.expander(t("about.title")):
        st.markdown("\n\n".join(facts).replace("\n\n- ", "\n- "))


def _note(kind: str, words: str) -> str:
    sign = symbol(_SIGNS[kind], "fl-sign")
    return f'<div class="fl-note {kind}" role="note">{sign}<span>{words}</span></div>'
