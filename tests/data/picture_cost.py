"""Put one file through a predictor's way to its pixels, and print what that cost.

    python picture_cost.py FILE

In a process of its own: a peak of memory is a process's, and is never given back. Before the file,
a small picture goes through, so that what is paid once is not counted. CPU time, not wall time.
"""

from __future__ import annotations

import io
import json
import resource
import sys
from pathlib import Path

from PIL import Image

from pipelines.data.images import open_image
from pipelines.data.pixel_range import Reading
from pipelines.data.preprocess import Preprocess
from pipelines.errors import CorruptImageError


def look(source: Path | bytes) -> tuple[str, str]:
    preprocess = Preprocess(256, 224, reading=Reading(range=(0.0, 4095.0)))
    try:
        opened = open_image(source, least_side_px=512, reading=preprocess.reading)
    except CorruptImageError as err:
        return "refused", str(err)
    preprocess(opened.rgb)
    return "taken", f"{opened.rgb.size} of {opened.width_px} x {opened.height_px}"


def main(file: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, "JPEG")
    look(buffer.getvalue())
    # Forget the peak so far; proc_pid_clear_refs(5).
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    before, seconds = memory("VmRSS"), cpu_s()
    result, message = look(file)
    spent = {"peak_mb": (memory("VmHWM") - before) / 1e6, "cpu_s": cpu_s() - seconds}
    sys.stdout.write(json.dumps({"result": result, "message": message, **spent}) + "\n")


def memory(key: str) -> int:
    """Bytes that this process holds (VmRSS), or has held at most (VmHWM)."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(key)


def cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main(Path(sys.argv[1]))
