"""Where a training runs: which process of how many, on which device, and how they agree.

Made once and passed down; below it nothing asks for the environment. One process is rank 0 of 1,
and all that is asked of the others is then nothing. The primary alone takes locks, tells MLflow,
and writes caches, checkpoints and outputs; each process fills its rows of the activations.

Each process has its share of a batch, and the loss of all of it: outputs and targets are gathered
(`Runtime.gathered`), so that a loss which compares the pictures of a batch is the same on any
number of processes, and gradients are added up (ADR 0036).
"""

from __future__ import annotations

import logging
import os
import re
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from pipelines.errors import ConfigError, RanksError, StorageError

# torch takes seconds to load; who only asks whether this is the primary does without.
if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn

T = TypeVar("T")

#: For the store, when a training ends in an error.
_STORE_S = 5
#: The primary may write, or wait for a slow disk, while the others wait for it.
_PATIENCE = timedelta(days=1)


def _cpu() -> torch.device:
    import torch

    return torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Runtime:
    """One process of a training; by default the only one, on the CPU.

    Attributes:
        rank: in [0, world).
    """

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=_cpu)

    def __post_init__(self) -> None:
        """Refuse a rank that there is not."""
        if not 0 <= self.rank < self.world:
            raise ValueError(f"rank {self.rank} of {self.world}: expected 0 to {self.world - 1}")

    @property
    def is_primary(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    # -- waiting and agreeing: each process calls these, in the same order -------------------------
    def barrier(self) -> None:
        """Return when all processes have called it."""
        self.everyones(None)

    @contextmanager
    def primary_first(self) -> Iterator[None]:
        """A block that the primary goes through before the others: they find what it has kept."""
        if not self.is_primary:
            self.barrier()
        yield
        if self.is_primary:
            self.barrier()

    def everyones(self, value: T) -> list[T]:
        """What each process brings, in the order of their ranks."""
        if self.world == 1:
            return [value]
        from torch import distributed

        found: list[Any] = [None] * self.world
        distributed.all_gather_object(found, value)
        return found

    def told(self, make: Callable[[], T]) -> T:
        """What the primary makes; the others wait for it."""
        if self.world == 1:
            return make()
        from torch import distributed

        box = [make() if self.is_primary else None]
        distributed.broadcast_object_list(box, src=0)
        value: T = box[0]  # type: ignore[assignment]
        return value

    def check_same(self, what: Mapping[str, str]) -> None:
        """Nothing, if all processes have the same values under the same names.

        Raises:
            RanksError: if one has not; names what.
        """
        first, *others = self.everyones(dict(what))
        for rank, other in enumerate(others, start=1):
            wrong = [name for name in first if other.get(name) != first[name]]
            if wrong:
                told = "; ".join(
                    f"{name} is {other.get(name, 'not there')[:12]} and not {first[name][:12]}"
                    for name in wrong
                )
                raise RanksError(
                    f"rank {rank} of {self.world}: {told}, as rank 0 has it. All processes train "
                    f"on the same: give each machine the same project (params.yaml, datasets/, "
                    f"weights) and the same versions, then start again."
                )

    # -- shares of a batch -------------------------------------------------------------------------
    def share(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """This process's part of some rows: parts differ by one row at most, and may be empty."""
        import numpy as np

        return np.array_split(rows, self.world)[self.rank]

    def gathered(self, part: Tensor) -> Tensor:
        """(n, ...) the parts of all processes, in the order of their ranks.

        Gradients flow into this process's own rows. A loss that each process takes of the whole
        thus gives each its own part of the gradient, and the parts add up to that of one process.
        """
        if self.world == 1:
            return part
        import torch
        from torch import distributed

        counts = torch.zeros(self.world, dtype=torch.int64, device=part.device)
        counts[self.rank] = len(part)
        distributed.all_reduce(counts)
        ends = counts.cumsum(0).tolist()
        start, end = ends[self.rank] - len(part), ends[self.rank]
        # Zeros but for the own rows: the sum is exact.
        whole = torch.zeros((ends[-1], *part.shape[1:]), dtype=part.dtype, device=part.device)
        whole[start:end] = part.detach()
        distributed.all_reduce(whole)
        return torch.cat([whole[:start], part, whole[end:]])

    def spread(
        self, rows: NDArray[np.int64], work: Callable[[NDArray[np.int64]], Tensor]
    ) -> Tensor:
        """(n, ...) what ``work`` gives of the rows, each process doing its share."""
        if self.world == 1:
            return work(rows)
        own = self.share(rows)
        return self.gathered(work(shown(own, rows))[: len(own)])

    def parallel(
        self, model: nn.Module, forward: Callable[[Tensor], Tensor]
    ) -> Callable[[Tensor], Tensor]:
        """A forward pass through what of a network is trained, whose gradients are added up.

        Called when the network is in the state in which it is trained.

        Raises:
            ConfigError: if batch statistics move in a layer that cannot share them.
        """
        if self.world == 1:
            return forward
        from pipelines.training.shared import shared_forward

        return shared_forward(model, forward)

    @contextmanager
    def together(self, what: str) -> Iterator[None]:
        """A block in which a process that is lost ends this one, too, with one line.

        Raises:
            RanksError: if another process is gone, or torchrun ends this one because of it.
        """
        if self.world == 1:
            yield
            return

        def lost(reason: str) -> RanksError:
            # This process ends now anyway, and may have a line to say.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            return RanksError(
                f"{what}: rank {self.rank} of {self.world} has lost another process ({reason}). At "
                f"most the epoch under way is lost: look at what the other one said, then run the "
                f"same command again, with as many processes as you like."
            )

        def end(*_: object) -> None:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            raise _EndedError

        # torchrun waits half a minute after this signal: time to leave nothing half-written, and
        # to say so. The others speak where the primary is the one that is gone.
        before = signal.signal(signal.SIGTERM, end)
        try:
            yield
        except _EndedError:
            raise lost("torchrun ends all") from None
        except RuntimeError as err:
            if not _is_lost(err):
                raise
            raise lost(_first_line(err)) from err
        else:
            signal.signal(signal.SIGTERM, before)


class _EndedError(BaseException):
    """Of the signal's handler, wherever it finds the process: no library takes it for its own."""


def shown(own: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """A share, or the first of all rows where it is empty: so that shapes are known."""
    return own if len(own) else rows[:1]


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


def is_first_to_say() -> bool:
    """Whether no other process of this training has asked before: why it ends is said once.

    They ask at the store by which they have met, and which torchrun keeps beyond their end. Where
    something else has started them, each says it.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return True
    try:
        place = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        # torch's own client would go on trying, and tell of each try.
        socket.create_connection(place, timeout=_STORE_S).close()
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        store = TCPStore(*place, timeout=timedelta(seconds=_STORE_S))
        n_asked: int = store.add(f"ends/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", 1)
        return n_asked == 1
    except (KeyError, ValueError, OSError, RuntimeError):
        # Nobody is left to ask.
        return True


def this_process(n_threads: int) -> Runtime:
    """This process, one of torchrun's or alone, on a GPU where there is one.

    Sets torch up to compute the same bytes each time, on so many threads.

    Raises:
        ConfigError: if the environment names other processes and they cannot be met, or this
            machine has fewer GPUs than processes.
        StorageError: if no temporary file can be made, as torch's own modules ask for.
    """
    try:
        tempfile.gettempdir()
    except FileNotFoundError as err:
        raise StorageError(
            f"temporary files: {err.strerror}. Free space there, or name another folder by TMPDIR, "
            f"then run the same command again."
        ) from err
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
    device = torch.device(place)
    if device.type == "cuda":
        if (device.index or 0) >= torch.cuda.device_count():
            raise ConfigError(
                f"rank {rank} of {world}: this machine has {torch.cuda.device_count()} GPUs, and a "
                f"process of its own was started for one more. Start one a GPU at most: torchrun "
                f"--nproc-per-node {torch.cuda.device_count()}."
            )
        torch.cuda.set_device(device)
    if rank > 0:
        # The primary says what there is to say; a warning may be of this machine alone.
        logging.getLogger("pipelines").setLevel(logging.WARNING)
    if not distributed.is_initialized():
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        try:
            distributed.init_process_group(backend, timeout=_PATIENCE)
        except (ValueError, RuntimeError) as err:
            raise ConfigError(
                f"rank {rank} of {world}: the other processes cannot be met ({_first_line(err)}). "
                f"Start all of them with torchrun, or unset RANK and WORLD_SIZE for one."
            ) from err
    return Runtime(rank, world, device)


#: Of what gloo, nccl and torch's store say when the other end is gone.
_SIGNS_OF_LOSS = ("gloo", "nccl", "connection", "peer", "socket")


def _is_lost(err: RuntimeError) -> bool:
    from torch import distributed

    told = str(err).lower()
    return isinstance(err, distributed.DistError) or any(sign in told for sign in _SIGNS_OF_LOSS)


def _first_line(err: Exception) -> str:
    # gloo says first where in its own source it is, and ends with advice.
    words = re.sub(r"^\[[^]]*\]\s*", "", str(err).split(". ")[0].strip())
    return words.splitlines()[0][:200] if words else type(err).__name__
