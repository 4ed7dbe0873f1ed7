"""The gallery's page with many rows in headless Chromium: how soon it paints, how fast it filters, scrolls.

    python -m benchmarks.gallery [--rows 10000] [--runs 5] [--quick] [--json FILE]

Rows of realistic length (observation about 100 words, think about 150), no clips.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import record

HERE = Path(__file__).resolve().parent
PAPER_ROWS = 162_062

CLICK = """
async (selector) => {
  const painted = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  await painted();
  const from = performance.now();
  document.querySelector(selector).click();
  const worked = performance.now() - from;
  await painted();
  return [worked, performance.now() - from];
}
"""
SEARCH = """
async (words) => {
  const box = document.getElementById('search');
  const told = document.getElementById('count');
  const changed = new Promise((done) => new MutationObserver((_, o) => { o.disconnect(); done(); })
    .observe(told, { childList: true, characterData: true, subtree: true }));
  const from = performance.now();
  box.value = words;
  box.dispatchEvent(new Event('input'));
  await changed;
  const worked = performance.now() - from;
  await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  return [worked, performance.now() - from, told.textContent];
}
"""
SCROLL = """
async () => {
  const box = document.getElementById('scroller');
  const gaps = [];
  let last = await new Promise(requestAnimationFrame);
  for (let i = 0; i < 120; i += 1) {
    box.scrollTop += 977;
    const now = await new Promise(requestAnimationFrame);
    gaps.push(now - last);
    last = now;
  }
  box.scrollTop = 0;
  return gaps;
}
"""


def made(folder: Path, rows: int) -> tuple[Path, float]:
    """A page of so many rows, and the seconds that `p2r-data gallery` took."""
    scale = str((rows + 60) / PAPER_ROWS)
    subprocess.run(
        [sys.executable, str(HERE / "synthetic_release.py"), str(folder / "set"), "--scale", scale],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    began = time.perf_counter()
    command = ["gallery", str(folder / "set"), "--out", str(folder / "page"), "--limit", str(rows)]
    subprocess.run(
        [sys.executable, "-m", "videop2r_data.cli", *command], check=True, stdout=subprocess.DEVNULL
    )
    return folder / "page" / "index.html", time.perf_counter() - began


def visit(browser: Any, page_file: Path) -> dict[str, float]:
    """One cold look: a new profile, the page from its file. Seconds, and megabytes of the script's heap."""
    with browser.new_context(viewport={"width": 1440, "height": 900}) as place:
        page = place.new_page()
        page.goto(page_file.as_uri(), wait_until="commit")
        page.wait_for_selector("#view[data-sample]")
        shown = page.evaluate("performance.now()")
        page.wait_for_load_state("load")
        seen = {
            "first_paint_s": page.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            ),
            "first_sample_s": shown,
            "whole_file_s": page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"),
        }
        page.wait_for_timeout(2500)  # the texts of the search are made while nothing is asked
        kinds = page.locator('.choice[data-facet="type"]').count()
        worked, painted = [], []
        for i in range(min(4, kinds)):
            one, two = page.evaluate(CLICK, f'.choice[data-facet="type"]:nth-child({i + 1})')
            worked.append(one)
            painted.append(two)
        seen["filter_s"] = max(painted)
        seen["filter_work_s"] = max(worked)
        page.click("#clear")
        _, drawn, _ = page.evaluate(SEARCH, "red door walks")
        seen["search_s"] = drawn  # 60 ms of it the page waits for more letters
        page.click("#clear")
        gaps = page.evaluate(SCROLL)
        seen["scroll_p95_s"] = sorted(gaps)[int(len(gaps) * 0.95)]
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        return {name: value / 1000 for name, value in seen.items()} | {"heap_mb": heap}


def summary(looks: list[dict[str, float]]) -> dict[str, dict[str, float]]:
    """Median and worst of each figure over the looks.

    >>> summary([{"first_paint_s": 0.1}, {"first_paint_s": 0.2}, {"first_paint_s": 0.4}])
    {'first_paint_s': {'median': 0.2, 'worst': 0.4}}
    """
    columns = {name: [look[name] for look in looks] for name in looks[0]}
    return {
        name: {"median": round(statistics.median(values), 4), "worst": round(max(values), 4)}
        for name, values in columns.items()
    }


def main() -> int:
    """Make galleries of growing size and time what a browser does with each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="500 rows, one look")
    record.add_option(parser)
    args = parser.parse_args()
    if args.quick:
        args.rows, args.runs = 500, 1
    program = os.environ.get("P2R_CHROMIUM") or shutil.which("chromium")
    if program is None:
        print("no chromium: run scripts/chromium.sh")
        return 1
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        page, wrote = made(Path(scratch), args.rows)
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--enable-precise-memory-info"]
        )
        looks = [visit(browser, page) for _ in range(args.runs)]
        version, size = browser.version, page.stat().st_size / 1e6
        browser.close()
    figures = {
        "rows": args.rows,
        "looks": args.runs,
        "page_mb": round(size, 1),
        "written_s": round(wrote, 1),
        **summary(looks),
    }
    print(json.dumps(figures, indent=1))
    record.save(args, "gallery", figures, packages=["playwright"], versions={"chromium": version})
    return 0


if __name__ == "__main__":
    sys.exit(main())
