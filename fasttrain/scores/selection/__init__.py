"""Which labels to train on: pseudo-labels that are sure, true ones that are probably wrong."""
