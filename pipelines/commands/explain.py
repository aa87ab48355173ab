"""`fieldlens explain`: which places of a picture speak for a label, as PNG files.

Occlusion asks the file that is served, and loads what `predict` loads; Grad-CAM asks its float
parent, and loads torch.
"""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from pipelines.atomic import write_bytes
from pipelines.columns import shown
from pipelines.commands.answer import Answer
from pipelines.commands.predict import SAMPLE_WARNING, add_model_arguments, find_bundle
from pipelines.data.images import open_image
from pipelines.errors import BundleError, ConfigError, CorruptImageError
from pipelines.paths import Paths
from pipelines.serving.occlusion import heatmap_png, occlusion_map
from pipelines.serving.predictor import Predictor

Method = Literal["occlusion", "gradcam"]
#: Of an image's name that go into its map's name; the label, the method and a number follow.
_MAX_STEM_BYTES = 120
#: The brightest colour of an occlusion map stands for halved odds at least: where no place matters
#: much, noise would be drawn as a finding.
_LEAST_FULL_HEAT = math.log(2.0)


@dataclass(frozen=True, slots=True)
class _Finding:
    """A map, and what its picture says."""

    #: (side, side), above 0 where the place speaks for the label.
    heat: NDArray[np.float32]
    #: (n_classes,), of the model that is explained.
    logits: NDArray[np.float32]
    #: Value of the brightest colour, and what it means.
    full_heat: float
    hottest: str
    summary: str


#: From pixels, and the index of a label or None for the answer's own, to a map.
_Explainer = Callable[[NDArray[np.uint8], int | None], _Finding]


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
    parser.add_argument("--label", help="which label; default: the answer")
    parser.add_argument(
        "--out", type=Path, default=Path("explanations"), metavar="DIR", help="default: %(default)s"
    )


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """One PNG a picture; a bad picture is complained about and the others explained."""
    method: Method = arguments.method
    path = find_bundle(paths, arguments.task, arguments.bundle)
    predictor = Predictor.load(path, n_threads=os.cpu_count() or 1)
    labels = predictor.bundle.labels
    if not predictor.kind.is_explained:
        raise ConfigError(
            f"{path}: of the kind {predictor.bundle.kind} no label is explained by its places. "
            f"`fieldlens predict` says what the model answers."
        )
    if arguments.label not in (None, *labels):
        raise ConfigError(
            f"--label: expected one of {', '.join(labels)} (got {arguments.label!r})."
        )
    wanted = None if arguments.label is None else labels.index(arguments.label)
    explain = _occlusion(predictor) if method == "occlusion" else _grad_cam(predictor, path)
    lines, complaints, names = [], [], set[str]()
    for image in arguments.images:
        try:
            picture = open_image(image, reading=predictor.reading).rgb
        except CorruptImageError as err:
            complaints.append(str(err))
            continue
        pixels = predictor.pixels(picture)
        finding = explain(pixels, wanted)
        probabilities = predictor.probabilities(finding.logits[np.newaxis])[0]
        index = int(probabilities.argmax()) if wanted is None else wanted
        said = f"{labels[index]} {probabilities[index]:.3f}"
        caption = _caption(predictor, method, said, labels[int(probabilities.argmax())])
        # A file system's names are counted in bytes, 255 of them.
        stem = os.fsdecode(os.fsencode(image.stem)[:_MAX_STEM_BYTES])
        file = arguments.out / _free_name(f"{stem}.{labels[index]}.{method}", names)
        png = heatmap_png(
            pixels,
            finding.heat,
            [*caption, finding.summary],
            full_heat=finding.full_heat,
            coldest="nothing",
            hottest=finding.hottest,
        )
        write_bytes(file, png)
        named = f"{predictor.bundle.name_of(labels[index])} {probabilities[index]:.3f}"
        lines.append(f"{shown(str(image))}: {named}; {finding.summary}: {shown(str(file))}")
    if predictor.bundle.is_sample and lines:
        lines.insert(0, SAMPLE_WARNING)
    return Answer("\n".join(lines), tuple(complaints), exit_code=2 if complaints else 0)


def _caption(predictor: Predictor, method: Method, said: str, answer: str) -> list[str]:
    bundle = predictor.bundle
    which = f"{predictor.precision}, the file served" if method == "occlusion" else "float model"
    lines = [said, f"{bundle.task}, {method} of the {which}"]
    if not said.startswith(f"{answer} "):
        lines[0] += f" (the answer is {answer})"
    if bundle.is_sample:
        lines.append(SAMPLE_WARNING)
    return lines


def _occlusion(predictor: Predictor) -> _Explainer:
    def explain(pixels: NDArray[np.uint8], wanted: int | None) -> _Finding:
        logits = predictor.run(pixels[np.newaxis])[0][0]
        index = int(logits.argmax()) if wanted is None else wanted
        heat = occlusion_map(lambda batch: predictor.run(batch)[0], pixels, index)
        evidence = float(heat.max())
        full_heat = max(evidence, _LEAST_FULL_HEAT)
        return _Finding(
            heat, logits, full_heat, f"odds / {math.exp(min(full_heat, 99.0)):.3g}", _odds(evidence)
        )

    return explain


def _odds(evidence: float) -> str:
    """What the hottest place means: by how much the odds fall when it is covered."""
    if evidence <= 0:
        return "no place that was covered speaks for it"
    return f"covering the hottest place divides the odds by {math.exp(min(evidence, 99.0)):.3g}"


def _grad_cam(predictor: Predictor, path: Path) -> _Explainer:
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

    def explain(pixels: NDArray[np.uint8], wanted: int | None) -> _Finding:
        heat, logits = grad_cam(model, pixels, wanted, meta.mean, meta.std)
        peak = float(heat.max())
        summary = "where the logit comes from" if peak > 0 else "no place speaks for it"
        return _Finding(heat, logits, peak, "most", summary)

    return explain


def _free_name(stem: str, taken: set[str]) -> str:
    """A file name that no other picture of this run has."""
    name, number = f"{stem}.png", 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}.{number}.png"
    taken.add(name.casefold())
    return name
