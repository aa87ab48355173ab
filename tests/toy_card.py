"""The card of a task of three colours, as a data set that somebody might bring."""

from __future__ import annotations

CARD = """\
title: {title}
task: {task}
domain: agriculture
source: {{publisher: nobody, url: "https://example.org", version: "1", retrieved: "2026-11-22"}}
licence: {{spdx: CC0-1.0, url: "https://example.org/licence", redistribution: Yes to all.}}
citation: {{text: Nobody 2026}}
classes:
  - {{label: red, meaning: Red on the whole., source_names: [Rot]}}
  - {{label: green, meaning: Green on the whole., source_names: [Gruen]}}
  - {{label: blue, meaning: Blue on the whole., source_names: [Blau]}}
unit_of_observation: one colour
group_key: image
image: {{modality: colour field, channels: 3, bit_depth: 8}}
splits: made
known_biases: [Colours only.]
consent_and_privacy: Nobody is shown.
intended_use: Tests.
not_for: [Anything else]
"""
