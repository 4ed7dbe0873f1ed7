"""What a run looks like: sampled completions and curves."""
