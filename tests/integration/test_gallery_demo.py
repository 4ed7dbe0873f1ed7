"""The gallery of the demo set in headless Chromium: filters, search, playback, marks, links, both ways to open it."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.builders.release_rows import accepted, valid_rows
from tests.cards.hub_release import write_release
from tests.integration.gallery_browser import (
    DENIED,
    choose,
    chromium,
    current,
    go,
    opened,
    reload_kept,
    shown,
)
from tests.integration.test_loading import build
from tests.shared import media_dir
from videop2r_data.builders.calibration import JudgedLabel, gather_labels
from videop2r_data.schemas.calibration import HumanLabel, read_labels

pytestmark = pytest.mark.integration
ROWS = 60
COMMAND = [sys.executable, "-m", "videop2r_data.cli", "gallery"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gallery")
    build(folder, "demo", ROWS)
    return folder / "demo"


@pytest.fixture(scope="module")
def rows(demo: Path) -> dict[str, dict[str, Any]]:
    found = [
        row | {"config": config}
        for config in ("sft", "rejected")
        for path in sorted((demo / "data").glob(f"{config}-*"))
        for row in pq.read_table(path).to_pylist()
    ]
    return {row["sample_id"]: row for row in found}


@pytest.fixture(scope="module")
def page_url(demo: Path) -> str:
    report = gallery(demo)
    assert report["shown"] == ROWS and report["clips_missing"] == 0
    return Path(report["page"]).resolve().as_uri()


def gallery(folder: Path, *more: str) -> dict[str, Any]:
    done = subprocess.run([*COMMAND, str(folder), "--json", *more], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def first(rows: dict[str, dict[str, Any]], **wanted: str) -> dict[str, Any]:
    return next(row for row in rows.values() if all(row[k] == v for k, v in wanted.items()))


def test_filters_and_search_show_what_the_files_hold(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]]
) -> None:
    rejected = [row for row in rows.values() if row["config"] == "rejected"]
    with opened(browser, page_url) as (page, _):
        assert shown(page) == ROWS and page.text_content("#title") == "VideoP2R demo"
        choose(page, "outcome", "rejected")
        assert shown(page) == len(rejected)
        reason = rejected[0]["reason"]
        choose(page, "reason", f"{rejected[0]['stage']}/{reason}")
        same = [row for row in rejected if row["reason"] == reason]
        assert shown(page) == len(same)
        kinds = {row["problem_type"] for row in same}
        choose(page, "type", same[0]["problem_type"])
        assert shown(page) == sum(row["problem_type"] == same[0]["problem_type"] for row in same)
        unfiltered = page.text_content(f'.choice[data-facet="type"][data-value="{sorted(kinds)[0]}"] .n')
        assert int(unfiltered) == sum(row["problem_type"] == sorted(kinds)[0] for row in same)
        page.click("#clear")
        assert shown(page) == ROWS
        page.keyboard.press("/")
        page.keyboard.type('green "is stated"')
        found = [r for r in rows.values() if "green" in (text := everything(r)) and "is stated" in text]
        page.wait_for_function(
            f"() => document.getElementById('count').textContent.startsWith('{len(found)} of')"
        )
        assert 0 < len(found) < ROWS
        page.fill("#search", "no such word anywhere")
        page.wait_for_function("() => document.getElementById('count').textContent.startsWith('0 of')")
        assert page.locator(".row:visible").count() == 0


def everything(row: dict[str, Any]) -> str:
    parts = [row["sample_id"], row["problem"], *row["options"], row["solution"], row["output"]]
    return "\n".join([*parts, row["judge_explanation"], row.get("detail") or "", row["path"]]).lower()


def test_a_clip_plays_and_its_sampled_frames_are_marked_drawn_and_reached(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]]
) -> None:
    row = first(rows, config="sft", data_type="video")
    times = row["frame_times_s"]
    with opened(browser, page_url) as (page, _):
        go(page, row["sample_id"])
        page.wait_for_function("() => document.querySelector('.stage video').readyState >= 2")
        assert page.locator(".timeline .stop").count() == len(times) == page.locator(".frame").count()
        page.keyboard.press("Space")
        page.wait_for_function("() => document.querySelector('.stage video').currentTime > 0.2")
        page.keyboard.press("Space")
        assert page.evaluate("document.querySelector('.stage video').paused")
        page.click(".frame:nth-child(6)")
        page.wait_for_function(
            f"() => Math.abs(document.querySelector('.stage video').currentTime - {times[5]}) < 0.05"
        )
        page.keyboard.press(".")
        page.wait_for_function(
            f"() => Math.abs(document.querySelector('.stage video').currentTime - {times[6]}) < 0.05"
        )
        assert (
            page.locator(".frame.on")
            .get_attribute("title")
            .startswith(f"frame {row['frame_indices'][6]} at ")
        )
        page.wait_for_function("() => document.querySelectorAll('.frame canvas[data-drawn]').length === 16")
        told = page.locator(".frame span").nth(5).text_content()
        assert abs(float(told.removesuffix("s")) - times[5]) <= 0.005


def test_a_rejected_clip_shows_the_frames_that_the_journal_knows(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]]
) -> None:
    row = first(rows, config="rejected", data_type="video")
    with opened(browser, page_url + "#" + row["sample_id"]) as (page, _):
        assert current(page) == row["sample_id"]
        assert page.locator(".frame").count() == 16
        assert row["reason"].replace("_", " ") in page.text_content(".verdict .reason")


def test_segments_are_told_apart_with_their_tags_and_the_words_of_the_judge(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]]
) -> None:
    row = first(rows, config="sft")
    with opened(browser, f"{page_url}#{row['sample_id']}") as (page, _):
        texts = page.locator(".segment").all_text_contents()
        assert texts == [f"<{k}>{row[k]}</{k}>" for k in ("observation", "think", "answer")]
        colours = page.locator(".segment").evaluate_all(
            "(x) => x.map((n) => getComputedStyle(n).borderLeftColor)"
        )
        assert len(set(colours)) == 3
        assert row["judge_explanation"] in page.text_content(".verdict")
        assert f"{row['reward']:.2f}" in page.text_content(".verdict .scoring")


def mark_two(page: Any) -> tuple[str, str]:
    """Mark the first sample as good, with a note, the second as bad; the third's mark is taken back."""
    one = current(page)
    page.keyboard.press("y")
    page.keyboard.press("m")
    page.keyboard.type('a "note"\u2028 <b>')
    page.keyboard.press("Escape")
    page.keyboard.press("j")
    two = current(page)
    page.keyboard.press("n")
    page.keyboard.press("j")
    page.keyboard.press("y")
    page.keyboard.press("u")
    page.wait_for_function("() => document.getElementById('mark-count').textContent === '2'")
    return one, two


