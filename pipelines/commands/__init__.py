"""Commands that are no DVC stage: they look, answer and set up, but make no pipeline output."""
