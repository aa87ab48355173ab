"""The one training loop: phases of epochs, the best epoch kept, every epoch a checkpoint.

It knows neither images nor caches: a `Phase` brings its batches, its forward pass and its val
logits. Both strategies run through here, so that they share optimisers, schedules, losses, early
stopping and resumption. With it stands what small data sets need (mixup, a moving average of the
weights) and what is known of each epoch.
"""

from __future__ import annotations

import csv
import io
import logging
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pipelines.config.train import DistillParams, PhaseParams, TrainParams
from pipelines.errors import ConfigError
from pipelines.kinds.train import Criterion, TaughtByVectors
from pipelines.progress import track
from pipelines.training.checkpoints import (
    Checkpoint,
    load_checkpoint,
    optimizer_tensors,
    restore_optimizer,
    save_checkpoint,
)
from pipelines.training.runtime import Runtime

_LOG = logging.getLogger(__name__)

#: Norm to which gradients are clipped, so that one odd batch of a small data set undoes little.
_MAX_GRADIENT_NORM = 5.0
#: Share of the peak at which one-cycle starts, and at which it ends.
_ONE_CYCLE_START, _ONE_CYCLE_END = 1 / 25, 1e-4


# -- learning rates and optimisers ----------------------------------------------------------------
def _cosine(progress: float) -> float:
    return 0.5 * (1 + math.cos(math.pi * progress))


def rate_factor(step: int, n_steps: int, schedule: str, warmup_fraction: float) -> float:
    """The learning rate of a step, as a share of the phase's peak, in (0, 1].

    Args:
        step: from 0 to ``n_steps - 1``.
        schedule: ``cosine`` (to 0), ``one_cycle`` (from 1/25 up, then down to 1/10,000) or
            ``constant``.
        warmup_fraction: share of the steps in which the rate rises.

    References:
        Loshchilov and Hutter 2017, "SGDR" (cosine); Smith and Topin 2019, "Super-convergence"
        (one-cycle).
    """
    n_warmup = round(n_steps * warmup_fraction)
    if step < n_warmup:
        rise = (step + 1) / (n_warmup + 1)
        if schedule == "one_cycle":
            return _ONE_CYCLE_START + (1 - _ONE_CYCLE_START) * (1 - _cosine(rise))
        return rise
    progress = (step - n_warmup) / max(n_steps - n_warmup, 1)
    if schedule == "constant":
        return 1.0
    floor = _ONE_CYCLE_END if schedule == "one_cycle" else 0.0
    return floor + (1 - floor) * _cosine(progress)


Groups = list[dict[str, Any]]

OPTIMIZERS: dict[str, Callable[[Groups, TrainParams], torch.optim.Optimizer]] = {
    "adamw": lambda groups, params: torch.optim.AdamW(groups),
    "sgd": lambda groups, params: torch.optim.SGD(
        groups, momentum=params.momentum, nesterov=params.momentum > 0
    ),
    # Decay 0.9 as in the MnasNet and MobileNet studies (SEEDS: RMSprop, decay 0.9, momentum 0.9).
    "rmsprop": lambda groups, params: torch.optim.RMSprop(
        groups, alpha=0.9, momentum=params.momentum
    ),
}


def make_optimizer(groups: Groups, params: TrainParams) -> torch.optim.Optimizer:
    """The optimiser that params name.

    Raises:
        ConfigError: if there is no such optimiser; lists those that are.
    """
    if params.optimizer not in OPTIMIZERS:
        raise ConfigError(
            f"params.yaml: train.optimizer: there is no optimiser {params.optimizer!r}. "
            f"Expected one of {', '.join(OPTIMIZERS)}."
        )
    return OPTIMIZERS[params.optimizer](groups, params)


def parameter_groups(
    modules: Iterable[tuple[nn.Module, float]], learning_rate: float, weight_decay: float
) -> Groups:
    """Groups of modules, each with its share of the rate; biases and norms do not decay."""
    groups: Groups = []
    for module, share in modules:
        kernels = [p for p in module.parameters() if p.requires_grad and p.ndim > 1]
        vectors = [p for p in module.parameters() if p.requires_grad and p.ndim <= 1]
        for parameters, decay in ((kernels, weight_decay), (vectors, 0.0)):
            if parameters:
                rate = learning_rate * share
                groups.append(
                    {"params": parameters, "lr": rate, "peak_lr": rate, "weight_decay": decay}
                )
    return groups


