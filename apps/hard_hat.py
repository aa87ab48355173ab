"""Hard hats: who on a site wears a helmet and workwear, and who does not, with boxes and counts.

Words: ``tasks.hard_hat`` in apps/texts/. Alone: `streamlit run apps/hard_hat.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(
    task="hard_hat",
    icon="engineering",
)

if __name__ == "__main__":
    run(APP)
