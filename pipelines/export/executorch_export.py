"""A float model -> ExecuTorch programs that take one uint8 RGB picture, in float32 and int8.

They answer as the ONNX files do: logits, and an embedding of two levels. ONNX files get the second
level by a change of the graph (`graphs.with_inner_features`); here a tap in the network gives it,
so that the quantiser sees it as it sees all the rest. XNNPACK computes everything behind the cast.

executorch and torchao are an extra, take seconds to import and are imported where they are needed
(ADR 0030).

References:
    ExecuTorch 1.x documentation, "XNNPACK backend" and "Quantization (PyTorch 2 Export)".
"""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.backbones.folding import fold_batch_norms
from pipelines.backbones.heads import Classifier
from pipelines.errors import ConfigError, ParityError
from pipelines.export.onnx_export import TakesBytes, checked_gap
from pipelines.export.trusted import Outputs
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME, softmax

#: In the order in which a program gives them; it knows no names.
OUTPUT_NAMES = (LOGITS_NAME, EMBEDDING_NAME)

#: Side of the picture by which the last convolution with a kernel is found.
_SIDE_PX = 64


def require_executorch() -> None:
    """Nothing, if programs can be made here.

    Raises:
        ConfigError: if a package of the extra is missing.
    """
    absent = [name for name in ("executorch", "torchao") if importlib.util.find_spec(name) is None]
    if absent:
        raise ConfigError(
            f"{' and '.join(absent)} is not installed, which programs for phones are made with. "
            f"Install it: pip install 'fieldlens[train,executorch]'."
        )


