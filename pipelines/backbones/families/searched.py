"""Networks that a line of text describes, as `fieldlens search` finds them: no entries, any number.

Weights are cut out of the base's when they are loaded, by the same providers, so that whoever has
the line and the base's file has the network that a training starts from.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from pipelines.backbones.architecture import BASES, Architecture, Block, parse
from pipelines.backbones.spec import BackboneSpec, Padding, Pretrained, backbones
from pipelines.backbones.weights import Provider
from pipelines.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor, nn


@cache
def described(line: str) -> BackboneSpec:
    """The network that a line describes.

    Raises:
        ConfigError: if it cannot be read, or asks for what its base does not have.
    """
    architecture = parse(line)
    base = backbones()[architecture.base]
    of_base = base.widths[1.0]

    def cut_out(provider: Provider) -> Provider:
        return _Inherited(provider, architecture)

    def build(_width: float, padding: Padding) -> list[nn.Module]:
        if padding != "symmetric":
            raise ConfigError(f"{line}: expected a base that pads alike on both sides.")
        return blocks_of(architecture)

    return BackboneSpec(
        name=line,
        family="searched",
        build=build,
        licence=base.licence,
        widths={
            1.0: Pretrained(
                input=of_base.input,
                weights=tuple(map(cut_out, of_base.weights)),
            )
        },
        inherits=architecture.base,
        cut_out=cut_out,
    )


@dataclass(frozen=True, slots=True)
class _Inherited:
    """A provider of the base's weights, and what a network takes of them."""

    provider: Provider
    architecture: Architecture

    @property
    def licence(self) -> str:
        """Of the base's."""
        return self.provider.licence

    @property
    def title(self) -> str:
        """The base's, in words."""
        return f"{self.provider.title}, cut to size"

    def find(self, folders: list[Path]) -> Path | None:
        """The base's file, if it is on this machine already."""
        return self.provider.find(folders)

    def fetch(self, folder: Path) -> Path:
        """The base's file, fetched into a folder."""
        return self.provider.fetch(folder)

    def tensors(self, path: Path, names: list[str]) -> dict[str, Tensor]:
        """The network's tensors, by name within its row of blocks."""
        import torch

        from pipelines.backbones.inherit import sliced, whole

        base = self.architecture.base
        with torch.device("meta"):
            rows = torch.nn.ModuleList(backbones()[base].at(1.0).build())
        state = self.provider.tensors(path, list(rows.state_dict()))
        found = sliced(whole(state, BASES[base]), self.architecture)
        counted = {name: torch.tensor(0) for name in names if name.endswith("num_batches_tracked")}
        return {name: tensor.clone() for name, tensor in (found | counted).items()}


# -- the row of blocks ----------------------------------------------------------------------------
def blocks_of(architecture: Architecture) -> list[nn.Module]:
    """A network's blocks, untrained, in order."""
    return [_block(block) for block in architecture.blocks]


def _block(block: Block) -> nn.Module:
    from torch import nn

    from pipelines.backbones.layers import Residual
    from pipelines.backbones.spec import torchvision_models

    # The door first: it lets torchvision be imported.
    torchvision_models()
    from torchvision.ops.misc import Conv2dNormActivation, SqueezeExcitation

    def unit(n_in: int, n_out: int, kernel: int, *, active: bool = True, **options: int) -> Any:
        activation = nn.ReLU6 if active else None
        return Conv2dNormActivation(n_in, n_out, kernel, activation_layer=activation, **options)

    read, hidden, given = block.in_channels, block.hidden, block.channels
    kernel, stride = block.kernel, block.stride
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if block.operator == "cn":
        layers["conv"] = unit(read, given, kernel, stride=stride)
        return nn.Sequential(layers)
    if block.operator == "er":
        layers["fused"] = unit(read, hidden, kernel, stride=stride)
    else:
        if block.operator == "ir":
            layers["expand"] = unit(read, hidden, 1)
        layers["depthwise"] = unit(hidden, hidden, kernel, stride=stride, groups=hidden)
    if block.n_squeezed:
        layers["squeeze"] = SqueezeExcitation(hidden, block.n_squeezed)
    layers["project"] = unit(hidden, given, 1, active=False)
    return (Residual if block.has_shortcut else nn.Sequential)(layers)
