"""The two stages as they run: recipes, SFT, RL, checkpoints, logs."""
