"""Write the demo world's figures into the README: `python scripts/readme_figures.py [--check]`.

Builds the default demo (240 rows), scores it with `p2r-data demo-report --json`, and replaces what
stands between the two markers. `--check` changes nothing and exits with 1 if the README is not up to date.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- demo-report:begin -->", "<!-- demo-report:end -->"


def measure(folder: Path) -> dict[str, Any]:
    """Build the default demo into `folder` and score it."""
    command = [sys.executable, "-m", "videop2r_data.cli"]
    out = str(folder / "videop2r-demo")
    subprocess.run([*command, "build", "--out", out, "--json"], check=True, capture_output=True)
    found = subprocess.run([*command, "demo-report", out, "--json"], check=True, capture_output=True)
    report: dict[str, Any] = json.loads(found.stdout)
    return report


def block(report: dict[str, Any]) -> str:
    """The figures as Markdown, markers included."""
    lines = [
        BEGIN,
        f"The default demo: {report['judged']:,} rows, profile `{report['profile']}`. Made by "
        "`python scripts/readme_figures.py`; a test holds these lines against a fresh build.",
        "",
        "| step | planted | rejected | right | precision | recall |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {_step(s['step'])} | {s['planted']:,} | {s['rejected']:,} | {s['right']:,} | "
        f"{_share(s['precision'])} | {_share(s['recall'])} |"
        for s in report["steps"]
    ]
    lines += ["", report["judge_note"]] if report["judge_note"] else []
    lines += ["", "| planted | rows | must end as | did |", "|---|---|---|---|"]
    lines += [
        f"| `{d['defect']}` | {d['rows']:,} | `{d['expected']}` | {d['right']:,} |" for d in report["defects"]
    ]
    misses = [
        f"`{m['problem_id']}` ({m['defect']}: {m['expected']}, got {m['got']})" for m in report["misses"]
    ]
    lines += ["", f"Missed: {', '.join(misses) or 'nothing'}.", END]
    return "\n".join(lines)


def replaced(readme: str, report: dict[str, Any]) -> str:
    """The README with the block of these figures.

    Raises:
        ValueError: it has not exactly one pair of markers.
    """
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise ValueError(f"the README needs one {BEGIN} and one {END} after it")
    head, rest = readme.split(BEGIN)
    return head + block(report) + rest.split(END)[1]


def _step(name: str) -> str:
    """A step; what has to be said of its judge stands beside the very figure."""
    return "judge (it reads the text alone)" if name == "judge" else str(name)


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
