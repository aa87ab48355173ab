"""Batch norms folded into the convolutions before them: the same function with fewer layers.

Pretrained batch norms are folded before training, not only before export (ADR 0011). Some of
their channels are nearly constant on ImageNet, so that they divide by a tiny deviation: a step of
the optimiser, harmless for the convolution, comes out of the norm a hundred times larger and
undoes what was pretrained. Folded, a step is as large as the learning rate says.

Which norm follows which convolution is seen by watching a picture go through, whatever the network
is built of: a norm is folded if it alone reads all that one convolution gives, and reads nothing
else. Afterwards another pass must give the same answer.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

from pipelines.errors import ParityError

Module = TypeVar("Module", bound=nn.Module)

#: Side of the picture that is watched; deep enough networks halve it five times.
_SIDE_PX = 64
#: Largest difference of an output that is rounding, as a share of the output's largest value.
_TOLERANCE = 1e-2


def fold_batch_norms(module: Module, example: Tensor | None = None) -> Module:
    """A copy in inference mode with each batch norm folded into the convolution before it.

    Args:
        module: any network; it is not changed. A norm that no convolution can take stays, see
            `batch_norms_of`.
        example: an input of it; None for a picture, (1, 3, 64, 64).

    Raises:
        ParityError: if the copy computes something else.

    References:
        Jacob et al. 2018, "Quantization and training of neural networks for efficient
        integer-arithmetic-only inference", section 3.2.
    """
    folded = copy.deepcopy(module).eval()
    if not batch_norms_of(folded):
        return folded
    example = _picture(folded) if example is None else example
    with torch.no_grad():
        with _Flow() as flow:
            before = folded(example)
        flow.read(tensors_in(before))
        modules = dict(folded.named_modules(remove_duplicate=False))
        for convolution, norm in flow.pairs(modules):
            fused = fuse_conv_bn_eval(modules[convolution], modules[norm])
            _replace(folded, convolution, fused)
            _replace(folded, norm, _without_norm(modules[norm]))
        after = folded(example)
    for expected, got in zip(tensors_in(before), tensors_in(after), strict=True):
        gap = float((got - expected).abs().max()) if expected.numel() else 0.0
        if gap > _TOLERANCE * float(expected.abs().max()):
            raise ParityError(
                f"folding batch norms changed what {type(module).__name__} computes, by {gap:.2e}. "
                f"Do not use the network; report this with its name."
            )
    return folded


def batch_norms_of(module: nn.Module) -> tuple[str, ...]:
    """Names of the batch norms that a network has."""
    return tuple(n for n, m in module.named_modules() if isinstance(m, nn.BatchNorm2d))


def _picture(module: nn.Module) -> Tensor:
    parameter = next(module.parameters())
    generator = torch.Generator().manual_seed(0)
    return torch.randn(1, 3, _SIDE_PX, _SIDE_PX, generator=generator).to(parameter)


class _Flow(TorchFunctionMode):
    """Who makes and who reads each tensor while a network runs."""

    def __init__(self) -> None:
        super().__init__()
        #: Every tensor that was seen: an id stays its own only while the object lives.
        self._kept: list[Tensor] = []
        #: By id of a convolution's weight: ids of what it gave.
        self._made: dict[int, list[int]] = {}
        #: By id of a tensor: for each that reads it, the ids of what it reads besides.
        self._readers: dict[int, list[frozenset[int]]] = {}
        self._n_uses: dict[int, int] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        read = [*tensors_in(args), *tensors_in(kwargs)]
        result = func(*args, **kwargs)
        made = list(tensors_in(result))
        # What gives no tensor asks for a shape or a type.
        if made:
            self.read(read)
            self._kept += made
            if func is nn.functional.conv2d and len(read) > 1:
                self._made.setdefault(id(read[1]), []).append(id(made[0]))
        return result

    def read(self, tensors: Iterable[Tensor]) -> None:
        """Count one reader of some tensors."""
        tensors = list(tensors)
        self._kept += tensors
        ids = frozenset(map(id, tensors))
        for each in ids:
            self._readers.setdefault(each, []).append(ids - {each})
            self._n_uses[each] = self._n_uses.get(each, 0) + 1

    def pairs(self, modules: Mapping[str, nn.Module]) -> Iterator[tuple[str, str]]:
        """Names of convolutions and of the norms that can be folded into them."""
        convolutions = _by_tensor(modules, nn.Conv2d, "weight")
        norms = _by_tensor(modules, nn.BatchNorm2d, "running_mean")
        for weight, outputs in self._made.items():
            readers = [reader for each in outputs for reader in self._readers.get(each, [])]
            read = {each for reader in readers for each in reader if each in norms}
            # As many readings as outputs, all by one norm: none is left for anything else.
            if weight not in convolutions or len(read) != 1:
                continue
            norm = read.pop()
            uses = (self._n_uses[weight], len(readers), self._n_uses[norm])
            if uses != (len(outputs),) * 3 or not all(norm in reader for reader in readers):
                continue
            if _without_norm(modules[norms[norm]]) is not None:
                yield convolutions[weight], norms[norm]


def _by_tensor(modules: Mapping[str, nn.Module], kind: type, name: str) -> dict[int, str]:
    """Names of modules by the id of one of their tensors; shared ones are left out."""
    found: dict[int, list[str]] = {}
    for module_name, module in modules.items():
        tensor = getattr(module, name, None)
        if isinstance(module, kind) and isinstance(tensor, Tensor):
            found.setdefault(id(tensor), []).append(module_name)
    return {key: names[0] for key, names in found.items() if len(names) == 1}


def _without_norm(norm: nn.Module) -> nn.Module | None:
    """What a batch norm does besides; None where that is not known."""
    if type(norm) is nn.BatchNorm2d:
        return nn.Identity()
    # timm's BatchNormAct2d: a norm with an activation inside.
    drop, act = getattr(norm, "drop", None), getattr(norm, "act", None)
    if type(norm).__name__ == "BatchNormAct2d" and isinstance(act, nn.Module):
        return act if isinstance(drop, nn.Identity) else None
    return None


def _replace(module: nn.Module, name: str, new: nn.Module | None) -> None:
    parent, _, child = name.rpartition(".")
    setattr(module.get_submodule(parent), child, new)


def tensors_in(values: object) -> Iterator[Tensor]:
    """The tensors in nested mappings, lists and tuples, in their order."""
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from tensors_in(value)
    elif isinstance(values, list | tuple):
        for value in values:
            yield from tensors_in(value)