def test_marks_survive_a_reload_and_are_exported_as_labels(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    with opened(browser, page_url) as (page, _):
        one, two = mark_two(page)
        reload_kept(page)
        assert page.text_content("#mark-count") == "2"
        page.keyboard.press("x")
        page.fill("#reviewer", "Ada")
        with page.expect_download() as download:
            page.click("#export")
        assert download.value.suggested_filename == "videop2r-demo-marks.jsonl"
        download.value.save_as(tmp_path / "marks.jsonl")
    labels = list(read_labels(tmp_path / "marks.jsonl"))
    assert [type(label) for label in labels] == [HumanLabel, HumanLabel]
    expected = []
    for name, sufficient, note in ((one, True, 'a "note"\u2028 <b>'), (two, False, "")):
        row = rows[name]
        expected.append(
            HumanLabel(
                sample_id=name,
                sufficient=sufficient,
                problem=row["problem"],
                options=row["options"],
                reference=row["solution"].removeprefix("<answer>").removesuffix("</answer>"),
                observation=row["observation"],
                reviewer="Ada",
                note=note,
                dataset="videop2r-demo",
                outcome="accepted",
                source="demo-world",
                problem_type=row["problem_type"],
                data_type=row["data_type"],
            )
        )
    told = [label for label in labels if isinstance(label, HumanLabel)]
    assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT[\d:.]+Z", label.time) for label in told)
    assert [label.model_copy(update={"time": ""}) for label in told] == expected
    assert len(gather_labels([tmp_path / "marks.jsonl"]).used) == 2
    with opened(browser, page_url) as (
        page,
        _,
    ):  # another browser profile takes them in again, under her name
        name_myself(page, "Ada")
        page.set_input_files("#import", tmp_path / "marks.jsonl")
        page.wait_for_function("() => document.getElementById('mark-count').textContent === '2'")
        choose(page, "mark", "not sufficient")
        assert shown(page) == 1


def test_where_nothing_may_be_kept_marks_last_as_long_as_the_page_and_it_says_so(
    browser: Any, page_url: str
) -> None:
    with opened(browser, page_url, init=DENIED) as (page, _):
        page.keyboard.press("y")
        assert page.text_content("#mark-count") == "1"
        page.keyboard.press("x")
        assert "keeps nothing" in page.text_content("#marks-kept")
        with page.expect_download():
            page.click("#export")


def test_blind_review_shows_the_verdict_after_the_mark(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]]
) -> None:
    with opened(browser, page_url) as (page, _):
        page.keyboard.press("b")
        page.keyboard.press("g")
        # The first in the shuffled order may be a trace without an observation, which nobody can mark.
        page.evaluate("(id) => { location.hash = '#' + id }", first(rows, config="sft")["sample_id"])
        page.wait_for_selector(".badge[data-outcome=question]")
        assert page.locator(".verdict .judge, .verdict .scoring").count() == 0
        assert page.locator(".row .state[title=accepted]:visible").count() == 0
        page.keyboard.press("y")
        page.wait_for_selector(".verdict .scoring, .verdict .reason")


