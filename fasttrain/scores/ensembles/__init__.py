"""Several models' tables combined into one."""
