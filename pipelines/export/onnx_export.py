"""A float model -> an ONNX file that takes uint8 RGB pictures.

Normalisation is inside the file, so that nobody can forget it. The same exporter makes the released
model and the frozen trunk that training caches.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.backbones.folding import fold_batch_norms
from pipelines.backbones.heads import Classifier
from pipelines.backbones.layers import replaced
from pipelines.errors import ParityError
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME, softmax
from pipelines.serving.sessions import make_session

INPUT_NAME = "image"
ACTIVATIONS_NAME = "activations"

#: ONNX Runtime 1.31 and onnxruntime-web know it; later ones add nothing that these networks use.
_OPSET = 20
#: Largest difference of a probability between torch and the file.
_TOLERANCE = 1e-3


class TakesBytes(nn.Module):
    """Normalisation, then a module that takes normalised pixels."""

    def __init__(self, module: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.module = module
        # Planes first: scaling along the last axis takes ONNX Runtime fifteen times as long.
        deviation = torch.tensor(std, dtype=torch.float32)[:, None, None]
        self.register_buffer("scale", 1 / (255 * deviation))
        self.register_buffer("shift", -torch.tensor(mean)[:, None, None] / deviation)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Whatever the module gives for (n, h, w, 3) pictures in [0, 255]."""
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        pixels = image.permute(0, 3, 1, 2).to(torch.float32) * scale + shift
        result: Tensor | tuple[Tensor, Tensor] = self.module(pixels)
        return result


class _Trunk(nn.Module):
    """The trunk of a classifier, as a module."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*model.blocks[: model.cut])

    def forward(self, pixels: Tensor) -> Tensor:
        """Activations at the cut."""
        activations: Tensor = self.blocks(pixels)
        return activations


class _Mean(nn.Module):
    """The mean over a picture, which stays one of 1x1."""

    def forward(self, values: Tensor) -> Tensor:
        """(n, c, 1, 1) of (n, c, h, w)."""
        return values.mean(dim=(2, 3), keepdim=True)


def classifier_onnx(
    model: Classifier, image_px: int, mean: Sequence[float], std: Sequence[float]
) -> bytes:
    """The whole model as one file: uint8 pictures in, logits and embedding out.

    Args:
        mean: RGB, of pixels in [0, 1].
        std: likewise.
    """
    return _to_onnx(model, image_px, mean, std, [LOGITS_NAME, EMBEDDING_NAME])


def trunk_onnx(
    model: Classifier, image_px: int, mean: Sequence[float], std: Sequence[float]
) -> bytes:
    """The frozen trunk in the same manner: uint8 pictures in, activations at the cut out."""
    return _to_onnx(_Trunk(model), image_px, mean, std, [ACTIVATIONS_NAME])


def _to_onnx(
    module: nn.Module,
    image_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    output_names: list[str],
) -> bytes:
    # This layer becomes nine operators, among them an index of each of its values.
    network = replaced(
        fold_batch_norms(module),
        lambda layer: isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size in (1, (1, 1)),
        lambda _: _Mean(),
    )
    for layer in network.modules():
        # The exporter takes an operation that changes its input apart, which takes half its time.
        if getattr(layer, "inplace", False):
            setattr(layer, "inplace", False)  # noqa: B010
    wrapped = TakesBytes(network, mean, std).eval()
    example = torch.zeros(2, image_px, image_px, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        # torch's and onnxscript's own deprecations; nothing that a user could act on.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            wrapped,
            (example,),
            None,
            input_names=[INPUT_NAME],
            output_names=output_names,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    if program is None:
        raise RuntimeError("torch.onnx.export gave no program")
    proto = program.model_proto
    graph = proto.graph
    named = (graph.node, graph.value_info, graph.input, graph.output, graph.initializer)
    for part in (proto, graph, *itertools.chain(*named)):
        # Names of source files and lines: they differ between machines, and nobody runs them.
        del part.metadata_props[:]
    data: bytes = proto.SerializeToString(deterministic=True)
    return data


def check_parity(
    model: Classifier,
    onnx_model: bytes,
    pixels: NDArray[np.uint8],
    mean: Sequence[float],
    std: Sequence[float],
    *,
    compared: Callable[[NDArray[np.float32]], NDArray[np.float32]] = softmax,
) -> float:
    """The largest difference between the float model and its ONNX form.

    Args:
        pixels: (n, image_px, image_px, 3) real pictures.
        compared: what of the head's outputs is compared; by default probabilities.

    Raises:
        ParityError: if it is above the tolerance, or the largest value of a picture has another
            place.
    """
    with torch.inference_mode():
        # As it is: where norms were trained, their folding is part of what is checked.
        reference, _ = TakesBytes(copy.deepcopy(model).eval(), mean, std)(torch.from_numpy(pixels))
    logits = make_session(onnx_model).run([LOGITS_NAME], {INPUT_NAME: pixels})[0]
    expected, got = (
        compared(each).reshape(len(pixels), -1) for each in (reference.numpy(), logits)
    )
    return checked_gap(expected, got, "the ONNX file disagrees with the float model")


def checked_gap(
    expected: NDArray[np.float32],
    got: NDArray[np.float32],
    complaint: str,
    tolerance: float = _TOLERANCE,
) -> float:
    """The largest difference of a value between two forms of one model.

    Args:
        expected: (n, k) of the one, n > 0, as the kind compares them.
        got: of the other, for the same pictures.
        complaint: which two disagree, if they do.

    Raises:
        ParityError: if it is above the tolerance, or a largest value has another place.
    """
    gaps = np.abs(expected - got).max(axis=1)
    worst = int(gaps.argmax())
    # Two values closer than the tolerance may change places without meaning anything.
    ordered = np.sort(expected, axis=1)
    is_clear = ordered[:, -1] - ordered[:, -2:][:, 0] > tolerance
    flips = (expected.argmax(axis=1) != got.argmax(axis=1)) & is_clear
    # Not a number is no agreement.
    if not gaps.max() <= tolerance or flips.any():
        raise ParityError(
            f"{complaint}: largest difference "
            f"{gaps[worst]:.2e} (tolerance {tolerance:.0e}, image {worst}), {int(flips.sum())} of "
            f"{len(gaps)} largest values have another place. Do not use it; report this with the "
            f"versions that `fieldlens doctor` prints."
        )
    return float(gaps[worst])
