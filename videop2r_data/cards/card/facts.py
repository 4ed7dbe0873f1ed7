"""What a dataset card says, read from the files of the data set."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any, Self

import orjson
from pydantic import Field, ValidationError

from videop2r_data.cards.card.licences import Pool, find_pool
from videop2r_data.cards.card.rows import CardLicence, RowFacts, card_licence, read_rows
from videop2r_data.cards.figures.index import FigureIndex, read_figures
from videop2r_data.errors import ExportError, first_line
from videop2r_data.files import (
    AGREEMENT_NAME,
    FIGURES_NAME,
    LOCK_NAME,
    OVERLAP_NAME,
    file_digest,
    read_lock,
    shards,
)
from videop2r_data.schemas import (
    CONFIGS,
    MIN_FRAMES,
    BuildLock,
    Ledger,
    Model,
    Overlap,
    PoolFact,
    QuestionColumns,
    TraceGrammar,
    configs_of,
    digest,
)

# The address of a pushed data set is kept in its card, in an HTML comment: a card that is made again, here or
# on another machine, then has the same bytes without asking the Hub.

_LINE = re.compile(r"<!-- p2r:card (\{[^\n]{0,2000}\}) -->")


class Published(Model):
    """A data set as a repository of the Hub."""

    repo: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*/[A-Za-z0-9][A-Za-z0-9_.-]*$", max_length=200)
    """owner/name."""
    url: str = Field(pattern=r"^https?://[A-Za-z0-9_.:/-]+$", max_length=400)
    """Of its page."""
    date: date
    """When these rows were first pushed there."""
    lock: str = Field(pattern=r"^[0-9a-f]{64}$")
    """sha256 of the lock that was pushed; with any other lock this record is void."""
    media: bool = False
    """Its clips lie in the repository too."""
    preview: int = Field(default=0, ge=0, le=1000)
    """Rows of the config `preview`; 0: there is none."""

    @property
    def owner(self) -> str:
        """The account or organisation."""
        return self.repo.partition("/")[0]

    def line(self) -> str:
        """The record as one HTML comment, invisible on the page."""
        return f"<!-- p2r:card {self.model_dump_json()} -->"

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The record in the text of a card; None if there is none or it is not valid."""
        found = _LINE.search(text)
        try:
            return cls.model_validate_json(found[1]) if found else None
        except ValidationError:
            return None


# Everything else a card says is measured on the files of the data set.

_DRAWN_FROM = "drawn-from.json"


class Facts(Model):
    """Everything that a dataset card is made from."""

    lock: BuildLock
    lock_sha256: str
    configs: dict[str, dict[str, Any]]
    """Config -> rows, text_bytes, file_bytes, columns and digest."""
    rows: RowFacts
    licence: CardLicence
    agreement: dict[str, Any] | None
    figures: FigureIndex | None
    """None: no figures, or figures of other rows."""
    overlap: Overlap | None = None
    """What `p2r-data overlap` found; None: no report, or one of other rows."""
    published: Published | None = None
    """Where these rows are on the Hub; None: a local folder's card."""

    @property
    def grammar(self) -> TraceGrammar:
        """What a trace of these rows is made of."""
        return self.lock.grammar

    @property
    def models(self) -> dict[str, type[QuestionColumns]]:
        """Config -> the model of its rows."""
        return configs_of(self.grammar, self.lock.extra)

    def spec(self, pool: str) -> dict[str, Any]:
        """What the recipe says of a pool; empty if it has none of this name."""
        return next((spec for spec in self.lock.recipe["sources"] if spec["name"] == pool), {})

    def collection(self, pool: str) -> Pool | None:
        """The known collection that a pool of the recipe reads."""
        return find_pool(str(self.spec(pool).get("kind", "")))


def frames_words(media: Mapping[str, Any]) -> str:
    """How many frames of a clip a model saw and which, by the sampling settings of a recipe.

    >>> frames_words({"frames": 16}), frames_words({"frames": 16, "fps": 2.0, "look": {"noise": 8.0}})
    ('16 uniform', '2 a second (4 to 16) uniform, changed by noise 8.0')
    """
    rate, least = media.get("fps"), media.get("min_frames", MIN_FRAMES)
    most, look = media.get("frames"), media.get("look") or {}
    count = f"{most}" if rate is None else f"{rate:g} a second ({least} to {most})"
    how = {"scenes": "spread over scenes", "question": "closest to the question"}.get(
        str(look.get("select")), "uniform"
    )
    done = [f"{name} {look[name]}" for name in ("drop", "blur", "noise", "occlude") if look.get(name)]
    return f"{count} {how}" + (f", changed by {', '.join(done)}" if done else "")


