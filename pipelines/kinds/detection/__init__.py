"""The kind `detection`: boxes with a class each, in px of the upright picture."""
