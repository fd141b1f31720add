"""What every room stands on: errors, atomic files, the config schema, progress, process facts, run folders. No torch."""
