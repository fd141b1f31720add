"""Exact evaluation, metrics, prediction, test-time views."""
