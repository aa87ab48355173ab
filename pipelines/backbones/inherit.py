"""Weights of a network that is cut out of another: its most important channels, its first blocks.

A base's tensors are brought into an order once (`whole`), most important channels first, so that
the beginning of each is its best part. A network's own tensors are then slices of these (`sliced`),
whether they are values that a training starts from or parameters that a supernet trains.

What a base does not have starts where it changes nothing or little: a kernel of 5 is the base's 3
with zeros round it, squeeze-and-excitation passes 0.98 of everything, and a fused convolution is
the product of the two that it stands for, without the activation between them.

References:
    Cai et al. 2020, "Once-for-all: train one network and specialize it for efficient deployment"
    (importance by L1 norm, centred kernels); Yu et al. 2020, "BigNAS".
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional

from pipelines.backbones.architecture import KERNELS, SQUEEZES, Architecture, Block

State = Mapping[str, Tensor]
_NORM = ("weight", "bias", "running_mean", "running_var")
_LARGEST_KERNEL = max(KERNELS)
#: Of torch's batch norms.
_EPS = 1e-5
#: Of an excitation's last layer: its sigmoid is 0.98.
_OPEN = 4.0


# -- a base in order ------------------------------------------------------------------------------
def whole(state: State, base: Architecture) -> dict[str, Tensor]:
    """All of a base, in order, with what other networks may have beside it.

    Args:
        state: of torchvision's MobileNetV2, by name within the row of blocks.
        base: of which these are the tensors.

    Returns:
        By ``stage.block.layer.…`` as in `searched_row`'s blocks. Nothing is drawn: two calls
        give the same.
    """
    roles = _roles(state, base)
    blocks = list(base.blocks)
    found: dict[str, Tensor] = {}
    incoming = torch.arange(3)
    for index, block in enumerate(blocks):
        own = dict(roles[index])
        outgoing = _order(_readers(roles, blocks, block.stage))
        if "expand" in own:
            own["expand"] = [
                each if i else each[:, incoming] for i, each in enumerate(own["expand"])
            ]
            inner = _order([own["project"][0].abs().sum(dim=(0, 2, 3))])
        else:
            inner = incoming
        if "depthwise" in own:
            own["depthwise"] = [each[inner] for each in own["depthwise"]]
            own["project"] = [
                each if i else each[:, inner] for i, each in enumerate(own["project"])
            ]
        if "expand" in own:
            own["expand"] = [each[inner] for each in own["expand"]]
        if "conv" in own:
            own["conv"] = [each if i else each[:, incoming] for i, each in enumerate(own["conv"])]
        last = "project" if "project" in own else "conv"
        own[last] = [each[outgoing] for each in own[last]]
        found |= _named(block, own)
        incoming = outgoing
    return found


def _roles(state: State, base: Architecture) -> list[dict[str, list[Tensor]]]:
    """By block and role, the weights of a convolution and its norm, from torchvision's names."""

    def unit(convolution: str, norm: str) -> list[Tensor]:
        return [state[f"{convolution}.weight"], *(state[f"{norm}.{name}"] for name in _NORM)]

    found = []
    for index, block in enumerate(base.blocks):
        if block.operator == "cn":
            found.append({"conv": unit(f"{index}.0", f"{index}.1")})
            continue
        names = ["expand", "depthwise"] if block.operator == "ir" else ["depthwise"]
        at = f"{index}.conv"
        roles = {name: unit(f"{at}.{i}.0", f"{at}.{i}.1") for i, name in enumerate(names)}
        roles["project"] = unit(f"{at}.{len(names)}", f"{at}.{len(names) + 1}")
        found.append(roles)
    return found


def _readers(roles: list[dict[str, list[Tensor]]], blocks: list[Block], stage: int) -> list[Tensor]:
    """(c,) how much each convolution that reads a stage's maps makes of each channel.

    The last stage has no reader: its own weights tell.
    """
    sums = []
    for index, block in enumerate(blocks[:-1]):
        if block.stage == stage:
            reader = roles[index + 1]
            first = next(iter(reader.values()))[0]
            if blocks[index + 1].operator == "ds":
                # A depthwise convolution reads each channel by itself, and what projects them.
                sums.append(
                    first.abs().sum(dim=(1, 2, 3)) * reader["project"][0].abs().sum(dim=(0, 2, 3))
                )
            else:
                sums.append(first.abs().sum(dim=(0, 2, 3)))
    return sums or [roles[-1]["conv"][0].abs().sum(dim=(1, 2, 3))]


