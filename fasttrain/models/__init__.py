"""timm models by name, heads, safe weight files, checkpoints, weight averaging."""
