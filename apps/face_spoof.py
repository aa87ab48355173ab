"""Live face or print: what one picture tells of a photograph that is held before the camera.

Words: ``tasks.face_spoof`` in apps/texts/. Alone: `streamlit run apps/face_spoof.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

# "Live" is never green: other attacks than prints were never shown to the model.
APP = TaskApp(task="face_spoof", icon="familiar_face_and_zone")

if __name__ == "__main__":
    run(APP)
