"""A data set whose every field tries to become code, in a real browser; and ten thousand rows of a list."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.builders.release_rows import Row, accepted, refused, valid_rows
from tests.cards.hub_release import write_release
from tests.integration.gallery_browser import chromium, opened, reload_kept, shown
from videop2r_data.cards.gallery.make import make_gallery, write_gallery
from videop2r_data.cards.gallery.page import GalleryServer
from videop2r_data.cards.gallery.rows import JudgedLine
from videop2r_data.files.release import open_release
from videop2r_data.schemas.base import visible
from videop2r_data.schemas.calibration import HumanLabel

pytestmark = pytest.mark.integration

EVIL = (
    "<script>window.owned=1</script>",
    "</script><script>window.owned=2</script>",
    "<img src=x onerror=window.owned=3>",
    "<svg onload=window.owned=4><animate onbegin=window.owned=5>",
    "--><script>window.owned=6</script><!--<script>",
    "javascript:window.owned=7",
    "'\"><iframe srcdoc='<script>parent.owned=8</script>'>",
    "</style></title></textarea><details open ontoggle=window.owned=9>",
    "<a href=javascript:window.owned=10 autofocus onfocus=window.owned=11>x",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'><base href=http://127.0.0.1:9/>",
    "]]>\u2028\u2029\x00\ufeff\u202eevil\u200b${window.owned=12}`${window.owned=13}`",
    "<think>\n</think><script>alert(14)</script>",
    "__proto__",
    "constructor",
)
FREE = ("problem", "solution", "data_source", "detail", "judge_explanation", "generation_key", "judge_key")


def rows_of(config: str) -> list[Row]:
    found = []
    for i, evil in enumerate(EVIL):
        if config == "sft":
            row = accepted(i, "multiple choice", "video", "A", (evil, f"A. {evil}"))
            row |= dict.fromkeys(("observation", "think", "answer", "media_sha256", "judgement"), evil)
            row["output"] = f"<observation>{evil}</observation> <think>{evil}</think><answer>{evil}</answer>"
        else:
            row = refused(
                i,
                "judge",
                "insufficient",
                output=f"{evil}<observation>{evil}</observation>{evil}",
                reward=0.5,
            )
            row |= {"stage": evil, "reason": evil, "problem_type": evil, "data_type": evil}
        row |= {name: evil for name in FREE if name in row} | {"path": evil, "sample_id": f"{evil}/{config}"}
        found.append(row)
    return found


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    write_release(folder / "set", valid_rows() | {"sft": rows_of("sft"), "rejected": rows_of("rejected")})
    media = folder / "media"
    media.mkdir()
    Image.new("RGB", (8, 8)).save(media / "x", "PNG")
    for evil in EVIL:
        if "/" not in evil and "\x00" not in evil:
            (media / evil).write_bytes((media / "x").read_bytes())
    return folder


def made(folder: Path) -> Any:
    label = {
        "problem": EVIL[0],
        "options": [EVIL[0], f"A. {EVIL[0]}"],
        "reference": EVIL[0],
        "observation": EVIL[0],
    }
    person = HumanLabel(sample_id=f"{EVIL[0]}/sft", sufficient=True, reviewer=EVIL[0], note=EVIL[2], **label)
    lines = [
        JudgedLine(judge=e, model=e, label=person, sufficient=False, why=e, latency_s=None) for e in EVIL
    ]
    roots = {"": folder / "media"}
    return make_gallery(open_release(folder / "set"), folder / "page", roots=roots, verdicts=lines)


def visit_everything(page: Any) -> None:
    """Every sample, alone and beside another, its tooltips' hosts, every filter, a search for each text."""
    ids = page.evaluate("JSON.parse(document.getElementById('head').textContent).id")
    assert len(ids) == 2 * len(EVIL)
    for name in ids:
        page.evaluate("(id) => { location.hash = '#' + encodeURIComponent(id) }", name)
        page.wait_for_function("(id) => document.getElementById('view').dataset.sample === id", arg=name)
    page.keyboard.press("c")
    page.wait_for_selector(".pair")
    for _ in EVIL:
        page.keyboard.press("]")
    page.keyboard.press("c")
    for choice in page.locator(".choice").all():
        if choice.is_visible():  # what other reviewers say is there when their marks are
            choice.click()
            choice.click()
    for evil in EVIL:
        page.fill("#search", evil)
        page.wait_for_timeout(90)
    page.fill("#search", "")
    page.keyboard.press("Escape")
    for evil in EVIL:
        page.keyboard.press("y")
        if page.locator(".mark-yes[aria-pressed=true]").count():  # a trace without observation has no mark
            page.fill("#note", evil)
        page.keyboard.press("Escape")
        page.keyboard.press("k")
    marked = page.text_content("#mark-count")
    reload_kept(page)
    assert page.text_content("#mark-count") == marked


