"""The kind `embedding`: a vector a picture, near those of the same identity, seen or unseen."""
