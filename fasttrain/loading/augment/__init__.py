"""Augmentation: policies and settings, and what they come to for each sample."""
