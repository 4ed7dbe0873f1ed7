"""`p2r-data verify` and `stats` as commands, on folders as the build writes them."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from tests.builders.release_rows import (
    Rows,
    lock_of,
    official_rows,
    valid_rows,
    write_lock,
    write_official,
    write_parquet,
)
from videop2r_data.builders.export import ConfigWriter
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.cards.figures.stats import compute_stats
from videop2r_data.cli.main import app
from videop2r_data.cli.stats import render_stats
from videop2r_data.errors import SourceError
from videop2r_data.files import file_lock
from videop2r_data.files.release import open_release
from videop2r_data.schemas.lock import FileLock

pytestmark = pytest.mark.integration


def p2r(*arguments: str) -> tuple[int, str, str]:
    """The command in this process."""
    done = CliRunner().invoke(app, list(arguments))
    return done.exit_code, done.stdout, done.stderr


def alone(*arguments: str) -> tuple[int, str, str]:
    """The command in a process of its own."""
    command = [str(Path(sys.executable).parent / "p2r-data"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.returncode, done.stdout, done.stderr


def exported(folder: Path, rows: Rows) -> Path:
    """Written by the exporter's own writer and card."""
    files: dict[str, FileLock] = {}
    for config, mine in rows.items():
        writer = ConfigWriter(folder, config)
        for row in mine:
            writer.add(row)
        writer.close()
        files |= {path.relative_to(folder).as_posix(): file_lock(path, n) for path, n in writer.shards}
    write_lock(folder, lock_of(rows, files))
    write_dataset_card(folder)
    return folder


def test_an_exported_folder_passes(tmp_path: Path) -> None:
    folder = exported(tmp_path / "made", valid_rows())
    code, out, err = alone("verify", str(folder))
    assert (code, err.strip()) == (0, ""), out + err
    assert "ok: 20 rows" in out
    assert "multiple" in out or "choice" in out
    assert max(len(line) for line in out.splitlines() if str(folder) not in line) <= 80


def test_a_changed_row_is_named_and_the_exit_code_is_1(tmp_path: Path) -> None:
    rows = valid_rows()
    rows["sft"][4]["reward"] = 0.9
    folder = exported(tmp_path / "made", rows)
    code, out, _ = p2r("verify", str(folder), "--workers", "2")
    assert code == 1
    assert "reward_differs x 1" in out
    assert 'sft-00000.parquet, row 4, field "reward"' in out
    code, out, _ = p2r("verify", str(folder), "--json")
    report: dict[str, Any] = json.loads(out)
    assert code == 1
    assert report["ok"] is False
    assert [found["code"] for found in report["findings"]] == ["reward_differs"]


def test_markup_in_the_data_is_text(tmp_path: Path) -> None:
    rows = valid_rows()
    rows["sft"][0]["think"] = "[red]not[/red] [link=http://x]markup[/link] \x1b[31m"
    _, out, _ = p2r("verify", str(exported(tmp_path / "made", rows)))
    assert "[red]not[/red]" in out
    assert "\x1b" not in out


def test_the_official_layout(tmp_path: Path) -> None:
    code, out, err = p2r("verify", str(write_official(tmp_path, official_rows())))
    assert code == 0, out + err
    assert "the official layout" in out
    assert "difference to the paper's table" in out


def test_nothing_there() -> None:
    # The second could be an id on the Hub, but for its ending: nobody asks the Hub for it.
    for name in ("/no/such/folder", "rows.jsonl", "data/part.json.gz"):
        code, out, err = p2r("verify", name)
        assert (code, out) == (1, "")
        assert "no such file or folder" in err


def test_stats(tmp_path: Path) -> None:
    stats = compute_stats(open_release(str(exported(tmp_path / "made", valid_rows()))))
    assert stats.rows == {"sft": 6, "rl": 9, "rejected": 5}
    stream = io.StringIO()
    render_stats(stats, Console(file=stream, width=80, highlight=False))
    for heading in ("sources", "perception, words", "reasoning, words", "reward", "not accepted", "media"):
        assert heading in stream.getvalue()
    assert max(map(len, stream.getvalue().splitlines()[1:])) <= 80


def test_stats_of_a_damaged_file_is_an_error_that_names_it(tmp_path: Path) -> None:
    folder = exported(tmp_path / "made", valid_rows())
    (folder / "data/sft-00000.parquet").write_bytes(b"PAR1")
    with pytest.raises(SourceError, match=r"sft-00000\.parquet"):
        compute_stats(open_release(str(folder)))


def test_a_parquet_folder_without_lock_or_card(tmp_path: Path) -> None:
    write_parquet(tmp_path / "sft.parquet", "sft", valid_rows()["sft"])
    code, out, _ = p2r("verify", str(tmp_path))
    assert code == 0
    assert "no recipe" in out
