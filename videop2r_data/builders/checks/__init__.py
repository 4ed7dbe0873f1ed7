"""`check` and `doctor`: everything that a build needs, looked at before anything is spent.

The command line calls the three functions and prints their reports: `check_recipe` looks at rows, media,
settings and servers of a recipe, `check_folder` at a folder of media, `doctor` at settings and servers alone.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