class TwoLevels(nn.Module):
    """A classifier whose embedding is that of the released ONNX file.

    Attributes:
        blocks: of the classifier, batch norms folded.
        head: of the classifier.
    """

    def __init__(self, model: Classifier) -> None:
        """Copy a classifier and tap it.

        Args:
            model: any; it is not changed.

        Raises:
            ValueError: if there is no convolution.
        """
        super().__init__()
        network = fold_batch_norms(model)
        for layer in network.modules():
            # An operation that changes its input in place is none that the quantiser knows.
            if getattr(layer, "inplace", False):
                setattr(layer, "inplace", False)  # noqa: B010
        self.blocks, self.head = network.blocks, network.head
        tapped = _last_with_kernel(network)
        self._read: list[Tensor] = []
        tapped.register_forward_pre_hook(lambda _, values: self._read.append(values[0]))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (n, n_classes) and levels (n, d), (n, e) of normalised (n, 3, h, w) pixels."""
        self._read.clear()
        maps = pixels
        for block in self.blocks:
            maps = block(maps)
        head = _mean(maps)
        inner = _mean(self._read.pop())
        return self.head(head), head, inner


class _TakesBytes(TakesBytes):
    """The same normalisation, cast before the planes are turned.

    XNNPACK turns floats; bytes it leaves to ExecuTorch's plain kernel, which takes 0.4 ms longer.
    """

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """Whatever the module gives for (n, h, w, 3) pictures in [0, 255]."""
        scale, shift = self.get_buffer("scale"), self.get_buffer("shift")
        pixels = image.to(torch.float32).permute(0, 3, 1, 2) * scale + shift
        result: Tensor | tuple[Tensor, Tensor] = self.module(pixels)
        return result


class _Joined(nn.Module):
    """Logits and embedding of a network that gives the levels apart.

    Joined behind the quantised network: the quantiser would give both levels one scale of eight
    bits, which leaves nothing of small values, whose roots then call every picture unknown.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, n_classes) and embedding (n, d + e) of normalised (n, 3, h, w) pixels."""
        logits, head, inner = self.network(pixels)
        return logits, torch.cat([head, inner], dim=1)


def _mean(maps: Tensor) -> Tensor:
    """(n, c, h, w) to (n, c), as XNNPACK knows a mean: with the axes kept."""
    return maps.mean(dim=(2, 3), keepdim=True).flatten(1)


def _last_with_kernel(network: Classifier) -> nn.Conv2d:
    """The convolution that runs last of those with a kernel; of all, where every kernel is 1x1."""
    ran: list[nn.Conv2d] = []
    handles = [
        layer.register_forward_hook(lambda layer, *_: ran.append(layer))
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.inference_mode():
        network(torch.zeros(1, 3, _SIDE_PX, _SIDE_PX))
    for handle in handles:
        handle.remove()
    if not ran:
        raise ValueError("the network has no convolution")
    return ([layer for layer in ran if max(layer.kernel_size) > 1] or ran)[-1]


def phone_network(model: Classifier, mean: Sequence[float], std: Sequence[float]) -> nn.Module:
    """What becomes a program in float32: uint8 pictures in, logits and embedding out.

    Args:
        model: a trained classifier; it is not changed.
        mean: RGB, of pixels in [0, 1].
        std: RGB, of pixels in [0, 1].
    """
    return _TakesBytes(_Joined(TwoLevels(model)), mean, std).eval()


def float_program(
    model: Classifier, image_px: int, mean: Sequence[float], std: Sequence[float]
) -> bytes:
    """A program in float32 that takes one picture.

    Args:
        model: a trained classifier.
        image_px: side of its input.
        mean: RGB, of pixels in [0, 1].
        std: RGB, of pixels in [0, 1].

    Returns:
        The bytes of a .pte file: input uint8 (1, image_px, image_px, 3), outputs as
        `OUTPUT_NAMES`.
    """
    with _quiet():
        return _lowered(phone_network(model, mean, std), image_px)


def int8_program(
    model: Classifier,
    image_px: int,
    mean: Sequence[float],
    std: Sequence[float],
    batches: Sequence[NDArray[np.uint8]],
) -> bytes:
    """A program whose weights are int8 by channel and whose activations are int8 by tensor.

    Args:
        model: a trained classifier.
        image_px: side of its input.
        mean: RGB, of pixels in [0, 1].
        std: RGB, of pixels in [0, 1].
        batches: calibration pictures, each (n, image_px, image_px, 3).

    Returns:
        The bytes of a .pte file, as `float_program` gives them.
    """
    normalised = _TakesBytes(nn.Identity(), mean, std)
    with _quiet():
        from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        config = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
        quantizer = xnnpack_quantizer.XNNPACKQuantizer().set_global(config)
        # Calibrated in batches, lowered for one picture: a phone has one.
        example = torch.zeros(2, 3, image_px, image_px)
        dynamic = ({0: torch.export.Dim("batch")},)
        network = TwoLevels(model).eval()
        exported = torch.export.export(network, (example,), dynamic_shapes=dynamic).module()
        prepared = prepare_pt2e(exported, quantizer)
        with torch.no_grad():
            for batch in batches:
                prepared(normalised(torch.from_numpy(batch)))
        return _lowered(_TakesBytes(_Joined(convert_pt2e(prepared)), mean, std), image_px)


def _lowered(network: nn.Module, image_px: int) -> bytes:
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    example = torch.zeros(1, image_px, image_px, 3, dtype=torch.uint8)
    exported = torch.export.export(network, (example,))
    edge = to_edge_transform_and_lower(exported, partitioner=[XnnpackPartitioner()])
    return bytes(edge.to_executorch().buffer)


class Program:
    """A program that can be asked, on one thread."""

    def __init__(self, program: bytes) -> None:
        """Load it.

        Args:
            program: bytes of a .pte file.
        """
        with _quiet():
            from executorch.extension.pybindings import portable_lib
            from executorch.runtime import Runtime

            # The only control of threads that there is; it is the process's.
            portable_lib._unsafe_reset_threadpool(1)
            # The method reads the bytes where they lie.
            self._bytes = program
            self._program = Runtime.get().load_program(program)
            self._forward = self._program.load_method("forward")
        meta = self._forward.metadata
        self.input_shape = tuple(meta.input_tensor_meta(0).sizes())
        self.output_shapes = tuple(
            tuple(meta.output_tensor_meta(index).sizes()) for index in range(meta.num_outputs())
        )

    def ask(self, names: Sequence[str], pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """Outputs of pictures, which go through one after the other.

        Args:
            names: of the outputs that are wanted, some of `OUTPUT_NAMES`.
            pixels: (n, h, w, 3), n > 0.

        Returns:
            For each name (n, …).
        """
        # Copied: the next call writes into the same memory.
        answers = [
            [np.array(output.numpy()) for output in self.execute(picture)]
            for picture in np.ascontiguousarray(pixels)
        ]
        outputs = [np.concatenate(parts) for parts in zip(*answers, strict=True)]
        return [outputs[OUTPUT_NAMES.index(name)] for name in names]

    def execute(self, picture: NDArray[np.uint8]) -> Sequence[Tensor]:
        """Outputs of one picture, which the next call overwrites.

        Args:
            picture: (h, w, 3).
        """
        outputs: Sequence[Tensor] = self._forward.execute([torch.from_numpy(picture)[None]])
        return outputs


def check_program(reference: Outputs, outputs: Outputs, *, tolerance: float = 1e-3) -> float:
    """The largest difference of a probability between an ONNX file and a program in float32.

    Args:
        reference: of the ONNX file, by name.
        outputs: of the program, for the same pictures.
        tolerance: largest difference allowed, also of the embedding, there as a share of its
            largest value.

    Raises:
        ParityError: if it is larger, or one top label differs.
    """
    complaint = "the program in float32 disagrees with the ONNX file"
    gap = checked_gap(
        softmax(reference[LOGITS_NAME]), softmax(outputs[LOGITS_NAME]), complaint, tolerance
    )
    wanted, got = reference[EMBEDDING_NAME], outputs[EMBEDDING_NAME]
    apart = float(np.abs(wanted - got).max() / np.abs(wanted).max())
    if not apart <= tolerance:
        raise ParityError(
            f"{complaint}: embeddings differ by {apart:.2e} of their largest value (tolerance "
            f"{tolerance:.0e}). Do not use it; report this with the versions that "
            f"`fieldlens doctor` prints."
        )
    return gap


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hide what the libraries say of themselves: deprecations, and kernels for other machines."""
    loggers = [logging.getLogger(), logging.getLogger("torchao")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
