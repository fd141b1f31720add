"""Losses by family; `registry` names them, `criterion` is what a step calls."""