@pytest.mark.parametrize("blind", [False, True])
def test_a_reviewer_who_looks_at_what_is_not_marked_is_led_through_all_of_it(
    browser: Any, page_url: str, blind: bool
) -> None:
    with opened(browser, page_url) as (page, _):
        if blind:
            page.keyboard.press("b")
        page.keyboard.press("x")
        page.check("#advance")
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        ids = page.evaluate(
            "[...document.querySelectorAll('.row:not([hidden])')]"
            ".sort((a, b) => a.ariaPosInSet - b.ariaPosInSet).slice(0, 5).map((n) => n.querySelector('.facts span').textContent)"
        )
        choose(page, "mark", "not marked")
        for name in ids:
            page.wait_for_function("(id) => document.getElementById('view').dataset.sample === id", arg=name)
            if page.locator(".mark-yes").count():
                page.keyboard.press("y")
            else:
                page.keyboard.press("j")
        page.wait_for_function("(id) => document.getElementById('view').dataset.sample !== id", arg=ids[-1])
        assert ids != sorted(ids, key=lambda x: int(x.split("/")[1])) or not blind


def test_accepted_and_rejected_stand_side_by_side_under_one_link(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]]
) -> None:
    row = first(rows, config="rejected", data_type="video")
    with opened(browser, f"{page_url}#{row['sample_id']}") as (page, _):
        page.keyboard.press("c")
        page.wait_for_selector(".side[data-side=accepted] + .side[data-side=rejected]")
        left = page.text_content(".side[data-side=accepted] h2")
        assert page.text_content(".side[data-side=rejected] h2") == row["sample_id"]
        assert rows[left]["config"] == "sft"
        page.keyboard.press("]")
        page.wait_for_function("(x) => document.querySelector('.side h2').textContent !== x", arg=left)
        second = page.text_content(".side[data-side=accepted] h2")
        link = page.url
        assert link.endswith(f"#{row['sample_id']}&with={second}")
    with opened(browser, link) as (page, _):
        page.wait_for_selector(".pair")
        assert page.text_content(".side[data-side=accepted] h2") == second


