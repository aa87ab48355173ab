"""Blood cells: red cells, white cells and platelets of a field, counted. Not for diagnosis.

Words: ``tasks.blood_cells`` in apps/texts/. Alone: `streamlit run apps/blood_cells.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(task="blood_cells", icon="bloodtype")

if __name__ == "__main__":
    run(APP)
