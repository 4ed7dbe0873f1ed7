"""Curves and card of a finished run, as `card`, `eval` and the training commands leave them behind."""

from __future__ import annotations

from pathlib import Path


def make_card(
    run: Path, *, base_model: str | None = None, license_id: str | None = None, strict: bool = False
) -> Path:
    """Draw the curves, where matplotlib is installed, and write `README.md`; returns its path.

    Args:
        run: folder of a finished run.
        base_model, license_id, strict: as for `write_model_card`.

    Raises:
        ExportError: the run has not ended, or a file of it is missing, damaged or lacks a number.
        SourceError: the run has no metrics.
    """
    from videop2r_data.cards.model_card import write_model_card
    from videop2r_data.cards.model_facts import CURVES
    from videop2r_data.errors import MissingExtraError
    from videop2r_data.trainer.look.plot import plot_runs

    try:
        plot_runs([("", run)], run / CURVES)
    except MissingExtraError:
        if strict:
            raise
    return write_model_card(run, base_model=base_model, license_id=license_id, strict=strict)
