"""Streets: riders of e-scooters, people on foot and bicycles, with boxes and counts.

Words: ``tasks.rider`` in apps/texts/. Alone: `streamlit run apps/rider.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(
    task="rider",
    icon="electric_scooter",
)

if __name__ == "__main__":
    run(APP)
