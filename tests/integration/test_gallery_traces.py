"""The gallery of traces in a declared form, of claims, and of the second question, in headless Chromium."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cards.other_traces import THINKER, trace_row, write_rows
from tests.integration.gallery_browser import choose, chromium, current, go, opened, reload_kept, shown
from tests.integration.test_gallery_hostile import EVIL
from tests.media.clips import write_clip
from videop2r_data.builders.calibration import gather_labels
from videop2r_data.cards.gallery.make import make_gallery, write_gallery
from videop2r_data.errors import SourceError
from videop2r_data.files.release import open_release
from videop2r_data.schemas import HumanLabel, Question, TraceGrammar, load_grammar, read_labels

pytestmark = pytest.mark.integration
SHORT = "<time>00:01-00:02</time> <caption>It stands still.</caption> <answer>B</answer>"
BROKEN = "<time>00:00-00:01</time> <caption>It is cut"
CLAIMS: list[dict[str, Any]] = [
    {"text": "A ball rolls in.", "verdict": "supported", "at": [0.4, 1.2]},
    {"text": "It hits the <door>.", "verdict": "contradicted", "at": [1.6]},
    {"text": "Somebody sings.", "verdict": "unseen", "at": []},
    {"text": "It is red.", "verdict": None, "at": []},
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def with_claims(folder: Path, claims: list[Any]) -> None:
    """Add the column that a seeing judge writes; None: this row has no claims."""
    path = folder / "data" / "sft-00000.parquet"
    table = pq.read_table(path)
    record = pa.struct({"text": pa.string(), "verdict": pa.string(), "at": pa.list_(pa.float64())})
    pq.write_table(table.append_column("claims", pa.array(claims, pa.list_(record))), path)


def page_of(folder: Path) -> str:
    gallery = make_gallery(open_release(folder), folder.parent / "page", roots={"": folder.parent / "media"})
    return Path(write_gallery(gallery, folder.parent / "page").page).resolve().as_uri()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two clips and a text question in the form of Video-Thinker, a broken trace, and claims on the first."""
    folder = tmp_path_factory.mktemp("traces")
    grammar = load_grammar("video-thinker")
    rows = [trace_row(n, text, grammar) for n, text in enumerate((THINKER, SHORT))]
    rows.append(trace_row(2, SHORT, grammar, "text"))
    for n in (0, 1):
        (folder / "media" / "clips").mkdir(parents=True, exist_ok=True)
        write_clip(folder / "media" / "clips" / f"{n}.mp4")
    write_rows(folder / "set", grammar, rows, (BROKEN,))
    with_claims(folder / "set", [CLAIMS, CLAIMS[:1], None])
    return page_of(folder / "set")


def test_segments_have_their_name_and_the_colour_of_their_role_and_rounds_stand_together(
    browser: Any, url: str
) -> None:
    with opened(browser, f"{url}#made/0") as (page, _):
        told = page.locator(".trace .segment").evaluate_all(
            "(x) => x.map((n) => [n.dataset.name, n.dataset.kind])"
        )
        assert told == [
            ["remark", "think"],
            *[["time", "observation"], ["caption", "observation"], ["think", "think"], ["remark", "think"]],
            *[["time", "observation"], ["caption", "observation"]],
            ["answer", "answer"],
        ]
        rounds = page.locator(".trace .round")
        assert [rounds.nth(n).locator(".segment").count() for n in range(rounds.count())] == [4, 2]
        assert rounds.nth(1).locator("h4").text_content() == "Round 2"
        free = page.locator(".segment[data-free]")
        assert [free.nth(n).locator(".text").text_content() for n in range(2)] == [
            "The clip is short.",
            "So far A or B.",
        ]
        assert page.locator(".called").first.text_content() == "remark · reasoning"
        assert "B" in page.locator(".answers dd").nth(1).text_content()


def test_a_time_in_a_segment_and_a_time_of_a_claim_lead_into_the_clip(browser: Any, url: str) -> None:
    at = "() => Math.abs(document.querySelector('.stage video').currentTime - {}) < 0.06"
    with opened(browser, f"{url}#made/0") as (page, _):
        page.wait_for_function("() => document.querySelector('.stage video').readyState >= 2")
        times = page.locator('.segment[data-name="time"] button.value')
        assert times.all_text_contents() == ["00:00", "00:01", "00:01", "00:02"]
        times.nth(1).click()
        page.wait_for_function(at.format(1))
        page.locator(".claims button.value").nth(2).click()
        page.wait_for_function(at.format(1.6))
        page.locator(".claims button.value").first.click()
        page.wait_for_function(at.format(0.4))


