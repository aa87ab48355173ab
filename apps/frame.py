"""The phone around an answer, its picture, and the small things that other panels draw too.

Pure: text and bytes in, HTML out. Everything that comes from outside is escaped.
"""

from __future__ import annotations

import base64
from html import escape

from apps.models import Model
from apps.session import Shot
from apps.texts import Texts
from pipelines.serving.bundle import Bundle


def phone(t: Texts, model: Model, icon: str, inside: str) -> str:
    """The frame of a phone around an answer."""
    bundle = model.bundle
    served = bundle.files[bundle.served.precision]
    name = escape(t.task(model.task, "name", bundle.title))
    size = t(
        "hub.served_value",
        precision=bundle.served.precision,
        megabytes=served.size_bytes / 1e6,
    )
    return (
        f'<section class="fl-phone" aria-label="{escape(t("answer.region"))}" aria-live="polite">'
        f'<div class="fl-screen"><div class="fl-bar"><span>{symbol(icon)} {name}</span>'
        f"<span>{escape(size)}</span></div>{inside}</div></section>"
    )


def waiting(t: Texts, icon: str) -> str:
    """What the phone shows before the first picture."""
    return (
        f'<div class="fl-wait">{symbol(icon, "fl-big")}'
        f"<b>{escape(t('answer.waiting'))}</b><span>{escape(t('answer.waiting_hint'))}</span></div>"
    )


def picture(t: Texts, shot: Shot, drawn: bytes | None = None) -> str:
    """The picture on the phone.

    Args:
        drawn: the picture with a box around each face; None: as it came.
    """
    words = t("answer.alt" if drawn is None else "faces.alt", name=shot.name)
    return _image(shot.view if drawn is None else drawn, words)


def masks(t: Texts, name: str, drawn: bytes) -> str:
    """A picture with a mask laid over it."""
    return _image(drawn, t("masks.alt", name=name))


def boxes(t: Texts, name: str, drawn: bytes) -> str:
    """A picture with boxes drawn into it."""
    return _image(drawn, t("boxes.alt", name=name))


def heat_map(t: Texts, bundle: Bundle, label: str, drawn: bytes) -> str:
    """The heat map in the picture's place."""
    return _image(
        drawn, t("answer.explain_alt", label=t.label(bundle.task, label, bundle.label_names))
    )


def symbol(name: str, *classes: str) -> str:
    """A symbol of the Material Symbols font, which Streamlit brings; hidden from screen readers."""
    kinds = " ".join(("fl-mi", *classes))
    return f'<span class="{kinds}" aria-hidden="true" translate="no">{name}</span>'


def thumb_html(data: bytes, words: str) -> str:
    """A small picture."""
    return f'<img class="fl-thumb" src="{data_url(data, "jpeg")}" alt="{escape(words)}">'


def data_url(data: bytes, kind: str) -> str:
    """A picture within the page.

    Args:
        kind: ``jpeg``, ``png`` or ``svg+xml``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _image(data: bytes, words: str) -> str:
    return f'<div class="fl-pic"><img src="{data_url(data, "jpeg")}" alt="{escape(words)}"></div>'
