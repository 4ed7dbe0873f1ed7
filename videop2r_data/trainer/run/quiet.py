"""Libraries that write to the terminal by themselves, asked not to: what there is to say goes to the log."""

from __future__ import annotations

import logging


def hush() -> None:
    """No progress bars of transformers for every load and save, and no warning about tied weights.

    accelerate warns at each checkpoint that tied weights are written once; they are tied again on loading.
    Where the log was asked for (`-v`), nothing is hushed.
    """
    if logging.getLogger().isEnabledFor(logging.INFO):
        return
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("accelerate.utils.other").setLevel(logging.ERROR)
    logging.getLogger("accelerate.checkpointing").setLevel(logging.ERROR)
