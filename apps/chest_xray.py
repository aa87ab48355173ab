"""Chest X-ray: a lesson in shortcuts. The class is the hospital, and the page says so.

Words: ``tasks.chest_xray`` in apps/texts/. Alone: `streamlit run apps/chest_xray.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(
    task="chest_xray",
    icon="pulmonology",
    # "No finding" is never green: the absence of a finding clears nobody.
)

if __name__ == "__main__":
    run(APP)