def test_the_keyboard_walks_the_list_and_a_link_to_nothing_says_so(browser: Any, page_url: str) -> None:
    with opened(browser, page_url + "#no/such") as (page, _):
        assert "not on this page" in page.text_content("#toast")
        start = current(page)
        page.keyboard.press("j")
        page.wait_for_function("(x) => document.getElementById('view').dataset.sample !== x", arg=start)
        assert page.url.endswith("#" + current(page))
        page.keyboard.press("G")
        page.wait_for_function(f"() => document.querySelector('.place').textContent === '{ROWS} of {ROWS}'")
        page.keyboard.press("k")
        page.wait_for_function(
            f"() => document.querySelector('.place').textContent === '{ROWS - 1} of {ROWS}'"
        )
        page.keyboard.press("?")
        assert page.locator("#help[open] dt").count() > 15


def test_a_mark_is_added_to_what_is_stored_by_now_and_never_replaces_it(browser: Any, page_url: str) -> None:
    """A browser that shows an empty storage to a fresh page, and what it had stored a while later."""
    with opened(browser, page_url) as (page, _):
        mark_two(page)
        key = page.evaluate("Object.keys(localStorage).find((key) => key.startsWith('p2r-gallery:marks:'))")
        stored = page.evaluate("(key) => localStorage.getItem(key)", key)
        page.evaluate("(key) => localStorage.removeItem(key)", key)
        page.reload()
        page.wait_for_selector("#view[data-sample]")
        assert page.text_content("#mark-count") == "0"
        page.evaluate("([key, value]) => localStorage.setItem(key, value)", [key, stored])
        page.keyboard.press("j")
        page.keyboard.press("y")
        page.wait_for_function("() => document.getElementById('mark-count').textContent === '3'")
        kept = json.loads(page.evaluate("(key) => localStorage.getItem(key)", key))
        assert json.loads(stored).items() < kept.items() and len(kept) == 3
        page.keyboard.press("u")
        page.wait_for_function("() => document.getElementById('mark-count').textContent === '2'")
        assert json.loads(page.evaluate("(key) => localStorage.getItem(key)", key)) == json.loads(stored)


def test_light_and_dark_follow_the_system_until_one_is_chosen(browser: Any, page_url: str) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    with opened(browser, page_url, color_scheme="dark") as (page, _):
        dark = page.evaluate(ground)
        page.keyboard.press("t")
        light = page.evaluate(ground)
        assert dark != light
        reload_kept(page)
        assert page.evaluate(ground) == light
        page.keyboard.press("t")
        assert page.evaluate(ground) == dark


def test_on_a_phone_list_and_sample_take_turns(browser: Any, page_url: str) -> None:
    phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}
    with opened(browser, page_url, **phone) as (page, _):
        assert page.locator("#scroller").is_visible() and not page.locator("#view").is_visible()
        page.locator(".row").nth(2).tap()
        assert page.locator("#view").is_visible() and not page.locator("#scroller").is_visible()
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        page.tap("#back")
        assert page.locator("#scroller").is_visible()
        page.tap("#show-filters")
        choose(page, "outcome", "rejected")
        assert shown(page) < ROWS


