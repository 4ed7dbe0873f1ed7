"""Pure scoring: text in, verdict out; no network, no torch, no clock, no randomness.

Builds, `verify`, the trainer's rewards and evaluation call the same functions, so that an answer is worth the
same everywhere: `score` grades an answer against a reference [paper §7.2], `verify_completion` runs step 2 on
one completion, `render_judge` and `parse_judgement` are the two ends of step 3 [paper §7.1].
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
