"""Measuring a model: one question asked (`ask`), results of evaluations, what sets two results apart.

It builds on `builders` (sources, frames, calls through the journal) and shows through `cards`; of a trained
model it knows no more than how to ask it, so it never imports the trainer. The commands `ask`, `eval`,
`compare` and `study` of `p2r-train` are its users.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
