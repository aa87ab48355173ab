"""Where a training runs: which process of how many, on which device, and how they agree.

Made once and passed down; below it nothing asks for the environment. One process is rank 0 of 1.
The primary alone takes locks, tells MLflow, and writes caches, checkpoints and outputs.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipelines.errors import ConfigError

# torch takes seconds to load; who only asks whether this is the primary does without.
if TYPE_CHECKING:
    import torch
    from torch import Tensor


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Runtime:
    """One process of a training; by default the only one, on the CPU.

    Attributes:
        rank: in [0, world).
        reduce: the sum of a tensor over all processes; each calls it, and each gets the sum.
        barrier: returns when all processes have called it.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=_cpu)
    reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor
    barrier: Callable[[], None] = lambda: None

    def __post_init__(self) -> None:
        """Refuse a rank that there is not."""
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world}: expected 0 to {self.world - 1}")

    @property
    def is_primary(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @contextmanager
    def primary_first(self) -> Iterator[None]:
        """A block that the primary goes through before the others: they find what it has kept."""
        if not self.is_primary:
            self.barrier()
        yield
        if self.is_primary:
            self.barrier()


def rank_and_world() -> tuple[int, int]:
    """Which process of how many this is, as torchrun says in RANK and WORLD_SIZE; else 0 of 1.

    Raises:
        ConfigError: if they are no such numbers.
    """
    rank, world = os.environ.get("RANK", ""), os.environ.get("WORLD_SIZE", "1")
    if world == "1":
        return 0, 1
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise ConfigError(
            f"environment: expected RANK from 0 to WORLD_SIZE - 1, got RANK={rank!r} and "
            f"WORLD_SIZE={world!r}. Start the processes with torchrun, or unset both for one."
        )
    return int(rank), int(world)


def this_process(n_threads: int) -> Runtime:
    """This process, one of torchrun's or alone, on a GPU where there is one.

    Sets torch up to compute the same bytes each time, on so many threads.

    Raises:
        ConfigError: if the environment names other processes and they cannot be met.
    """
    import torch
    from torch import distributed

    torch.use_deterministic_algorithms(True, warn_only=True)
    # With the above, torch fills each new tensor with NaN, so that reading what was never written
    # shows. Nothing here reads such, and filling took a fifth of a tail's training.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(n_threads)
    rank, world = rank_and_world()
    place = f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if torch.cuda.is_available() else "cpu"
    if world == 1:
        return Runtime(device=torch.device(place))
    if not distributed.is_initialized():
        try:
            distributed.init_process_group("gloo")
        except (ValueError, RuntimeError) as err:
            reason = str(err).splitlines()[0]
            raise ConfigError(
                f"rank {rank} of {world}: the other processes cannot be met ({reason}). "
                f"Start all of them with torchrun, or unset RANK and WORLD_SIZE for one."
            ) from err
    return Runtime(rank, world, torch.device(place), _summed, distributed.barrier)


def _summed(tensor: Tensor) -> Tensor:
    from torch import distributed

    distributed.all_reduce(tensor)
    return tensor
