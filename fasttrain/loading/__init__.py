"""Datasets to batches on the device."""
