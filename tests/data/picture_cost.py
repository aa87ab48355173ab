"""Put one file through a predictor's way to its pixels, and print what that cost.

    python -m tests.data.picture_cost FILE

In a process of its own: a peak of memory is a process's, and is never given back. Before the file,
a small picture goes through, so that what is paid once is not counted. CPU time, not wall time.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

from pipelines.data.images import open_image
from pipelines.data.pixel_range import Reading
from pipelines.data.preprocess import Preprocess
from pipelines.errors import CorruptImageError
from tests.image_files import encode, picture
from tests.process_cost import forget_peak, memory


def look(source: Path | bytes) -> tuple[str, str]:
    preprocess = Preprocess(256, 224, reading=Reading(range=(0.0, 4095.0)))
    try:
        opened = open_image(source, least_side_px=512, reading=preprocess.reading)
    except CorruptImageError as err:
        return "refused", str(err)
    preprocess(opened.rgb)
    return "taken", f"{opened.rgb.size} of {opened.width_px} x {opened.height_px}"


if __name__ == "__main__":
    look(encode(picture(64, 64), "JPEG"))
    forget_peak()
    before, seconds = memory("VmRSS"), time.process_time()
    result, message = look(Path(sys.argv[1]))
    spent = {"cpu_s": time.process_time() - seconds, "peak_mb": (memory("VmHWM") - before) / 1e6}
    sys.stdout.write(json.dumps({"result": result, "message": message, **spent}) + "\n")
