"""`fieldlens train tiny` as one of torchrun's processes; prints what it wrote below the root.

Arguments: the root; and, for what befalls a process, its rank, the epoch, and whether it is killed
or its disk is full from then on (epoch 0: from the start).
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Callable

from pipelines import cli
from pipelines.training import fit

_WRITING = os.O_WRONLY | os.O_RDWR
#: Audit events (https://docs.python.org/3/library/audit_events.html) of a change on disk.
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"}


def main(root: str, rank: str = "none", epoch: str = "0", fate: str = "killed") -> int:
    written = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        is_change = event in _CHANGES or (event == "open" and bool(arguments[2] & _WRITING))
        if is_change:
            # Where something is renamed, the second is its new name.
            paths = [str(each) for each in arguments[:2] if str(each).startswith(root)]
            written.extend(os.path.relpath(path, root) for path in paths)

    if os.environ.get("RANK") == rank:
        _befall(int(epoch), FATES[fate])
    sys.addaudithook(note)
    code = cli.main(["train", "tiny", "--root", root])
    told = {"written": written, "has_mlflow": "mlflow" in sys.modules}
    sys.stdout.write(json.dumps({"rank": os.environ.get("RANK", "0"), **told}) + "\n")
    return code


def _kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _fill_disk() -> None:
    # Temporary files are on another disk, where Python has looked already.
    tempfile.gettempdir()
    # No file can grow any more, which to a program is the same (EFBIG for ENOSPC).
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))


FATES = {"killed": _kill, "full": _fill_disk}


def _befall(epoch: int, fate: Callable[[], None]) -> None:
    if epoch == 0:
        fate()
        return
    train_epoch, begun = fit._train_epoch, []

    def fated(*arguments: object) -> float:
        begun.append(1)
        if len(begun) == epoch:
            fate()
        return train_epoch(*arguments)

    fit._train_epoch = fated


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
