"""Workplaces and products: one module a task."""
