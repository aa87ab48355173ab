"""What the frozen features of each backbone are worth: a linear probe, fold by fold.

For every network whose weights are on this machine, and for one with random weights beside: the
embeddings of some images of each class, standardised, and a logistic regression on them. Folds keep
groups whole (the column ``group`` of records.csv), and all networks get the same folds. Nothing is
fetched; `fieldlens weights fetch NAME` brings a file here.

    python benchmarks/backbones.py --data FOLDER --task cats_dogs tomato_leaf --images 400
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from report import header, make_parser, run, say, table

from pipelines.errors import ConfigError, MissingDataError
from pipelines.paths import Paths

if TYPE_CHECKING:
    import torch

    from pipelines.backbones.spec import Input

_FOLDS, _BATCH = 5, 32
#: The network that is shown without weights, too.
_RANDOM = "mobilenet_v2"


@dataclass(frozen=True, slots=True)
class Images:
    """Some images of one task: files, labels and groups, of equal length."""

    files: list[Path]
    labels: NDArray[np.str_]
    groups: NDArray[np.str_]


def main() -> int:
    """Parse, embed, print."""
    parser = make_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, help="<task>/records.csv and images")
    parser.add_argument("--task", nargs="+", required=True)
    parser.add_argument("--images", type=int, default=400, help="of each task, all classes (400)")
    parser.add_argument("--root", type=Path, default=Path(), help="whose weights")
    parser.add_argument("--seed", type=int, default=20261127, help="of the draw and the folds")
    return run(compare, parser)


def compare(arguments: argparse.Namespace) -> None:
    """Print a row a network."""
    import torch

    from pipelines.backbones.spec import backbone
    from pipelines.backbones.weights import inspect

    weights_dir = Paths(arguments.root).weights_dir
    networks = dict.fromkeys(each.network for each in inspect(weights_dir) if each.path)
    tasks = {
        task: drawn(arguments.data / task, arguments.images, arguments.seed)
        for task in arguments.task
    }
    header("Frozen features of every network with weights")
    counts = (
        f"{task}: {len(images.files)} images, {len(set(images.labels))} classes, "
        f"{len(set(images.groups))} groups"
        for task, images in tasks.items()
    )
    say(f"{'; '.join(counts)}. Accuracy over {_FOLDS} folds by group (least to most).", "")
    torch.manual_seed(arguments.seed)
    rows = []
    for network, is_trained in [*((each, True) for each in networks), (backbone(_RANDOM), False)]:
        blocks = torch.nn.Sequential(*network.build()).eval()
        if is_trained:
            load(blocks, network.spec.name, network.width, weights_dir)
        cells = [network.title, "imagenet" if is_trained else "none", f"{network.n_features:,}"]
        for images in tasks.values():
            cells.append(probed(embedded(blocks, network.input, images), images, arguments.seed))
        rows.append(cells)
        sys.stderr.write(f"{' '.join(cells)}\n")
    table(["backbone", "weights", "features", *tasks], rows)


def drawn(folder: Path, n_images: int, seed: int) -> Images:
    """As many images of each class, drawn at random.

    Args:
        folder: of the task.
        n_images: of all classes together.
        seed: of the draw.
    """
    path = folder / "records.csv"
    if not path.is_file():
        raise MissingDataError(f"{path}: expected a table of path, label and group; there is none.")
    with path.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    random.Random(seed).shuffle(rows)
    labels = sorted({row["label"] for row in rows})
    if n_images < _FOLDS * len(labels):
        raise ConfigError(
            f"--images {n_images}: {folder.name} has {len(labels)} classes; expected at least "
            f"{_FOLDS} of each, {_FOLDS * len(labels)} in all."
        )
    kept = [
        row
        for label in labels
        for row in [row for row in rows if row["label"] == label][: n_images // len(labels)]
    ]
    return Images(
        [folder / row["path"] for row in kept],
        np.array([row["label"] for row in kept]),
        np.array([row["group"] for row in kept]),
    )


def load(blocks: torch.nn.Sequential, name: str, width: float, weights_dir: Path) -> None:
    """Put a backbone's weights into its blocks."""
    from pipelines.backbones.weights import load_imagenet

    blocks.load_state_dict(load_imagenet(name, weights_dir, width).tensors)


def embedded(blocks: torch.nn.Sequential, expected: Input, images: Images) -> NDArray[np.float32]:
    """(n, d) features of the plain view of each picture, pooled.

    Args:
        blocks: in inference mode.
        expected: what they want to see.
    """
    import torch

    from pipelines.data.images import open_image
    from pipelines.data.preprocess import Preprocess

    # An eighth is cut off around the picture, as in training.
    view = Preprocess(expected.px * 8 // 7, expected.px, interpolation=expected.interpolation)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (expected.mean, expected.std))
    found = []
    for start in range(0, len(images.files), _BATCH):
        pixels = [view(open_image(file).rgb) for file in images.files[start : start + _BATCH]]
        values = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            found.append(blocks((values / 255 - mean) / std).mean(dim=(2, 3)).numpy())
    return np.concatenate(found)


def probed(features: NDArray[np.float32], images: Images, seed: int) -> str:
    """Accuracy of a linear probe: mean of the folds, and the least and the most of them."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    scores = []
    for learned, asked in folds.split(features, images.labels, images.groups):
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
        probe.fit(features[learned], images.labels[learned])
        scores.append(probe.score(features[asked], images.labels[asked]))
    return f"{np.mean(scores):.3f} ({min(scores):.3f} to {max(scores):.3f})"


if __name__ == "__main__":
    sys.exit(main())