def _order(sums: list[Tensor]) -> Tensor:
    """Channels, most important first."""
    return torch.stack(sums).sum(dim=0).argsort(descending=True, stable=True)


def _named(block: Block, own: Mapping[str, list[Tensor]]) -> dict[str, Tensor]:
    at = f"{block.stage}.{block.index}"
    found = {
        f"{at}.{role}.{name}": tensor.clone()
        for role, tensors in own.items()
        for name, tensor in zip(
            ("0.weight", *(f"1.{each}" for each in _NORM)), tensors, strict=True
        )
    }
    if "depthwise" in own:
        margin = (_LARGEST_KERNEL - block.kernel) // 2
        kernel = f"{at}.depthwise.0.weight"
        found[kernel] = functional.pad(found[kernel], (margin,) * 4)
        hidden = found[kernel].shape[0]
        n_squeezed = round(block.in_channels * max(SQUEEZES))
        # A cosine basis: as different as can be, and nothing is drawn.
        angles = torch.outer(torch.arange(n_squeezed) + 1, torch.arange(hidden) + 0.5)
        found[f"{at}.squeeze.fc1.weight"] = (torch.cos(angles * torch.pi / hidden) / sqrt(hidden))[
            ..., None, None
        ]
        found[f"{at}.squeeze.fc1.bias"] = torch.zeros(n_squeezed)
        found[f"{at}.squeeze.fc2.weight"] = torch.zeros(hidden, n_squeezed, 1, 1)
        found[f"{at}.squeeze.fc2.bias"] = torch.full((hidden,), _OPEN)
    return found


# -- a part of it ---------------------------------------------------------------------------------
def sliced(tensors: State, architecture: Architecture) -> dict[str, Tensor]:
    """A network's tensors, by name within its row of blocks; views, where no kernels are fused.

    Args:
        tensors: of its base, as of `whole`; gradients flow back to them.
    """
    found: dict[str, Tensor] = {}
    for index, block in enumerate(architecture.blocks):
        at = f"{block.stage}.{block.index}"

        def unit(
            role: str,
            n_out: int,
            weight: Tensor,
            *,
            at: str = at,
            index: int = index,
            norm: str = "",
        ) -> None:
            found[f"{index}.{role}.0.weight"] = weight
            for name in _NORM:
                found[f"{index}.{role}.1.{name}"] = tensors[f"{at}.{norm or role}.1.{name}"][:n_out]

        read, hidden, given = block.in_channels, block.hidden, block.channels
        if block.operator == "cn":
            unit("conv", given, tensors[f"{at}.conv.0.weight"][:given, :read])
            continue
        kernel = _centre(tensors[f"{at}.depthwise.0.weight"][:hidden], block.kernel)
        if block.operator == "er":
            unit("fused", hidden, _fused(tensors, at, kernel, read), norm="depthwise")
        else:
            if block.operator == "ir":
                unit("expand", hidden, tensors[f"{at}.expand.0.weight"][:hidden, :read])
            unit("depthwise", hidden, kernel)
        if block.n_squeezed:
            n = block.n_squeezed
            for name, parts in (
                ("fc1.weight", (slice(n), slice(hidden))),
                ("fc1.bias", (slice(n),)),
                ("fc2.weight", (slice(hidden), slice(n))),
                ("fc2.bias", (slice(hidden),)),
            ):
                found[f"{index}.squeeze.{name}"] = tensors[f"{at}.squeeze.{name}"][parts]
        unit("project", given, tensors[f"{at}.project.0.weight"][:given, :hidden])
    return found


def _centre(kernels: Tensor, size: int) -> Tensor:
    """The middle of kernels, (n, 1, k, k)."""
    margin = (kernels.shape[-1] - size) // 2
    return kernels[..., margin : margin + size, margin : margin + size]


def _fused(tensors: State, at: str, kernel: Tensor, n_read: int) -> Tensor:
    """(hidden, n_read, k, k): an expansion with its norm's scale, then a depthwise convolution."""
    hidden = kernel.shape[0]
    expand, norm = f"{at}.expand.0.weight", f"{at}.expand.1"
    scale = tensors[f"{norm}.weight"] / (tensors[f"{norm}.running_var"] + _EPS).sqrt()
    return kernel * (tensors[expand][:hidden, :n_read] * scale[:hidden, None, None, None])
