"""Reef fish: one fish from one frame of an underwater video, or from several frames together.

Words: ``tasks.fish_species`` in apps/texts/. Alone: `streamlit run apps/fish_species.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

# A species is no alarm: every answer keeps the plain tone.
APP = TaskApp(task="fish_species", icon="set_meal")

if __name__ == "__main__":
    run(APP)
