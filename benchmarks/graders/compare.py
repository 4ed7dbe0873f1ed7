"""Graders compared: labelled answers, and who accepts or refuses them wrongly.

    benchmarks/graders/setup.sh VENVS
    python -m benchmarks.graders.compare SAMPLES VENVS [--video-r1 CHECKOUT] [--write]

SAMPLES is a folder of real model outputs and benchmark questions from public repositories, which is not
part of this repository. VENVS holds the environments of the other graders. CHECKOUT is a checkout of
tulerfeng/Video-R1: its rules are run as they stand there. `--write` puts the tables into docs/graders.md,
and what each grader takes wrongly, form by form, into benchmarks/results/graders.md.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.graders import ours
from benchmarks.graders.answers import Answer, all_answers, write

HERE = Path(__file__).parent
PAGE = HERE.parent.parent / "docs" / "graders.md"
RESULTS = HERE.parent / "results" / "graders.md"
_BEGIN, _END = "<!-- tables -->", "<!-- end of tables -->"
_KINDS = ("letter", "letters", "number", "estimate", "text", "ratings")
_VIDEO_R1 = ("src/eval_bench.py", "src/r1-v/src/open_r1/grpo.py")


@dataclass
class Cell:
    """How one grader took the answers of one kind."""

    n: int = 0
    accepted: int = 0
    refused: int = 0
    unscored: int = 0

    def told(self, total: int) -> str:
        """Accepted wrongly, refused wrongly, without a verdict; of how many, if not of all."""
        if not self.n:
            return "-"
        of = f" of {self.n}" if self.n != total else ""
        return f"{self.accepted} / {self.refused} / {self.unscored}{of}"


def verdicts(answers: list[Answer], venvs: Path, video_r1: Path | None) -> list[dict[str, Any]]:
    """What every grader says of every answer: ours here, the others in their environments."""
    found = list(ours.verdicts(answers))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "answers.jsonl", Path(folder) / "verdicts.jsonl"
        write(answers, source)
        runs: list[tuple[str, str, list[str]]] = [("lmms", "lmms.py", []), ("small", "small.py", [])]
        if video_r1:
            runs.append(("lmms", "predecessor.py", [str(video_r1 / name) for name in _VIDEO_R1]))
        for venv, script, more in runs:
            python = venvs / venv / "bin" / "python"
            subprocess.run(
                [python, HERE / script, source, target, *more], check=True, env={"PATH": "/usr/bin:/bin"}
            )
            found += [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    return found


def count(answers: Iterable[Answer], said: list[dict[str, Any]]) -> dict[str, dict[str, Cell]]:
    """Grader -> kind of answer -> how it took them."""
    known = {answer.id: answer for answer in answers}
    cells: dict[str, dict[str, Cell]] = defaultdict(lambda: defaultdict(Cell))
    for one in said:
        answer = known.get(one["id"])
        if answer is None:
            continue
        cell = cells[one["grader"]][answer.kind]
        cell.n += 1
        if one["verdict"] is None:
            cell.unscored += 1
        elif one["verdict"] != answer.right:
            cell.accepted += one["verdict"]
            cell.refused += answer.right
    return cells


def table(title: str, answers: list[Answer], said: list[dict[str, Any]]) -> list[str]:
    """A row a grader, a column a kind of answer: accepted wrongly / refused wrongly / unscored."""
    cells = count(answers, said)
    kinds = [kind for kind in _KINDS if any(answer.kind == kind for answer in answers)]
    right = Counter(answer.kind for answer in answers if answer.right)
    total = Counter(answer.kind for answer in answers)
    lines = ["", f"### {title}", "", f"| grader | {' | '.join(kinds)} |", "|---|" + "---|" * len(kinds)]
    lines.append("| answers (right) | " + " | ".join(f"{total[k]} ({right[k]})" for k in kinds) + " |")
    for grader in sorted(cells, key=_order):
        lines.append(f"| {grader} | " + " | ".join(cells[grader][k].told(total[k]) for k in kinds) + " |")
    return lines


def by_form(answers: list[Answer], said: list[dict[str, Any]]) -> list[str]:
    """Every grader: the forms that it accepts or refuses wrongly, the most frequent first."""
    known = {answer.id: answer for answer in answers}
    faults: dict[str, dict[str, Counter[str]]] = defaultdict(lambda: defaultdict(Counter))
    for one in said:
        answer = known[one["id"]]
        if one["verdict"] is not None and one["verdict"] != answer.right:
            form = f"{answer.kind}: {answer.form.removeprefix('real: ')}"
            faults[one["grader"]]["refuses" if answer.right else "accepts"][form] += 1
    lines = []
    for grader in sorted(faults, key=_order):
        lines += ["", f"### {grader}"]
        for done, forms in sorted(faults[grader].items()):
            listed = "; ".join(f"{form} {n}" for form, n in forms.most_common())
            lines += ["", f"{done} wrongly {sum(forms.values())}: {listed}"]
    return lines


def _order(grader: str) -> tuple[bool, str]:
    return not grader.startswith("ours"), grader


def tables(answers: list[Answer], said: list[dict[str, Any]]) -> str:
    """Everything that the page shows."""
    groups = {name: [a for a in answers if a.group in kinds] for name, kinds in _GROUPS.items()}
    lines = [f"{len(answers)} labelled answers."]
    for name, part in groups.items():
        lines += table(f"{name}: {len(part)}", part, said)
    return "\n".join(lines)


_GROUPS = {
    "Real completions, labelled by hand": ("hand",),
    "Real completions, against the answer that was read by hand": ("read",),
    "Real questions, answers right or wrong by construction": ("made",),
}


def main() -> None:
    """Grade, count, print, and write if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("samples", type=Path)
    parser.add_argument("venvs", type=Path)
    parser.add_argument("--video-r1", type=Path, metavar="CHECKOUT")
    parser.add_argument("--write", action="store_true")
    parser.add_argument(
        "--show", metavar="GRADER", default="", help="also list what this grader takes wrongly"
    )
    args = parser.parse_args()
    answers = all_answers(args.samples)
    said = verdicts(answers, args.venvs, args.video_r1)
    text = tables(answers, said)
    print(text)
    known = {answer.id: answer for answer in answers}
    for one in said if args.show else ():
        answer = known[one["id"]]
        if one["grader"] == args.show and one["verdict"] != answer.right:
            print(answer.id, answer.right, one["verdict"], answer.reference, repr(answer.completion[-120:]))
    if args.write:
        put(PAGE, text)
        put(RESULTS, "\n".join(by_form(answers, said)).strip())


def put(page: Path, text: str) -> None:
    """Put the tables between the marks of a page."""
    head, _, rest = page.read_text(encoding="utf-8").partition(_BEGIN)
    page.write_text(f"{head}{_BEGIN}\n{text}\n{_END}{rest.partition(_END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    main()
