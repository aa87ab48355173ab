"""`fieldlens explain`: which places of a picture speak for an answer, as PNG files.

Occlusion asks the file that is served, and loads what `predict` loads; Grad-CAM asks its float
parent for a label, and loads torch. What a kind without scores of labels is asked about, the kind
says (`ServedKind.evidence`).
"""

from __future__ import annotations

import argparse
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from pipelines.atomic import write_bytes
from pipelines.columns import shown
from pipelines.commands.answer import Answer
from pipelines.commands.predict import SAMPLE_WARNING, add_model_arguments, find_bundle
from pipelines.data.images import open_image
from pipelines.errors import BundleError, ConfigError, CorruptImageError
from pipelines.paths import Paths
from pipelines.serving.occlusion import falls, heatmap_png, occlusion_map
from pipelines.serving.predictor import Predictor

Method = Literal["occlusion", "gradcam"]
#: Of an image's name that go into its map's name; the label, the method and a number follow.
_MAX_STEM_BYTES = 120
_MAX_NAME = 80
#: The brightest colour of an occlusion map stands for halved odds at least: where no place matters
#: much, noise would be drawn as a finding.
_LEAST_FULL_HEAT = math.log(2.0)


@dataclass(frozen=True, slots=True)
class _Finding:
    """A map, and what its picture says."""

    #: (side, side, 3), as the model sees the picture, maybe with a box drawn.
    pixels: NDArray[np.uint8]
    #: (side, side), above 0 where the place speaks for the answer.
    heat: NDArray[np.float32]
    #: Of what is explained: for the file's name, on the picture, and in the terminal.
    name: str
    caption: str
    said: str
    #: Value of the brightest colour, and what it means.
    full_heat: float
    hottest: str
    summary: str


