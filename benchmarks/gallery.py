"""The gallery's page with many rows in headless Chromium: how soon it paints, how fast it filters, scrolls.

    python benchmarks/gallery.py [--rows 10000] [--runs 5] [--out benchmarks/results/gallery.md] [--quick]

Rows of realistic length (observation about 100 words, think about 150), no clips. Fails if the median of the
first paint passes 1 s or that of a filter 100 ms (at the full size; `--quick` only shows that it runs).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAPER_ROWS = 162_062
FIRST_PAINT_S, FILTER_S = 1.0, 0.1

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
            "first paint": page.evaluate(
                "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            ),
            "first sample on the screen (at most)": shown,
            "whole file read": page.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd"),
        }
        page.wait_for_timeout(2500)  # the texts of the search are made while nothing is asked
        kinds = page.locator('.choice[data-facet="type"]').count()
        worked, painted = [], []
        for i in range(min(4, kinds)):
            one, two = page.evaluate(CLICK, f'.choice[data-facet="type"]:nth-child({i + 1})')
            worked.append(one)
            painted.append(two)
        seen["filter, until it is on the screen"] = max(painted)
        seen["filter, its own work"] = max(worked)
        page.click("#clear")
        _, drawn, _ = page.evaluate(SEARCH, "red door walks")
        seen["search of every text, until it is on the screen (60 of these ms it waits for more letters)"] = (
            drawn
        )
        page.click("#clear")
        gaps = page.evaluate(SCROLL)
        seen["scrolling: 95th percentile between two frames"] = sorted(gaps)[int(len(gaps) * 0.95)]
        heap = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        return {name: value / 1000 for name, value in seen.items()} | {"heap MB": heap}


def report(rows: int, size: float, wrote: float, runs: list[dict[str, float]], version: str) -> str:
    """The figures as Markdown."""
    lines = [
        "# Gallery",
        "",
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores {platform.machine()}, shared; "
        f"Chromium {version}, headless, 1440x900, without a GPU; {len(runs)} cold looks, median and worst.",
        "",
        "```",
        f"python benchmarks/gallery.py --rows {rows} --runs {len(runs)}",
        "```",
        "",
        f"{rows:,} rows, one page of {size:.1f} MB, written in {wrote:.1f} s.",
        "",
        "| | bound | median | worst |",
        "|---|---|---|---|",
    ]
    bounds = {"first paint": "1 s", "filter, until it is on the screen": "100 ms"}
    for name in runs[0]:
        values = [run[name] for run in runs]
        unit, scale = ("MB", 1.0) if name.endswith("MB") else ("ms", 1000.0)
        label = "script's memory" if name.endswith("MB") else name
        cells = (f"{value * scale:,.0f} {unit}" for value in (statistics.median(values), max(values)))
        lines.append(f"| {label} | {bounds.get(name, '')} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Make galleries of growing size and time what a browser does with each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--quick", action="store_true", help="500 rows, one look")
    args = parser.parse_args()
    if args.quick:
        args.rows, args.runs = 500, 1
    program = os.environ.get("P2R_CHROMIUM") or shutil.which("chromium")
    if program is None:
        print("no chromium: run scripts/chromium.sh")
        return 0 if args.quick else 1
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as scratch, sync_playwright() as playwright:
        page, wrote = made(Path(scratch), args.rows)
        browser = playwright.chromium.launch(
            executable_path=program, args=["--no-sandbox", "--enable-precise-memory-info"]
        )
        runs = [visit(browser, page) for _ in range(args.runs)]
        text = report(args.rows, page.stat().st_size / 1e6, wrote, runs, browser.version)
        browser.close()
    print(text)
    if args.out:
        args.out.write_text(text)
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    slow = medians["first paint"] > FIRST_PAINT_S or medians["filter, until it is on the screen"] > FILTER_S
    return int(slow and not args.quick)


if __name__ == "__main__":
    sys.exit(main())
