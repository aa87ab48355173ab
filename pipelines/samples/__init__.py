"""Synthetic samples: brushes (`canvas`, `cutout`, `pen`), the raw `folder`, and a painter a task.

A painter is ``<task>.py`` with ``paint(label, subject, shot, side_px)``, see `folder.Painter`. A
task without one has real images only.
"""
