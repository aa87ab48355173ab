"""What it saves that MobileNetV3-Large does its last 1x1 convolution behind the pool.

The same network twice, untrained, at 224 px with 1000 classes: with the last stage that the search
had left (960, 3x3, 320 and 1280 channels at 7 x 7 px), and with the one of the paper (960 channels,
the pool, 1280). Each is timed beside the board's reference, as `fieldlens board` does it.

    python benchmarks/last_stage.py

References:
    Howard et al. 2019, "Searching for MobileNetV3", section 5.1 and figure 5: 7 ms, 11 % of the
    time and 30 M multiply-adds less.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from clocks import asking
from report import header, make_parser, run, say, table

from pipelines.config.board import ReferenceParams

if TYPE_CHECKING:
    import argparse

    from torch import nn

_PX, _N_CLASSES = 224, 1000


def main() -> int:
    """Parse, time, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (3)")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a row a network and round."""
    import torch

    from pipelines.backbones.cost import cost_of
    from pipelines.export.latency import against_reference

    header("MobileNetV3-Large's last stage")
    calls: dict[str, Callable[[], object]] = {}
    adds: dict[str, int] = {}
    with torch.device("meta"):
        shapes = networks()
    for name, (blocks, head) in shapes.items():
        linear = [each for each in head.modules() if isinstance(each, torch.nn.Linear)]
        adds[name] = cost_of(torch.nn.Sequential(*blocks), _PX).multiply_adds + sum(
            each.in_features * each.out_features for each in linear
        )
    for name, (blocks, head) in networks().items():
        calls[name] = as_file(blocks, head)
    reference = asking(ReferenceParams())
    rows = []
    ratios: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(arguments.rounds):
        for name, found in against_reference(calls, reference, clock=time.thread_time).items():
            ratios[name].append(found.ratio)
            rows.append(
                [
                    name,
                    f"{adds[name]:,}",
                    f"{found.ms:.3f}",
                    f"{found.ratio:.4f}",
                    f"{found.gap:.1%}",
                ]
            )
    table(["last stage", "multiply-adds", "ms", "of the reference", "passes differ"], rows)
    before, after = (float(np.median(each)) for each in ratios.values())
    say(f"Behind the pool: {after / before - 1:+.1%} of the time, median of the rounds.")


def networks() -> dict[str, tuple[list[nn.Module], nn.Module]]:
    """Blocks and head, as the search had left it and as it was published."""
    from torch import nn

    from pipelines.backbones.spec import backbone

    def convolution(
        n_in: int, n_out: int, kernel: int = 1, *, is_linear: bool = False
    ) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(
                *(n_in, n_out, kernel),
                padding=kernel // 2,
                groups=n_in if kernel > 1 else 1,
                bias=False,
            ),
            nn.BatchNorm2d(n_out),
            nn.Identity() if is_linear else nn.Hardswish(),
        )

    network = backbone("mobilenet_v3_large")
    wide = [convolution(960, 960, 3), convolution(960, 320, is_linear=True), convolution(320, 1280)]
    hidden = nn.Sequential(nn.Linear(960, 1280), nn.Hardswish(), nn.Linear(1280, _N_CLASSES))
    return {
        "before the pool": ([*network.build(), *wide], nn.Linear(1280, _N_CLASSES)),
        "behind the pool": (network.build(), hidden),
    }


def as_file(blocks: Sequence[nn.Module], head: nn.Module) -> Callable[[], object]:
    """One run of the exported network, on noise; its norms have the statistics of noise."""
    import torch

    from pipelines.backbones.heads import Classifier
    from pipelines.export.onnx_export import INPUT_NAME, classifier_onnx
    from pipelines.serving.sessions import make_session

    model = Classifier(blocks, head, cut=0)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(torch.randn(4, 3, _PX, _PX))
    session = make_session(classifier_onnx(model.eval(), _PX, (0.5,) * 3, (0.5,) * 3))
    pixels = np.random.default_rng(0).integers(256, size=(1, _PX, _PX, 3)).astype(np.uint8)
    return partial(session.run, None, {INPUT_NAME: pixels})


if __name__ == "__main__":
    sys.exit(main())
