"""A search whose answers cost nothing: made-up accuracies and latencies, by a rule."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import cast

from pipelines.config.search import Controller, RewardParams, SpaceParams
from pipelines.search.records import Records, Score
from pipelines.search.space import Network, Space
from pipelines.search.study import Candidate, run_study

SPACE = Space.of(SpaceParams(image_px=(128, 224), widths=(0.5, 1.0), squeeze=False))


def evaluate(network: Network) -> Score:
    """Blocks cost their channels; wide and deep stages are a little more accurate."""
    blocks = list(network.architecture.blocks)
    side = network.image_px / 224
    ratio = side**2 * sum(block.hidden + block.channels for block in blocks) / 10_000
    accuracy = 0.6 + 0.1 * side + 0.01 * len(blocks) + 0.002 * sum(b.kernel == 5 for b in blocks)
    return Score(accuracy=accuracy, ratio=ratio, ms=20 * ratio)


def run(
    folder: Path, controller: Controller, n: int, evaluate=evaluate, seed: int = 1, **more
) -> list[Candidate]:
    records = Records(folder / "records.jsonl", "toy")
    reward = RewardParams()
    return run_study(SPACE, evaluate, records, controller, n, reward=reward, seed=seed, **more)


class EndsAfter:
    """Evaluates so many networks, and then does something else."""

    def __init__(self, n: int, end: Callable[[], object]) -> None:
        self.n_left = n
        self.end = end

    def __call__(self, network: Network) -> Score:
        if not self.n_left:
            self.end()
        self.n_left -= 1
        return evaluate(network)


if __name__ == "__main__":
    # A process to be killed: folder, controller, candidates, and how many it comes to evaluate.
    killed = EndsAfter(int(sys.argv[4]), lambda: os.kill(os.getpid(), signal.SIGKILL))
    run(Path(sys.argv[1]), cast("Controller", sys.argv[2]), int(sys.argv[3]), killed)
