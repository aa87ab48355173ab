"""Another folder of images against a released model."""
