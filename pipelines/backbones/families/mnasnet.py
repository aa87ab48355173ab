"""MnasNet.

References:
    Tan et al. 2019, "MnasNet: platform-aware neural architecture search for mobile".
"""

from __future__ import annotations

from pipelines.backbones.spec import BackboneSpec, Input, torchvision_blocks
from pipelines.backbones.weights import TimmHub, TorchHub

mnasnet1_0 = BackboneSpec(
    name="mnasnet1_0",
    family="mnasnet",
    build=torchvision_blocks("mnasnet1_0", "layers"),
    input=Input(),
    licence="BSD-3-Clause",
    weights=(
        TorchHub("MNASNet1_0_Weights", "IMAGENET1K_V1", "f206786ef8", "layers"),
        TimmHub("mnasnet_100"),
    ),
)
