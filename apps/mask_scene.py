"""Masks in a scene: every face with a mask, without one, or with one worn wrongly, and counts.

Words: ``tasks.mask_scene`` in apps/texts/. Alone: `streamlit run apps/mask_scene.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(task="mask_scene", icon="groups")

if __name__ == "__main__":
    run(APP)
