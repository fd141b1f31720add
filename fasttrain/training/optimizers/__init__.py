"""Optimizers by name, over the parameter groups that fine-tuning wants."""

from fasttrain.training.optimizers.create import check_optimizer, clips_itself, create_optimizer, peak_lr
from fasttrain.training.optimizers.groups import parameter_groups
from fasttrain.training.optimizers.registry import list_optimizers

__all__ = ["check_optimizer", "clips_itself", "create_optimizer", "list_optimizers", "parameter_groups", "peak_lr"]
