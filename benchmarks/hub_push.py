"""What a changed row costs on the Hub: bytes uploaded by a second push over Xet, on a set of 162,062 rows.

    python -m benchmarks.hub_push [--scale 1.0] [--json FILE]

The made-up set of `synthetic_release` is pushed with the real client to the stand-in Hub of the tests, whose
Xet storage is a folder: what is in it after a push and was not there before is what the push uploaded, chunks
and their index both. Then one row is changed and the set is pushed again. The same is done with parquet files
as a plain writer makes them, with row groups of 1,000 rows and no content-defined chunking.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import record

Row = dict[str, Any]
PLACE = 2 / 3
"""Where in the set the row lies."""


@dataclass(frozen=True, slots=True)
class Push:
    """One push, measured."""

    kind: str
    what: str
    folder_bytes: int
    uploaded: int
    cpu_s: float

    @property
    def share(self) -> float:
        """Bytes sent, as a share of the folder."""
        return self.uploaded / self.folder_bytes


def same(rows: Iterable[Row], _: int) -> Iterator[Row]:
    """The rows as they are."""
    yield from rows


def a_word_more(rows: Iterable[Row], at: int) -> Iterator[Row]:
    """The rows with one sentence more in the observation of row `at`."""
    for number, row in enumerate(rows):
        if number == at:
            old, new = row["observation"], row["observation"] + " Then the light goes out."
            row |= {"observation": new, "output": row["output"].replace(old, new)}
        yield row


def a_row_less(rows: Iterable[Row], at: int) -> Iterator[Row]:
    """The rows without row `at`."""
    return (row for number, row in enumerate(rows) if number != at)


def a_row_more(rows: Iterable[Row], at: int) -> Iterator[Row]:
    """The rows with a copy of row `at` under another id behind it."""
    for number, row in enumerate(rows):
        if number == at:
            name = f"{row['problem_id']}-again"
            yield row | {
                "problem_id": name,
                "sample_id": f"synthetic/{name}",
                "problem": f"And now: {row['problem']}",
            }
        yield row


CHANGES: dict[str, Callable[[Iterable[Row], int], Iterator[Row]]] = {
    "changed": a_word_more,
    "inserted": a_row_more,
    "removed": a_row_less,
}
"""A sentence is added to one row; one row is inserted, removed."""


def write(folder: Path, rows: Iterable[Row]) -> None:
    """A finished data set."""
    from videop2r_data.builders import ConfigWriter

    writer = ConfigWriter(folder, "sft")
    for row in rows:
        writer.add(row)
    writer.close()
    finish(folder, dict(writer.shards))


def finish(folder: Path, shards: dict[Path, int]) -> None:
    """The other configs, which have no rows, the lock and the card."""
    import orjson

    from benchmarks.synthetic_release import _recipe
    from tests.builders.release_rows import write_card
    from videop2r_data.builders import ConfigWriter
    from videop2r_data.files import file_lock
    from videop2r_data.schemas import BuildLock, Ledger
    from videop2r_data.version import __version__

    total = sum(shards.values())
    for config in ("rl", "rejected"):
        empty = ConfigWriter(folder, config)
        empty.close()
        shards = shards | dict(empty.shards)
    lock = BuildLock(
        recipe=_recipe().model_dump(mode="json"),
        prompts={},
        sources=[],
        models={},
        versions={"videop2r-data": __version__},
        ledger=Ledger(rows_in=total, kept=total, rejected=0, failed=0, table={"all": {"all": total}}),
        files={path.relative_to(folder).as_posix(): file_lock(path, n) for path, n in shards.items()},
    )
    (folder / "build.lock.json").write_bytes(orjson.dumps(lock.model_dump(mode="json")))
    write_card(folder, lock)


def write_plain(folder: Path, built: Path) -> None:
    """The same rows in parquet files as a writer without our settings makes them."""
    import pyarrow.parquet as pq

    shards = {}
    for path in sorted(built.glob("data/*.parquet")):
        source, new = pq.ParquetFile(path), folder / "data" / path.name
        new.parent.mkdir(parents=True, exist_ok=True)
        with pq.ParquetWriter(new, source.schema_arrow, compression="zstd") as writer:
            for batch in source.iter_batches(batch_size=1000):
                writer.write_batch(batch)
        shards[new] = source.metadata.num_rows
    finish(folder, shards)


def measure(work: Path, scale: float) -> tuple[int, list[Push]]:
    """Push a set, change it in each way, push again; returns the rows and what each push sent."""
    from benchmarks.synthetic_release import counts, make_rows

    total = sum(counts(scale).values())
    changes = {"first": same} | CHANGES
    for number, change in enumerate(changes.values()):
        write(work / f"built-{number}", change(make_rows(scale, 0), int(total * PLACE)))
        write_plain(work / f"plain-{number}", work / f"built-{number}")
    return total, [push for kind in ("built", "plain") for push in push_all(work, kind, list(changes))]


def push_all(work: Path, kind: str, changes: list[str]) -> Iterator[Push]:
    """One repository, pushed to again and again: the storage forgets nothing, so each push adds its own."""
    from tests.fakes.hub_server import HubServer
    from videop2r_data.cards.hub import Hub, push_dataset

    with HubServer(work / f"hub-{kind}", xet=True) as server:
        assert server.store.cas is not None
        for number, what in enumerate(changes):
            folder, before, begin = work / f"{kind}-{number}", server.store.cas.stored, time.process_time()
            # the rows are made up and go to a server on loopback: nobody's licence is touched
            report = push_dataset(folder, "me/big", hub=Hub(server.url, server.token), allow_unstated=True)
            small = sum(c.bytes for c in report.plan.changes if not c.path.endswith(".parquet"))
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            uploaded = server.store.cas.stored - before + small
            push = Push(kind, what, size, uploaded, time.process_time() - begin)
            print(f"{kind}: {what}: {uploaded:,} of {size:,} bytes, {push.share:.2%}", flush=True)
            yield push


def main() -> None:
    """Measure the pushes and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0)
    record.add_option(parser)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ |= {
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_XET_CACHE": f"{temporary}/xet",
            "HF_HOME": temporary,
        }
        total, pushes = measure(Path(temporary), args.scale)
    figures: dict[str, Any] = {"rows": total, "built": {}, "plain": {}}
    for push in pushes:
        figures[push.kind][push.what] = {
            "mb": round(push.folder_bytes / 1e6, 1),
            "uploaded_mb": round(push.uploaded / 1e6, 2),
            "share": round(push.share, 4),
            "cpu_s": round(push.cpu_s, 1),
        }
    record.save(args, "hub_push", figures, packages=["huggingface-hub", "hf-xet", "pyarrow"])


if __name__ == "__main__":
    main()
