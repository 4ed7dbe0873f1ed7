"""Completions sampled from the policy, behind one seam: transformers here, vLLM in process or as a server."""
