"""`p2r-train push`: a trained model to the Hub."""

from __future__ import annotations

from videop2r_data.cli.hub import add_train as add

__all__ = ["add"]
