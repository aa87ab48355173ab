"""The kinds of a task: what a picture is asked, and all that differs with it.

A kind answers in halves, one for each stage that asks: a change of one half re-runs no other stage,
and what serves a model loads no torch.

| asked by | about | table of the kinds |
|---|---|---|
| predictor, apps | outputs, decoding, what a bundle must have | `pipelines.serving.kinds` |
| `export` | truth, what is fitted on val, what int8 must keep | `pipelines.kinds.export` |
| `evaluate` | truth, metrics with intervals, tables, figures | `pipelines.kinds.evaluate` |
| `gate` | bounds: a metric, and the least or the most | `pipelines.kinds.gate` |
| apps, phone page | the panel of an answer | `apps.answers.PANELS`, apps/phone/src/kinds.ts |

Still asked of classes directly: how a card's classes are read, by what a split is balanced
(`data.splits`), the head and its loss (`backbones.heads`, `training.fit`), and what a model without
pixels reaches (`audit.shortcuts`).
"""
