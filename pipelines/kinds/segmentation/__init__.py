"""What the stages ask of the kind `segmentation`: which pixels show a label."""
