"""What this process takes of its machine, as Linux tells it."""

from __future__ import annotations

from pathlib import Path


def memory(key: str) -> int:
    """Bytes that this process holds (VmRSS), or has held at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(key)


def forget_peak() -> None:
    """Count VmHWM from now on; proc_pid_clear_refs(5)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
