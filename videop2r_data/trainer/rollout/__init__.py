"""Completions drawn from the policy: by the policy itself, or by vLLM in this process or as a server."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