def mixed(
    inputs: Tensor, targets: Tensor, alpha: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A batch in which each example is blended with another one.

    Args:
        inputs: (n, ...).
        targets: (n, ...) as the kind's loss takes them.
        alpha: of the Beta distribution that draws the share; > 0.

    References:
        Zhang et al. 2018, "mixup"; at a hidden layer, Verma et al. 2019, "Manifold mixup".
    """
    share = float(generator.beta(alpha, alpha))
    partner = torch.from_numpy(generator.permutation(len(inputs)))
    return (
        share * inputs + (1 - share) * inputs[partner],
        share * targets + (1 - share) * targets[partner],
    )


def distilled(loss: Tensor, logits: Tensor, soft_targets: Tensor, params: DistillParams) -> Tensor:
    """A task's own loss and what a teacher says, weighted: (1 - w) loss + w T² KL(teacher | own).

    T² keeps the teacher's part as large when T changes, since its gradients shrink by 1 / T².

    Args:
        loss: the task's own, of the same batch.
        logits: (n, n_classes) of the network that is trained.
        soft_targets: (n, n_classes) the teacher's probabilities at the temperature T.

    References:
        Hinton, Vinyals and Dean 2015, "Distilling the knowledge in a neural network", section 2.
    """
    own = functional.log_softmax(logits / params.temperature, dim=1)
    divergence = functional.kl_div(own, soft_targets, reduction="batchmean")
    taught = params.temperature**2 * divergence
    return (1 - params.weight) * loss + params.weight * taught


def update_average(model: nn.Module, average: dict[str, Tensor], decay: float, step: int) -> None:
    """Move an exponential moving average of the trained parameters one step on.

    Args:
        average: by name; filled at the first step, changed in place.
        decay: share of the old average that stays, in (0, 1).
        step: of the phase, from 0. Early on less stays, (1 + step) / (10 + step), so that a short
            phase is not held back by the weights that it started from.

    References:
        Polyak and Juditsky 1992, "Acceleration of stochastic approximation by averaging".
    """
    kept = min(decay, (1 + step) / (10 + step))
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        value = parameter.detach()
        if name not in average:
            average[name] = value.clone()
        else:
            average[name].lerp_(value, 1 - kept)


# -- history --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class EpochLog:
    """One epoch; losses are means over images.

    Attributes:
        epoch: from 1, through all phases.
        learning_rate: the head's, at the end of the epoch.
        train_loss: with all that params add to it, e.g. label smoothing, mixup and a teacher.
        val: what the val split says of it, by the names of the kind; NaN without a val split.
    """

    epoch: int
    phase: str
    learning_rate: float
    train_loss: float
    val: Mapping[str, float]

    def row(self) -> dict[str, Any]:
        """A row of history.csv."""
        row = asdict(self)
        val: dict[str, float] = row.pop("val")
        return row | val

    def __str__(self) -> str:
        """What a terminal shows of it."""
        found = {"train_loss": self.train_loss, **self.val}
        known = [f"{name} {value:.3f}" for name, value in found.items() if not math.isnan(value)]
        return f"epoch {self.epoch} ({self.phase}): {', '.join(known)}"


#: Of the val split's values, the one that is better when lower.
_LOSS = "val_loss"


def best_values(history: Sequence[EpochLog], monitor: str) -> dict[str, float]:
    """Val metrics of the epoch that `fit` kept; the lower val loss settles ties."""
    sign = -1 if monitor == _LOSS else 1
    return dict(max(history, key=lambda log: (sign * log.val[monitor], -log.val[_LOSS])).val)


def history_csv(history: Sequence[EpochLog]) -> str:
    """The text of history.csv, numbers with six digits; history is not empty."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    rows = [log.row() for log in history]
    writer.writerow(rows[0])
    for row in rows:
        writer.writerow([f"{v:.6g}" if isinstance(v, float) else v for v in row.values()])
    return buffer.getvalue()


# -- the loop -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Phase:
    """What differs between training a head and training a tail.

    Attributes:
        modules: what is trained, each with its share of the learning rate.
        batches: of an epoch: inputs and their truth, of this process's share of each batch; the
            same for the same epoch.
        n_batches: of every epoch.
        val_outputs: (n, ...) for the val split, each process doing its share; None without one:
            the last epoch is kept.
        val_truth: (n, ...) to go with them.
        train_mode: puts the network into the state in which this phase trains it.
        soft_targets: of an epoch: for each of its batches, as a whole, what a teacher says, as in
            `Split`; None without a teacher.
    """

    name: str
    params: PhaseParams
    modules: Sequence[tuple[nn.Module, float]]
    batches: Callable[[int], Iterator[tuple[Tensor, Tensor]]]
    n_batches: int
    forward: Callable[[Tensor], Tensor]
    val_outputs: Callable[[], Tensor] | None
    val_truth: NDArray[Any]
    train_mode: Callable[[], None]
    soft_targets: Callable[[int], Iterator[Tensor]] | None = None


@dataclass(slots=True)
class _State:
    """What a checkpoint holds, alive."""

    phase: int = 0
    epoch: int = 0
    best: dict[str, Tensor] = field(default_factory=dict)
    best_value: float = -math.inf
    stale: int = 0
    average: dict[str, Tensor] = field(default_factory=dict)
    history: list[EpochLog] = field(default_factory=list)


def fit(
    model: nn.Module,
    phases: Sequence[Phase],
    params: TrainParams,
    *,
    criterion: Criterion,
    values: Sequence[str],
    seed: int,
    checkpoint_dir: Path,
    key: str,
    on_epoch: Callable[[EpochLog], None],
    what: str,
    runtime: Runtime,
) -> list[EpochLog]:
    """Train through the phases and leave the best epoch's weights in the model, in inference mode.

    Without a val split each epoch counts as better than the one before it. A run that was killed
    goes on from its last epoch and ends with the same bytes. Gives a row an epoch.

    Args:
        model: holds all that the phases train; its state dict is what is kept.
        criterion: of the kind, for the train split.
        values: names of what it measures on val.
        key: hash of all that the training depends on; another key starts anew.
        on_epoch: told of each epoch, those before a resumption included.
        runtime: on whose device the model lies; its primary writes checkpoints.

    Raises:
        ConfigError: if the monitor is none of the values.
        StorageError: if a checkpoint cannot be written.
    """
    if params.monitor not in values:
        raise ConfigError(
            f"params.yaml: train.monitor: expected one of {', '.join(values)} "
            f"(got {params.monitor!r})."
        )
    # All go on from the primary's epoch, whatever lies on their own disks.
    found = runtime.told(lambda: load_checkpoint(checkpoint_dir, key))
    state, optimizer_state = _resume(model, found)
    if state.history:
        _LOG.info("%s: going on after epoch %d", what, state.history[-1].epoch)
    for log in state.history:
        on_epoch(log)
    for index in range(state.phase, len(phases)):
        phase = phases[index]
        if index > state.phase:
            state.phase, state.epoch, state.stale = index, 0, 0
            state.average, optimizer_state = {}, {}
            if state.best:
                model.load_state_dict(state.best)
        phase.train_mode()
        phase = replace(phase, forward=runtime.parallel(model, phase.forward))
        groups = parameter_groups(phase.modules, phase.params.learning_rate, params.weight_decay)
        optimizer = make_optimizer(groups, params)
        if optimizer_state:
            restore_optimizer(optimizer, optimizer_state)
        while state.epoch < phase.params.epochs and not _is_stale(phase, state):
            train_loss = _train_epoch(
                phase,
                state,
                params,
                optimizer,
                criterion,
                (seed, index),
                model,
                what,
                runtime,
            )
            measured = partial(_val_values, phase, criterion, values, runtime)
            log = _close_epoch(model, phase, state, params, optimizer, train_loss, measured)
            _LOG.info("%s: %s", what, log)
            on_epoch(log)
            if runtime.is_primary:
                save_checkpoint(checkpoint_dir, key, _checkpoint(model, state, optimizer))
    if state.best:
        model.load_state_dict(state.best)
    # Also where nothing was left to train: batch norms must not go on counting what is shown next.
    model.eval()
    return state.history


def _is_stale(phase: Phase, state: _State) -> bool:
    return 0 < phase.params.patience <= state.stale


def _train_epoch(
    phase: Phase,
    state: _State,
    params: TrainParams,
    optimizer: torch.optim.Optimizer,
    criterion: Criterion,
    seed: tuple[int, int],
    model: nn.Module,
    what: str,
    runtime: Runtime,
) -> float:
    phase.train_mode()
    generator = np.random.default_rng([*seed, state.epoch, 1])
    # Dropout draws from torch's global generator; its state must not outlive the epoch. Processes
    # have different pictures, and so draw differently.
    torch.manual_seed(int(generator.integers(2**31)) + runtime.rank)
    n_steps = phase.n_batches * phase.params.epochs
    total, n_images = 0.0, 0
    batches = phase.batches(state.epoch)
    soft = repeat(None) if phase.soft_targets is None else phase.soft_targets(state.epoch)
    title = f"{what}: {phase.name} {state.epoch + 1}/{phase.params.epochs}"
    told = zip(track(batches, title, phase.n_batches), soft, strict=False)
    for i, ((inputs, truth), soft_targets) in enumerate(told):
        step = state.epoch * phase.n_batches + i
        factor = rate_factor(step, n_steps, phase.params.schedule, phase.params.warmup_fraction)
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * factor
        targets = runtime.gathered(criterion.targets(truth))
        if params.mixup_alpha > 0:
            n_own = None if soft_targets is None else targets.shape[1]
            if soft_targets is not None:
                # Beside the labels, so that mixup blends both alike.
                targets = torch.cat([targets, soft_targets], dim=1)
            whole, targets = mixed(runtime.gathered(inputs), targets, params.mixup_alpha, generator)
            inputs = whole[runtime.share(np.arange(len(whole)))]
            if soft_targets is not None:
                targets, soft_targets = targets[:, :n_own], targets[:, n_own:]
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=runtime.device.type == "cuda"):
            outputs = phase.forward(inputs.to(runtime.device))
        outputs = runtime.gathered(outputs.float())
        loss = criterion.loss(outputs, targets.to(runtime.device))
        if params.distill is not None and soft_targets is not None:
            own, theirs = outputs, soft_targets.to(runtime.device)
            if isinstance(criterion, TaughtByVectors):
                own, theirs = criterion.related(own, theirs, params.distill.temperature)
            loss = distilled(loss, own, theirs, params.distill)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(
            [p for group in optimizer.param_groups for p in group["params"]], _MAX_GRADIENT_NORM
        )
        optimizer.step()
        if params.ema_decay > 0:
            update_average(model, state.average, params.ema_decay, step)
        total += loss.item() * len(targets)
        n_images += len(targets)
    return total / max(n_images, 1)


