"""What every room stands on: errors, atomic files, settings, progress, process facts, run folders. No torch."""
