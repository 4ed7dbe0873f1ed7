"""Rows on disk: one JSON line each as soon as it is whole, so that a stopped evaluation goes on.

OUT/rows-0000.jsonl   of process 0, and so on; any number of processes may go on where others stopped
    settings.json     what the rows were made with; rows of other settings are never mixed in
    report.json       the aggregates
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from videop2r_data.errors import ConfigError
from videop2r_data.trainer.evaluate.ranks import Ranks
from videop2r_data.trainer.evaluate.report import EvalReport
from videop2r_data.trainer.evaluate.rows import EvalRow
from videop2r_data.trainer.look.lines import read_lines

SETTINGS, REPORT = "settings.json", "report.json"


class RowStore:
    """The folder of one evaluation.

    Args:
        folder: made if missing.
        settings: all that decides what a row becomes; a JSON object.
        ranks: this process, which writes a file of its own, and the others.
        fresh: forget the rows and settings that are there.

    Raises:
        ConfigError: the folder holds rows that were made with other settings.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], *, ranks: Ranks | None = None, fresh: bool = False
    ) -> None:
        ranks = ranks or Ranks()
        self.folder = folder
        self._path = folder / f"rows-{ranks.rank:04d}.jsonl"
        self._fresh = fresh
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / SETTINGS
        if known.exists() and not fresh:
            self._compare(known, settings)
        elif ranks.rank == 0:
            if fresh:
                self._forget(ranks.world)
            write_json(known, dict(settings))
        if fresh:
            self._path.unlink(missing_ok=True)

    def _forget(self, world: int) -> None:
        """Remove the report, and rows of processes that are no longer there; the others remove their own."""
        (self.folder / REPORT).unlink(missing_ok=True)
        for path in self.folder.glob("rows-*.jsonl"):
            number = path.stem.removeprefix("rows-")
            if number.isdecimal() and int(number) >= world:
                path.unlink(missing_ok=True)

    def rows(self) -> dict[int, EvalRow]:
        """Index -> row, of all processes, as earlier runs left them; of a row written twice the last one."""
        found: dict[int, EvalRow] = {}
        if self._fresh:
            return found
        for path in sorted(self.folder.glob("rows-*.jsonl")):
            for line in read_lines(path).rows:
                try:
                    row = EvalRow.model_validate(line)
                except ValidationError:
                    continue  # of a newer or older version: it is made again
                before = found.get(row.index)
                if before is None or before.verdict_open or not row.verdict_open:
                    found[row.index] = row
        return found

    def add(self, rows: Sequence[EvalRow]) -> None:
        """Append rows and hand them to the system."""
        if not rows:
            return
        data = b"".join(orjson.dumps(row.model_dump(mode="json")) + b"\n" for row in rows)
        with self._path.open("ab") as file:
            if file.tell() and not self._ends_a_line():
                file.write(b"\n")  # after the torn line of a process that was killed
            file.write(data)

    def write_report(self, report: EvalReport) -> Path:
        """Write `report.json`, in one piece; returns its path."""
        path = self.folder / REPORT
        write_json(path, report.model_dump(mode="json"))
        return path

    def _ends_a_line(self) -> bool:
        with self._path.open("rb") as file:
            file.seek(-1, 2)
            return file.read(1) == b"\n"

    def _compare(self, known: Path, settings: Mapping[str, Any]) -> None:
        try:
            before = orjson.loads(known.read_bytes())
        except ValueError as error:
            raise ConfigError(f"not JSON: {error}", where=str(known), hint="delete this folder") from None
        now = orjson.loads(orjson.dumps(dict(settings)))
        differing = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        if differing:
            raise ConfigError(
                f"this folder holds an evaluation with other settings: {', '.join(differing)}",
                where=str(self.folder),
                hint="name another folder with --out, or delete this one",
            )


def write_json(path: Path, data: Any) -> None:
    """A JSON file, in one piece: it is whole or not there."""
    draft = path.with_name(f".{path.name}.partial")
    draft.write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n")
    draft.replace(path)
