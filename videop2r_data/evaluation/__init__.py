"""Measuring a model: one question (`ask`), benchmarks (`evaluate`), what sets two results apart.

An evaluation is a build whose export is a result. `evaluate` asks the questions of a plan through the journal
of its work folder, as a build does, and `write_result` makes `result.json`, the rows and the page of that
journal alone: stopped and started again nothing is asked twice, and scoring again asks nothing. `look_at`
says before what is wrong with rows and media. `plan_of` reads a plan, a run's folder or a model with the
flags of a command. The room builds on `builders` and shows through `cards`; of a trained model it knows no
more than how to ask it, so it never imports the trainer.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
