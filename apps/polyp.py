"""Polyp: where a frame of a colonoscopy shows one, as a mask over the picture. Not for diagnosis.

Words: ``tasks.polyp`` in apps/texts/. Alone: `streamlit run apps/polyp.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(task="polyp", icon="gastroenterology")

if __name__ == "__main__":
    run(APP)
