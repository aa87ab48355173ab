"""Skin lesion: seven kinds in a dermoscopic picture, with an alarm for melanoma that is set low.

Words: ``tasks.skin_lesion`` in apps/texts/. Alone: `streamlit run apps/skin_lesion.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(
    task="skin_lesion",
    icon="dermatology",
    # Malignant is red, premalignant amber. Benign is never green: it clears no lesion.
)

if __name__ == "__main__":
    run(APP)
