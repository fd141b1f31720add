"""Whole systems as one file each: YAML recipes of stages, and the runner that strings the commands together.

The runner knows the commands and nothing of how they work: a stage is a process ``fasttrain COMMAND … --json``. What a
command takes, it is told through `fasttrain.recipes.toolbox.Toolbox`. Beside the recipes lie settings of single runs,
as ``fasttrain train --config NAME`` takes them.
"""