def test_claims_are_coloured_by_their_verdict_and_hidden_from_a_blind_review(browser: Any, url: str) -> None:
    with opened(browser, f"{url}#made/0") as (page, _):
        lines = page.locator(".claims li")
        assert lines.evaluate_all("(x) => x.map((n) => n.dataset.verdict)") == [
            "supported",
            "contradicted",
            "unseen",
            "none",
        ]
        assert page.locator(".claims .what").all_text_contents() == [claim["text"] for claim in CLAIMS]
        grounds = lines.evaluate_all("(x) => x.map((n) => getComputedStyle(n).borderLeftColor)")
        assert len(set(grounds[:3])) == 3
        page.keyboard.press("b")
        page.wait_for_function("() => !document.querySelector('.claims')")
        page.keyboard.press("b")
        go(page, "made/2")
        assert page.locator(".claims").count() == 0


def test_filters_are_there_for_whatever_the_traces_have(browser: Any, url: str) -> None:
    with opened(browser, url) as (page, _):
        choose(page, "claims", "a claim is contradicted")
        assert (shown(page), current(page)) == (1, "made/0")
        page.click("#clear")
        choose(page, "claims", "no claim")
        assert shown(page) == 2  # the text question and the rejected row
        page.click("#clear")
        choose(page, "rounds", "2")
        assert shown(page) == 1
        page.click("#clear")
        choose(page, "segments", "time, caption, answer")
        assert shown(page) == 2
        page.click("#clear")
        choose(page, "segments", "time, caption")  # the broken trace, as far as it goes
        assert current(page) == "made/100"
        assert page.locator('.segment[data-name="caption"]').text_content().endswith("<caption>It is cut")


def test_marks_of_the_second_question_are_labels_with_that_question(
    browser: Any, url: str, tmp_path: Path
) -> None:
    with opened(browser, f"{url}#made/0") as (page, _):
        page.keyboard.press("y")
        page.wait_for_selector('.mark-yes[aria-pressed="true"]')
        page.keyboard.press("q")
        page.wait_for_function(
            "() => document.querySelector('.asking b').textContent === 'Observation true to the clip?'"
        )
        assert page.locator('.mark-yes[aria-pressed="true"]').count() == 0  # a mark of its own
        page.keyboard.press("n")
        page.wait_for_selector('.mark-no[aria-pressed="true"]')
        page.keyboard.press("m")
        page.keyboard.type("no door is hit")
        page.keyboard.press("Escape")
        assert page.text_content("#mark-count") == "2"
        go(page, "made/2")
        assert page.locator(".markbar .mark-yes").count() == 0 and "No clip" in page.text_content(".markbar")
        reload_kept(page)
        assert page.text_content("#mark-count") == "2"
        choose(page, "truth", "not true")
        assert (shown(page), current(page)) == (1, "made/0")
        with page.expect_download() as download:
            page.keyboard.press("x")
            assert "1 mark: 0 true to the clip, 1 not." in page.text_content("#marks-sum")
            page.click("#export")
        download.value.save_as(tmp_path / "marks.jsonl")
    labels = [label for label in read_labels(tmp_path / "marks.jsonl") if isinstance(label, HumanLabel)]
    assert [(x.sample_id, x.question, x.sufficient, x.note) for x in labels] == [
        ("made/0", "sufficiency", True, ""),
        ("made/0", "faithfulness", False, "no door is hit"),
    ]
    assert labels[1].observation == "00:00-00:01 A ball rolls in.\n00:01-00:02 It hits the door."
    asked: tuple[tuple[Question, bool], ...] = (("sufficiency", True), ("faithfulness", False))
    for question, says in asked:
        found = gather_labels([tmp_path / "marks.jsonl"], question)
        assert ([x.sufficient for x in found.used], found.elsewhere, found.conflicts) == ([says], 1, [])
    with opened(browser, f"{url}#made/0") as (page, _):  # another browser takes both in
        page.set_input_files("#import", tmp_path / "marks.jsonl")
        page.wait_for_function("() => document.getElementById('mark-count').textContent === '2'")
        assert page.locator('.mark-yes[aria-pressed="true"]').count() == 1
        page.keyboard.press("q")
        page.wait_for_selector('.mark-no[aria-pressed="true"]')


