"""A policy whose completions a test writes, in the place of a rollout engine."""

from __future__ import annotations

from typing import Any

from videop2r_data.trainer.rollout.base import RolledOut
from videop2r_data.trainer.run.session import Session


class Scripted:
    """What every scripted policy has; the test adds `generate`.

    Attributes:
        room: tokens of a prompt with its completion; None: no limit.
    """

    room: int | None = None

    def __init__(self, session: Session) -> None:
        self.session = session
        self.tokenizer = session.policy.tokenizer

    def said(self, text: str) -> RolledOut:
        """A completion of these words that ended by itself."""
        ids = self.tokenizer(text, add_special_tokens=False).input_ids
        return RolledOut([*ids, int(self.tokenizer.eos_token_id)], True)

    def sync(self, net: Any) -> None:
        """Nothing: no weights draw here."""

    def close(self) -> None:
        """Nothing to end."""
