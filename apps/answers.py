"""The phone-shaped answer as HTML: pure text in, text out.

Everything that comes from outside is escaped.
Colour never stands alone: each tone has its words. Drawn by `apps.ui`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from apps.models import N_THREADS, Model, processor
from apps.session import Face, Scene, Shot
from apps.texts import Texts
from apps.tones import Tone, Tones
from pipelines.serving.detection import Boxes, count_intervals
from pipelines.serving.embedding import Embedding, Neighbour
from pipelines.serving.predictor import Prediction
from pipelines.serving.segmentation import Mask, colour_of

_SHOWN_LABELS = 5
#: Up to so many operating points, each gets its line.
_FEW_POINTS = 3
_ALARM_KEYS = {True: "answer.above", False: "answer.below"}
_SAME_KEYS = {True: "neighbours.same", False: "neighbours.other"}
#: Tone and sign of what is said beside a true label.
_OUTCOMES: Mapping[str, tuple[Tone, str]] = {
    "right": ("ok", "✓"),
    "wrong": ("alarm", "✗"),
    "none": ("warn", "?"),
}
#: Tones, the gravest last.
_GRAVITY: tuple[Tone, ...] = ("plain", "ok", "warn", "alarm")
#: Of the boxes, on any picture: dark enough for white, bright enough for black.
_BOX_COLOURS: Mapping[Tone, str] = {
    "plain": "#4aa3ff",
    "ok": "#22b35e",
    "warn": "#f2a516",
    "alarm": "#ee3a43",
}


def answer(t: Texts, model: Model, said: Prediction, tones: Tones) -> str:
    """Label, probability, meaning, bars, next step; or that the kind of picture is unknown."""
    if said.is_ood:
        return (
            f'<div class="fl-ood"><h2>{escape(t("answer.ood"))}</h2>'
            f"<p>{escape(t('answer.ood_hint'))}</p></div>"
            f"<details><summary>{escape(t('answer.ood_would'))}</summary>"
            f"{_bars(t, model, said)}</details>"
        )
    return (
        _headline(t, model, said, tones)
        + _means(t, model, said.label)
        + _alarms(t, model, said)
        + _bars(t, model, said)
        + _next_step(t, model, said.label)
    )


def regions(t: Texts, model: Model, said: Mask, tones: Tones) -> str:
    """How much of the picture shows each label, what it means, next step; or that it is unknown."""
    if said.is_ood:
        return (
            f'<div class="fl-ood"><h2>{escape(t("answer.ood"))}</h2>'
            f"<p>{escape(t('masks.ood_hint'))}</p></div>"
        )
    parts = []
    for number, (label, region) in enumerate(said.regions.items()):
        name = escape(t.label(model.task, label, model.names))
        tone = tones.get(label, "plain")
        if region.box_px is None:
            words = escape(t("masks.nothing"))
            parts.append(f'<div class="fl-say {tone}"><h2>{name}</h2><span>{words}</span></div>')
            continue
        share = escape(t("masks.area", share=region.area_share))
        colour = "#{:02x}{:02x}{:02x}".format(*colour_of(number))
        parts.append(
            f'<div class="fl-say {tone}"><h2><span aria-hidden="true" style="color:{colour}">■'
            f'</span>&nbsp;{name}</h2><span class="fl-pct">{share}</span></div>'
            + _means(t, model, label)
        )
    seen = f'<p class="fl-small">{escape(t("masks.seen"))}</p>'
    return "".join([*parts, seen, *(_next_step(t, model, label) for label in said.regions)])


def neighbours(t: Texts, model: Model, said: Embedding, tones: Tones) -> str:
    """The nearest pictures of the gallery with their distances, and which are called the same."""
    if said.is_ood:
        return (
            f'<div class="fl-ood"><h2>{escape(t("answer.ood"))}</h2>'
            f"<p>{escape(t('answer.ood_hint'))}</p></div>"
        )
    if not said.neighbours:
        return f'<p class="fl-means">{escape(t("neighbours.no_gallery"))}</p>'
    first = said.neighbours[0]
    is_known = first.is_same is not False
    title = escape(t("neighbours.title", identity=first.identity))
    distance = escape(t("neighbours.distance", value=first.distance))
    head = (
        f'<div class="fl-say {"plain" if is_known else "warn"}"><h2>{title}</h2>'
        f'<span class="fl-pct">{distance}</span></div>'
    )
    if not is_known:
        head += f'<p class="fl-means">{escape(t("neighbours.none"))}</p>'
    rows = "".join(_neighbour(t, each) for each in said.neighbours)
    return f'{head}<ol class="fl-faces" aria-label="{escape(t("neighbours.list"))}">{rows}</ol>'


def _neighbour(t: Texts, near: Neighbour) -> str:
    said = "" if near.is_same is None else t(_SAME_KEYS[near.is_same])
    picture = ""
    if near.thumbnail:
        alt = escape(t("neighbours.alt", identity=near.identity))
        picture = (
            f'<img class="fl-thumb" src="data:image/jpeg;base64,{escape(near.thumbnail)}" '
            f'alt="{alt}" style="width:56px">'
        )
    distance = escape(t("neighbours.distance", value=near.distance))
    return (
        f'<li class="{"ok" if near.is_same else "plain"}">{picture}<b>{escape(near.identity)}</b>'
        f"<span>{distance} {escape(said)}</span></li>"
    )


def boxes(t: Texts, model: Model, said: Boxes, tones: Tones) -> str:
    """How many of each label were found, and the next step; or that the picture is unknown."""
    if said.is_ood:
        return (
            f'<div class="fl-ood"><h2>{escape(t("answer.ood"))}</h2>'
            f"<p>{escape(t('answer.ood_hint'))}</p></div>"
        )
    counts = said.counts(model.bundle.labels)
    n_all = sum(counts.values())
    title = t("boxes.none") if not n_all else t("boxes.found", n=n_all)
    likely = count_intervals(said, model.bundle)
    rows = "".join(
        f'<li class="{tones.get(label, "plain")}"><span class="fl-n">{n}</span>'
        f"<b>{escape(t.label(model.task, label, model.names))}</b>{_likely(t, likely.get(label))}"
        f"</li>"
        for label, n in counts.items()
    )
    note = f'<p class="fl-small">{escape(t("boxes.likely_note"))}</p>' if likely else ""
    gravest = max(
        (label for label, n in counts.items() if n),
        key=lambda label: _GRAVITY.index(tones.get(label, "plain")),
        default=None,
    )
    step = _next_step(t, model, gravest) if gravest else ""
    return (
        f'<div class="fl-say"><h2>{escape(title)}</h2></div>'
        f'<ol class="fl-faces" aria-label="{escape(t("boxes.counts"))}">{rows}</ol>{note}{step}'
    )


def _likely(t: Texts, ends: tuple[int, int] | None) -> str:
    if ends is None:
        return ""
    return f"<span>{escape(t('boxes.likely', low=ends[0], high=ends[1]))}</span>"


#: By kind of the task, what the phone shows of a picture's answer.
PANELS: Mapping[str, Callable[[Texts, Model, Any, Tones], str]] = {
    "classification": answer,
    "detection": boxes,
    "segmentation": regions,
    "embedding": neighbours,
}


def short(t: Texts, model: Model, said: Any) -> str:
    """An answer of any kind in a word, for a button; a sign where there is none."""
    if isinstance(said, Prediction):
        return t.label(model.task, said.label, model.names)
    near = said.neighbours if isinstance(said, Embedding) else ()
    return near[0].identity if near else "·"


def _headline(t: Texts, model: Model, said: Prediction, tones: Tones) -> str:
    """The label in words and its probability."""
    name = escape(t.label(model.task, said.label, model.names))
    percent = escape(t("answer.probability", value=said.probabilities[said.label]))
    tone = tones.get(said.label, "plain")
    return f'<div class="fl-say {tone}"><h2>{name}</h2><span class="fl-pct">{percent}</span></div>'


def _bars(t: Texts, model: Model, said: Prediction) -> str:
    """Probabilities as bars, the largest first, with the alarm threshold where there is one."""
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
            f"<span>{escape(t.label(model.task, label, model.names))}</span>"
            f'<span class="fl-num">{escape(t("answer.probability", value=value))}</span>'
            f'<span class="fl-track" aria-hidden="true"><i style="width:{value:.1%}"></i>{mark}'
            f"</span></li>"
        )
    return (
        f'<ul class="fl-bars" aria-label="{escape(t("answer.bars"))}">{"".join(rows)}</ul>'
        f'<p class="fl-small">{escape(t("answer.bars"))}</p>'
    )


def _alarms(t: Texts, model: Model, said: Prediction) -> str:
    """Which labels with an operating point reach it, and which do not.

    Where there are many, only those that do and the answer's own: six green lines about what it is
    not would hide the one that matters.
    """
    chips = [
        f'<span class="fl-chip {"alarm" if reached else "ok"}">'
        f"{'▲' if reached else '▽'} "
        f"{escape(t(_ALARM_KEYS[reached], label=t.label(model.task, label, model.names)))}</span>"
        for label, reached in said.positives.items()
        if reached or label == said.label or len(said.positives) <= _FEW_POINTS
    ]
    return f'<div class="fl-chips">{"".join(chips)}</div>' if chips else ""


def _next_step(t: Texts, model: Model, label: str) -> str:
    """What to do next, from the card."""
    step = model.card.next_steps.get(label) if model.card else None
    if step is None:
        return ""
    words = t.of_card(model.task, f"next_steps.{label}", step)
    return f'<p class="fl-next"><b>{escape(t("answer.next"))}</b>{escape(words)}</p>'


def truth(t: Texts, task: str, shot: Shot, names: Mapping[str, str] | None = None) -> str:
    """Whether the answer is the true label, where that is known; none out of distribution."""
    if shot.truth is None:
        return ""
    said = shot.main
    outcome = "none" if said.is_ood else "right" if shot.truth == said.label else "wrong"
    tone, sign = _OUTCOMES[outcome]
    words = t(f"answer.truth_{outcome}", label=t.label(task, shot.truth, names))
    return f'<span class="fl-chip {tone}">{sign} {escape(words)}</span>'


def latency(t: Texts, milliseconds: float) -> str:
    """How long it took, with processor and threads."""
    words = t(
        "answer.latency",
        milliseconds=milliseconds,
        processor=processor(),
        threads=threads(t),
    )
    return f'<p class="fl-small">{escape(words)}</p>'


def threads(t: Texts) -> str:
    """The number of threads in words."""
    return t("answer.threads_one") if N_THREADS == 1 else t("answer.threads_many", n=N_THREADS)


def faces(t: Texts, model: Model, scene: Scene, tones: Tones) -> str:
    """One line a face, numbered as its box."""
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
    """The tone of an answer; plain where the picture is out of distribution."""
    return "plain" if prediction.is_ood else tones.get(prediction.label, "plain")


def box_colour(tone: Tone) -> str:
    """The colour of a box, as CSS and Pillow write it."""
    return _BOX_COLOURS[tone]


def _face(t: Texts, model: Model, number: int, face: Face, tones: Tones) -> str:
    prediction = face.prediction
    words = (
        t("answer.ood") if prediction.is_ood else t.label(model.task, prediction.label, model.names)
    )
    value = prediction.probabilities[prediction.label]
    percent = "" if prediction.is_ood else t("answer.probability", value=value)
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
