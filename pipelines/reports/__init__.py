"""Pages, model cards and results: from values to Markdown and HTML."""
