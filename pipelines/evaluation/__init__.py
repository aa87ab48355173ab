"""Metrics and figures; pure functions on arrays."""
