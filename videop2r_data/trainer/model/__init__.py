"""The policy: loading it, and log-probabilities of completions with the video encoded once per group."""
