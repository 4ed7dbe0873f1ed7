"""The columns of a list of judges held against each other and against the recipe."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from videop2r_data.builders.judging import ANSWERED, UNANSWERED
from videop2r_data.builders.verify.report import Code, Rules
from videop2r_data.builders.votes import CONTRADICTED, FAITHFUL, vote_of
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
        # of conclusions, only those that can be compared are asked for
        due = judge.decides != "conclusion" and (judge.decides == "sufficiency" or row.data_type != "text")
        if cell is None:
            if kept and due:
                say(Code.JUDGEMENT, "judgements", names, f"what {judge.name} said of an accepted row")
            continue
        _check_cell(say, cell, judge.decides)
        passes = _PASSES.get(judge.decides, ())
        if kept and judge.does == "filter" and cell["verdict"] not in passes:
            say(Code.JUDGEMENT, "judgements", f"{judge.name}: {cell['verdict']}", " or ".join(passes))
    sufficient = _first(rules, cells, "sufficiency", does="filter")
    if sufficient is not None:  # the columns of a single judge are about this verdict
        if kept and row.judgement != sufficient["verdict"]:
            say(Code.JUDGEMENT, "judgement", row.judgement, sufficient["verdict"])
        if row.judge_key not in sufficient["keys"]:
            say(Code.JUDGEMENT, "judge_key", row.judge_key, "one of the keys in judgements")
    _check_claims(say, row, _first(rules, cells, "faithfulness"))
    blind = _first(rules, cells, "blind")
    wanted = None if blind is None or not blind["verdict"] else blind["verdict"] == ANSWERED
    if row.blind is not wanted:
        say(Code.JUDGEMENT, "blind", row.blind, f"{wanted}, as the judge said")


def _check_cell(say: Say, cell: dict[str, Any], decides: str) -> None:
    words = _WORDS.get(decides, (cell["verdict"],))  # what reasoning settles on may be any answer
    if cell["decides"] != decides:
        say(Code.JUDGEMENT, "judgements", cell["decides"], decides)
    elif cell["verdict"] not in words or not set(cell["votes"]) <= set(words):
        say(Code.JUDGEMENT, "judgements", f"{cell['verdict']}: {cell['votes']}", " | ".join(words))
    elif cell["score"] is not None and not 0 <= cell["score"] <= 1:
        say(Code.JUDGEMENT, "judgements", cell["score"], "0 to 1, or null")
    elif not cell["keys"] or not all(_KEY.match(key) for key in cell["keys"]):
        say(Code.BAD_KEY, "judgements", cell["keys"], "the requests that decided: 64 hexadecimal digits each")


def _first(rules: Rules, cells: dict[str, dict[str, Any]], decides: str, *, does: str = "") -> Any:
    """What the first judge that decides this said; None: none was asked."""
    fits = (j.name for j in rules.judges if j.decides == decides and does in ("", j.does))
    return next((cells[name] for name in fits if name in cells), None)


def _check_claims(say: Say, row: Any, cell: dict[str, Any] | None) -> None:
    """The claims give the verdict and the score of the first judge that sees."""
    known = {verdict.value for verdict in ClaimVerdict}
    if any(claim["verdict"] not in (*known, "") for claim in row.claims):
        say(Code.JUDGEMENT, "claims", row.claims, " | ".join(sorted(known)))
    elif row.claims and cell is None:
        say(Code.JUDGEMENT, "claims", row.claims, "none: no judge that sees was asked")
    elif row.claims and cell is not None:
        claims = [claim | {"verdict": claim["verdict"] or None} for claim in row.claims]
        found = vote_of(Faithfulness.model_validate({"claims": claims}), ())
        if cell["verdict"] != found.verdict:
            say(
                Code.JUDGEMENT, "claims", cell["verdict"], f"{found.verdict!r}, by the verdicts of the claims"
            )
        elif found.score is not None and abs((cell["score"] or 0.0) - found.score) > _TOLERANCE:
            say(Code.JUDGEMENT, "claims", cell["score"], f"{found.score}, by the verdicts of the claims")
