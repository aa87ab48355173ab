"""Plants and animals: one module a task."""
