"""Models in this very process: vLLM's engine and Transformers."""
