"""The Hugging Face Hub: push a data set or a model, pull a release, fetch only the clips that rows need.

A push is planned before anything is uploaded and becomes visible in its last commit; a pull holds every file
against the lock. The only part of the package that writes to the Hub. Used by the commands `push` and `pull`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
