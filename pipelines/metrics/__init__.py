"""What answers are worth, with intervals by group: pure functions on arrays."""