def nothing_ran(page: Any, trouble: Any) -> None:
    assert page.evaluate("window.owned") is None
    assert trouble.dialogs == []
    assert page.evaluate("({}).polluted") is None
    foreign = page.evaluate(
        "[...document.querySelectorAll('iframe, object, embed, base, a[href], form[action], [onerror], [onload], "
        "[onfocus], [ontoggle], [onbegin], animate, meta[http-equiv=refresh]')].map((n) => n.outerHTML)"
    )
    assert foreign == []
    scripts = page.evaluate("[...document.scripts].filter((s) => s.type !== 'application/json').length")
    assert scripts == 1


def test_from_a_file_no_field_of_any_row_runs_or_loads_anything(browser: Any, hostile: Path) -> None:
    report = write_gallery(made(hostile), hostile / "page")
    assert report.judged == 1 and report.clips > report.clips_missing > 0
    with opened(browser, Path(report.page).as_uri()) as (page, trouble):
        visit_everything(page)
        nothing_ran(page, trouble)


def test_served_the_same_holds(browser: Any, hostile: Path) -> None:
    from threading import Thread

    gallery = made(hostile)
    with GalleryServer(gallery.page(served=True), gallery.clips) as server:
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            with opened(browser, server.url) as (page, trouble):
                visit_everything(page)
                nothing_ran(page, trouble)
                assert {url.split("/")[2] for url in trouble.requests if url.startswith("http")} == {
                    f"127.0.0.1:{server.server_address[1]}"
                }
        finally:
            server.shutdown()
            thread.join()


def test_the_texts_stand_on_the_page_as_they_are_and_steer_nothing(browser: Any, hostile: Path) -> None:
    report = write_gallery(made(hostile), hostile / "page")
    with opened(browser, Path(report.page).as_uri()) as (page, _):
        for evil in EVIL:
            page.evaluate("(id) => { location.hash = '#' + encodeURIComponent(id) }", f"{evil}/sft")
            page.wait_for_function(
                "(id) => document.getElementById('view').dataset.sample === id", arg=f"{evil}/sft"
            )
            assert page.text_content(".question .ask") == visible(evil)
            assert visible(evil) in page.text_content(".verdict blockquote")


def test_the_policy_stops_what_a_future_mistake_would_let_through(browser: Any, hostile: Path) -> None:
    report = write_gallery(made(hostile), hostile / "page")
    with opened(browser, Path(report.page).as_uri()) as (page, trouble):
        for mistake in (
            "document.body.innerHTML = '<b>'",
            "document.createElement('img').setAttribute('onerror', 'window.owned = 1')",
            "document.createElement('script').textContent = 'window.owned = 1'",
            "document.createElement('iframe').srcdoc = '<b>'",
            "eval('window.owned = 1')",
        ):  # in a task of its own: what the tester calls directly is above the policy
            name = page.evaluate(
                f"new Promise((done) => setTimeout(() => {{ try {{ {mistake} }} catch (error) {{ done(error.name) }} "
                "done('ran') }))"
            )
            assert name in ("TypeError", "EvalError"), mistake
        page.evaluate(
            "new Promise((done) => { const image = new Image(); image.src = 'https://example.com/x.png';"
            " fetch('https://example.com/y').catch(() => setTimeout(done, 100)) })"
        )
        assert page.evaluate("window.owned") is None
        told = page.evaluate("window.policyTold.splice(0)")
        assert {"img-src", "connect-src"} <= {x.split()[0] for x in told}
        trouble.requests.clear()


def test_of_ten_thousand_rows_only_those_in_sight_are_in_the_document(browser: Any, tmp_path: Path) -> None:
    rows = valid_rows() | {
        "sft": [accepted(i, "numerical", "text", "1") for i in range(10_050)],
        "rejected": [],
    }
    release = open_release(write_release(tmp_path / "set", rows))
    report = write_gallery(make_gallery(release, tmp_path / "page", roots={}), tmp_path / "page")
    assert (report.rows, report.shown) == (10_050, 10_000)
    with opened(browser, Path(report.page).as_uri()) as (page, _):
        assert page.text_content("#count") == "10,000 samples of 10,050"
        for part in (0.3, 0.9, 0.5):
            page.evaluate(
                f"(() => {{ const s = document.getElementById('scroller'); s.scrollTop = s.scrollHeight * {part} }})()"
            )
            page.wait_for_timeout(60)
            assert page.locator(".row:visible").count() >= 10
            assert page.locator(".row").count() < 60
        page.fill("#search", "object 9999,")
        page.wait_for_function("() => document.getElementById('count').textContent.startsWith('1 of')")
        assert shown(page) == 1
        page.keyboard.press("Escape")
        page.keyboard.press("j")
        page.wait_for_function("() => document.getElementById('view').dataset.sample === 'made/9999'")
