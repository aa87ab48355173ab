"""Face mask: finds the faces in a scene, and says for each whether its mask is worn well.

Words: ``tasks.mask_detection`` in apps/texts/. Alone: `streamlit run apps/mask_detection.py`.
"""

from __future__ import annotations

from apps.faces import draw, find
from apps.ui import TaskApp, run

APP = TaskApp(
    task="mask_detection",
    icon="masks",
    find=find,
    draw=draw,
)

if __name__ == "__main__":
    run(APP)
