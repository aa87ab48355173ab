"""What a network costs: multiply-adds, parameters, and the memory of its activations.

Counted layer by layer on tensors that have a shape and no values. As the papers do, a multiply-add
is one multiplication and one addition of a convolution or a linear layer; pools, activations,
additions and norms count nothing. A norm's two parameters a channel are counted apart, since
folding leaves one of them.

References:
    Howard et al. 2017, "MobileNets", section 3: the arithmetic of separable convolutions.
    Sandler et al. 2018, "MobileNetV2", section 5: memory of activations. What a phone must hold at
    once is the largest sum of tensors that are still to be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from pipelines.backbones.folding import tensors_in
from pipelines.backbones.spec import Backbone

Kind = Literal["convolution", "1x1 convolution", "depthwise", "grouped", "linear"]
KINDS: tuple[Kind, ...] = ("convolution", "1x1 convolution", "depthwise", "grouped", "linear")
#: Bytes of one value of an activation.
BYTES = {"float32": 4, "int8": 1}
#: Classes of ImageNet, for whose networks the papers state their figures.
N_IMAGENET = 1000


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer with weights.

    Attributes:
        name: within the row of blocks, or ``classifier``.
        input: (channels, height, width).
        output: (channels, height, width).
        kernel: (height, width); (1, 1) of a linear layer.
        stride: of both sides.
        multiply_adds: of one picture.
        parameters: weights and bias.
    """

    name: str
    kind: Kind
    input: tuple[int, int, int]
    output: tuple[int, int, int]
    kernel: tuple[int, int]
    stride: int
    multiply_adds: int
    parameters: int


@dataclass(frozen=True, slots=True)
class Cost:
    """What one picture costs.

    Attributes:
        layers: in the order in which they run.
        norm_parameters: scales and shifts of batch norms, two a channel.
        memory: values that must be held at once, by step; the largest is the peak. A step is a
            layer, an addition, a pool or a concatenation with the activation and norm behind it.
    """

    layers: tuple[Layer, ...]
    norm_parameters: int
    memory: tuple[int, ...]

    @property
    def multiply_adds(self) -> int:
        """Of all layers."""
        return sum(layer.multiply_adds for layer in self.layers)

    @property
    def parameters(self) -> int:
        """Of all layers, without those of norms."""
        return sum(layer.parameters for layer in self.layers)

    def peak_bytes(self, precision: Literal["float32", "int8"]) -> int:
        """Memory of activations at the most demanding step."""
        return max(self.memory) * BYTES[precision]

    def by_kind(self) -> dict[Kind, tuple[int, int]]:
        """Multiply-adds and parameters by kind of layer, for those that there are."""
        adds: Counter[Kind] = Counter()
        parameters: Counter[Kind] = Counter()
        for layer in self.layers:
            adds[layer.kind] += layer.multiply_adds
            parameters[layer.kind] += layer.parameters
        return {kind: (adds[kind], parameters[kind]) for kind in KINDS if kind in adds}


def cost(backbone: Backbone, px: int, n_classes: int | None = N_IMAGENET) -> Cost:
    """What a backbone costs at an input of ``px`` x ``px``.

    Args:
        n_classes: of the linear classifier on top; None for none.

    Raises:
        ConfigError: if the network is too deep for such an input.
    """
    *_, last = backbone.shapes(px)
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        blocks = nn.Sequential(*backbone.build())
        head = nn.Linear(last[1], n_classes) if n_classes is not None else None
    return cost_of(blocks.eval(), px, head)


