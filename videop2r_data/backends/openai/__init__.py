"""Models behind a server that speaks the OpenAI chat completions protocol, `vllm serve` first of all."""