def _close_epoch(
    model: nn.Module,
    phase: Phase,
    state: _State,
    params: TrainParams,
    optimizer: torch.optim.Optimizer,
    train_loss: float,
    measured: Callable[[], dict[str, float]],
) -> EpochLog:
    """Measure on val, with the averaged weights where they are kept, and remember the best."""
    raw = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if state.average:
        model.load_state_dict(raw | state.average)
    model.eval()
    values = measured()
    if phase.val_outputs is None:
        # Nothing can choose: the later one is taken for the better one.
        value = float(len(state.history))
    else:
        value = -values[_LOSS] if params.monitor == _LOSS else values[params.monitor]
        # Small val splits tie often; the lower loss then decides, by less than one image can count.
        value -= 1e-4 * math.tanh(values[_LOSS])
    if value > state.best_value:
        state.best_value, state.stale = value, 0
        state.best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    else:
        state.stale += 1
    model.load_state_dict(raw)
    state.epoch += 1
    log = EpochLog(
        epoch=len(state.history) + 1,
        phase=phase.name,
        learning_rate=max(group["lr"] for group in optimizer.param_groups),
        train_loss=train_loss,
        val=values,
    )
    state.history.append(log)
    return log


def _val_values(
    phase: Phase, criterion: Criterion, names: Sequence[str], runtime: Runtime
) -> dict[str, float]:
    if phase.val_outputs is None:
        return dict.fromkeys(names, math.nan)
    with torch.inference_mode():
        outputs = phase.val_outputs().float().cpu()
        # One verdict, so that all stop, and keep, the same epoch.
        return runtime.told(lambda: criterion.measured(outputs, phase.val_truth))


def _checkpoint(model: nn.Module, state: _State, optimizer: torch.optim.Optimizer) -> Checkpoint:
    history = [asdict(log) for log in state.history]
    return Checkpoint(
        phase=state.phase,
        epoch=state.epoch,
        model=dict(model.state_dict()),
        best=state.best,
        average=state.average,
        optimizer=optimizer_tensors(optimizer),
        progress={"best_value": state.best_value, "stale": state.stale, "history": history},
    )


def _resume(model: nn.Module, found: Checkpoint | None) -> tuple[_State, dict[str, Tensor]]:
    # Version 0.1 wrote rows of another form: nothing is lost by starting anew.
    if found is None or any("val" not in row for row in found.progress["history"]):
        return _State(), {}
    model.load_state_dict(found.model)
    progress = found.progress | {"history": [EpochLog(**row) for row in found.progress["history"]]}
    state = _State(found.phase, found.epoch, found.best, average=found.average, **progress)
    return state, found.optimizer
