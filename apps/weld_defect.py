"""Weld radiograph: which patches of a film an inspector should look at first.

Words: ``tasks.weld_defect`` in apps/texts/. Alone: `streamlit run apps/weld_defect.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(
    task="weld_defect",
    icon="precision_manufacturing",
    # Cracks and unfilled roots are not permitted at any size in the strictest quality level, pores
    # within limits (ISO 5817:2023, table 1). "No flaw" is never green: a patch clears no weld.
)

if __name__ == "__main__":
    run(APP)
