"""Write the demo world's figures into the README: `python scripts/readme_figures.py [--check]`.

Builds the default demo (240 rows), whose judge reads the text alone, and the same with a judge that sees
behind it. Scores both with `p2r-data demo-report --json`, and replaces what stands between the two markers.
The table of judges that err is taken from benchmarks/results/demo_judges.md, which demo_judges.py writes.
`--check` changes nothing and exits with 1 if the README is not up to date.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
README, RECIPES = ROOT / "README.md", ROOT / "videop2r_data" / "recipes"
RESULTS = ROOT / "benchmarks" / "results" / "demo_judges.md"
BEGIN, END = "<!-- demo-report:begin -->", "<!-- demo-report:end -->"


JUDGE = "judge:"
SEEING = """judges:
  - {name: sufficiency, backend: {kind: demo, model: demo-world/1}}
  - {name: sight, decides: faithfulness, backend: {kind: demo, model: demo-world/1}}
"""
"""What stands in place of the packaged recipe's judge, its last section."""


def measure(folder: Path) -> dict[str, Any]:
    """Build the demo with each set of judges into `folder` and score it; `seen` is that with both."""
    recipe = (RECIPES / "demo.yaml").read_text(encoding="utf-8")
    head, _ = recipe.rsplit(JUDGE, 1)
    (folder / "seeing.yaml").write_text(head + SEEING, encoding="utf-8")
    report = _scored("demo", folder / "blind")
    return report | {"seen": _scored(str(folder / "seeing.yaml"), folder / "seen")}


def _scored(recipe: str, out: Path) -> dict[str, Any]:
    command = [sys.executable, "-m", "videop2r_data.cli"]
    subprocess.run([*command, "build", recipe, "--out", out, "--json"], check=True, capture_output=True)
    found = subprocess.run([*command, "demo-report", out, "--json"], check=True, capture_output=True)
    report: dict[str, Any] = json.loads(found.stdout)
    return report


def block(report: dict[str, Any]) -> str:
    """The figures as Markdown, markers included."""
    seen = report["seen"]
    lines = [
        BEGIN,
        f"The default demo: {report['judged']:,} rows, profile `{report['profile']}`. Made by "
        "`python scripts/readme_figures.py`; a test holds these lines against a fresh build.",
        "",
        "| step | planted | rejected | right | precision | recall |",
        "|---|---|---|---|---|---|",
        *(_line(step, step["step"]) for step in report["steps"] if step["step"] != "judge"),
        *(_line(step, TODAY) for step in report["steps"] if step["step"] == "judge"),
        *(_line(step, "judge: and one that sees") for step in seen["steps"] if step["step"] == "judge"),
        "",
        f"{report['judge_note']} {seen['judge_note']}",
        "",
        *erring(RESULTS.read_text(encoding="utf-8")),
        "",
        "| planted | rows | must end as | did | with a judge that sees |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| `{a['defect']}` | {a['rows']:,} | `{a['expected']}` | {a['right']:,} | {b['right']:,} |"
        for a, b in zip(report["defects"], seen["defects"], strict=True)
    ]
    misses = [
        f"`{m['problem_id']}` ({m['defect']}: {m['expected']}, got {m['got']})"
        for m in (*report["misses"], *seen["misses"])
    ]
    lines += ["", f"Missed beyond that: {', '.join(misses) or 'nothing'}.", END]
    return "\n".join(lines)


TODAY = "judge: reads the text alone, as today's do"


def erring(results: str) -> list[str]:
    """The table of judges that err: first what reads the text alone, then with one that sees."""
    shown = [line for line in results.split("\n\n## ")[1].splitlines() if line[2:3].isdigit()]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown]
    lines = [
        "Judges that err at random in a share of their verdicts, the one that sees in each claim on its own; "
        "2,400 questions, in brackets 95 % intervals. *Found* and *good refused* are shares of such traces, "
        "precision and recall those of the refusals in a build. The first line is what people have today.",
        "",
        "| wrong verdicts | judges, models of each | `invented_evidence` found | precision | recall "
        "| good refused |",
        "|---|---|---|---|---|---|",
    ]
    for rate, models, judges, invented, *_, good, recall, precision, _clean, _calls in rows:
        if judges == "text alone" and rate != "0%":
            continue
        name = judges if judges == "text alone" else f"text, and sight: {models}"
        lines.append(f"| {rate} | {name} | {invented} | {precision} | {recall} | {good} |")
    return lines


def _line(step: dict[str, Any], name: str) -> str:
    numbers = " | ".join(f"{step[key]:,}" for key in ("planted", "rejected", "right"))
    return f"| {name} | {numbers} | {_share(step['precision'])} | {_share(step['recall'])} |"


def replaced(readme: str, report: dict[str, Any]) -> str:
    """The README with the block of these figures.

    Raises:
        ValueError: it has not exactly one pair of markers.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"the README needs one {BEGIN} and one {END} after it")
    head, rest = readme.split(BEGIN)
    return head + block(report) + rest.split(END)[1]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def main() -> int:
    """Write or check; the exit code."""
    old = README.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder:
        new = replaced(old, measure(Path(folder)))
    if "--check" in sys.argv[1:]:
        return int(new != old)
    README.write_text(new, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
