"""What `p2r-data demo-report` prints."""

from __future__ import annotations

from collections.abc import Sequence

from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from videop2r_data.demo import DemoReport



def render_demo(report: DemoReport, console: Console) -> None:
    """Precision and recall of each step, then every planted kind, then what was missed."""
    console.print(
        f"synthetic world, profile {report.profile}: {report.judged:,} rows, {report.failed:,} failed"
    )
    console.print(_table(report.rows()))
    if report.judge_note:
        console.print(f"{report.judge_note}\n")
    console.print(_table(report.defect_rows(), wide=2))
    for miss in report.misses:
        console.print(
            Text(f"missed {miss.problem_id} ({miss.kind}, {miss.defect}): {miss.expected}, got {miss.got}")
        )
    if report.slipped:
        console.print(f"{len(report.slipped):,} rows with a defect that this profile does not look for")
    if not report.misses:
        console.print("[bold green]nothing missed, nothing rejected wrongly[/]")


def _table(rows: Sequence[Sequence[str]], wide: int | None = None) -> Table:
    table = Table(pad_edge=False, box=box.SIMPLE_HEAD)
    for i, name in enumerate(rows[0]):
        table.add_column(name, justify="left" if i in (0, wide) else "right", overflow="fold")
    for row in rows[1:]:
        table.add_row(*row)
    return table