def test_served_on_loopback_the_clip_plays_by_ranges_and_ctrl_c_ends_it(
    browser: Any, demo: Path, rows: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    row = first(rows, config="sft", data_type="video")
    command = [*COMMAND, str(demo), "--out", str(tmp_path / "page"), "--serve"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(x for x in server.stderr if "serving at" in x)
        found = re.search(r"http://127\.0\.0\.1:\d+/[\w-]+/", line)
        assert found
        with opened(browser, f"{found[0]}#{row['sample_id']}") as (page, trouble):
            page.wait_for_function("() => document.querySelector('.stage video').readyState >= 2")
            page.keyboard.press("Space")
            page.wait_for_function("() => document.querySelector('.stage video').currentTime > 0.2")
            page.wait_for_function(
                "() => document.querySelectorAll('.frame canvas[data-drawn]').length === 16"
            )
            assert any(url.startswith(found[0] + "media/demo/") for url in trouble.requests)
        server.send_signal(signal.SIGINT)
        assert server.wait(20) == 0


def test_a_copied_page_plays_when_it_is_moved_and_frames_stand_in_for_clips_that_are_gone(
    browser: Any, demo: Path, rows: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    row = first(rows, config="sft", data_type="video")
    report = gallery(demo, "--out", str(tmp_path / "a"), "--copy-media", "--frames", "96")
    assert report["copied_bytes"] > 0 and report["sheets"] == report["clips"]
    again = gallery(demo, "--out", str(tmp_path / "b"), "--copy-media", "--frames", "96")
    assert (tmp_path / "a/index.html").read_bytes() == (tmp_path / "b/index.html").read_bytes()
    assert again["bytes"] == report["bytes"]
    shutil.move(tmp_path / "a", tmp_path / "moved")
    url = f"{(tmp_path / 'moved' / 'index.html').as_uri()}#{row['sample_id']}"
    with opened(browser, url) as (page, _):
        page.wait_for_function("() => document.querySelector('.stage video').readyState >= 2")
    shutil.rmtree(tmp_path / "moved" / "media")
    with opened(browser, url) as (page, _):
        page.wait_for_selector(".stage .hint")
        page.wait_for_function("() => document.querySelectorAll('.frame canvas[data-drawn]').length === 16")
        page.keyboard.press("Space")
        page.wait_for_function("() => parseFloat(document.querySelector('.clock').textContent) > 0.3")
        page.keyboard.press("Space")


def test_verdicts_of_judges_stand_beside_the_labels_and_disagreements_are_a_filter(
    browser: Any, demo: Path, rows: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    chosen = [row for row in rows.values() if row["config"] == "sft"][:3]
    lines = []
    for i, row in enumerate(chosen):
        reference = row["solution"].removeprefix("<answer>").removesuffix("</answer>")
        label = HumanLabel(
            sample_id=row["sample_id"],
            sufficient=True,
            problem=row["problem"],
            options=row["options"],
            reference=reference,
            observation=row["observation"],
            reviewer="Ada",
        )
        for judge, said in (("steady", True), ("strict", i != 1)):
            why = f"{judge} says so."
            lines.append(
                JudgedLabel(judge=judge, model="m", label=label, sufficient=said, why=why, latency_s=0.1)
            )
    path = tmp_path / "verdicts.jsonl"
    path.write_text("".join(line.model_dump_json() + "\n" for line in lines))
    report = gallery(demo, "--out", str(tmp_path / "page"), "--verdicts", str(path))
    assert (report["judged"], report["disagreements"], report["unmatched"]) == (3, 1, 0)
    with opened(browser, Path(report["page"]).as_uri()) as (page, _):
        choose(page, "judges", "a judge disagrees")
        assert shown(page) == 1
        page.keyboard.press("g")
        page.wait_for_selector(".judges .differs")
        assert current(page) == chosen[1]["sample_id"]
        assert "strict: not sufficient" in page.text_content(".judges .differs")
        assert "strict says so." in page.text_content(".judges .differs")
        assert page.text_content(".judges .person").startswith("Ada: sufficient")


def test_a_real_clip_that_no_browser_plays_is_shown_by_its_frames(browser: Any, tmp_path: Path) -> None:
    root = media_dir()
    if root is None:
        pytest.skip("no real clips on this machine")
    names = ("test.avi", "video1.mp4")
    accepted_rows = [accepted(i, "numerical", "video", "1") | {"path": name} for i, name in enumerate(names)]
    for row in accepted_rows:
        row |= {"frame_indices": [], "frame_times_s": []}
    folder = write_release(tmp_path / "set", valid_rows() | {"sft": accepted_rows, "rejected": []})
    report = gallery(folder, "--media", str(root), "--frames", "64")
    assert (report["sheets"], report["clips_missing"]) == (2, 0)
    with opened(browser, Path(report["page"]).as_uri()) as (page, _):
        page.wait_for_selector(".stage .hint")
        page.wait_for_function("() => document.querySelectorAll('.frame canvas[data-drawn]').length === 16")
        page.keyboard.press("j")
        page.wait_for_function("() => document.querySelector('.stage video')?.readyState >= 2")
        assert page.locator(".timeline .stop").count() == 16


AXE = """() => {
  window.axeTold = null;
  axe.run(document, { resultTypes: ["violations"], preload: false }).then(
    (found) => { window.axeTold = found.violations.map((rule) => [rule.id, rule.nodes[0].html, rule.nodes[0].failureSummary]); },
    (error) => { window.axeTold = [["axe itself", String(error), ""]]; },
  );
}"""
"""Only what breaks a rule leaves the page: the whole report is large, and to hand it over once took minutes."""


def violations(page: Any) -> list[str]:
    """What axe-core finds on the page as it is: rule, and the first node that breaks it."""
    from axe_playwright_python.base import AXE_SCRIPT

    page.evaluate(AXE_SCRIPT + ";0")
    page.evaluate(AXE)
    page.wait_for_function("() => window.axeTold !== null", timeout=120_000)
    return [
        f"{rule}: {html[:120]} {summary[:200]}" for rule, html, summary in page.evaluate("window.axeTold")
    ]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [(1440, 900), (390, 844)], ids=["desktop", "phone"])
def test_axe_finds_nothing(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]], scheme: str, size: tuple[int, int]
) -> None:
    sample = first(rows, config="rejected", data_type="video", stage="verify")["sample_id"]
    context: dict[str, Any] = {
        "color_scheme": scheme,
        "viewport": {"width": size[0], "height": size[1]},
        "bypass_csp": True,
    }
    with opened(browser, page_url, **context) as (page, _):
        assert violations(page) == []
        go(page, sample)
        page.wait_for_selector(".segment .tag", state="attached")
        assert violations(page) == []
        page.keyboard.press("c")
        page.wait_for_selector(".pair", state="attached")
        assert violations(page) == []
        page.keyboard.press("c")
        page.keyboard.press("x")
        assert violations(page) == []


def test_filters_and_search_stand_in_the_address(browser: Any, page_url: str) -> None:
    with opened(browser, page_url) as (page, _):
        choose(page, "outcome", "rejected")
        left = shown(page)
        page.fill("#search", "shape")
        page.wait_for_function("() => location.hash.includes('q=shape')")
        both = shown(page)
        address = page.url
        at = current(page)
        assert "outcome=rejected" in address and 0 < both <= left < ROWS
        assert page.text_content(".place") == f"1 of {both}", "the sample on the screen follows the filter"
    with opened(browser, address) as (page, _):
        assert (shown(page), current(page)) == (both, at)
        assert page.input_value("#search") == "shape"
        page.click("#clear")
        assert shown(page) == ROWS and "outcome" not in page.url


def test_the_sample_on_the_screen_follows_a_filter_that_leaves_it_out(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]]
) -> None:
    kept = first(rows, config="sft")["sample_id"]
    with opened(browser, f"{page_url}#{kept}") as (page, _):
        choose(page, "outcome", "rejected")
        page.wait_for_function("(id) => document.getElementById('view').dataset.sample !== id", arg=kept)
        row = rows[current(page)]
        assert row["config"] == "rejected"
        assert page.text_content(".sample-head .why") == row["reason"].replace("_", " ")


