"""A float model -> ExecuTorch programs that take one uint8 RGB picture, in float32 and int8.

They answer as the ONNX files do: logits, and an embedding of two levels. ONNX files get the second
level by a change of the graph (`graphs.with_inner_features`), programs by a tap in the network.
XNNPACK computes everything behind the cast.

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
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pipelines.backbones.folding import fold_batch_norms
from pipelines.backbones.heads import Classifier
from pipelines.errors import ConfigError, ParityError
from pipelines.export.graphs import WeightGraph
from pipelines.export.onnx_export import TakesBytes, checked_gap, classifier_onnx
from pipelines.export.quantize import FLOAT_BLOCKS, equalized, rounded, stem_nodes
from pipelines.export.trusted import Outputs
from pipelines.serving.answer import EMBEDDING_NAME
from pipelines.serving.classification import LOGITS_NAME, softmax

#: In the order in which a program gives them; it knows no names.
OUTPUT_NAMES = (LOGITS_NAME, EMBEDDING_NAME)

#: What is float32 in a program in int8, by the names of a `Classifier`'s parts.
FLOAT_PARTS = (*(f"blocks.{index}" for index in range(FLOAT_BLOCKS)), "head")
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


class _Maps(nn.Module):
    """The blocks of a classifier, and what its last convolution with a kernel reads."""

    def __init__(self, blocks: Sequence[nn.Module], tapped: nn.Module) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self._read: list[Tensor] = []
        tapped.register_forward_pre_hook(lambda _, values: self._read.append(values[0]))

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Maps, (n, d, h, w) and (n, e, h', w'), of what the first block reads."""
        self._read.clear()
        for block in self.blocks:
            maps = block(maps)
        return maps, self._read.pop()


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


class _Answers(nn.Module):
    """Logits and embedding, from a network that gives maps.

    Means and head are float32 in int8 programs, too: the quantiser gives a mean the scale of what
    it reads, and both levels of an embedding one scale, which leaves nothing of small values, whose
    roots then call every picture unknown.
    """

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = head

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (n, n_classes) and embedding (n, d + e) of normalised (n, 3, h, w) pixels."""
        maps, read = self.network(pixels)
        embedding = _mean(maps)
        return self.head(embedding), torch.cat([embedding, _mean(read)], dim=1)


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

    Raises:
        ValueError: if there is no convolution.
    """
    network = _folded(model)
    maps = _Maps(list(network.blocks), _last_with_kernel(network))
    return _TakesBytes(_Answers(maps, network.head), mean, std).eval()


def _folded(model: Classifier) -> Classifier:
    network = fold_batch_norms(model)
    for layer in network.modules():
        # An operation that changes its input in place is none that the quantiser knows.
        if getattr(layer, "inplace", False):
            setattr(layer, "inplace", False)  # noqa: B010
    return network


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

    But for the first blocks, the means and the head. Weights are equalised and rounded first.

    Args:
        model: a trained classifier.
        image_px: side of its input.
        mean: RGB, of pixels in [0, 1].
        std: RGB, of pixels in [0, 1].
        batches: calibration pictures, each (n, image_px, image_px, 3).

    Returns:
        The bytes of a .pte file, as `float_program` gives them.
    """
    network = _folded(model)
    _remedy(network, classifier_onnx(model, image_px, mean, std), batches)
    stem = _TakesBytes(nn.Sequential(*list(network.blocks)[:FLOAT_BLOCKS]), mean, std).eval()
    maps = _Maps(list(network.blocks)[FLOAT_BLOCKS:], _last_with_kernel(network)).eval()
    with _quiet(), torch.no_grad():
        from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

        # Calibrated in batches, lowered for one picture: a phone has one.
        example = stem(torch.zeros(2, image_px, image_px, 3, dtype=torch.uint8))
        dynamic = ({0: torch.export.Dim("batch")},)
        exported = torch.export.export(maps, (example,), dynamic_shapes=dynamic).module()
        prepared = prepare_pt2e(exported, _quantizer())
        for batch in batches:
            prepared(stem(torch.from_numpy(batch)))
        quantised = nn.Sequential(stem.module, convert_pt2e(prepared))
        return _lowered(_TakesBytes(_Answers(quantised, network.head), mean, std), image_px)


def _remedy(network: Classifier, plain: bytes, batches: Sequence[NDArray[np.uint8]]) -> None:
    """Give a network the weights that its ONNX file gets before it is quantised."""
    before = WeightGraph(plain).weights
    remedied = rounded(equalized(plain, batches), batches, stem_nodes(plain))
    state = network.state_dict()
    with torch.no_grad():
        for name, weight in WeightGraph(remedied).weights.items():
            if not np.array_equal(weight, before[name]):
                # The exporter's name for the wrapped network; one that is absent is a bug.
                state[name.removeprefix("module.")].copy_(torch.from_numpy(weight))


def _quantizer() -> Any:
    """XNNPACK's, which also knows a ReLU6 behind a convolution as a part of it.

    executorch 1.5.1 knows ReLU alone, and gives what ReLU6 reads the range from before the clip:
    most of the 256 steps for values that the clip takes away (docs/experiments/executorch.md).
    XNNPACK itself computes either clip with the convolution.
    """
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer

    relu, relu6 = torch.ops.aten.relu.default, torch.ops.aten.hardtanh.default

    class Quantizer(xnnpack_quantizer.XNNPACKQuantizer):  # type: ignore[misc]
        def annotate(self, model: torch.fx.GraphModule) -> torch.fx.GraphModule:
            clips = [node for node in model.graph.nodes if node.target is relu6]
            for node in clips:
                node.target = relu
            annotated: torch.fx.GraphModule = super().annotate(model)
            for node in clips:
                node.target = relu6
            return annotated

    config = xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True)
    return Quantizer().set_global(config)


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
