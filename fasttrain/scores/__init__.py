"""Score tables: ensemble, re-distribute, pseudo-label, submit."""