def cost_of(network: nn.Module, px: int, head: nn.Linear | None = None) -> Cost:
    """What a network on the device ``meta`` costs.

    Args:
        network: from (n, 3, px, px) to maps.
        head: on the pooled maps.
    """
    layers: list[Layer] = []
    named = [*network.named_modules(), *([("classifier", head)] if head is not None else [])]
    hooks = [
        module.register_forward_hook(_noting(name, layers))
        for name, module in named
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    try:
        picture = torch.empty(1, 3, px, px, device="meta")
        with torch.inference_mode(), _Steps() as steps:
            values = network(picture)
            if head is not None:
                values = head(values.mean(dim=(2, 3)))
    finally:
        for hook in hooks:
            hook.remove()
    norms = sum(2 * m.num_features for _, m in named if isinstance(m, nn.BatchNorm2d))
    return Cost(tuple(layers), norms, tuple(steps.held(values)))


def _noting(name: str, layers: list[Layer]) -> Any:
    def note(module: nn.Conv2d | nn.Linear, inputs: tuple[Tensor], output: Tensor) -> None:
        layers.append(_layer(name, module, inputs[0], output))

    return note


def _layer(name: str, module: nn.Conv2d | nn.Linear, values: Tensor, output: Tensor) -> Layer:
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if isinstance(module, nn.Linear):
        sizes = (module.in_features, 1, 1), (module.out_features, 1, 1)
        adds = module.in_features * module.out_features
        return Layer(name, "linear", *sizes, (1, 1), 1, adds, parameters)
    height, width = module.kernel_size
    return Layer(
        name=name,
        kind=_kind(module),
        input=(values.shape[1], values.shape[2], values.shape[3]),
        output=(output.shape[1], output.shape[2], output.shape[3]),
        kernel=(height, width),
        stride=module.stride[0],
        multiply_adds=output[0].numel() * (module.in_channels // module.groups) * height * width,
        parameters=parameters,
    )


def _kind(module: nn.Conv2d) -> Kind:
    if module.groups == 1:
        return "1x1 convolution" if module.kernel_size == (1, 1) else "convolution"
    return "depthwise" if module.groups == module.in_channels else "grouped"


# -- memory ---------------------------------------------------------------------------------------
#: Of the names of operations: norms, activations, and what pads a convolution's input.
_FUSED = ("batch_norm", "relu", "hardtanh", "hardswish", "sigmoid", "silu", "pad")


class _Steps(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Which tensors each operation reads and gives, while a network runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        #: An id stays a tensor's own only while the tensor lives.
        self._kept: list[Tensor] = []
        #: Reads, gives and whether a phone does it within the operation before.
        self._steps: list[tuple[list[int], list[int], bool]] = []
        self._sizes: dict[int, int] = {}

    def __torch_dispatch__(
        self,
        func: Any,
        types: Iterable[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        read = [
            each for each in tensors_in([*args, *(kwargs or {}).values()]) if not _is_weight(each)
        ]
        given = list(tensors_in(result))
        if "batch_norm" in func.name():
            # What it keeps for a backward pass is not held on a phone.
            given = given[:1]
        self._kept += [*read, *given]
        for each in [*read, *given]:
            self._sizes[id(each)] = each.numel()
        self._steps.append(([id(e) for e in read], [id(e) for e in given], _is_fused(func)))
        return result

    def held(self, result: Tensor) -> Iterator[int]:
        """How many values must be held while each step runs.

        Args:
            result: of the network, which is read at the end.
        """
        last = {read: index for index, (reads, _, _) in enumerate(self._steps) for read in reads}
        last[id(result)] = len(self._steps)
        # What is made of a tensor in its place is the same memory, which lives as long as either.
        owners: dict[int, int] = {}
        for index, (reads, gives, is_fused) in enumerate(self._steps):
            for each in reads:
                owners.setdefault(each, each)
            in_place = is_fused and bool(reads) and last[reads[0]] == index
            for each in gives:
                owners.setdefault(each, owners[reads[0]] if in_place else each)
        ends: dict[int, int] = {}
        for tensor, owner in owners.items():
            ends[owner] = max(ends.get(owner, -1), last.get(tensor, -1))
        live: set[int] = set()
        for index, (reads, gives, is_fused) in enumerate(self._steps):
            live |= {owners[each] for each in [*reads, *gives]}
            if not is_fused:
                yield sum(self._sizes[each] for each in live)
            live = {each for each in live if ends[each] > index}


def _is_weight(tensor: Tensor) -> bool:
    return isinstance(tensor, nn.Parameter) or tensor.dim() < 2


def _is_fused(func: Any) -> bool:
    """Whether a runtime does it within another operation, or in the place of its input."""
    name = str(func.overloadpacket.__name__)
    return bool(func.is_view) or any(each in name for each in _FUSED)


# -- arithmetic -----------------------------------------------------------------------------------
def standard_multiply_adds(kernel: int, n_in: float, n_out: float, side: float) -> float:
    """Multiply-adds of a full convolution: D_K^2 M N D_F^2.

    Args:
        kernel: its side, D_K.
        n_in: channels read, M.
        n_out: channels given, N.
        side: of the output, D_F, in px.
    """
    return kernel**2 * n_in * n_out * side**2


def separable_multiply_adds(
    kernel: int, n_in: float, n_out: float, side: float, *, alpha: float = 1.0, rho: float = 1.0
) -> float:
    """Multiply-adds of a depthwise separable convolution: D_K^2 M D_F^2 + M N D_F^2.

    Args:
        kernel: its side, D_K.
        n_in: channels read, M.
        n_out: channels given, N.
        side: of the output, D_F, in px.
        alpha: width multiplier, of both numbers of channels.
        rho: resolution multiplier, of the side, which is not rounded.
    """
    n_in, n_out, side = alpha * n_in, alpha * n_out, rho * side
    return kernel**2 * n_in * side**2 + n_in * n_out * side**2


def separable_share(kernel: int, n_out: int) -> float:
    """A separable convolution's cost as a share of a full one's: 1/N + 1/D_K^2."""
    return 1 / n_out + 1 / kernel**2