def test_a_blind_review_finds_no_verdict_by_filter_or_search(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]]
) -> None:
    with opened(browser, page_url) as (page, _):
        choose(page, "outcome", "rejected")
        page.keyboard.press("b")
        assert shown(page) == ROWS, "a choice that tells does not act"
        for facet in ("outcome", "reason"):
            assert not page.is_visible(f'details[data-facet="{facet}"]')
        assert "outcome=" not in page.url
        judged = next(
            r["judge_explanation"]
            for r in rows.values()
            if r["config"] == "rejected" and r["judge_explanation"]
        )
        page.fill("#search", f'"{judged[:40]}"')
        page.wait_for_function("() => document.getElementById('count').textContent.startsWith('0 ')")
        page.evaluate("() => document.activeElement.blur()")
        page.keyboard.press("b")
        page.wait_for_function("() => !document.getElementById('count').textContent.startsWith('0 ')")


def exported(page: Any, to: Path) -> list[HumanLabel]:
    page.keyboard.press("x")
    with page.expect_download() as download:
        page.click("#export")
    download.value.save_as(to)
    page.keyboard.press("Escape")
    labels = list(read_labels(to))
    assert all(isinstance(label, HumanLabel) for label in labels)
    return [label for label in labels if isinstance(label, HumanLabel)]


