"""Painted images: brushes, and the folder that they fill."""
