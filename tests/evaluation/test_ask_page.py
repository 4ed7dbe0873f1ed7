"""One answer as a page: what is linked, and that nothing in it is more than text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from tests.integration.test_gallery_hostile import EVIL
from videop2r_data.errors import ConfigError
from videop2r_data.evaluation.ask import Asked, Seen, make_question
from videop2r_data.evaluation.ask_page import render_page, times_in
from videop2r_data.evaluation.ask_server import offered
from videop2r_data.schemas import (
    DataType,
    ProblemType,
    TraceGrammar,
    Usage,
    default_grammar,
    load_grammar,
)

TRACE = (
    "<observation>At 0:02 a red cube falls; it rests from 3.5 s on.</observation> "
    "<think>3.5 seconds is late.</think><answer>B</answer>"
)


def asked(text: str = TRACE, **changes: Any) -> Asked:
    values: dict[str, Any] = {
        "file": "a.mp4", "data_type": DataType.VIDEO, "start_s": None, "end_s": None, "problem": "What falls?",
        "options": ("cup", "cube"), "problem_type": ProblemType.MULTIPLE_CHOICE, "model": "m", "served": "m-1",
        "prompt": "generate-v1", "prompt_sha256": "0", "text": text, "finish": "stop", "segments": (),
        "fault": "", "answer": "B", "place": "segment", "failed": "", "blind": None, "frame_indices": (0, 10, 20, 30),
        "frame_times_s": (0.0, 2.0, 4.0, 6.0), "frame_width": 28, "frame_height": 28, "source_frames": 40,
        "duration_s": 8.0, "usage": Usage(input_tokens=90, output_tokens=30), "seconds": 1.25,
    }  # fmt: skip
    return Asked(**values | changes)


def page_of(one: Asked, grammar: TraceGrammar | None = None) -> str:
    return render_page(Seen(one, tuple(b"jpeg" for _ in one.frame_times_s)), grammar or default_grammar())


def test_segments_have_their_colours_and_times_lead_to_the_nearest_frame() -> None:
    page = page_of(asked())
    assert re.findall(r'<section class="segment" data-kind="(\w+)"', page) == [
        "observation",
        "think",
        "answer",
    ]
    # 0:02 is the frame at 2 s; 3.5 s is nearer to 4 s than to 2 s
    assert re.findall(r'<a href="#(f\d)">([^<]*)</a>', page) == [
        ("f1", "0:02"),
        ("f2", "3.5 s"),
        ("f2", "3.5 seconds"),
    ]
    assert re.findall(r'<figure id="(f\d)"', page) == ["f0", "f1", "f2", "f3"]
    assert 'alt="frame 20, 4.0 s"' in page and "data:image/jpeg;base64,anBlZw==" in page
    assert "A. cup" in page and "90 tokens read, 30 written, 1.2 s" in page and "4 of 40 frames" in page


def test_times_of_a_part_count_from_its_beginning() -> None:
    one = asked("<observation>at 1 s</observation> <think>t</think><answer>a</answer>", start_s=4.0, end_s=8.0,
                frame_times_s=(4.0, 5.0, 6.0, 7.0))  # fmt: skip
    assert '<a href="#f1">1 s</a>' in page_of(one)


def spec_of(grammar: TraceGrammar, name: str) -> Any:
    return grammar.named[name]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at 3.5 s and 12 seconds, not 4 sides, v1.5 sec", [3.5, 12.0]),
        ("01:30 to 1:02:03", [90.0, 3723.0]),
        ("a ratio 16:9:4:3", []),
        ("5s. 7 secs", [5.0, 7.0]),
    ],
)
def test_times_in_free_text(text: str, found: list[float]) -> None:
    times = times_in(text, spec_of(default_grammar(), "observation"), asked())
    assert [seconds for _, _, seconds in times] == found
    assert all(0 <= start < end <= len(text) for start, end, _ in times)


def test_an_interval_is_asked_for_and_typed_times_are_read() -> None:
    one = asked(problem_type=ProblemType.TEMPORAL_GROUNDING)
    answer = spec_of(default_grammar(), "answer")
    assert [t for *_, t in times_in("[2.5, 7.0]", answer, one)] == [2.5, 7.0]
    assert times_in("[2.5, 7.0]", answer, asked()) == []
    thinker = load_grammar("video-thinker")
    named = next(name for name, spec in thinker.named.items() if spec.holds)
    example = "00:02-00:05"
    assert [t for *_, t in times_in(example, spec_of(thinker, named), one)] == [2.0, 5.0]
    assert times_in("at 2 s", answer, asked(frame_times_s=(0.0,))) == [], "one frame: there is nowhere to go"


def test_what_stands_outside_and_what_is_missing_is_told() -> None:
    page = page_of(asked("so: <observation>o", fault="no think", answer=None, failed=""))
    assert "outside of every segment" in page and "No whole trace: no think" in page
    assert "(none was found)" in page


class Elements(HTMLParser):
    """Names of elements and attributes of a document."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[tuple[str, str]] = set()
        self.links: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found |= {(tag, name) for name, _ in attrs} | {(tag, "")}
        self.links |= {value or "" for name, value in attrs if name in ("href", "src")}


def elements(page: str) -> Elements:
    made = Elements()
    made.feed(page)
    return made


@pytest.mark.parametrize("evil", EVIL)
def test_no_text_becomes_markup(evil: str) -> None:
    one = asked(f"{evil}<observation>{evil} at 2 s</observation>{evil}", problem=evil, options=(evil, f"A. {evil}"),
                file=evil, served=evil, answer=evil, blind=evil, fault=evil, failed=evil)  # fmt: skip
    usual, made = elements(page_of(asked(TRACE, fault="f", failed="f", blind="b"))), elements(page_of(one))
    assert made.found <= usual.found
    assert all(link.startswith(("#f", "data:image/jpeg;base64,")) for link in made.links)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00]", page_of(one))


def test_the_policy_allows_this_style_and_pictures_of_the_page_alone() -> None:
    page = page_of(asked())
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert found is not None
    policy = found.group(1)
    assert "script-src &#x27;none&#x27;" in policy and "default-src &#x27;none&#x27;" in policy
    assert "img-src data:;" in policy and "form-action &#x27;none&#x27;" in policy and "http" not in policy
    assert "<script" not in page and page == page_of(asked())


def test_a_question_knows_its_media_and_its_type_and_refuses_the_rest() -> None:
    assert make_question("a/b.PNG", "?").data_type is DataType.IMAGE
    assert make_question("b.gif", "?").data_type is DataType.VIDEO
    assert make_question("", "?").data_type is DataType.TEXT
    assert make_question("b.mp4", "?", options=("x", "y")).problem_type is ProblemType.MULTIPLE_CHOICE
    assert make_question("b.mp4", " ? ", problem_type=ProblemType.OCR).problem == "?"
    for path, more, told in (
        ("../b.mp4", {}, "never leaves"),
        ("b.mp4", {"options": ("x",)}, "at least two"),
        ("b.mp4", {"start_s": 3.0, "end_s": 2.0}, "is not in"),
    ):
        with pytest.raises(ConfigError, match=told):
            make_question(path, "?", **more)
    with pytest.raises(ConfigError, match="problem"):
        make_question("b.mp4", "")


def test_the_files_that_are_offered(tmp_path: Path) -> None:
    for name in ("b.mp4", "a/c.png", "a/notes.txt", ".hidden/d.mp4", "e\u202e.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert offered(tmp_path) == ["b.mp4", "a/c.png"]
