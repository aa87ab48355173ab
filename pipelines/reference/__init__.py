"""Well-known tasks that show whether the pipeline works at all."""
