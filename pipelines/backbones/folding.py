"""Batch norms folded into the convolutions before them: the same function with fewer layers.

Pretrained batch norms are folded before training, not only before export (ADR 0011). Some of
their channels are nearly constant on ImageNet, so that they divide by a tiny deviation: a step of
the optimiser, harmless for the convolution, comes out of the norm a hundred times larger and
undoes what was pretrained. Folded, a step is as large as the learning rate says.
"""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


def fold_batch_norms(module: Module) -> Module:
    """A copy in inference mode with each batch norm folded into the convolution before it.

    Args:
        module: any network of `nn.Sequential` blocks; it is not changed.

    References:
        Jacob et al. 2018, "Quantization and training of neural networks for efficient
        integer-arithmetic-only inference", section 3.2.
    """
    folded = copy.deepcopy(module).eval()
    for parent in folded.modules():
        # The row of blocks too: MnasNet has convolutions and norms as blocks of their own.
        if not isinstance(parent, nn.Sequential | nn.ModuleList):
            continue
        names = list(parent._modules)
        for first, second in itertools.pairwise(names):
            convolution, norm = parent._modules[first], parent._modules[second]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                parent._modules[first] = fuse_conv_bn_eval(convolution, norm)
                parent._modules[second] = nn.Identity()
    return folded
