from __future__ import annotations

import os
import signal

import pytest

from videop2r_data.trainer.run.runlog import Stop, on_signals


def test_the_first_signal_asks_and_the_second_interrupts() -> None:
    told: list[str] = []
    stop = Stop()
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), on_signals(stop, told.append):
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.asked
        os.kill(os.getpid(), signal.SIGINT)
    assert len(told) == 1
    assert signal.getsignal(signal.SIGTERM) is before
