"""Each kind's training as one of torchrun's processes, and alone; prints the losses of both.

Nine pictures of noise and whatever is true of them, in batches of seven and two: of three processes
one has no picture of the last batch.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.config.train import TrainParams
from pipelines.kinds.train import KINDS, BeginsWithData
from pipelines.training.batches import chunks, train_from, trained_modules
from pipelines.training.fit import Phase, fit
from pipelines.training.runtime import Runtime, this_process
from tests.tiny_params import PARAMS, PHASE

_N, _SIDE_PX, _BATCH = 9, 64, 7


def truth_of(kind: str, generator: np.random.Generator) -> np.ndarray[Any, Any]:
    if kind == "detection":
        low = generator.uniform(0, 0.5, (_N, 3, 2))
        boxes = np.concatenate([low, low + generator.uniform(0.2, 0.5, (_N, 3, 2))], axis=2)
        labels = generator.integers(0, 2, (_N, 3, 1))
        return np.concatenate([boxes, labels], axis=2).astype(np.float32)
    if kind == "segmentation":
        return generator.uniform(0, 1, (_N, 2, _SIDE_PX // 4, _SIDE_PX // 4)).astype(np.float32)
    if kind == "embedding":
        return np.stack([np.arange(_N) % 3, np.arange(_N)], axis=1)
    return np.arange(_N) % 2


def losses(kind: str, runtime: Runtime, changes: dict[str, Any]) -> list[float]:
    """Train losses of two epochs, and of the last the sum of all parameters and buffers."""
    brief = {
        **PHASE,
        "epochs": 2,
        "learning_rate": 0.001,
        "schedule": "constant",
        "warmup_fraction": 0.0,
    }
    params = TrainParams.model_validate(
        {
            **PARAMS,
            "image_px": _SIDE_PX,
            "optimizer": "sgd",
            "batch_size": _BATCH,
            "monitor": KINDS[kind].values[0],
            "head_phase": brief,
            "tail_phase": {**brief, "epochs": 0},
            **changes,
        }
    )
    generator = np.random.default_rng(4)
    pixels = torch.from_numpy(generator.normal(0, 1, (_N, 3, _SIDE_PX, _SIDE_PX))).float()
    truth = truth_of(kind, generator)
    model = KINDS[kind].network("mobilenet_v2", 0.5, 2, (), 0.0, 0, 1)
    fit_statistics(model, pixels)
    criterion = KINDS[kind].criterion(truth, 2, params)
    if isinstance(criterion, BeginsWithData):
        with torch.inference_mode():
            embeddings = model.eval()(pixels)[1].numpy()
        criterion.begin(model, truth, lambda: embeddings)

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for rows in chunks(np.random.default_rng(epoch).permutation(_N), _BATCH):
            own = runtime.share(rows)
            yield pixels[own], torch.from_numpy(truth)[own]

    phase = Phase(
        name="head",
        params=params.head_phase,
        modules=trained_modules(model, 0, 1.0),
        batches=batches,
        n_batches=2,
        forward=lambda inputs: model(inputs)[0],
        val_outputs=None,
        val_truth=np.empty(0),
        train_mode=lambda: train_from(model, 0, train_norms=params.weights == "none"),
    )
    history = fit(
        model,
        [phase],
        params,
        criterion=criterion,
        values=KINDS[kind].values,
        seed=1,
        checkpoint_dir=Path("/nonexistent") if not runtime.is_primary else Path(sys.argv[1]) / kind,
        key=f"{changes} {runtime.world}",
        on_epoch=lambda log: None,
        what=kind,
        runtime=runtime,
    )
    total = sum(float(t.double().abs().sum()) for t in model.state_dict().values())
    return [*(log.train_loss for log in history), total]


def fit_statistics(model: nn.Module, pixels: Tensor) -> None:
    """Batch norms that fit the pictures, so that a signal comes through."""
    found = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in found:
        norm.momentum = None
    with torch.no_grad():
        model.train()(pixels)
    for norm in found:
        norm.momentum = 0.1


def norms(runtime: Runtime) -> list[float]:
    """Sums that stand for outputs, gradients and buffers of a batch norm between convolutions, in
    float64, after a batch of seven pictures and one of two.
    """
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 3))
    model.double().train()
    forward = runtime.parallel(model, model.forward)
    sums = []
    for n in (7, 2):
        model.zero_grad()
        pixels = torch.randn(n, 3, 8, 8, dtype=torch.float64)
        outputs = runtime.gathered(forward(pixels[runtime.share(np.arange(n))]))
        (outputs**3 * torch.randn(outputs.shape, dtype=torch.float64)).sum().backward()
        gradients = [p.grad for p in model.parameters()]
        told = [outputs, *gradients, *model.buffers()]
        sums += [
            float((t.double() * torch.arange(1, t.numel() + 1).view_as(t)).sum()) for t in told
        ]
    return sums


def main() -> None:
    runtime = this_process(1)
    found = {"norms": [norms(each) for each in (Runtime(), runtime)]}
    frozen = {"weights": "imagenet"}
    for kind, changes in [
        *((kind, frozen) for kind in KINDS),
        ("classification", {**frozen, "mixup_alpha": 0.4, "balance": "class_weights"}),
        ("classification", {"weights": "none"}),
    ]:
        both = [losses(kind, each, changes) for each in (Runtime(), runtime)]
        found[f"{kind} {changes}"] = both
    if runtime.is_primary:
        sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
