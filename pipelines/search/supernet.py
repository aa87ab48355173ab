"""A supernet: one set of tensors of which each network of a space is a part, trained together.

A step shows one batch at one of the space's sides to the largest network, to the smallest, and to
some random ones (the sandwich rule). The largest learns from the labels and, where there is one,
from a trained model of the task; the others learn from what the largest says of the same batch
(in-place distillation). Afterwards a network is told from another by its accuracy on val without a
training of its own: that ranks them, and no more.

Batch norms take the statistics of the batch while the supernet trains, since those of one network
are not those of another; before a network is asked, its own are estimated on some train images.

References:
    Yu and Huang 2019, "Universally slimmable networks and improved training techniques" (sandwich
    rule, in-place distillation, statistics estimated afterwards).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from pipelines.backbones.architecture import Architecture
from pipelines.backbones.heads import Classifier, make_classifier
from pipelines.backbones.inherit import sliced, whole
from pipelines.backbones.weights import load_imagenet
from pipelines.config.search import WarmUpParams
from pipelines.config.train import DistillParams
from pipelines.progress import track
from pipelines.search.space import Space
from pipelines.training.checkpoints import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from pipelines.training.fit import distilled, rate_factor

_LOG = logging.getLogger(__name__)

_HEAD = "head."
#: Tensors that are counted and not trained.
_STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True, slots=True)
class HeadShape:
    """What stands on the embedding of every network.

    Attributes:
        n_classes: labels.
        hidden: widths of hidden layers.
        dropout: share that is dropped in training.
    """

    n_classes: int
    hidden: tuple[int, ...]
    dropout: float


class Supernet:
    """Tensors of a base in order, and a head; every network of a space is a part of it."""

    def __init__(self, tensors: Mapping[str, Tensor], head: HeadShape) -> None:
        """Of tensors as `tensors` has them."""
        self.head = head
        self._tensors = dict(tensors)

    @classmethod
    def begin(cls, base: Architecture, head: HeadShape, weights_dir: Path, seed: int) -> Supernet:
        """Before its first step: the base's pretrained weights, and a head that the seed draws.

        Raises:
            WeightsError: if the weights cannot be had.
        """
        found = whole(load_imagenet(base.base, weights_dir).tensors, base)
        model = _built(base.line, head, seed)
        found |= {name: t for name, t in model.state_dict().items() if name.startswith(_HEAD)}
        return cls(found, head)

    @property
    def tensors(self) -> Mapping[str, Tensor]:
        """By name, as `inherit.whole` has them; the head's under ``head.``."""
        return self._tensors

    def parameters(self) -> list[Tensor]:
        """What is trained; afterwards gradients flow to it."""
        return [
            tensor.requires_grad_()
            for name, tensor in self._tensors.items()
            if not name.endswith(_STATISTICS)
        ]

    def part(self, architecture: Architecture) -> dict[str, Tensor]:
        """A network's tensors by their names in a `Classifier`: views of the supernet's."""
        blocks = sliced(self._tensors, architecture)
        found = {f"blocks.{name}": tensor for name, tensor in blocks.items()}
        n_features = architecture.stages[-1].channels
        own = {name: t for name, t in self._tensors.items() if name.startswith(_HEAD)}
        # It alone reads the embedding.
        first = next(name for name, tensor in own.items() if tensor.dim() == 2)
        return {**found, **own, first: own[first][:, :n_features]}

    def logits(self, architecture: Architecture, pixels: Tensor) -> Tensor:
        """What a network says of normalised pixels, (n, c), by the statistics of this batch."""
        own = self.part(architecture)
        statistics = {name: own[name].clone() for name in own if name.endswith(_STATISTICS)}
        model = _skeleton(architecture.line, self.head)
        answer, _ = functional_call(model, {**own, **statistics}, (pixels,))
        logits: Tensor = answer
        return logits

    def network(self, architecture: Architecture, batches: Sequence[Tensor]) -> Classifier:
        """One in inference mode, its norms estimated on some normalised pixels."""
        model = _built(architecture.line, self.head, 0)
        counted = {
            name: tensor
            for name, tensor in model.state_dict().items()
            if name.endswith("num_batches_tracked")
        }
        model.load_state_dict({**self.part(architecture), **counted})
        estimate_norms(model, batches)
        return model.eval()


@torch.no_grad()
def estimate_norms(model: nn.Module, batches: Sequence[Tensor]) -> None:
    """Batch norms take the mean of the statistics of some batches, whatever they had before."""
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    model.eval()
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over batches
        norm.train()
    for batch in batches:
        model(batch)
    model.eval()


@lru_cache(maxsize=64)
def _skeleton(line: str, head: HeadShape) -> Classifier:
    """A network without values, to which they are given at each call."""
    with torch.device("meta"):
        return _built(line, head, 0).train()


