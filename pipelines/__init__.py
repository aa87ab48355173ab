"""Fieldlens: from a domain's labelled images to a small, gated int8 model.

The rooms are described in docs/architecture.md. Nothing is imported here, so that serving code
(`pipelines.mobile.predictor`) can be imported without torch, MLflow or DVC.
"""
