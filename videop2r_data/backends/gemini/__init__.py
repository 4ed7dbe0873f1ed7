"""Gemini over its own protocol."""
