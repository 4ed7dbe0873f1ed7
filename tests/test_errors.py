"""Errors reach another process as they were raised."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from videop2r_data import errors
from videop2r_data.errors import P2RError

NEEDS: dict[str, dict[str, Any]] = {
    "MediaError": {"reason": "x"},
    "MemoryFullError": {"part": "x"},
    "TraceError": {"fault": "x", "at": 3},
}


@pytest.mark.parametrize(
    "name",
    [name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, P2RError)],
)
def test_an_error_is_the_same_in_another_process(name: str) -> None:
    kind = getattr(errors, name)
    if name == "MissingExtraError":
        raised: P2RError = kind("ray", "ray")
    else:
        raised = kind("wrong", **NEEDS.get(name, {}))
    raised.where = "row 3"
    again = pickle.loads(pickle.dumps(raised))
    assert type(again) is kind and str(again) == str(raised) and vars(again) == vars(raised)
    assert again.args == raised.args
