"""From pools of questions to a released data set: read, ask, check, judge, journal, write, verify.

The command line is the main user; notebooks and benchmarks call the same functions. `build` runs a recipe in
a `Workspace`, `estimate` says before what it will cost, `reproduce` and `look_up` read a finished build back
from its journal, `calibrate` measures judges against human labels, `guess_source` describes a foreign pool.
Three rooms inside have doors of their own: `builders.sources` (pools to rows), `builders.checks` (`check` and
`doctor`) and `builders.verify` (a released set against itself).
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
