"""Cat or dog: the reference task, to see that everything works.

Words: ``tasks.cats_dogs`` in apps/texts/. Alone: `streamlit run apps/cats_dogs.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(task="cats_dogs", icon="pets")

if __name__ == "__main__":
    run(APP)
