"""Clinical images: one module a task."""
