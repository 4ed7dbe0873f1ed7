"""Benchmarks as declarations: what each one's rows, media, metrics and protocols are, with the sources of it.

A benchmark is one YAML file. `builders` reads its rows (`kind: benchmark` of a source); no row of any is in
the package.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
