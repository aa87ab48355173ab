"""Beads in a photograph: even or uneven, and where to look at them, with boxes and counts.

Words: ``tasks.weld_photo`` in apps/texts/. Alone: `streamlit run apps/weld_photo.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(task="weld_photo", icon="image_search")

if __name__ == "__main__":
    run(APP)
