"""What somebody reaches who fine-tunes the same network in the ordinary way, beside our figures.

One plain loop: every layer from the first step, batch norms and all, in float, on the train split
alone, with one AdamW and a cosine that ends when --minutes of the processor are over; no cached
activations, no choice by val, no quantisation. Backbone, initial weights, side and random views are
the task's own. Heads and losses are torchvision's: LR-ASPP with binary cross-entropy for masks, an
SSDLite with its matching and hard negatives for boxes; for embeddings, the pooled features of a
classifier of the train split's identities. LR-ASPP stands on strides 8 and 32, and SSDLite begins
at stride 8 with boxes from 4 % of the side on, since torchvision has neither on MobileNetV2, and
small things are not found from stride 16. Masks are cut at 0.5. The figures come from the very code
of `fieldlens evaluate`. Needs a prepared and exported task, and the network's weights
(FIELDLENS_WEIGHTS):

    python benchmarks/peer.py --root .real --task polyp --minutes 4
"""

from __future__ import annotations

import argparse
import sys

from report import header, make_parser, run, say, table

from pipelines.paths import Paths
from pipelines.serving.trust import METRIC_NAMES

#: What is shown of a kind; the others' classifications have `training.py` and `strategies.py`.
_SHOWN = {
    "detection": ("ap50", "ap", "presence"),
    "segmentation": ("dice", "iou", "boundary_f1"),
    "embedding": ("recall_at_1", "map_at_r", "eer"),
}


def main() -> int:
    """Parse, train, print."""
    parser = make_parser(__doc__, has_root=True)
    parser.add_argument("--task", required=True)
    parser.add_argument("--minutes", type=float, default=5.0, help="of the processor (5)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="at its most (1e-3)")
    parser.add_argument("--batch-size", type=int, default=16, help="(16)")
    parser.add_argument("--seed", type=int, default=1, help="(1)")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Train the peer and print it beside the model that stands in the workspace."""
    # Not at the top: torch takes seconds to load, and --help needs none of it.
    from peer_loop import Recipe, measured_peer

    paths = Paths(arguments.root.resolve())
    recipe = Recipe(
        arguments.minutes * 60, arguments.learning_rate, arguments.batch_size, arguments.seed
    )
    header(f"Ordinary fine-tuning beside `{arguments.task}`")
    peer = measured_peer(paths, arguments.task, recipe)
    say(
        f"{peer.n_train} images to train on, {peer.n_test} of {peer.n_groups} groups to answer; "
        f"{peer.n_epochs} epochs ({peer.n_steps} steps) in {peer.train_s:.0f} s of the processor.",
        "",
    )
    rows = [
        [METRIC_NAMES.get(name, name), *(str(of.get(name, "n/a")) for of in peer.figures.values())]
        for name in _SHOWN[peer.kind]
    ]
    table(["test split, 95 % by group", *peer.figures], rows)


if __name__ == "__main__":
    sys.exit(main())
