"""Cards made from files: a data set's README.md and Croissant file, a run's model card.

No number and no licence in a card is typed in by hand: the lock, the ledger, the rows and the figures say it.
Used by the commands `card`, `build`, `push` and `p2r-train`, and by `cards.hub`, which makes the card anew
for the repository.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