def _built(line: str, head: HeadShape, seed: int) -> Classifier:
    return make_classifier(
        line,
        n_classes=head.n_classes,
        hidden=head.hidden,
        dropout=head.dropout,
        cut=None,
        seed=seed,
    )


# -- training -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Lesson:
    """What a step is taught by.

    Attributes:
        pixels: (n, 3, h, w), normalised.
        class_index: (n,).
        soft_targets: (n, c) a teacher's probabilities at `TEMPERATURE`; None without a teacher.
    """

    pixels: Tensor
    class_index: Tensor
    soft_targets: Tensor | None


#: By which logits are divided where a network learns from another.
TEMPERATURE = 2.0


def by_teacher(weight: float, name: str = "supernet") -> DistillParams:
    """How a network of a search learns from another that has such a weight in its loss."""
    return DistillParams(teacher=(name,), temperature=TEMPERATURE, weight=weight)


def sandwich(
    supernet: Supernet,
    networks: Sequence[Architecture],
    lesson: Lesson,
    params: WarmUpParams,
    label_smoothing: float,
) -> float:
    """Add the gradients of one step to the supernet's tensors.

    Args:
        networks: the largest first; the others learn from it.
        lesson: what all of them are shown.
        params: how much a teacher counts.
        label_smoothing: of the labels.

    Returns:
        The loss of the largest.
    """
    largest, *others = networks
    logits = supernet.logits(largest, lesson.pixels)
    loss = functional.cross_entropy(logits, lesson.class_index, label_smoothing=label_smoothing)
    if lesson.soft_targets is not None:
        loss = distilled(loss, logits, lesson.soft_targets, by_teacher(params.teacher_weight))
    loss.backward()  # type: ignore[no-untyped-call]
    said = torch.softmax(logits.detach() / TEMPERATURE, dim=1)
    for each in others:
        # Its graph goes before the next one's is made: memory is that of one network.
        own = supernet.logits(each, lesson.pixels)
        apart = distilled(own.new_zeros(()), own, said, by_teacher(1.0)) / len(others)
        apart.backward()  # type: ignore[no-untyped-call]
    return float(loss.detach())


def warm_up(
    supernet: Supernet,
    space: Space,
    lesson_of: Callable[[int, int], Lesson],
    params: WarmUpParams,
    *,
    label_smoothing: float,
    seed: int,
    folder: Path,
    key: str,
    what: str,
) -> None:
    """Train a supernet; a call that was killed goes on, and one that was finished is read.

    Args:
        supernet: before its first step; it is changed.
        space: whose networks are parts of it.
        lesson_of: gives a step's lesson, by step and side of the input; the same for the same.
        params: steps and rates.
        label_smoothing: of the labels.
        seed: draws sides and networks, by step.
        folder: for its checkpoint, which stays: the supernet itself.
        key: a hash of all that it depends on.
        what: for the progress bar.

    Raises:
        StorageError: if the disk is full.
    """
    trained = supernet.parameters()
    # Adam makes steps of the same size for all, and undoes what was pretrained (ADR 0038).
    optimizer = torch.optim.SGD(trained, lr=params.learning_rate, momentum=0.9, nesterov=True)
    done = 0
    if (kept := load_checkpoint(folder, key)) is not None:
        done = kept.epoch
        with torch.no_grad():
            for name, tensor in supernet.tensors.items():
                tensor.copy_(kept.model[name])
        restore_optimizer(optimizer, kept.optimizer)
    for step in track(range(done, params.steps), what, params.steps - done):
        factor = rate_factor(step, params.steps, "cosine", _RISE)
        optimizer.param_groups[0]["lr"] = params.learning_rate * factor
        generator = np.random.default_rng([seed, step, 7])
        image_px = int(generator.choice(sorted(space.params.image_px)))
        random = [space.random(generator).architecture for _ in range(params.n_random)]
        networks = [space.largest.architecture, space.smallest.architecture, *random]
        optimizer.zero_grad(set_to_none=True)
        loss = sandwich(supernet, networks, lesson_of(step, image_px), params, label_smoothing)
        nn.utils.clip_grad_norm_(trained, _MAX_NORM)
        optimizer.step()
        _LOG.debug("%s: step %d at %d px: loss %.3f", what, step + 1, image_px, loss)
        if (step + 1) % _STEPS_KEPT == 0 or step + 1 == params.steps:
            state = optimizer_tensors(optimizer)
            tensors = dict(supernet.tensors)
            save_checkpoint(folder, key, Checkpoint(0, step + 1, tensors, {}, {}, state))


#: Of all gradients together: a random network can be far off.
_MAX_NORM = 5.0
#: Share of the steps in which the rate rises.
_RISE = 0.1
#: Steps between two checkpoints.
_STEPS_KEPT = 10
