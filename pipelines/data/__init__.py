"""From files of unknown origin to batches: images, manifests, splits."""
