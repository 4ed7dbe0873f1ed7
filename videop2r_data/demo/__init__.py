"""The synthetic world: exact scenes, questions of every type, traces with planted defects, an exact judge.

Everything that comes from here is synthetic and says so. `write_world` writes clips and a pool of questions,
`DemoBackend` plays generator and judge, `evaluate` holds a build against the planted defects; the trainer's
tiny runs draw their questions from `iter_scenes`. docs/demo-world.md describes the world.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
