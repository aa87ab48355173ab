"""`fieldlens train tiny` as one of torchrun's processes; prints what it wrote below the root."""

from __future__ import annotations

import json
import os
import sys

from pipelines import cli

_WRITING = os.O_WRONLY | os.O_RDWR
#: Audit events (https://docs.python.org/3/library/audit_events.html) of a change on disk.
_CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink"}


def main(root: str) -> int:
    written = []

    def note(event: str, arguments: tuple[object, ...]) -> None:
        is_change = event in _CHANGES or (event == "open" and bool(arguments[2] & _WRITING))
        if is_change:
            # Where something is renamed, the second is its new name.
            paths = [str(each) for each in arguments[:2] if str(each).startswith(root)]
            written.extend(os.path.relpath(path, root) for path in paths)

    sys.addaudithook(note)
    code = cli.main(["train", "tiny", "--root", root])
    sys.stdout.write(json.dumps({"written": written, "has_mlflow": "mlflow" in sys.modules}))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
