"""Flowers: the pictures of a gallery that show the same species.

Words: ``tasks.flowers`` in apps/texts/. Alone: `streamlit run apps/flowers.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(task="flowers", icon="local_florist")

if __name__ == "__main__":
    run(APP)
