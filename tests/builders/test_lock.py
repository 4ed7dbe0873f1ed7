"""What a lock vouches for: the ledger adds up, and settings of one machine are not in it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from videop2r_data.builders.export import PoorSetError, admit, check_ledger, locked_settings
from videop2r_data.errors import ExportError
from videop2r_data.recipes import recipe_text
from videop2r_data.schemas import BuildLock, Ledger, Recipe, parse_recipe

GOOD: dict[str, Any] = {
    "rows_in": 6, "kept": 2, "rejected": 3, "failed": 1, "surplus": 0, "reasons": {}, "table": {},
}  # fmt: skip
WRITTEN = {"sft": 2, "rl": 6, "rejected": 4}


@pytest.mark.parametrize(
    ("ledger", "written"),
    [
        ({"rows_in": 7}, {}),  # a row went in and came out nowhere
        ({"rows_in": 5}, {}),
        ({}, {"sft": 1}),  # a row was kept and is in no file
        ({}, {"sft": 3}),
        ({}, {"rejected": 3}),
        ({}, {"rejected": 5}),
    ],
)
def test_a_ledger_that_does_not_add_up_stops_the_export(
    ledger: dict[str, int], written: dict[str, int]
) -> None:
    check_ledger(Ledger(**GOOD), WRITTEN)
    with pytest.raises(ExportError, match="does not add up"):
        check_ledger(Ledger(**GOOD | ledger), WRITTEN | written)


def recipe() -> Recipe:
    return parse_recipe(recipe_text("videop2r-mini"), where="videop2r-mini.yaml")


@pytest.mark.parametrize(
    ("step", "setting", "value"),
    [
        ("generate", "concurrency", 3),
        ("generate", "requests_per_minute", 10),
        ("judge", "tokens_per_minute", 1000),
        ("judge", "timeout_s", 5.0),
        ("generate", "retries", 1),
        ("judge", "server_wait_s", 1.0),
    ],
)
def test_what_changes_no_byte_of_the_rows_changes_no_lock(step: str, setting: str, value: float) -> None:
    plain = recipe()
    one = getattr(plain, step)
    backend = one.backend.model_copy(update={setting: value})
    assert backend != one.backend
    tuned = plain.model_copy(update={step: one.model_copy(update={"backend": backend})})
    assert locked_settings(tuned) == locked_settings(plain)


def test_the_limit_of_money_and_the_decoders_are_not_in_the_lock() -> None:
    plain = recipe()
    media = plain.media.model_copy(update={"workers": 3})
    assert locked_settings(plain.model_copy(update={"max_cost": 12.5, "media": media})) == locked_settings(
        plain
    )
    assert "max_cost" not in locked_settings(plain)


def standing(folder: Path, kept: int) -> Path:
    """A data set with so many accepted rows, as far as its lock says."""
    ledger = Ledger(**GOOD | {"rows_in": kept, "kept": kept, "rejected": 0, "failed": 0})
    lock = BuildLock(
        recipe=locked_settings(recipe()),
        prompts={},
        sources=[],
        models={},
        versions={},
        ledger=ledger,
        files={},
    )
    (folder / "build.lock.json").write_text(lock.model_dump_json())
    return folder


@pytest.mark.parametrize(
    ("kept", "rejected", "failed", "fits"),
    [
        (0, 10, 0, False),  # nothing is left
        (4, 0, 6, False),  # most rows were lost, and nobody looked at them
        (4, 4, 2, True),  # most rows were lost to checks
        (5, 0, 5, True),  # half of them
        (12, 0, 0, True),
    ],
)
def test_a_poor_set_replaces_no_good_one(
    tmp_path: Path, kept: int, rejected: int, failed: int, fits: bool
) -> None:
    new = Ledger(
        **GOOD | {"rows_in": kept + rejected + failed, "kept": kept, "rejected": rejected, "failed": failed}
    )
    admit(new, tmp_path / "nothing there")
    out = standing(tmp_path, 10)
    if fits:
        admit(new, out)
        return
    with pytest.raises(PoorSetError, match="stays as it was"):
        admit(new, out)
    if kept:
        admit(new, out, replace=True)
    else:
        with pytest.raises(PoorSetError, match="no row was accepted"):
            admit(new, out, replace=True)
