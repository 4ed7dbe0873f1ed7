"""Video-R1's two rules over answers in a file: its evaluation's and its reward's, as its own files have them.

    python predecessor.py ANSWERS VERDICTS EVAL_BENCH GRPO

EVAL_BENCH is `src/eval_bench.py` and GRPO `src/r1-v/src/open_r1/grpo.py` of a checkout of the repository
tulerfeng/Video-R1 (read at 59d65c3). Only the functions named below are run, nothing else of the files. Needs
torch and rouge-score: lmms-eval's environment has them.
"""

from __future__ import annotations

import ast
import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

_EVALUATION = ("extract_answer", "normalize_number", "mean_relative_accuracy", "reward_fn")
_THRESHOLD = 0.6  # what its data keep


def load(path: Path, names: tuple[str, ...]) -> dict[str, Any]:
    """Functions of a file by name, wherever in it they are defined."""
    import torch
    from rouge_score import rouge_scorer

    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {n.name: n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name in names}
    known: dict[str, Any] = {"re": re, "os": os, "datetime": datetime, "torch": torch}
    known["rouge_scorer"] = rouge_scorer
    for name in names:
        exec(compile(ast.Module([found[name]], []), str(path), "exec"), known)
    return known


def verdicts(answers: list[dict[str, Any]], evaluation: Path, reward: Path) -> Iterator[dict[str, Any]]:
    """What both rules say; None for a type that the rule has no case for."""
    evaluate = load(evaluation, _EVALUATION)["reward_fn"]
    pay = load(reward, ("accuracy_reward",))["accuracy_reward"]
    for one in answers:
        kind, text = one["problem_type"], one["completion"]
        solution = f"<answer>{one['reference']}</answer>"
        with contextlib.redirect_stdout(io.StringIO()):
            value = evaluate({"solution": solution}, text, kind) if kind != "free-form" else None
            paid = pay([[{"content": text}]], [solution], problem_type=[kind])[0]
        verdict = None if value is None else value >= _THRESHOLD
        yield {"id": one["id"], "grader": "Video-R1, evaluation", "verdict": verdict}
        yield {"id": one["id"], "grader": "Video-R1, reward", "verdict": paid >= _THRESHOLD}


def main() -> None:
    """Read answers, write verdicts."""
    source, target, evaluation, reward = (Path(argument) for argument in sys.argv[1:5])
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    found = [json.dumps(verdict) + "\n" for verdict in verdicts(rows, evaluation, reward)]
    target.write_text("".join(found), encoding="utf-8")


if __name__ == "__main__":
    main()
