"""The page on scoring names every switch with its default."""

from __future__ import annotations

from pathlib import Path

import pytest

from videop2r_data.schemas import Policy, ProblemType

PAGE = (Path(__file__).parents[2] / "docs" / "scoring.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", sorted(Policy.model_fields.keys() - {"profile"}))
def test_every_switch_is_on_the_page(name: str) -> None:
    value = Policy.model_fields[name].default
    default = ("on" if value else "off") if isinstance(value, bool) else str(value)
    assert f"| `{name}` | {default} |" in PAGE


def test_the_page_names_no_other_switch_and_every_type() -> None:
    rows = [
        line.split("`")[1] for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 4
    ]
    assert {name for name in rows if name.isidentifier() and name.islower()} == Policy.model_fields.keys() - {
        "profile"
    }
    assert all(f"| {kind.value} |" in PAGE for kind in ProblemType)
    assert "`profile`" in PAGE
