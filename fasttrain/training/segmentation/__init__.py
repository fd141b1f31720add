"""Training of segmentation models, by the loop that classifiers are trained by."""
