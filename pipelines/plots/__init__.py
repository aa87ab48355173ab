"""Every figure: pure functions from values to PNG bytes."""
