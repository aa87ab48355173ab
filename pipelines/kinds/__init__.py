"""The kinds of a task: what a picture is asked, and all that differs with it.

A kind answers in halves, one for each stage that asks: a change of one half re-runs no other stage,
and what serves a model loads no torch. Each half is a question and a table of who answers it.

| asked by | about | table of the kinds |
|---|---|---|
| predictor, apps, `predict`, `explain` | outputs, decoding, words | `pipelines.serving.kinds` |
| `fetch`, `prepare` | truth, what images are filed under, strata | `pipelines.kinds.prepare` |
| `audit` | what is reached without pixels | `pipelines.kinds.audit` |
| `train` | truth, its places in a view, head, loss, val | `pipelines.kinds.train`, `.figures` |
| `export` | what int8 must keep, what val fits, the file | `pipelines.kinds.export` |
| `evaluate`, `validate` | metrics with intervals, tables, figures | `pipelines.kinds.evaluate` |
| `compare`, `stress` | what a second model gains, what of answers stays | the same |
| `gate` | bounds that have a name in params.yaml | `pipelines.kinds.gate` |
| `report` | figures, baselines, tables and words of pages | `pipelines.kinds.report` |
| `new`; none need answer | a folder of one's own, params to start with | `pipelines.kinds.new` |
| apps, phone page | the panel of an answer | `apps.answers.PANELS`, apps/phone/src/kinds.ts |
"""
