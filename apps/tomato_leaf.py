"""Tomato leaf: what a grower or an adviser asks of one leaf, or of several leaves of a plant.

Words: ``tasks.tomato_leaf`` in apps/texts/. Alone: `streamlit run apps/tomato_leaf.py`.
"""

from __future__ import annotations

from apps.ui import TaskApp, run

APP = TaskApp(
    task="tomato_leaf",
    icon="eco",
    # Late blight takes a field in days and viruses spread by hand and whitefly: act now. What can
    # wait for the next visit of an adviser is amber.
)

if __name__ == "__main__":
    run(APP)
