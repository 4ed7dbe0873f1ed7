"""What consumes a data set for training; this version measures it against the length reward of PA-GRPO."""
