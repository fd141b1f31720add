"""timm models by name, safe weight files, checkpoints, weight averaging."""
