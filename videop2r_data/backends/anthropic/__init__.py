"""Claude behind Anthropic's API: single messages, and batches at half the price."""
