"""How the charts look: colours that stay apart for every kind of colour vision, on paper and on black."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from videop2r_data.trainer.look.panels import PLAIN, SUM, P, R

DASHES: dict[str, Any] = {P: "-", R: (0, (4.5, 1.4)), SUM: (0, (1.2, 1.2)), PLAIN: "-"}
"""A process is told by its dashes as well as by its colour."""


@dataclass(frozen=True)
class Look:
    """Colours of one style, as hex codes."""

    paper: str
    ink: str
    muted: str
    grid: str
    processes: dict[str, str]
    runs: tuple[str, ...]
    """Of runs that are compared, in the order of the command line."""


LIGHT = Look(
    paper="#ffffff",
    ink="#1f2328",
    muted="#656d76",
    grid="#e4e7eb",
    processes={P: "#0068ad", R: "#d1520a", SUM: "#4b4f56", PLAIN: "#0068ad"},
    runs=("#0068ad", "#d1520a", "#00805b", "#a6569a", "#8a6d00", "#3a3f47", "#2f9bd6", "#b3243b"),
)
DARK = Look(
    paper="#0d1117",
    ink="#e6edf3",
    muted="#9198a1",
    grid="#262c36",
    processes={P: "#58b4f0", R: "#f59e42", SUM: "#c3c9d1", PLAIN: "#58b4f0"},
    runs=("#58b4f0", "#f59e42", "#35c79a", "#dd94cf", "#e6d34a", "#c3c9d1", "#2f7fb8", "#ff7b86"),
)


def run_colour(look: Look, index: int) -> str:
    """The colour of run number `index`; after the last one they begin anew, with other dashes."""
    return look.runs[index % len(look.runs)]


def run_dashes(look: Look, index: int) -> Any:
    """The dashes of run number `index`."""
    return ("-", (0, (4.5, 1.4)), (0, (1.2, 1.2)))[index // len(look.runs) % 3]
