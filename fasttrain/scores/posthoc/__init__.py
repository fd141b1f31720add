"""Scores adjusted after inference: temperature, logit adjustment, rules on pairs of classes."""
