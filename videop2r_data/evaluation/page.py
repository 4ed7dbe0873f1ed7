"""The rows of a result as one page: clips with their frames, traces in colours, right or wrong."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import count, takewhile
from pathlib import Path

from videop2r_data.cards.gallery import Entry, gallery_of, parts_of, write_gallery
from videop2r_data.errors import ConfigError, SourceError
from videop2r_data.evaluation.faithful import filters
from videop2r_data.files import file_rows
from videop2r_data.schemas import (
    Claim,
    ClaimVerdict,
    EvalPlan,
    EvalResult,
    EvalRow,
    Focus,
    RejectReason,
    Stage,
    Trace,
    TraceGrammar,
    digest,
    reasons_of,
)

ROWS = 10_000
"""Rows of a page at most, evenly spaced."""
SAYS = {"accepted": "right", "rejected": "wrong", "failed": "no answer"}
_VERDICTS = {verdict.value: verdict for verdict in ClaimVerdict}


def read_rows(folder: Path, result: EvalResult, *, limit: int | None = None) -> Iterator[EvalRow]:
    """The rows of a result, benchmark by benchmark; of more than `limit` evenly spaced ones.

    Raises:
        ConfigError: a file of them is missing or damaged.
    """
    total = sum(benchmark.questions for benchmark in result.benchmarks)
    at = -1
    for path in (path for benchmark in result.benchmarks for path in _files(folder / benchmark.file)):
        try:
            for _, row in file_rows(path):
                at += 1
                # taken where `at * limit / total` passes an integer
                if limit is None or total <= limit or (at + 1) * limit // total > at * limit // total:
                    yield EvalRow.model_validate(row)
        except SourceError as error:
            hint = "p2r-train eval --rescore writes the rows again, without a call"
            raise ConfigError(error.message, where=str(path), hint=hint) from None


def _files(first: Path) -> Iterator[Path]:
    """The file of rows, and those that follow it where one was not enough."""
    yield first
    numbered = (first.with_name(f"{first.stem}-{n}{first.suffix}") for n in count(1))
    yield from takewhile(Path.is_file, numbered)


def write_page(page: Path, out: Path, result: EvalResult, plan: EvalPlan, roots: Mapping[str, Path]) -> None:
    """Write the page of a result.

    Args:
        page: the file, in the folder of the result's rows.
        out: where the folder will lie: addresses of clips are relative to it.
        roots: benchmark -> media root.
    """
    entries = [entry_of(row, plan.trace) for row in read_rows(page.parent, result, limit=ROWS)]
    about = {
        "name": result.name,
        "title": f"{result.name}: {result.model}",
        "digest": digest([[one.name, one.file_sha256] for one in result.benchmarks]),
        "total": sum(one.questions for one in result.benchmarks),
        "says": SAYS,
    }
    write_gallery(gallery_of(about, entries, out, roots=roots, grammar=plan.trace), page.parent, page.name)


def entry_of(row: EvalRow, grammar: TraceGrammar, tags: Mapping[str, str] | None = None) -> Entry:
    """A question as the page shows it.

    Args:
        grammar: of its trace.
        tags: further filters, beside its own tags and whether it is answered without its media.
    """
    reply, score = row.reply, row.reply.score
    found = Trace.found_in(reply.text, grammar)
    own = {tag.name: tag.value for tag in row.tags}
    if row.blind is not None and row.blind.score is not None:
        own["question only"] = "right" if row.blind.score == 1 else "wrong"
    if score is not None and 0 < score < 1:
        own["score"] = "partly right"
    own |= filters(row)
    said = [cell for cell in row.judgements if cell.decides == "sufficiency"]
    return Entry(
        sample_id=row.sample_id,
        outcome="failed" if reply.failed else "accepted" if score == 1 else "rejected",
        problem=row.problem,
        options=tuple(row.options),
        reference=row.reference,
        problem_type=row.problem_type,
        data_type=row.data_type,
        source=row.benchmark,
        media_source=row.benchmark,
        path=row.path,
        stage=_stage(reply.failed),
        reason="" if score == 1 else reply.failed or reply.reason,
        detail=_detail(row),
        reward=score,
        attempt=None,
        parts=parts_of(reply.text, grammar),
        answer=reply.answer or "",
        observation=found.observation or None,
        judgement=said[0].verdict or "no verdict" if said else "",
        why=said[0].detail if said else "",
        frames=tuple(row.frame_indices),
        times_s=tuple(row.frame_times_s),
        fps=None,
        media_sha256="",
        generation_key=reply.key,
        judge_key="",
        synthetic=False,
        claims=_claims(row),
        focus=Focus(row.start_s, row.end_s),
        tags=own | dict(tags or {}),
    )


def _stage(failed: str) -> str:
    if not failed:
        return "score"
    known: Sequence[Stage] = (Stage.POOL, Stage.MEDIA, Stage.GENERATE)
    return next((s.value for s in known if RejectReason(failed) in reasons_of(s)), Stage.GENERATE.value)


def _detail(row: EvalRow) -> str:
    """What a person wants to know beside the score."""
    reply, blind = row.reply, row.blind
    parts = [reply.detail]
    if reply.place:
        parts.append(f"answer found: {reply.place}")
    if row.well_formed is False:
        parts.append(f"not the form that was asked for: {row.fault}")
    if blind is not None and not blind.failed:
        parts.append(f"without media: {blind.answer or 'no answer'}")
    for cell in row.judgements:
        if cell.decides == "conclusion" and cell.verdict:
            parts.append(f"think settles on {cell.verdict}: {cell.detail}")
    parts += [f"exam, {one.shown}: {one.reply.answer or 'no answer'}" for one in row.examined]
    return "; ".join(filter(None, parts))


def _claims(row: EvalRow) -> tuple[Claim, ...]:
    return tuple(
        Claim(text=cell.text, verdict=_VERDICTS.get(cell.verdict), at=tuple(cell.at)) for cell in row.claims
    )
