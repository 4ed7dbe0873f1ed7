"""The columns of a list of judges held against each other and against the recipe."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from videop2r_data.builders.judging import ANSWERED, CONTRADICTED, FAITHFUL, UNANSWERED
from videop2r_data.builders.verify.report import Code, Rules
from videop2r_data.schemas import ClaimVerdict, Faithfulness

if TYPE_CHECKING:
    from videop2r_data.builders.verify.rows import Say

_KEY = re.compile(r"[0-9a-f]{64}\Z")
_WORDS = {
    "sufficiency": ("Yes", "No", ""),
    "faithfulness": (FAITHFUL, CONTRADICTED, ""),
    "blind": (ANSWERED, UNANSWERED, ""),
}
_PASSES = {"sufficiency": ("Yes",), "faithfulness": (FAITHFUL,), "blind": (UNANSWERED,)}
"""What a judge that filters says of an accepted row."""
_TOLERANCE = 1e-9


def check_judged(say: Say, rules: Rules, row: Any, *, kept: bool) -> None:
    """One row with the columns `judgements`, `claims` and `blind`; `kept`: it is one of `sft`."""
    cells = {cell["judge"]: cell for cell in row.judgements}
    names = [cell["judge"] for cell in row.judgements]
    order = [judge.name for judge in rules.judges if judge.name in cells]
    if sorted(names) != sorted(order):
        say(Code.JUDGEMENT, "judgements", names, "judges of the recipe, each once")
        return
    for judge in rules.judges:
        cell = cells.get(judge.name)
        due = judge.decides == "sufficiency" or row.data_type != "text"
        if cell is None:
            if kept and due:
                say(Code.JUDGEMENT, "judgements", names, f"what {judge.name} said of an accepted row")
            continue
        _check_cell(say, cell, judge.decides)
        passes = _PASSES[judge.decides]
        if kept and judge.does == "filter" and cell["verdict"] not in passes:
            say(Code.JUDGEMENT, "judgements", f"{judge.name}: {cell['verdict']}", " or ".join(passes))
    _check_old_columns(say, rules, row, cells, kept=kept)
    _check_claims(say, rules, row, cells)
    blind = next((cells[j.name] for j in rules.judges if j.decides == "blind" and j.name in cells), None)
    wanted = None if blind is None or not blind["verdict"] else blind["verdict"] == ANSWERED
    if row.blind is not wanted:
        say(Code.JUDGEMENT, "blind", row.blind, f"{wanted}, as the judge said")


def _check_cell(say: Say, cell: dict[str, Any], decides: str) -> None:
    words = _WORDS[decides]
    if cell["decides"] != decides:
        say(Code.JUDGEMENT, "judgements", cell["decides"], decides)
    elif cell["verdict"] not in words or not set(cell["votes"]) <= set(words):
        say(Code.JUDGEMENT, "judgements", f"{cell['verdict']}: {cell['votes']}", " | ".join(words))
    elif cell["score"] is not None and not 0 <= cell["score"] <= 1:
        say(Code.JUDGEMENT, "judgements", cell["score"], "0 to 1, or null")
    elif not cell["keys"] or not all(_KEY.match(key) for key in cell["keys"]):
        say(Code.BAD_KEY, "judgements", cell["keys"], "the requests that decided: 64 hexadecimal digits each")


def _check_old_columns(
    say: Say, rules: Rules, row: Any, cells: dict[str, dict[str, Any]], *, kept: bool
) -> None:
    """`judgement` and `judge_key` are of the first judge of sufficiency that filters."""
    filters = (j.name for j in rules.judges if j.decides == "sufficiency" and j.does == "filter")
    cell = cells.get(next(filters, ""))
    if kept and cell is not None and row.judgement != cell["verdict"]:
        say(Code.JUDGEMENT, "judgement", row.judgement, cell["verdict"])
    if cell is not None and row.judge_key not in cell["keys"]:
        say(Code.JUDGEMENT, "judge_key", row.judge_key, "one of the keys in judgements")


def _check_claims(say: Say, rules: Rules, row: Any, cells: dict[str, dict[str, Any]]) -> None:
    """The claims give the verdict and the score of the first judge that sees."""
    known = {verdict.value for verdict in ClaimVerdict}
    if any(claim["verdict"] not in (*known, "") for claim in row.claims):
        say(Code.JUDGEMENT, "claims", row.claims, " | ".join(sorted(known)))
        return
    seeing = (cells[j.name] for j in rules.judges if j.decides == "faithfulness" and j.name in cells)
    cell = next(seeing, None)
    if cell is None or not row.claims:
        if row.claims:
            say(Code.JUDGEMENT, "claims", row.claims, "none: no judge that sees was asked")
        return
    claims = [claim | {"verdict": claim["verdict"] or None} for claim in row.claims]
    found = Faithfulness.model_validate({"claims": claims})
    verdict = "" if found.score is None else CONTRADICTED if found.contradicted else FAITHFUL
    if cell["verdict"] != verdict:
        say(Code.JUDGEMENT, "claims", cell["verdict"], f"{verdict!r}, by the verdicts of the claims")
    elif found.score is not None and abs((cell["score"] or 0.0) - found.score) > _TOLERANCE:
        say(Code.JUDGEMENT, "claims", cell["score"], f"{found.score}, by the verdicts of the claims")
