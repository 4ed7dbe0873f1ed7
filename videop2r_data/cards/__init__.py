"""What a data set or a model looks like to people: cards, statistics and figures, the gallery, the Hub.

Four folders, each with its own front door, read files on disk only (a release, a run) and meet no builder and
no trainer:

- `cards.figures`: counts of a release, and figures as JSON and PNG.
- `cards.card`: the dataset card, its Croissant file, the model card.
- `cards.gallery`: every row on one HTML page, to look at and to mark.
- `cards.hub`: push to and pull from the Hugging Face Hub; nothing else in the package writes there.

The names below are the calls that a notebook needs; each folder's door has the records that they return.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
