"""Score tables and labels in files: opened, checked, imported, exported, submitted."""
