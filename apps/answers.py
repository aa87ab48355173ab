"""The phone-shaped answer as HTML: pure text in, text out.

Everything that comes from outside is escaped.
Colour never stands alone: each tone has its words. Drawn by `apps.ui`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from typing import Literal

from apps.models import N_THREADS, Model, processor
from apps.session import Face, Scene, Shot
from apps.texts import Texts
from pipelines.mobile.predictor import Prediction
from pipelines.mobile.trust import OperatingPoint

Tone = Literal["plain", "ok", "warn", "alarm"]
#: By label; a label without one is plain.
Tones = Mapping[str, Tone]

_SHOWN_LABELS = 5
_ALARMS = {True: "answer.above", False: "answer.below"}
#: Of the boxes, on any picture: dark enough for white, bright enough for black.
_BOX_COLOURS: Mapping[Tone, str] = {
    "plain": "#4aa3ff",
    "ok": "#22b35e",
    "warn": "#f2a516",
    "alarm": "#ee3a43",
}


@dataclass(frozen=True, slots=True)
class Said:
    """What is drawn: one picture's answer, or several pictures' taken together.

    Attributes:
        label: the most probable label.
        probabilities: by label.
        positives: by label with an operating point, whether it is reached.
        is_foreign: the model does not know this kind of picture.
    """

    label: str
    probabilities: Mapping[str, float]
    positives: Mapping[str, bool]
    is_foreign: bool = False

    @classmethod
    def of(cls, prediction: Prediction) -> Said:
        """One picture's answer.

        Args:
            prediction: of the predictor.
        """
        return cls(
            prediction.label, prediction.probabilities, prediction.positives, prediction.is_foreign
        )

    @classmethod
    def together(
        cls, probabilities: Mapping[str, float], points: Mapping[str, OperatingPoint]
    ) -> Said:
        """Several pictures' answer.

        Args:
            probabilities: by label, combined.
            points: the bundle's operating points.
        """
        label = max(probabilities, key=lambda name: probabilities[name])
        positives = {name: probabilities[name] >= point.threshold for name, point in points.items()}
        return cls(label, probabilities, positives)


def phone(t: Texts, model: Model, icon: str, inside: str) -> str:
    """The frame of a phone around an answer.

    Args:
        t: texts.
        model: whose answer.
        icon: symbol of the task.
        inside: HTML.
    """
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
    """What the phone shows before the first picture.

    Args:
        t: texts.
        icon: symbol of the task.
    """
    return (
        f'<div class="fl-wait">{symbol(icon, "fl-big")}'
        f"<b>{escape(t('answer.waiting'))}</b><span>{escape(t('answer.waiting_hint'))}</span></div>"
    )


def picture(t: Texts, shot: Shot, drawn: bytes | None = None) -> str:
    """The picture on the phone.

    Args:
        t: texts.
        shot: whose.
        drawn: the picture with a box around each face; None: as it came.
    """
    words = t("answer.alt" if drawn is None else "faces.alt", name=shot.name)
    return _image(shot.view if drawn is None else drawn, words)


def heat_map(t: Texts, task: str, label: str, drawn: bytes) -> str:
    """The heat map in the picture's place.

    Args:
        t: texts.
        task: slug.
        label: that it explains.
        drawn: the picture under the map, as JPEG.
    """
    return _image(drawn, t("answer.explain_alt", label=t.label(task, label)))


def answer(t: Texts, model: Model, said: Said, tones: Tones) -> str:
    """Label, probability, meaning, bars and the next step, or that the picture is foreign.

    Args:
        t: texts.
        model: whose answer.
        said: what it says.
        tones: by label.
    """
    if said.is_foreign:
        return (
            f'<div class="fl-foreign"><h2>{escape(t("answer.foreign"))}</h2>'
            f"<p>{escape(t('answer.foreign_hint'))}</p></div>"
            f"<details><summary>{escape(t('answer.foreign_would'))}</summary>"
            f"{bars(t, model, said)}</details>"
        )
    return (
        headline(t, model, said, tones)
        + _means(t, model, said.label)
        + alarms(t, model, said)
        + bars(t, model, said)
        + next_step(t, model, said.label)
    )


def headline(t: Texts, model: Model, said: Said, tones: Tones) -> str:
    """The label in words and its probability.

    Args:
        t: texts.
        model: whose answer.
        said: what it says.
        tones: by label.
    """
    name = escape(t.label(model.task, said.label))
    percent = escape(t("answer.probability", value=said.probabilities[said.label]))
    tone = tones.get(said.label, "plain")
    return f'<div class="fl-say {tone}"><h2>{name}</h2><span class="fl-pct">{percent}</span></div>'


def bars(t: Texts, model: Model, said: Said) -> str:
    """Probabilities as bars, the largest first, with the alarm threshold where there is one.

    Args:
        t: texts.
        model: whose answer.
        said: what it says.
    """
    points = model.bundle.operating_points
    ranked = sorted(said.probabilities.items(), key=lambda item: (-item[1], item[0]))
    shown = ranked[:_SHOWN_LABELS] + [item for item in ranked[_SHOWN_LABELS:] if item[0] in points]
    rows = []
    for rank, (label, value) in enumerate(shown):
        mark = ""
        if label in points:
            at = points[label].threshold
            title = escape(t("answer.threshold", value=at))
            mark = f'<u style="left:{at:.1%}" title="{title}"></u>'
        rows.append(
            f'<li class="{"first" if rank == 0 else "other"}">'
            f"<span>{escape(t.label(model.task, label))}</span>"
            f'<span class="fl-num">{escape(t("answer.probability", value=value))}</span>'
            f'<span class="fl-track" aria-hidden="true"><i style="width:{value:.1%}"></i>{mark}'
            f"</span></li>"
        )
    return (
        f'<ul class="fl-bars" aria-label="{escape(t("answer.bars"))}">{"".join(rows)}</ul>'
        f'<p class="fl-small">{escape(t("answer.bars"))}</p>'
    )


def alarms(t: Texts, model: Model, said: Said) -> str:
    """Whether each label with an operating point reaches it.

    Args:
        t: texts.
        model: whose answer.
        said: what it says.
    """
    chips = [
        f'<span class="fl-chip {"alarm" if reached else "ok"}">'
        f"{'▲' if reached else '▽'} "
        f"{escape(t(_ALARMS[reached], label=t.label(model.task, label)))}</span>"
        for label, reached in said.positives.items()
    ]
    return f'<div class="fl-chips">{"".join(chips)}</div>' if chips else ""


def next_step(t: Texts, model: Model, label: str) -> str:
    """What to do next, from the card.

    Args:
        t: texts.
        model: whose answer.
        label: the answer.
    """
    step = model.card.next_steps.get(label) if model.card else None
    if step is None:
        return ""
    words = t.of_card(model.task, f"next_steps.{label}", step)
    return f'<p class="fl-next"><b>{escape(t("answer.next"))}</b>{escape(words)}</p>'


def truth(t: Texts, task: str, shot: Shot) -> str:
    """Whether the answer is the true label, where that is known.

    Args:
        t: texts.
        task: slug.
        shot: the picture.
    """
    if shot.truth is None:
        return ""
    is_right = shot.truth == shot.main.label
    words = t(f"answer.truth_{'right' if is_right else 'wrong'}", label=t.label(task, shot.truth))
    tone, sign = ("ok", "✓") if is_right else ("alarm", "✗")
    return f'<span class="fl-chip {tone}">{sign} {escape(words)}</span>'


def latency(t: Texts, milliseconds: float) -> str:
    """How long it took, with processor and threads.

    Args:
        t: texts.
        milliseconds: of decoding, preprocessing and model.
    """
    words = t(
        "answer.latency",
        milliseconds=milliseconds,
        processor=processor(),
        threads=threads(t),
    )
    return f'<p class="fl-small">{escape(words)}</p>'


def threads(t: Texts) -> str:
    """The number of threads in words.

    Args:
        t: texts.
    """
    return t("answer.threads_one") if N_THREADS == 1 else t("answer.threads_many", n=N_THREADS)


def faces(t: Texts, model: Model, scene: Scene, tones: Tones) -> str:
    """One line a face, numbered as its box.

    Args:
        t: texts.
        model: whose answers.
        scene: what was found.
        tones: by label.
    """
    n = len(scene.faces)
    title = t("faces.one") if n == 1 else t("faces.many", n=n)
    rows = "".join(
        _face(t, model, number, face, tones) for number, face in enumerate(scene.faces, 1)
    )
    far = t("faces.far", n=scene.n_too_small) if scene.n_too_small else ""
    return (
        f'<div class="fl-say"><h2>{escape(title)}</h2></div>'
        f'<ol class="fl-faces" aria-label="{escape(t("faces.table"))}">{rows}</ol>'
        + (f'<p class="fl-small">{escape(far)}</p>' if far else "")
    )


def tone_of(prediction: Prediction, tones: Tones) -> Tone:
    """The tone of an answer; plain where the picture is foreign.

    Args:
        prediction: of the predictor.
        tones: by label.
    """
    return "plain" if prediction.is_foreign else tones.get(prediction.label, "plain")


def box_colour(tone: Tone) -> str:
    """The colour of a box, as CSS and Pillow write it.

    Args:
        tone: of the answer.
    """
    return _BOX_COLOURS[tone]


def symbol(name: str, *classes: str) -> str:
    """A symbol of the Material Symbols font, which Streamlit brings; hidden from screen readers.

    Args:
        name: e.g. ``eco``.
        classes: of the style sheet.
    """
    kinds = " ".join(("fl-mi", *classes))
    return f'<span class="{kinds}" aria-hidden="true" translate="no">{name}</span>'


def thumb_html(data: bytes, words: str) -> str:
    """A small picture.

    Args:
        data: of a JPEG file.
        words: what it is, for screen readers.
    """
    return f'<img class="fl-thumb" src="{data_url(data, "jpeg")}" alt="{escape(words)}">'


def data_url(data: bytes, kind: str) -> str:
    """A picture within the page.

    Args:
        data: of the file.
        kind: ``jpeg``, ``png`` or ``svg+xml``.
    """
    return f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"


def _face(t: Texts, model: Model, number: int, face: Face, tones: Tones) -> str:
    prediction = face.prediction
    words = t("answer.foreign") if prediction.is_foreign else t.label(model.task, prediction.label)
    value = prediction.probabilities[prediction.label]
    percent = "" if prediction.is_foreign else t("answer.probability", value=value)
    name = escape(t("faces.face", number=number))
    return (
        f'<li class="{tone_of(prediction, tones)}"><span class="fl-n" aria-label="{name}">{number}'
        f"</span><b>{escape(words)}</b><span>{escape(percent)}</span></li>"
    )


def _means(t: Texts, model: Model, label: str) -> str:
    meaning = model.bundle.label_meanings.get(label)
    if not meaning:
        return ""
    words = t.of_card(model.task, f"meanings.{label}", meaning)
    return f'<p class="fl-means">{escape(words)}</p>'


def _image(data: bytes, words: str) -> str:
    return f'<div class="fl-pic"><img src="{data_url(data, "jpeg")}" alt="{escape(words)}"></div>'