#: From pixels to a map.
_Explainer = Callable[[NDArray[np.uint8]], _Finding]
#: Around the box that is explained.
_BOX_RGB = (0, 158, 115)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Pictures, the model, how to look and where to write."""
    parser.add_argument("images", nargs="+", type=Path, metavar="IMAGE")
    add_model_arguments(parser)
    parser.add_argument(
        "--method",
        choices=("occlusion", "gradcam"),
        default="occlusion",
        help="occlusion asks the served file (default), gradcam its float parent",
    )
    parser.add_argument("--label", help="which label, or identity; default: the answer")
    parser.add_argument(
        "--out", type=Path, default=Path("explanations"), metavar="DIR", help="default: %(default)s"
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """One PNG a picture; a bad picture is complained about and the others explained."""
    method: Method = arguments.method
    path = find_bundle(paths, arguments.task, arguments.bundle)
    predictor = Predictor.load(path, n_threads=os.cpu_count() or 1)
    _check(predictor, path, method, arguments.label)
    explain = _explainer(predictor, path, method, arguments.label)
    lines, complaints, names = [], [], set[str]()
    for image in arguments.images:
        try:
            picture = open_image(image, reading=predictor.reading).rgb
            finding = explain(predictor.pixels(picture))
        except CorruptImageError as err:
            complaints.append(str(err))
            continue
        except ValueError as err:
            complaints.append(f"{shown(str(image))}: {err}.")
            continue
        caption = [finding.caption, _which(predictor, method)]
        if predictor.bundle.is_sample:
            caption.append(SAMPLE_WARNING)
        # A file system's names are counted in bytes, 255 of them.
        stem = os.fsdecode(os.fsencode(image.stem)[:_MAX_STEM_BYTES])
        # An identity may be called anything.
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", finding.name)[:_MAX_NAME]
        file = arguments.out / _free_name(f"{stem}.{name}.{method}", names)
        png = heatmap_png(
            finding.pixels,
            finding.heat,
            [*caption, finding.summary],
            full_heat=finding.full_heat,
            coldest="nothing",
            hottest=finding.hottest,
        )
        write_bytes(file, png)
        lines.append(f"{shown(str(image))}: {finding.said}; {finding.summary}: {shown(str(file))}")
    if predictor.bundle.is_sample and lines:
        lines.insert(0, SAMPLE_WARNING)
    return Answer("\n".join(lines), tuple(complaints), exit_code=2 if complaints else 0)


def _check(predictor: Predictor[Any], path: Path, method: Method, label: str | None) -> None:
    """Nothing, if the model can be explained, in this way, for this label.

    Raises:
        ConfigError: says why not, and what to do instead.
    """
    bundle, kind = predictor.bundle, predictor.kind
    if not kind.is_explained and kind.not_explained:
        raise ConfigError(f"{path}: of the kind {bundle.kind} {kind.not_explained}.")
    if method == "gradcam" and not kind.is_explained:
        raise ConfigError(
            f"--method gradcam: is of scores of labels, and {path} is of the kind {bundle.kind}. "
            f"Leave it out: occlusion asks the served file."
        )
    if label is not None and bundle.labels and label not in bundle.labels:
        raise ConfigError(f"--label: expected one of {', '.join(bundle.labels)} (got {label!r}).")


def _explainer(
    predictor: Predictor[Any], path: Path, method: Method, label: str | None
) -> _Explainer:
    if not predictor.kind.is_explained:
        return _by_evidence(predictor, label)
    wanted = None if label is None else predictor.bundle.labels.index(label)
    if method == "gradcam":
        return _grad_cam(predictor, path, wanted)
    return _occlusion(predictor, wanted)


def _which(predictor: Predictor[Any], method: Method) -> str:
    which = f"{predictor.precision}, the file served" if method == "occlusion" else "float model"
    return f"{predictor.bundle.task}, {method} of the {which}"


def _of_label(
    predictor: Predictor[Any], logits: NDArray[np.float32], wanted: int | None
) -> tuple[str, str, str]:
    """`name`, `caption` and `said` of a label's finding.

    Args:
        logits: (n_classes,), of the model that is explained.
        wanted: number of the label; None for the answer's own.
    """
    bundle = predictor.bundle
    probabilities = predictor.probabilities(logits[np.newaxis])[0]
    answer = int(probabilities.argmax())
    index = answer if wanted is None else wanted
    label = bundle.labels[index]
    beside = "" if index == answer else f" (the answer is {bundle.labels[answer]})"
    sure = f"{probabilities[index]:.3f}"
    return label, f"{label} {sure}{beside}", f"{bundle.name_of(label)} {sure}"


def _by_evidence(predictor: Predictor[Any], label: str | None) -> _Explainer:
    def explain(pixels: NDArray[np.uint8]) -> _Finding:
        outputs = {name: of[0] for name, of in predictor.outputs(pixels[np.newaxis]).items()}
        asked = predictor.kind.evidence(outputs, predictor.bundle, label)
        heat = falls(lambda batch: asked.score(predictor.outputs(batch)), pixels)
        most = float(heat.max())
        summary = "no place that was covered speaks for it"
        if most > 0:
            summary = f"covering the hottest place {asked.fall.format(most)}"
        full_heat = max(most, asked.least)
        return _Finding(
            pixels if asked.box is None else _boxed(pixels, asked.box),
            heat,
            *(asked.name, asked.said, asked.said),
            full_heat=full_heat,
            hottest=f"- {full_heat:.2g}",
            summary=summary,
        )

    return explain


def _boxed(pixels: NDArray[np.uint8], box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    picture = Image.fromarray(pixels)
    ImageDraw.Draw(picture).rectangle(box, outline=_BOX_RGB, width=2)
    return np.asarray(picture)


def _occlusion(predictor: Predictor[Any], wanted: int | None) -> _Explainer:
    def explain(pixels: NDArray[np.uint8]) -> _Finding:
        logits = predictor.run(pixels[np.newaxis])[0][0]
        index = int(logits.argmax()) if wanted is None else wanted
        heat = occlusion_map(lambda batch: predictor.run(batch)[0], pixels, index)
        evidence = float(heat.max())
        full_heat = max(evidence, _LEAST_FULL_HEAT)
        return _Finding(
            pixels,
            heat,
            *_of_label(predictor, logits, wanted),
            full_heat=full_heat,
            hottest=f"odds / {math.exp(min(full_heat, 99.0)):.3g}",
            summary=_odds(evidence),
        )

    return explain


def _odds(evidence: float) -> str:
    """What the hottest place means: by how much the odds fall when it is covered."""
    if evidence <= 0:
        return "no place that was covered speaks for it"
    return f"covering the hottest place divides the odds by {math.exp(min(evidence, 99.0)):.3g}"


def _grad_cam(predictor: Predictor[Any], path: Path, wanted: int | None) -> _Explainer:
    # torch takes seconds to load, and occlusion does without.
    from pipelines.training.float_model import load_float_model
    from pipelines.training.gradient_map import grad_cam

    folder = path.parent.parent / "float"
    meta, model, sha256 = load_float_model(folder)
    expected = predictor.bundle.provenance.float_sha256
    if sha256 != expected:
        raise BundleError(
            f"{folder}: is not the float model that {path} was exported from: expected sha256 "
            f"{expected[:12]}…, got {sha256[:12]}…. Run `dvc repro export@{meta.task}`."
        )

    def explain(pixels: NDArray[np.uint8]) -> _Finding:
        heat, logits = grad_cam(model, pixels, wanted, meta.mean, meta.std)
        peak = float(heat.max())
        summary = "where the logit comes from" if peak > 0 else "no place speaks for it"
        of_label = _of_label(predictor, logits, wanted)
        return _Finding(pixels, heat, *of_label, full_heat=peak, hottest="most", summary=summary)

    return explain


def _free_name(stem: str, taken: set[str]) -> str:
    """A file name that no other picture of this run has."""
    name, number = f"{stem}.png", 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}.{number}.png"
    taken.add(name.casefold())
    return name
