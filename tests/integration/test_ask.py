"""`p2r-train ask` with a model in this process, with one behind a server, and with a browser on its pages."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from tests.fakes.openai_server import Call, FakeServer, Reply
from tests.integration.gallery_browser import chromium, opened
from tests.integration.test_gallery_demo import violations
from tests.media.clips import write_clip
from tests.shared import media_dir
from videop2r_data.cli.train import app

pytestmark = pytest.mark.integration

ASK = (sys.executable, "-m", "videop2r_data.cli.train", "ask")
EVIL = "\x1b[2J\x1b]8;;http://evil\x07<script>window.owned=1</script>\u202e"
TRACE = (
    f"<observation>At 0.5 s the gradient {EVIL} moves.</observation> "
    "<think>It moves at 1.5 s too.</think><answer>B</answer>"
)


@contextmanager
def running(**settings: Any) -> Iterator[FakeServer]:
    """The stand-in of a server, in a thread."""
    loop = asyncio.new_event_loop()
    server = FakeServer(**settings)
    ready, end = threading.Event(), asyncio.Event()

    async def main() -> None:
        async with server:
            ready.set()
            await end.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),))
    thread.start()
    try:
        assert ready.wait(60)
        yield server
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()
        loop.close()


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    write_clip(folder / "moving.mp4")
    (folder / "deep").mkdir()
    Image.new("RGB", (64, 48), "red").save(folder / "deep" / "red.png")
    return folder


def invoke(*args: object, code: int = 0) -> Any:
    done = CliRunner().invoke(app, ["ask", *map(str, args)])
    assert done.exit_code == code, (done.stdout, done.stderr, done.exception)
    return done


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    from videop2r_data.trainer.tiny.model import make_tiny
    from videop2r_data.trainer.tiny.recipe import TinySpec, TinyWorld

    spec = TinySpec(
        hidden=32, layers=1, heads=2, kv_heads=1, intermediate=64, vision_hidden=16, vision_layers=1,
        vision_intermediate=32, vocab=400, corpus=60,
    )  # fmt: skip
    run = tmp_path_factory.mktemp("tiny") / "run"
    make_tiny(run / "final", spec, world=TinyWorld())
    media = {"frames": 6, "min_pixels": 64, "max_pixels": 3136, "factor": 8}
    data = {"source": "demo", "media": media, "prompt": "tiny-v1"}
    (run / "recipe.yaml").write_text(yaml.safe_dump({"stage": "sft", "data": data, "model": {"model": "x"}}))
    return run


def test_a_run_is_asked_as_it_was_trained_and_a_model_as_the_paper_asks(tiny: Path, clips: Path) -> None:
    run = orjson.loads(invoke(tiny, clips / "moving.mp4", "What moves?", "--max-tokens", 5, "--json").stdout)
    assert (
        len(run["frame_times_s"]) == 6 and run["prompt"] == "tiny-v1" and run["usage"]["output_tokens"] <= 5
    )
    assert run["frame_width"] % 8 == 0 and run["frame_width"] * run["frame_height"] <= 3136
    again = orjson.loads(
        invoke(tiny, clips / "moving.mp4", "What moves?", "--max-tokens", 5, "--json").stdout
    )
    assert again["text"] == run["text"]
    flags = ["--max-pixels", 784, "--max-tokens", 2, "--json"]
    model = orjson.loads(invoke(tiny / "final", clips / "moving.mp4", "What moves?", *flags).stdout)
    assert (
        len(model["frame_times_s"]) == 32
        and model["prompt"] == "generate-v1"
        and model["frame_width"] % 8 == 0
    )


def test_an_image_is_asked_about_and_every_real_clip_too(tiny: Path, clips: Path) -> None:
    told = orjson.loads(
        invoke(tiny, clips / "deep" / "red.png", "What is it?", "--max-tokens", 2, "--json").stdout
    )
    assert told["data_type"] == "image" and told["frame_times_s"] == [0.0]
    if (real := media_dir()) is not None:
        for name in ("newtonscradle.gif", "count-video.mp4", "video_90.mov"):
            told = orjson.loads(invoke(tiny, real / name, "What is it?", "--max-tokens", 2, "--json").stdout)
            assert told["data_type"] == "video" and 1 < len(told["frame_times_s"]) <= 6


def test_a_server_is_asked_and_its_words_cannot_steer_the_terminal(clips: Path, tmp_path: Path) -> None:
    with running(answer=lambda call: TRACE) as server:
        page = tmp_path / "new" / "answer.html"
        done = invoke("served-model", clips / "moving.mp4", "What moves?", "cup", "gradient", "--frames", 4,
                      "--base-url", server.url, "--html", page)  # fmt: skip
        assert "\x1b" not in done.stdout and "\u202e" not in done.stdout and "␛[2J" in done.stdout
        assert "answer: B" in done.stdout and "A. cup" in done.stdout and "4 of 48 frames" in done.stdout
        assert "no whole trace" not in done.stdout and all(
            len(line) <= 80 for line in done.stdout.splitlines()
        )
        call = server.last
        assert call is not None and call.body["model"] == "served-model" and call.body["temperature"] == 0.01
        assert "A. cup" in call.prompt and call.body["max_tokens"] == 4096
        html = page.read_text()
        assert html.count("<figure") == 4 and "<script" not in html and "\u202e" not in html
        answered = server.requests
        flags = ["--base-url", server.url, "--trace", "think-answer", "--type", "temporal grounding"]
        told = orjson.loads(invoke("m", clips / "moving.mp4", "When?", *flags, "--json").stdout)
        assert server.requests == answered + 1 and told["problem_type"] == "temporal grounding"
        assert told["fault"] and [s["name"] for s in told["segments"]] == ["think", "answer"]


def test_a_part_of_a_clip_is_sampled_and_times_lead_into_it(clips: Path, tmp_path: Path) -> None:
    with running(answer=lambda call: TRACE) as server:
        page = tmp_path / "part.html"
        told = orjson.loads(
            invoke(
                "m", clips / "moving.mp4", "What moves?", "--start", 0.5, "--end", 1.5, "--frames", 3,
                "--base-url", server.url, "--html", page, "--json",
            ).stdout
        )  # fmt: skip
        assert (told["start_s"], told["end_s"]) == (0.5, 1.5)
        times = told["frame_times_s"]
        assert len(times) == 3 and times[0] == 0.5 and times[-1] <= 1.5
        # `0.5 s` in the trace counts from the beginning of the part: 1.0 s in the clip, the middle frame
        assert '<a href="#f1">0.5 s</a>' in page.read_text()
        flags = ["--start", 1, "--end", 1, "--base-url", server.url]
        assert "is not in" in invoke("m", clips / "moving.mp4", "?", *flags, code=1).stderr


def test_an_answer_outside_of_a_trace_is_read_and_says_where(clips: Path) -> None:
    with running(answer=lambda call: "A cup? No. The answer is B.") as server:
        asked = ["m", clips / "moving.mp4", "What?", "cup", "cube", "--base-url", server.url, "--frames", 2]
        told = orjson.loads(invoke(*asked, "--json").stdout)
        assert (told["answer"], told["place"]) == ("B", "cue") and told["fault"]
        assert "answer: B (cue)" in invoke(*asked).stdout


def test_the_answer_without_the_clip_stands_beside_the_other(clips: Path, tmp_path: Path) -> None:
    def answer(call: Call) -> str:
        return TRACE if b"video_url" in call.raw else "The answer is A."

    with running(answer=answer) as server:
        page = tmp_path / "blind.html"
        asked = [
            "m",
            clips / "moving.mp4",
            "What?",
            "cup",
            "gradient",
            "--base-url",
            server.url,
            "--frames",
            2,
        ]
        done = invoke(*asked, "--blind", "--html", page)
        assert "answer: B" in done.stdout and "without the media: A" in done.stdout and server.requests == 2
        assert "Without the media: A</p>" in page.read_text()
        told = orjson.loads(invoke(*asked, "--json").stdout)
        assert told["blind"] is None and server.requests == 3


def test_what_cannot_be_asked_ends_with_a_reason(clips: Path, tmp_path: Path) -> None:
    clip = clips / "moving.mp4"
    refused = Reply(status=400, body=b'{"error": {"message": "no such model here"}}')
    with running(script=[refused], answer=lambda call: "") as server:
        to = ["--base-url", server.url, "--frames", 2]
        assert "no such model here" in invoke("m", clip, "?", *to, code=1).stderr
        empty = invoke("m", clip, "?", *to, code=1)
        assert "nothing to read" in empty.stdout
        broken = tmp_path / "broken.mp4"
        broken.write_bytes(b"no clip")
        assert "broken.mp4" in invoke("m", broken, "?", *to, code=1).stderr
        assert "no such file" in invoke("m", clips / "none.mp4", "?", *to, code=1).stderr
        assert "at least two" in invoke("m", clip, "?", "one", *to, code=1).stderr
        assert "is none of" in invoke("m", clip, "?", "--type", "poem", *to, code=2).stderr
        assert "QUESTION" in invoke("m", clip, *to, code=2).stderr
        assert "no trace grammar" in invoke("m", clip, "?", "--trace", "sonnet", *to, code=1).stderr
        assert server.requests == 2
    assert "neither a folder nor a Hub id" in invoke("nowhere", clip, "?", code=1).stderr
    assert "kind" in invoke("m", clip, "?", "--kind", "oracle", code=1).stderr


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


def accessible(browser: Any, url: str, ready: str) -> None:
    """axe finds nothing, light and dark; its own script needs the policy out of the way."""
    for scheme in ("light", "dark"):
        with opened(browser, url, ready=ready, color_scheme=scheme, bypass_csp=True) as (page, _):
            assert violations(page) == []


def test_the_page_of_an_answer_in_a_browser(browser: Any, clips: Path, tmp_path: Path) -> None:
    with running(answer=lambda call: TRACE) as server:
        page = tmp_path / "answer.html"
        flags = ["--frames", "4", "--base-url", server.url, "--html", str(page)]
        # in a process of its own: the browser's driver runs a loop in this one
        subprocess.run([*ASK, "m", str(clips / "moving.mp4"), EVIL, "cup", EVIL, *flags], check=True)
    accessible(browser, page.as_uri(), ".segment")
    with opened(browser, page.as_uri(), ready=".segment") as (shown, trouble):
        assert shown.locator("figure img").count() == 4
        sizes = shown.evaluate("[...document.images].map((i) => i.naturalWidth)")
        assert len(set(sizes)) == 1 and sizes[0] >= 28, "each frame is a picture that the browser can draw"
        shown.click("section[data-kind=think] a")
        assert shown.evaluate("location.hash") == "#f2"  # 1.5 s: of frames at 0, 0.67, 1.29 and 1.96 s
        assert shown.evaluate("window.owned") is None and trouble.dialogs == []


def fill_in(page: Any, path: str, problem: str, options: str = "") -> None:
    for name, text in (("path", path), ("problem", problem), ("options", options)):
        page.fill(f"[name={name}]", text)
    page.click("button")


def test_a_question_is_typed_and_answered_in_a_browser(browser: Any, clips: Path) -> None:
    def answer(call: Call) -> str:
        return TRACE if "What moves" in call.prompt else "no trace"

    with running(answer=answer) as server:
        command = [*ASK, "m", str(clips), "--serve", "--frames", "4", "--base-url", server.url]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as asking:
            try:
                assert asking.stderr is not None
                url = next(text for text in asking.stderr if "serving at" in text).split()[2]
                accessible(browser, url, "form")
                with opened(browser, url, ready="form") as (page, trouble):
                    fill_in(page, "moving.mp4", f"What moves? {EVIL}", "cup\ngradient")
                    page.wait_for_selector("section[data-kind=answer]")
                    assert page.input_value("[name=options]") == "cup\ngradient"
                    assert page.locator("figure img").count() == 4 and page.locator("video").count() == 1
                    fill_in(page, "deep/red.png", "Another")
                    page.wait_for_selector("section[data-kind=outside]")
                    fill_in(page, "../moving.mp4", "Outside?")
                    page.wait_for_selector("[role=alert]")
                    assert page.evaluate("window.owned") is None and trouble.dialogs == []
                assert server.requests == 2
            finally:
                asking.send_signal(signal.SIGINT)
                assert asking.wait(60) == 0
