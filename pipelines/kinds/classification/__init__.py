"""The kind `classification`: one label for a picture, out of those that the card names."""