def test_claims_are_labelled_one_by_one_and_a_blind_review_sees_the_verdict_afterwards(
    browser: Any, url: str, tmp_path: Path
) -> None:
    says = "(x) => x.map((n) => n.id.split('-').at(-1))"
    pressed = '.claims [aria-pressed="true"]'
    with opened(browser, f"{url}#made/0") as (page, _):
        assert page.locator(".claims .labels").count() == 0  # not of this question
        page.keyboard.press("q")
        page.wait_for_selector(".claims .note")  # the observation first
        assert page.locator(".claims .labels").count() == 0
        page.keyboard.press("b")
        page.wait_for_function("() => !document.querySelector('.claims')")
        page.keyboard.press("n")
        page.wait_for_selector(".claims .labels")
        hidden = "(x) => x.map((n) => n.dataset.verdict)"
        lines = page.locator(".claims li")
        assert (
            lines.evaluate_all(hidden) == ["none"] * 4 and page.locator(".claims button.value").count() == 0
        )
        page.click("#claim-0-0-contradicted")
        page.click("#claim-0-1-contradicted")
        page.click("#claim-0-2-unseen")
        page.click("#claim-0-2-unseen")  # taken back
        page.focus("#claim-0-0-supported")
        page.keyboard.press("Enter")  # another label takes its place
        page.wait_for_selector('#claim-0-0-supported[aria-pressed="true"]')
        assert page.evaluate("document.activeElement.id") == "claim-0-0-supported"
        assert page.locator(pressed).evaluate_all(says) == ["supported", "contradicted"]
        assert lines.evaluate_all(hidden) == ["supported", "contradicted", "none", "none"]
        page.keyboard.press("Escape")
        page.keyboard.press("y")  # the mark of the whole changes, the labels stay
        page.wait_for_selector('.mark-yes[aria-pressed="true"]')
        reload_kept(page)
        assert page.locator(pressed).evaluate_all(says) == ["supported", "contradicted"]
        with page.expect_download() as download:
            page.keyboard.press("x")
            page.click("#export")
        download.value.save_as(tmp_path / "marks.jsonl")
    (label,) = (label for label in read_labels(tmp_path / "marks.jsonl") if isinstance(label, HumanLabel))
    assert label.question == "faithfulness" and label.sufficient
    assert [(x.text, x.verdict) for x in label.claims] == [
        ("A ball rolls in.", "supported"),
        ("It hits the <door>.", "contradicted"),
    ]
    hostile = [{"text": "It is red.", "verdict": "yes"}, 7, None, {"text": 5, "verdict": "unseen"}]
    line = label.model_dump(mode="json")
    line["claims"] += [*hostile, {"text": "It is red.", "verdict": "unseen"}]
    (tmp_path / "marks.jsonl").write_text(json.dumps(line))
    with opened(browser, f"{url}#made/0") as (page, _):  # another browser
        page.keyboard.press("q")
        page.set_input_files("#import", tmp_path / "marks.jsonl")
        page.wait_for_selector("#claim-0-3-unseen[aria-pressed='true']")
        assert page.locator(pressed).evaluate_all(says) == ["supported", "contradicted", "unseen"]


def test_hostile_texts_and_a_hostile_grammar_stay_text(browser: Any, tmp_path: Path) -> None:
    grammar = TraceGrammar.model_validate(
        {
            "name": "constructor",
            "about": EVIL[0],
            "segments": [
                {"name": "constructor", "role": "other", "text": True},
                {"name": "seen", "role": "perception", "marks": [[EVIL[3], EVIL[2]]], "about": EVIL[1],
                 "fields": ["<t>{at: time percent}</t>", "<l>{what: label}</l>"]},
                {"name": "tag", "role": "reasoning", "tag": "tag", "required": False},
                {"name": "outside", "role": "answer", "boxed": True},
            ],
        }
    )  # fmt: skip
    rows = []
    for n, evil in enumerate(EVIL):
        inside = evil.replace(EVIL[2], "").replace(EVIL[3], "") or "x"
        text = f"{inside} {EVIL[3]}{inside}<t>50</t><l>a label</l>{EVIL[2]}<tag>{inside}</tag>\\boxed{{B}}"
        rows.append(trace_row(n, text, grammar))
    write_rows(tmp_path / "set", grammar, rows, tuple(f"<tag>{evil}" for evil in EVIL))
    claims = [
        [{"text": e, "verdict": v, "at": [0.5, -1.0]} for v in ("supported", e, "__proto__")] for e in EVIL
    ]
    with_claims(tmp_path / "set", claims)
    with opened(browser, page_of(tmp_path / "set")) as (page, trouble):
        for n in range(len(EVIL)):
            go(page, f"made/{n}")
            assert (
                page.locator(".claims li").count() == 3 and page.locator('[data-verdict="none"]').count() == 2
            )
            assert page.locator(".segment").evaluate_all("(x) => x.map((n) => n.dataset.name)") == [
                "constructor",
                "seen",
                "tag",
                "outside",
            ]
            page.locator("button.value").first.click()
            go(page, f"made/{100 + n}")
        assert page.evaluate("window.owned") is None and trouble.dialogs == []


def test_labels_of_another_question_alone_are_refused_with_their_number(tmp_path: Path) -> None:
    label = HumanLabel(
        sample_id="a", sufficient=True, problem="q", reference="A", observation="o", question="faithfulness"
    )
    (tmp_path / "marks.jsonl").write_text(label.model_dump_json() + "\n")
    with pytest.raises(SourceError, match=r"no label on sufficiency .*1 labels of another question"):
        gather_labels([tmp_path / "marks.jsonl"])
