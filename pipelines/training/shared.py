"""A network that several processes train: gradients added up, batch norms over the whole batch."""

# Without postponed annotations: torch compares those of a hook with its own classes.
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, distributed, nn
from torch.distributed import GradBucket  # type: ignore[attr-defined]
from torch.distributed.nn.functional import all_reduce
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from pipelines.errors import ConfigError


class _Forward(nn.Module):
    """A forward pass as a module, since `DistributedDataParallel` listens to modules alone."""

    def __init__(self, model: nn.Module, forward: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.model = model
        self._forward = forward

    def forward(self, inputs: Tensor) -> Tensor:
        return self._forward(inputs)


def shared_forward(
    model: nn.Module, forward: Callable[[Tensor], Tensor]
) -> Callable[[Tensor], Tensor]:
    """A forward pass that adds up the gradients of all processes, see `Runtime.parallel`.

    Raises:
        ConfigError: if batch statistics move in a layer that cannot share them.
    """
    share_norms(model)
    # Of 1x1 convolutions in channels last; said once a process, and harmless.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    parallel = DistributedDataParallel(
        _Forward(model, forward),
        # Norms are either frozen or shared, so that they are the same everywhere.
        forward_sync_buffers=False,
        # Blocks behind the last map that a head reads give nothing, and get no gradient.
        find_unused_parameters=bool(getattr(model, "taps", ())),
    )
    parallel.register_comm_hook(None, _add_up)
    return parallel


def _add_up(state: object, bucket: GradBucket) -> Future[Tensor]:
    """The sum over all processes and not their mean, since each has a part of one loss."""
    work = distributed.all_reduce(bucket.buffer(), async_op=True)
    summed: Future[Tensor] = work.get_future().then(lambda done: done.value()[0])
    return summed


def _summed(values: Tensor) -> Tensor:
    """The sum over all processes, through which gradients flow."""
    total: Tensor = all_reduce(values)  # type: ignore[no-untyped-call]
    return total


class SharedBatchNorm(nn.BatchNorm2d):
    """A batch norm over the pictures of all processes, also where one has none.

    torch's own `SyncBatchNorm` does not run on a CPU.

    References:
        Ioffe and Szegedy 2015, "Batch normalization", algorithm 1.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """(n, c, h, w) normalised by what all processes have of each channel."""
        if not self.training:
            return super().forward(inputs)
        # bf16 is too coarse for sums; autocast gives norms such.
        values = inputs.to(torch.promote_types(inputs.dtype, torch.float32))
        n = values.new_tensor([values.numel() / values.shape[1]])
        sums = _summed(torch.cat([values.sum(dim=(0, 2, 3)), n]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = values - mean[:, None, None]
        variance = _summed((centred**2).sum(dim=(0, 2, 3))) / count
        self._remember(mean.detach(), variance.detach(), count)
        normalised = centred * torch.rsqrt(variance + self.eps)[:, None, None]
        if self.affine:
            normalised = normalised * self.weight[:, None, None] + self.bias[:, None, None]
        return normalised.to(inputs.dtype)

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        if self.running_mean is None or self.running_var is None:
            return
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        share = self.momentum or 1 / float(self.num_batches_tracked)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * count / (count - 1), share)


def share_norms(model: nn.Module) -> None:
    """Batch norms that move become shared ones; their parameters stay where they are.

    Raises:
        ConfigError: if one is of a kind that does more than normalise.
    """
    for name, module in model.named_modules():
        if not isinstance(module, nn.modules.batchnorm._BatchNorm) or not module.training:
            continue
        if type(module) not in (nn.BatchNorm2d, SharedBatchNorm):
            raise ConfigError(
                f"params.yaml: train.weights: none lets batch norms move, and {name} "
                f"({type(module).__name__}) cannot share its statistics between processes. Train "
                f"with weights: imagenet, another backbone, or one process."
            )
        module.__class__ = SharedBatchNorm
