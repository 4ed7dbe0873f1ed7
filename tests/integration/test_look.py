"""`check` and `doctor` against real servers on loopback: all findings at once, each with what to do."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.fakes.anthropic_server import FakeAnthropic
from tests.fakes.openai_server import Call, FakeServer, Reply, default_answer
from tests.integration.test_build import question, recipe, write_pool
from tests.media.clips import write_clip
from videop2r_data.builders.checks.needs import Calls
from videop2r_data.builders.checks.report import CheckReport, DoctorReport, Finding, ServerLook
from videop2r_data.builders.checks.run import check_recipe, doctor
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cli import main as cli
from videop2r_data.schemas.recipe import Recipe

pytestmark = pytest.mark.integration
PRICE = {"input": 1000.0, "output": 1000.0}


def media_pool(folder: Path, *, clips: int = 1, images: int = 1) -> None:
    """Rows with real files: a clip that cannot be read first, then good ones."""
    rows = [question(0, path="broken.mp4", data_type="video")] if clips else []
    (folder / "broken.mp4").write_bytes(b"no clip")
    for i in range(clips):
        write_clip(folder / f"{i}.mp4", frames=24)
        rows.append(question(10 + i, path=f"{i}.mp4", data_type="video"))
    for i in range(images):
        Image.new("RGB", (56, 56), (i, 9, 9)).save(folder / f"{i}.png")
        rows.append(question(100 + i, path=f"{i}.png", data_type="image"))
    rows.append(question(999, path="", data_type="text"))
    write_pool(folder, rows)


def looked(
    folder: Path,
    make: Callable[[FakeServer], Recipe] = recipe,
    *,
    full: bool = False,
    calls: Calls = "one-frame",
    **server: Any,
) -> tuple[CheckReport | DoctorReport, FakeServer, list[str]]:
    async def main() -> tuple[CheckReport | DoctorReport, FakeServer, list[str]]:
        told: list[str] = []
        async with FakeServer(**{"models": ["g", "j"]} | server) as fake:
            place = Workspace.at(folder / "set", base=folder)
            made = make(fake)
            if full:
                return await doctor(made, place, tell=told.append), fake, told
            return await check_recipe(made, place, calls=calls, tell=told.append), fake, told

    return asyncio.run(main())


def servers(report: CheckReport | DoctorReport) -> tuple[ServerLook, ServerLook]:
    generate, judge = report.servers
    return generate, judge


def faults(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.about: finding for finding in findings if finding.state == "error"}


def odd(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.about: finding for finding in findings if finding.state == "warning"}


def test_a_good_recipe_costs_one_small_call_per_step_and_kind(tmp_path: Path) -> None:
    media_pool(tmp_path)
    bodies: list[dict[str, Any]] = []

    def answer(call: Call) -> str:
        bodies.append(call.body)
        return default_answer(call)

    report, server, told = looked(
        tmp_path,
        lambda s: recipe(s, generate__backend__price=PRICE, judge__max_tokens=64),
        answer=answer,
        max_model_len=100_000,
    )
    assert isinstance(report, CheckReport)
    generate, judge = servers(report)
    assert not faults([*report.setup, *generate.findings, *judge.findings])
    assert report.rows == 4 and report.rows_ok == 3 and not report.ok, "the broken clip alone"
    assert [(c.data_type, c.frames) for c in generate.calls] == [("video", 1), ("image", 1)]
    assert [(c.data_type, c.frames) for c in judge.calls] == [("text", 0)]
    assert server.requests == 3 and len(told) == 5
    clip, picture, verdict = bodies
    assert clip["max_tokens"] == 1024 and verdict["max_tokens"] == 64, "the build's own limits"
    url = clip["messages"][-1]["content"][0]["video_url"]["url"]
    assert url.count(",") == 1 and picture["messages"][-1]["content"][0]["type"] == "image_url"
    assert "Based on the question, I need to notice shape" in json.dumps(verdict), "the generator's own words"
    assert report.calls_usd == pytest.approx(
        sum(c.input_tokens + c.output_tokens for c in generate.calls) * 1000 / 1e6
    )
    assert generate.context == 100_000 and generate.needed and generate.needed < 100_000
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.build").exists()


def test_no_calls_asks_nobody(tmp_path: Path) -> None:
    media_pool(tmp_path)
    report, server, told = looked(tmp_path, calls="none")
    assert server.requests == 0 and server.opened == 0 and told == []
    assert all(s.findings[0].state == "note" for s in servers(report))


def test_a_dead_server_does_not_hide_what_the_other_says(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(1)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    report, server, _ = looked(tmp_path, lambda s: recipe(s, generate__backend__base_url=url))
    generate, judge = servers(report)
    found = faults(generate.findings)["server"]
    assert url in found.message and "start the server" in found.hint and not generate.calls
    assert judge.ok and judge.calls and server.requests == 1
    assert not report.ok


@pytest.mark.parametrize(
    ("said", "advice"),
    [
        ("At most 0 video(s) may be provided in one prompt.", "--limit-mm-per-prompt"),
        ("This model's maximum context length is 512 tokens.", "--max-model-len"),
        ("Unsupported parameter: use 'max_completion_tokens' instead.", "extra.max_tokens_field"),
    ],
)
def test_a_refusal_is_told_in_the_servers_words_with_advice(said: str, advice: str, tmp_path: Path) -> None:
    media_pool(tmp_path, images=0)
    refusal = Reply(status=400, body=json.dumps({"error": {"message": said}}).encode())
    for full in (False, True):
        report, _, _ = looked(
            tmp_path, full=full, script=lambda c: refusal if c.body["model"] == "g" else None
        )
        generate, judge = servers(report)
        found = faults(generate.findings)["call"]
        assert said in found.message and advice in found.hint
        assert judge.ok and not report.ok


def test_an_empty_answer_a_text_without_template_and_one_without_verdict(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(1)])
    null = b'{"model":"g","choices":[{"message":{"content":null},"finish_reason":"stop"}],"usage":{}}'
    report, _, _ = looked(tmp_path, script=lambda c: Reply(body=null) if c.body["model"] == "g" else None)
    generate, judge = servers(report)
    found = faults(generate.findings)["call"]
    assert "empty" in found.message and "(curl)" in found.hint and judge.ok
    thought = (
        b'{"model":"g","choices":[{"message":{"content":"</think><answer>A</answer>",'
        b'"reasoning_content":"<observation>o</observation><think>"},"finish_reason":"stop"}]}'
    )
    report, _, _ = looked(tmp_path, script=lambda c: Reply(body=thought) if c.body["model"] == "g" else None)
    found = faults(servers(report)[0].findings)["call"]
    assert "taken for reasoning" in found.message and "--reasoning-parser" in found.hint and not report.ok
    report, _, _ = looked(tmp_path, answer=lambda _: "I think it is A.")
    generate, judge = servers(report)
    assert "no process-aware trace" in odd(generate.findings)["trace"].message
    assert "no verdict" in odd(judge.findings)["verdict"].message
    assert report.ok, "a build would run: how many rows it keeps is the pilot's question"


def test_a_model_that_is_not_served_and_a_context_that_is_too_small(tmp_path: Path) -> None:
    media_pool(tmp_path, images=0)
    gone = Reply(status=404, body=b'{"error":{"message":"The model `g` does not exist."}}')
    report, _, _ = looked(
        tmp_path, models=["j", "other"], script=lambda c: gone if c.body["model"] == "g" else None
    )
    generate, judge = servers(report)
    assert "it lists: j, other" in faults(generate.findings)["models"].message
    assert "does not exist" in faults(generate.findings)["call"].message and judge.ok
    # a gateway that lists a part of what it serves: it answered, so this is no error
    report, _, _ = looked(tmp_path, models=["j"])
    generate, _ = servers(report)
    assert generate.ok and "models" in odd(generate.findings)
    report, _, _ = looked(tmp_path, models=[*(f"m{i}" for i in range(30)), "g", "j"])
    assert servers(report)[0].listed == [f"m{i}" for i in range(20)]
    assert not odd(servers(report)[0].findings), "it is on the list, though not among the first"
    for full in (False, True):
        report, _, _ = looked(tmp_path, full=full, max_model_len=1100)
        generate, judge = servers(report)
        found = faults(generate.findings)["context"]
        assert "1,100" in found.message and "--max-model-len" in found.hint and not report.ok
        assert judge.context == 1100


def test_the_longest_question_counts_and_not_the_one_that_was_asked(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(1), question(2, problem="word " * 4000)])
    report, _, _ = looked(tmp_path, full=True, max_model_len=4096)
    generate, _ = servers(report)
    assert generate.ok and generate.needed is not None and generate.needed > 6000
    assert "4,096" in odd(generate.findings)["context"].message


def test_a_pool_without_a_usable_row_still_asks_for_the_model(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(1, options=[])])
    report, server, _ = looked(tmp_path, models=["other"])
    generate, judge = servers(report)
    assert "models" in faults(generate.findings) and "models" in faults(judge.findings)
    assert server.requests == 0 and any("no usable row" in f.message for f in generate.findings)


def test_everything_that_is_wrong_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    write_pool(tmp_path, [question(1), question(2, options=[])])
    (tmp_path / "bad.txt").write_text("=== user ===\n{problem}\n{hint}\n=== hint: OCR ===\nx\n")
    (tmp_path / "file").write_text("no folder")

    async def main() -> CheckReport:
        async with FakeServer(models=["j"]) as server:
            made = recipe(
                server,
                generate__prompt="bad.txt",
                judge__prompt="nowhere.txt",
                generate__backend__api_key_env="NO_SUCH_KEY",
                judge__backend__base_url="https://api.p2r.invalid/v1?key=secret",
                judge__backend__timeout_s=0.5,
            )
            place = Workspace.at(tmp_path / "file" / "set", base=tmp_path, work=tmp_path / "work")
            return await check_recipe(made, place)

    report = asyncio.run(main())
    errors = [f for f in report.setup if f.state == "error"]
    assert [f.about for f in errors] == ["prompts", "prompts", "folders"]
    assert "=== hint:" in errors[0].message and "nowhere.txt" in errors[1].message
    assert str(tmp_path / "file" / "set") in errors[2].message and "--out" in errors[2].hint
    assert "judge.backend has no price" in odd(report.setup)["price"].message
    generate, judge = servers(report)
    assert "NO_SUCH_KEY is not set" in faults(generate.findings)["backend"].message
    assert judge.address == "https://api.p2r.invalid/v1" and not judge.ok
    assert "secret" not in report.model_dump_json()
    assert report.sources[0].bad_rows == {"bad_row": 1}, "the pool was looked at all the same"


def test_a_busy_server_is_asked_again_and_a_wrong_key_is_not(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(1)])
    busy = [
        Reply(status=429, headers={"retry-after-ms": "5"}),
        Reply(status=429, headers={"retry-after-ms": "5"}),
    ]
    report, server, _ = looked(tmp_path, script=busy)
    assert report.ok and server.requests == 4
    report, server, _ = looked(tmp_path, key="right")
    assert "401" in faults(servers(report)[0].findings)["call"].message and server.requests == 2


def test_doctor_sends_every_frame_of_the_first_clip_that_can_be_read(tmp_path: Path) -> None:
    media_pool(tmp_path)
    urls: list[str] = []

    def answer(call: Call) -> str:
        content = call.body["messages"][-1]["content"]
        if call.body["model"] == "g" and content[0]["type"] == "video_url":
            urls.append(content[0]["video_url"]["url"])
        return default_answer(call)

    report, server, _ = looked(tmp_path, full=True, answer=answer)
    assert report.ok and server.requests == 3
    assert [url.count(",") for url in urls] == [16]
    assert servers(report)[0].calls[0].sample_id == "pool/10"
    assert any("4 rows, 0 of them" in f.message for f in report.setup)


def test_an_anthropic_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "k")
    media_pool(tmp_path, images=0)

    async def main() -> DoctorReport:
        async with FakeAnthropic() as server:
            server.models = ["claude-x"]
            server.answer = lambda params: (
                "<judgement>Yes</judgement>"
                if "judgement" in json.dumps(params)
                else "<observation>o</observation>"
            )
            backend = {"kind": "anthropic", "base_url": server.url, "model": "claude-x"}
            made = Recipe.model_validate(
                {
                    "name": "set",
                    "sources": [{"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}],
                    "generate": {"backend": backend},
                    "judge": {"backend": {**backend, "batch": True}},
                }
            )
            found = await doctor(made, Workspace.at(tmp_path / "set", base=tmp_path))
            assert server.calls["messages"] == 2 and not server.batches
            return found

    report = asyncio.run(main())
    generate, judge = servers(report)
    assert generate.context == 200_000 and generate.calls[0].frames == 16
    assert report.ok and judge.findings[-1].message == "a verdict: Yes"


def test_a_model_in_this_process_is_loaded_by_doctor_alone(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from tests.tiny_model import make_tiny_model

    media_pool(tmp_path, images=0)
    folder = make_tiny_model(tmp_path / "tiny")
    backend = {"kind": "transformers", "model": str(folder), "extra": {"dtype": "float32"}}

    def make(server: FakeServer, **changes: Any) -> Recipe:
        return recipe(server, generate__backend=backend, generate__max_tokens=8, **changes)

    report, _, _ = looked(tmp_path, make)
    generate, judge = servers(report)
    assert [f.state for f in generate.findings] == ["note"] and not generate.calls and judge.calls
    report, _, _ = looked(tmp_path, make, full=True)
    generate, _ = servers(report)
    assert generate.calls[0].frames == 16 and generate.context and generate.needed
    gone = {"kind": "transformers", "model": str(tmp_path / "gone")}
    report, _, _ = looked(tmp_path, lambda s: recipe(s, generate__backend=gone))
    assert "no such folder" in faults(servers(report)[0].findings)["model"].message


@pytest.mark.parametrize(
    ("model", "offline", "state", "said"),
    [
        ("nobody/no-such-model", False, "note", "downloaded when it is loaded"),
        ("nobody/no-such-model", True, "error", "not in the cache"),
        ("no/such/hub-id", True, "error", "neither a folder nor a Hub id"),
    ],
)
def test_a_model_by_its_hub_id(
    model: str, offline: bool, state: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", offline)
    write_pool(tmp_path, [question(1)])
    local = {"kind": "transformers", "model": model}
    report, _, _ = looked(tmp_path, lambda s: recipe(s, generate__backend=local), calls="none")
    told = {f.about: f for f in servers(report)[0].findings}["model"]
    assert told.state == state and said in told.message


@pytest.mark.parametrize("command", ["check", "doctor"])
def test_the_commands_print_and_exit(command: str, tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    result = CliRunner().invoke(cli.app, [command, "demo", "--out", str(tmp_path / "set")])
    assert result.exit_code == 0, result.output
    assert "one call to demo-world/1 (generate)" in result.stderr
    assert "a process-aware trace" in result.stdout and "next: p2r-data" in result.stdout
    assert max(map(len, result.stdout.replace(str(tmp_path), "").splitlines())) <= 80
    again = CliRunner().invoke(cli.app, [command, "demo", "--out", str(tmp_path / "set"), "--json"])
    found = json.loads(again.stdout)
    assert found["ok"] and len(found["servers"]) == 2 and found["setup"]
    assert not (tmp_path / "set").exists() and not (tmp_path / "set.build" / "journal").exists()


def test_the_exit_code_says_that_a_build_would_fail(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
    write_pool(tmp_path, [question(1)])
    source = {"name": "pool", "kind": "video-r1", "path": "pool.json"}
    backend = {"kind": "openai", "base_url": url, "model": "m"}
    path = tmp_path / "r.yaml"
    path.write_text(
        json.dumps({"recipe": 1, "name": "x", "sources": [source], "generate": {"backend": backend}})
    )
    for command in ("check", "doctor"):
        result = CliRunner().invoke(cli.app, [command, str(path), "--out", str(tmp_path / "set")])
        assert result.exit_code == 1 and "a build would fail: 1 error" in result.stdout
        assert "-> start the server" in result.stdout
    result = CliRunner().invoke(cli.app, ["check", str(path), "--out", str(tmp_path / "set"), "--no-calls"])
    assert result.exit_code == 0, result.output
