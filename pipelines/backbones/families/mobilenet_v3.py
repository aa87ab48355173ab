"""MobileNetV3, without what torchvision has behind its pool: that is a layer of its classifier.

References:
    Howard et al. 2019, "Searching for MobileNetV3".
"""

from __future__ import annotations

from pipelines.backbones.spec import BackboneSpec, Input, torchvision_blocks
from pipelines.backbones.weights import LocalFile, TorchHub

mobilenet_v3_small = BackboneSpec(
    name="mobilenet_v3_small",
    family="mobilenet_v3",
    build=torchvision_blocks("mobilenet_v3_small", "features"),
    input=Input(),
    licence="BSD-3-Clause",
    weights=(
        LocalFile(
            "mobilenet_v3_small.torchvision-features.safetensors",
            "33ef51348bdc44fdf54c168650c99d8e863f58a7022b7a2bac5048e7adb78619",
            "features",
            "BSD-3-Clause",
        ),
        TorchHub("MobileNet_V3_Small_Weights", "IMAGENET1K_V1", "047dcff4", "features"),
    ),
)

mobilenet_v3_large = BackboneSpec(
    name="mobilenet_v3_large",
    family="mobilenet_v3",
    build=torchvision_blocks("mobilenet_v3_large", "features"),
    input=Input(),
    licence="BSD-3-Clause",
    weights=(TorchHub("MobileNet_V3_Large_Weights", "IMAGENET1K_V1", "8738ca79", "features"),),
)
