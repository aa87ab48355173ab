"""`fieldlens cost`: multiply-adds, parameters and memory of a backbone, without a training."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.atomic import write_bytes
from pipelines.columns import table
from pipelines.commands.answer import Answer
from pipelines.paths import Paths

if TYPE_CHECKING:
    from pipelines.backbones.cost import Cost
    from pipelines.backbones.spec import Backbone


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Which network, at what size, and how to show it."""
    parser.add_argument(
        "backbone", nargs="?", help="as in params.yaml, e.g. mobilenet_v2; none: a line for each"
    )
    parser.add_argument("--width", type=float, default=1.0, help="width multiplier (1)")
    parser.add_argument("--image-px", type=_count, default=224, metavar="PX", help="side (224)")
    parser.add_argument(
        "--classes",
        type=_count,
        default=1000,
        metavar="N",
        help="of the classifier (1000, ImageNet's)",
    )
    parser.add_argument("--layers", action="store_true", help="a line a layer, too")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="write a figure there, as PNG")
    parser.add_argument("--json", action="store_true", help="for a program")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1 up (got {text})")
    return int(text)


def main(arguments: argparse.Namespace, paths: Paths) -> Answer:
    """One network in full, or all of them in a line each.

    Raises:
        ConfigError: if there is no such backbone or width, or it is too deep for the input.
    """
    from pipelines.backbones.cost import cost
    from pipelines.backbones.spec import all_widths, backbone

    px, n_classes = arguments.image_px, arguments.classes
    if arguments.backbone is None:
        return Answer(_overview([(each, cost(each, px, n_classes)) for each in all_widths()]))
    network = backbone(arguments.backbone, arguments.width)
    found = cost(network, px, n_classes)
    if arguments.plot is not None:
        write_bytes(arguments.plot, _figure(found, f"{network.title}, {px} px"))
    if arguments.json:
        return Answer(json.dumps(_document(network, px, found), indent=2))
    return Answer(_page(network, px, found, with_layers=arguments.layers))


def _overview(rows: list[tuple[Backbone, Cost]]) -> str:
    header = ("BACKBONE", "MULTIPLY-ADDS", "PARAMETERS", "PEAK FP32", "PEAK INT8")
    return table(
        header,
        [
            (
                network.title,
                f"{found.multiply_adds / 1e6:9.1f} M",
                f"{found.parameters / 1e6:6.2f} M",
                f"{found.peak_bytes('float32') / 1e6:5.2f} MB",
                f"{found.peak_bytes('int8') / 1e6:5.2f} MB",
            )
            for network, found in rows
        ],
    )


def _page(network: Backbone, px: int, found: Cost, *, with_layers: bool) -> str:
    kinds = table(
        ("KIND", "LAYERS", "MULTIPLY-ADDS", "SHARE", "PARAMETERS", "SHARE"),
        [
            (
                kind,
                str(sum(layer.kind == kind for layer in found.layers)),
                f"{adds:,}",
                f"{adds / found.multiply_adds:.1%}",
                f"{parameters:,}",
                f"{parameters / found.parameters:.1%}",
            )
            for kind, (adds, parameters) in found.by_kind().items()
        ],
    )
    lines = [
        f"{network.title} at {px} px: {found.multiply_adds:,} multiply-adds in "
        f"{len(found.layers)} layers, {found.parameters:,} parameters and "
        f"{found.norm_parameters:,} of batch norms.",
        f"Activations held at once: {found.peak_bytes('float32') / 1e6:.2f} MB as float32, "
        f"{found.peak_bytes('int8') / 1e6:.2f} MB as int8.",
        "",
        kinds,
    ]
    if with_layers:
        lines += ["", _layers(found)]
    lines += [
        "",
        "Multiply-adds do not tell the latency, which has to be measured: `fieldlens board`.",
    ]
    return "\n".join(lines)


def _layers(found: Cost) -> str:
    return table(
        ("LAYER", "KIND", "INPUT", "OUTPUT", "KERNEL", "STRIDE", "MULTIPLY-ADDS", "PARAMETERS"),
        [
            (
                layer.name,
                layer.kind,
                "x".join(map(str, layer.input)),
                "x".join(map(str, layer.output)),
                "x".join(map(str, layer.kernel)),
                str(layer.stride),
                f"{layer.multiply_adds:,}",
                f"{layer.parameters:,}",
            )
            for layer in found.layers
        ],
    )


def _document(network: Backbone, px: int, found: Cost) -> dict[str, object]:
    return {
        "backbone": network.spec.name,
        "width": network.width,
        "image_px": px,
        "multiply_adds": found.multiply_adds,
        "parameters": found.parameters,
        "norm_parameters": found.norm_parameters,
        "peak_bytes": {each: found.peak_bytes(each) for each in ("float32", "int8")},
        "layers": [
            {
                "name": layer.name,
                "kind": layer.kind,
                "input": layer.input,
                "output": layer.output,
                "kernel": layer.kernel,
                "stride": layer.stride,
                "multiply_adds": layer.multiply_adds,
                "parameters": layer.parameters,
            }
            for layer in found.layers
        ],
    }


def _figure(found: Cost, title: str) -> bytes:
    from pipelines.plots.cost import cost_by_layer

    def of_kind(kind: str, values: list[float]) -> list[float]:
        return [
            value if layer.kind == kind else 0.0
            for layer, value in zip(found.layers, values, strict=True)
        ]

    adds = [layer.multiply_adds / 1e6 for layer in found.layers]
    parameters = [layer.parameters / 1e3 for layer in found.layers]
    return cost_by_layer(
        {kind: of_kind(kind, adds) for kind in found.by_kind()},
        {kind: of_kind(kind, parameters) for kind in found.by_kind()},
        [values / 1e3 for values in found.memory],
        title,
    )
