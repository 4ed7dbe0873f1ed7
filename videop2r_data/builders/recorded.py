"""Verdicts that a data set already holds, against people: no call is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from videop2r_data.builders.calibration import (
    CalibrationReport,
    JudgedLabel,
    Labels,
    calibration_report,
    report_of,
)
from videop2r_data.errors import SourceError
from videop2r_data.files import Release
from videop2r_data.schemas import ClaimVerdict, HumanLabel, Trace, strip_answer_tag
from videop2r_data.validators import ClaimAgreement, measure_claims

FAITHFUL = {"faithful": True, "contradicted": False}
"""Verdict of a judge of `faithfulness` in the column `judgements` -> whether the observation is true."""
_COLUMNS = ("sample_id", "problem", "options", "solution", "observation", "output", "judgements", "claims")


class _Said(NamedTuple):
    verdict: str
    words: str
    claims: Mapping[str, ClaimVerdict | None]
    """Claim -> verdict; only of the first judge that sees, whose claims the row holds."""


def recorded_verdicts(
    labels: Labels, release: Release, name: str | None = None
) -> tuple[CalibrationReport, list[JudgedLabel]]:
    """Hold the judges of faithfulness that a build has asked against labels of the same observations.

    A label whose words are those of no row, and a row that a judge was not asked about, are unscored.

    Args:
        labels: of the question `faithfulness`.
        release: the data set, with the column `judgements`.
        name: of one judge; None: all of them.

    Raises:
        SourceError: it holds no verdict of such a judge, or a file is damaged.
    """
    wanted = {label.sample_id for label in [*labels.used, *(label for label, _ in labels.claims)]}
    judges: list[str] = []
    said: dict[tuple[str, ...], dict[str, _Said]] = {}
    for config in ("sft", "rejected"):
        for _, batch in release.batches(config, _COLUMNS, size=512):
            for values in zip(*batch.columns.values(), strict=True):
                row = dict(zip(batch.columns, values, strict=True))
                found = {judge: one for judge, one in _verdicts(row) if name in (None, judge)}
                judges += [name for name in found if name not in judges]
                if row.get("sample_id") in wanted:
                    said[_words(row, release)] = found
    if not judges:
        raise SourceError(
            f"no verdict of a judge of faithfulness {'' if name is None else f'called {name!r} '}in it",
            where=release.where,
            hint="build it with a judge that decides: faithfulness in judges: (does: record refuses nothing)",
        )
    rows = [_judged(name, label, said.get(_of_label(label))) for name in judges for label in labels.used]
    reports = [
        report_of(name, _model(name, release), [row for row in rows if row.judge == name]).model_copy(
            update={"claims": _claims_of(name, labels, said)}
        )
        for name in judges
    ]
    return calibration_report(labels, reports, question="faithfulness"), rows


def _verdicts(row: Mapping[str, Any]) -> Iterator[tuple[str, _Said]]:
    cells = row.get("judgements")
    claims = _claims(row.get("claims"))
    for cell in cells if isinstance(cells, list) else ():
        if isinstance(cell, dict) and cell.get("decides") == "faithfulness":
            words = str(cell.get("detail") or "")
            yield str(cell.get("judge")), _Said(str(cell.get("verdict") or ""), words, claims)
            claims = {}


def _claims(cells: object) -> dict[str, ClaimVerdict | None]:
    known = {verdict.value: verdict for verdict in ClaimVerdict}
    found = [cell for cell in cells if isinstance(cell, dict)] if isinstance(cells, list) else []
    return {str(cell.get("text")): known.get(str(cell.get("verdict"))) for cell in found}


def _words(row: Mapping[str, Any], release: Release) -> tuple[str, ...]:
    """Of a row, what a label of it holds; a rejected row has its observation in its output alone."""
    seen = row.get("observation") or Trace.found_in(str(row.get("output") or ""), release.grammar).observation
    options = [str(option) for option in row.get("options") or ()]
    reference = strip_answer_tag(str(row.get("solution")))
    return str(row["sample_id"]), str(row.get("problem")), *options, reference, str(seen)


def _of_label(label: HumanLabel) -> tuple[str, ...]:
    return label.sample_id, label.problem, *label.options, label.reference, label.observation


def _judged(judge: str, label: HumanLabel, found: Mapping[str, _Said] | None) -> JudgedLabel:
    verdict, why = None, "no row of the data set has these words"
    if found is not None:
        one = found.get(judge, _Said("", "this judge was not asked about the row", {}))
        verdict, why = FAITHFUL.get(one.verdict), one.words
    return JudgedLabel(judge=judge, model="", label=label, sufficient=verdict, why=why, latency_s=None)


def _claims_of(
    judge: str, labels: Labels, said: Mapping[tuple[str, ...], Mapping[str, _Said]]
) -> ClaimAgreement | None:
    """Labelled claims against those of a judge; None where none of its claims is labelled."""
    pairs = []
    for label, claims in labels.claims:
        found = said.get(_of_label(label), {}).get(judge)
        told = found.claims if found is not None else {}
        pairs += [(verdict, told[text]) for text, verdict in claims.items() if text in told]
    return measure_claims(pairs) if pairs else None


def _model(name: str, release: Release) -> str:
    """The model of a judge, as the lock's recipe names it."""
    listed = release.lock.recipe.get("judges") if release.lock is not None else None
    for judge in listed if isinstance(listed, list) else ():
        if isinstance(judge, dict) and judge.get("name") == name:
            return str((judge.get("backend") or {}).get("model", ""))
    return ""