def name_myself(page: Any, name: str) -> None:
    page.keyboard.press("x")
    page.fill("#reviewer", name)
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")


def test_marks_of_another_reviewer_stand_beside_ones_own(browser: Any, page_url: str, tmp_path: Path) -> None:
    with opened(browser, page_url) as (page, _):  # Bob says yes, no
        name_myself(page, "Bob")
        page.keyboard.press("y")
        page.keyboard.press("j")
        page.keyboard.press("n")
        bob = exported(page, tmp_path / "bob.jsonl")
    with opened(browser, page_url) as (page, _):  # Ada says no to the first, and takes Bob's in
        name_myself(page, "Ada")
        page.keyboard.press("n")
        page.set_input_files("#import", tmp_path / "bob.jsonl")
        page.wait_for_function(
            "() => document.getElementById('toast').textContent.includes('2 of other reviewers')"
        )
        assert page.text_content("#mark-count") == "1", "her own mark is hers alone"
        assert "Bob" in page.text_content(".markbar .others")
        choose(page, "people", "reviewers differ")
        assert shown(page) == 1
        page.click("#clear")
        both = exported(page, tmp_path / "both.jsonl")
        page.evaluate("() => { document.getElementById('toast').textContent = '' }")
        page.set_input_files("#import", tmp_path / "both.jsonl")  # once more: nothing doubles
        # The page closes the dialog when it has read the file: a dialog opened before that would go too.
        page.wait_for_function("() => document.getElementById('toast').textContent.includes('Taken in')")
        again = exported(page, tmp_path / "again.jsonl")
    said = [(label.sample_id, label.reviewer, label.sufficient) for label in both]
    one, two = (label.sample_id for label in bob)
    assert said == [(one, "Ada", False), (one, "Bob", True), (two, "Bob", False)]
    assert all(label.time.endswith("Z") and label.question == "sufficiency" for label in both)
    assert again == both
    found = gather_labels([tmp_path / "both.jsonl"])
    assert found.conflicts == [one] and found.people.items == 1 and len(found.used) == 1


def test_in_a_pair_with_a_picture_the_space_key_plays_the_clip(
    browser: Any, page_url: str, rows: dict[str, dict[str, Any]]
) -> None:
    picture, clip = next(
        (a["sample_id"], b["sample_id"])
        for a in rows.values()
        for b in rows.values()
        if (a["data_type"], b["data_type"]) == ("image", "video")
        and a["problem_type"] == b["problem_type"]
        and a["config"] != b["config"]
    )
    with opened(browser, f"{page_url}#{picture}&with={clip}") as (page, _):
        page.wait_for_selector(".side video")
        page.wait_for_function("() => document.querySelector('.side video').readyState > 1")
        page.keyboard.press(" ")
        page.wait_for_function("() => !document.querySelector('.side video').paused")
        assert page.evaluate("document.querySelectorAll('.side video').length") == 1
