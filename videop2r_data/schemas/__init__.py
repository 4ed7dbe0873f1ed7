"""The vocabulary: every record that passes between the rooms, and the two files that a person writes.

All rooms speak in these names: a `Sample` of the pool, the `Request` and `Completion` of a model call, the
`ProcessTrace` in it, the `Score` and `Check` of a step with its reason code, the released rows (`SftRow`,
`RlRow`, `RejectedRow`), the `Recipe` that orders a build and the `BuildLock` that records it. Records are
frozen and refuse unknown fields. No model is called and no media decoded here;
the only other room that these modules know is `errors`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
