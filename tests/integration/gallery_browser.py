"""A real browser on the gallery's page, and what it tried that it may not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = os.environ.get("P2R_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
"""Debian's package, see scripts/chromium.sh."""
DENIED = "Object.defineProperty(window, 'localStorage', {get() { throw new DOMException('no', 'SecurityError') }});"
WATCH = """
window.policyTold = [];
document.addEventListener('securitypolicyviolation', (e) => window.policyTold.push(e.violatedDirective + ' ' + e.blockedURI));
"""


@dataclass
class Trouble:
    """Everything that a good page never does."""

    dialogs: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def met(self, dialog: Any) -> None:
        """A dialog came up: noted and closed."""
        self.dialogs.append(dialog.message)
        dialog.accept()


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser; without one the test is skipped, or fails if P2R_REQUIRE_CHROMIUM=1."""
    if CHROMIUM is None:
        assert os.environ.get("P2R_REQUIRE_CHROMIUM") != "1", "no chromium: run scripts/chromium.sh"
        pytest.skip("no chromium: run scripts/chromium.sh")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def opened(
    browser: Any, url: str, *, init: str = "", ready: str = "#view[data-sample]", **context: Any
) -> Iterator[tuple[Any, Trouble]]:
    """A page that is `ready`: it shows its first sample; at the end nothing forbidden may have been tried."""
    trouble = Trouble()
    context = {"viewport": {"width": 1440, "height": 900}} | context
    with browser.new_context(**context) as place:
        page = place.new_page()
        page.set_default_timeout(120_000)
        page.add_init_script(WATCH + init)
        page.on("dialog", lambda dialog: trouble.met(dialog))
        page.on("pageerror", lambda error: trouble.errors.append(str(error)))
        page.on("request", lambda request: trouble.requests.append(request.url))
        page.goto(url)
        page.wait_for_selector(ready, state="attached")  # a phone shows the list first
        yield page, trouble
        assert page.evaluate("window.policyTold") == []
    assert trouble.errors == []
    foreign = [
        x for x in trouble.requests if not x.startswith(("file:", "data:", "blob:", "http://127.0.0.1:"))
    ]
    assert foreign == []


def reload_kept(page: Any) -> None:
    """Reload the page with what it has written to the browser's storage by now.

    A busy Chromium drops what a page wrote right before a reload, for seconds or for good. That is Chromium's part:
    what was written is put back before any script of the reloaded page runs, and the test holds the page's part,
    to write everything and to read it again.
    """
    written = page.evaluate("JSON.stringify({...localStorage})")
    page.add_init_script(
        f"for (const [key, value] of Object.entries({written})) localStorage.setItem(key, value);"
    )
    page.reload()
    page.wait_for_selector("#view[data-sample]")


def shown(page: Any) -> int:
    """How many samples the list says that it shows."""
    text: str = page.text_content("#count")
    return int(text.split(maxsplit=1)[0].replace(",", ""))


def choose(page: Any, facet: str, value: str) -> None:
    """Click one choice of the filters."""
    page.click(f'.choice[data-facet="{facet}"][data-value="{value}"]')


def current(page: Any) -> str:
    """sample_id on the screen."""
    found: str = page.get_attribute("#view", "data-sample")
    return found


def go(page: Any, sample: str) -> None:
    """Follow a link to a sample."""
    page.evaluate("(id) => { location.hash = id }", sample)
    page.wait_for_function("(id) => document.getElementById('view').dataset.sample === id", arg=sample)
