"""Masks of objects from activation maps: several views of each image, a threshold, and a dense CRF over its pixels."""
