"""Where a training runs: which process of how many, on which device, and how they agree.

Made once and passed down; below it nothing asks for the environment. One process is rank 0 of 1.
The primary alone takes locks, tells MLflow, and writes caches, checkpoints and outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor


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
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
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


def one_process(n_threads: int) -> Runtime:
    """This process alone, on the GPU where there is one; sets torch up to compute the same bytes."""
    set_up_torch(n_threads)
    return Runtime(device=torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def set_up_torch(n_threads: int) -> None:
    """Let torch of this process compute the same bytes each time, on so many threads."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    # With the above, torch fills each new tensor with NaN, so that reading what was never written
    # shows. Nothing here reads such, and filling took a fifth of a tail's training.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.set_num_threads(n_threads)
