"""Running it: recipes, the two loops, checkpoints, logs."""
