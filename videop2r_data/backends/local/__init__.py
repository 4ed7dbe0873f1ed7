"""Models loaded into this process: by vLLM's engine, or by Transformers."""
