"""Build, check, publish and train on process-aware chain-of-thought data for video and image QA."""

__version__ = "0.2.0"
