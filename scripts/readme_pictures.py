"""Draw the pictures of the README from a fresh build of the demo: the gallery, and figures of the data set.

python scripts/readme_pictures.py      writes docs/images/*.png

It needs Chromium (scripts/chromium.sh) and the extra `report`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
FIGURES = ("funnel", "lengths", "projection", "telling-words")
SIZE = (1440, 900)
WIDTH = 640
"""Pixels of one figure in the picture of figures."""


def p2r(*args: str, cwd: Path) -> None:
    """Run a command of the tool."""
    subprocess.run([sys.executable, "-m", "videop2r_data.cli", *args], cwd=cwd, check=True)


def main() -> None:
    """Build, look, draw."""
    IMAGES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        p2r("build", "--out", "videop2r-demo", cwd=folder)
        p2r("gallery", "videop2r-demo", cwd=folder)
        p2r("stats", "videop2r-demo", "--figures", "figures", cwd=folder)
        gallery(folder / "videop2r-demo.gallery" / "index.html")
        figures(folder / "figures")


def gallery(page_file: Path) -> None:
    """The page with a rejected clip on the screen."""
    from playwright.sync_api import sync_playwright

    chromium = os.environ.get("P2R_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]}, color_scheme="light")
        page.goto(page_file.as_uri() + "#&kind=video&reason=judge/insufficient")
        page.wait_for_selector("video")
        page.wait_for_function("() => document.querySelector('video').readyState > 1")
        page.wait_for_timeout(1500)  # the pictures of the frames are drawn one after the other
        page.screenshot(path=IMAGES / "gallery.png")
        browser.close()
    small(IMAGES / "gallery.png")


def figures(folder: Path) -> None:
    """Some figures side by side, two in a row."""
    pictures = []
    for name in FIGURES:
        picture = Image.open(folder / f"{name}.png").convert("RGB")
        pictures.append(
            picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
        )
    rows = [pictures[i : i + 2] for i in range(0, len(pictures), 2)]
    heights = [max(p.height for p in row) for row in rows]
    sheet = Image.new("RGB", (2 * WIDTH + 24, sum(heights) + 24 * (len(rows) - 1)), "white")
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for at, picture in enumerate(row):
            sheet.paste(picture, (at * (WIDTH + 24), top + (height - picture.height) // 2))
        top += height + 24
    sheet.save(IMAGES / "figures.png")
    small(IMAGES / "figures.png")


def small(path: Path) -> None:
    """128 colours are enough for a page and for figures, at a third of the bytes."""
    Image.open(path).convert("RGB").quantize(192, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    main()
