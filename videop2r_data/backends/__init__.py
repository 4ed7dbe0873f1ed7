"""Asking models: every paid call once, journaled before it is used, within limits of rate and money.

Builds, calibrations and trainings ask here. A recipe's backend becomes a `Caller` by `make_caller`; the
`Journal` answers what was asked before, `Money` says whether the next call may go out, `Breaker` stops a run
whose server gives no answer that can be used. Batches (`BatchCaller`) are asked now and answered hours later.
The kinds of backend are declared in `schemas.calls`; each is loaded with its first call.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