def read_facts(folder: Path, published: Published | None = None) -> Facts:
    """Measure a finished data set.

    Args:
        folder: with its lock.
        published: where it is on the Hub; ignored if it names another lock.

    Raises:
        SourceError: the lock cannot be read.
        ExportError: a file is missing, or the files, the lock and its ledger disagree.
    """
    lock, sha256 = read_lock(folder), file_digest(folder / LOCK_NAME)
    configs = {name: _measure(folder, name, lock) for name in CONFIGS}
    for fault in ledger_faults(lock.ledger, {name: made["rows"] for name, made in configs.items()}):
        hint = "p2r-data verify names the file that was changed; build the data set anew"
        raise ExportError(fault, where=str(folder / LOCK_NAME), hint=hint)  # a card shows numbers of both
    rows = read_rows(folder, lock.recipe)
    return Facts(
        lock=lock,
        lock_sha256=sha256,
        configs=configs,
        rows=rows,
        licence=card_licence(str(lock.recipe["license"]), rows.sources),
        agreement=_read_agreement(folder / AGREEMENT_NAME),
        figures=_read_figures(folder / FIGURES_NAME, configs),
        overlap=_read_overlap(folder / OVERLAP_NAME, lock),
        published=published if published is not None and published.lock == sha256 else None,
    )


def _drawn_from(configs: dict[str, dict[str, Any]]) -> str:
    return digest({name: made["digest"] for name, made in configs.items()})


def mark_figures(folder: Path, figures: Path | None = None) -> None:
    """Write `drawn-from.json` beside the figures: they show the rows as they are now.

    Args:
        folder: the data set.
        figures: their folder; None: `figures/` of the data set.
    """
    lock = read_lock(folder)
    configs = {name: _measure(folder, name, lock) for name in CONFIGS}
    where = folder / FIGURES_NAME if figures is None else figures
    (where / _DRAWN_FROM).write_bytes(orjson.dumps({"sha256": _drawn_from(configs)}) + b"\n")


def _read_overlap(path: Path, lock: BuildLock) -> Overlap | None:
    """The report of `p2r-data overlap` if it is of these rows, or of the pool that they were made of.

    Raises:
        ExportError: the file is no such report.
    """
    if not path.exists():
        return None
    try:
        found = Overlap.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        raise ExportError(
            f"no report of p2r-data overlap: {first_line(error)}",
            where=str(path),
            hint="copy overlap.json of a finished p2r-data overlap, or delete the file",
        ) from None
    rows = {name: file.sha256 for name, file in lock.files.items() if name in found.files}
    pool = {source.name: PoolFact(rows=source.rows, sha256=source.sha256) for source in lock.sources}
    return found if (found.files and rows == found.files) or pool == found.sources else None


def _read_figures(folder: Path, configs: dict[str, dict[str, Any]]) -> FigureIndex | None:
    try:
        known = orjson.loads((folder / _DRAWN_FROM).read_bytes())["sha256"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return read_figures(folder) if known == _drawn_from(configs) else None


def _measure(folder: Path, config: str, lock: BuildLock) -> dict[str, Any]:
    """Rows, bytes, columns and content digest of one config, whose files must be those in the lock."""
    import pyarrow.parquet as pq

    rows = text_bytes = file_bytes = 0
    digests = []
    columns: list[str] = []
    for path in shards(folder, config):
        name = path.relative_to(folder).as_posix()
        meta = pq.read_metadata(path)
        columns = columns or meta.schema.to_arrow_schema().names
        known = lock.files.get(name)
        if known is None or known.rows != meta.num_rows or known.bytes != path.stat().st_size:
            raise ExportError(
                "the file is not the one in the lock", where=name, hint="build the data set anew"
            )
        rows += meta.num_rows
        text_bytes += sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))
        file_bytes += known.bytes
        digests.append([name, known.sha256])
    if not digests:
        raise ExportError(f"no file of config {config!r}", where=str(folder / "data"))
    return {
        "rows": rows,
        "text_bytes": text_bytes,
        "file_bytes": file_bytes,
        "columns": columns,
        "digest": digest(digests),
    }


def ledger_faults(ledger: Ledger, rows: Mapping[str, int]) -> Iterator[str]:
    """Which numbers of a ledger disagree with each other, or with the rows of a config."""
    kept, lost = ledger.kept, ledger.rejected + ledger.failed
    for what, left, right in (
        ("kept rows and rows of sft", kept, rows.get("sft", kept)),
        ("rejected and failed rows and rows of rejected", lost, rows.get("rejected", lost)),
        ("rows in and kept + rejected + failed", ledger.rows_in, kept + lost),
        ("kept rows and the sum of the table", kept, sum(sum(row.values()) for row in ledger.table.values())),
        ("rejected and failed rows and the sum of their reasons", lost, sum(ledger.reasons.values())),
    ):
        if left != right:
            yield f"{what} differ: {left:,} and {right:,}"


def _read_agreement(path: Path) -> dict[str, Any] | None:
    """The report of `judge-eval`; None if there is none.

    Raises:
        ExportError: a figure that the card shows is missing from it.
    """
    if not path.exists():
        return None
    try:
        report = orjson.loads(path.read_bytes())
        for judge in report["judges"]:
            for figure in ("agreement", "precision", "recall"):
                float(judge["figures"][figure]["value"])
            str(judge["model"]), int(judge["labels"]), int(judge["unscored"])
        if not report["judges"]:
            raise ValueError("no judge in it")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(
            f"no report of p2r-data judge-eval: {type(error).__name__}: {error}",
            where=str(path),
            hint="copy report.json of a finished p2r-data judge-eval, or delete the file",
        ) from None
    assert isinstance(report, dict)
    return report
