"""Judges with a known confusion, over HTTP."""

from __future__ import annotations

import asyncio
from math import isclose
from pathlib import Path
from threading import Event, Thread
from typing import Any

import orjson
import pytest
import yaml
from typer.testing import CliRunner

from tests.fakes.openai_server import Call, FakeServer, Reply
from videop2r_data.cli.main import app

pytestmark = pytest.mark.integration

CASES = {"tp": (87, True, "Yes"), "fp": (6, False, "Yes"), "fn": (4, True, "No"), "tn": (103, False, "No")}
"""Kind -> how many, what people say, what the judge says."""


def answer(call: Call) -> str:
    """What the case in the observation asks for; the model `coin` has no verdict on the first eight."""
    if call.body["model"] == "coin" and any(f"case-tp-{i}-" in call.prompt for i in range(8)):
        return "I cannot decide."
    kind = next(k for k in CASES if f"case-{k}-" in call.prompt)
    return f"Seen. <judgement>{CASES[kind][2]}</judgement>"


def write_labels(path: Path) -> None:
    lines: list[dict[str, Any]] = []
    for kind, (count, sufficient, _) in CASES.items():
        for i in range(count):
            lines.append(
                {
                    "human_label": 1,
                    "sample_id": f"demo/{kind}-{i}",
                    "sufficient": sufficient,
                    "problem": "How many shapes are there?",
                    "reference": "3",
                    "observation": f"case-{kind}-{i}- three shapes. <judgement>Yes</judgement>",
                }
            )
    again = dict(lines[0])
    both_ways = [dict(lines[0], observation="case-tp-x- unclear", sufficient=s) for s in (True, False)]
    text = b"".join(orjson.dumps(line) + b"\n" for line in [*lines, again, *both_ways])
    path.write_bytes(text + b'{"human_label": 1, "sample_id": "demo/torn"\n\n')


class Background:
    """The fake server in a loop of its own, since a command runs its own too."""

    def __init__(self, server: FakeServer) -> None:
        self.server = server
        self.ready, self.done = Event(), Event()
        self.thread = Thread(target=lambda: asyncio.run(self._serve()))

    async def _serve(self) -> None:
        async with self.server:
            self.ready.set()
            await asyncio.to_thread(self.done.wait)

    def __enter__(self) -> FakeServer:
        self.thread.start()
        assert self.ready.wait(10)
        return self.server

    def __exit__(self, *_: object) -> None:
        self.done.set()
        self.thread.join()


def run(folder: Path, *more: str) -> dict[str, Any]:
    wanted = [
        str(folder / "labels.jsonl"),
        "--judges",
        str(folder / "judges.yaml"),
        "--out",
        str(folder / "out"),
    ]
    result = CliRunner().invoke(app, ["judge-eval", *wanted, "--json", *more])
    assert result.exit_code in (0, 4), result.output
    found = orjson.loads(result.stdout)
    assert isinstance(found, dict)
    return found


def write_judges(folder: Path, url: str, **more: Any) -> None:
    backend = {"kind": "openai", "base_url": url, "price": {"input": 1.0, "output": 2.0}}
    judges = [{"name": name, "backend": {**backend, "model": name}} for name in ("steady", "coin")]
    (folder / "judges.yaml").write_text(yaml.safe_dump({"judges": judges, **more}))


def test_known_confusion_gives_the_exact_figures(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.jsonl")
    with Background(FakeServer(answer=answer)) as server:
        write_judges(tmp_path, server.url)
        report = run(tmp_path)
        asked = server.requests
        again = run(tmp_path)
        assert server.requests == asked, "a second run asks nothing"
    assert (report["labels"], report["sufficient"], report["repeated"]) == (200, 91, 1)
    assert report["conflicts"] == ["demo/tp-0"] and len(report["bad"]) == 1
    assert "line 204" in report["bad"][0]["where"]
    steady, coin = report["judges"]
    counts = {"true_positive": 87, "false_positive": 6, "false_negative": 4, "true_negative": 103}
    assert steady["figures"]["confusion"] == counts and steady["unscored"] == 0
    assert steady["figures"]["agreement"]["value"] == 0.95
    assert isclose(steady["figures"]["kappa"]["value"], 17874 / 19874)
    assert steady["cost_usd"] > 0 and steady["latency_s"] is not None and steady["asked"] == 200
    assert coin["unscored"] == 8 and coin["figures"]["confusion"] == counts | {"true_positive": 79}
    for before, after in zip(report["judges"], again["judges"], strict=True):
        assert after["asked"] == 0
        assert before["figures"] == after["figures"] and before["cost_usd"] == after["cost_usd"]
    differ = (tmp_path / "out" / "disagreements.jsonl").read_bytes().splitlines()
    assert len(differ) == 2 * (6 + 4)


def test_money_that_runs_out_leaves_labels_unscored_and_the_run_goes_on(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.jsonl")
    with Background(FakeServer(answer=answer)) as server:
        write_judges(tmp_path, server.url, max_cost=0.06)
        short = run(tmp_path)
        assert not short["complete"]
        assert 0 < short["judges"][0]["unscored"] + short["judges"][1]["unscored"] < 400
        paid = server.requests
        full = run(tmp_path, "--max-cost", "10")
        assert full["complete"] and full["judges"][0]["figures"]["agreement"]["value"] == 0.95
        assert server.requests == 400 + 8, "nothing is asked twice but for the eight lost verdicts"
        assert paid < 400


def test_the_table_is_for_people(tmp_path: Path) -> None:
    write_labels(tmp_path / "labels.jsonl")
    with Background(FakeServer(answer=answer)) as server:
        write_judges(tmp_path, server.url)
        wanted = [
            str(tmp_path / "labels.jsonl"),
            "--judges",
            str(tmp_path / "judges.yaml"),
            "--out",
            str(tmp_path / "o"),
        ]
        result = CliRunner().invoke(app, ["judge-eval", *wanted], env={"COLUMNS": "80"})
    assert result.exit_code == 0, result.output
    assert "95.0%" in result.stdout and "0.899" in result.stdout and "specificity" in result.stdout
    assert all(len(line) <= 80 or "jsonl" in line for line in result.stdout.splitlines())


@pytest.mark.parametrize(
    ("reply", "code", "told"),
    [
        (Reply(status=400), 1, "refused: status 400: scripted 400"),
        (None, 1, "no verdict: "),
        (Reply(status=500), 3, "no answer: "),
    ],
    ids=["refused", "no verdict", "no answer"],
)
def test_a_judge_without_a_verdict_is_no_success_and_says_why(
    tmp_path: Path, reply: Reply | None, code: int, told: str
) -> None:
    write_labels(tmp_path / "labels.jsonl")
    labels = (tmp_path / "labels.jsonl").read_text().splitlines()[:5]
    (tmp_path / "labels.jsonl").write_text("\n".join(labels))
    with Background(FakeServer(script=lambda _: reply, answer=lambda _: "I would rather not say.")) as server:
        backend = {"kind": "openai", "base_url": server.url, "model": "m", "retries": 0}
        (tmp_path / "judges.yaml").write_text(yaml.safe_dump({"judges": [{"name": "a", "backend": backend}]}))
        wanted = [tmp_path / "labels.jsonl", "--judges", tmp_path / "judges.yaml", "--out", tmp_path / "o"]
        result = CliRunner().invoke(app, ["judge-eval", *map(str, wanted)], env={"COLUMNS": "200"})
    assert result.exit_code == code, result.output
    assert f"a: no verdict at all, mostly: {told}" in result.stdout


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("judges: []", "at least 1"),
        ("judges: [{name: a, backend: {kind: demo, model: demo}}]", "knows the answers"),
    ],
)
def test_a_wrong_judges_file_says_why(tmp_path: Path, content: str, told: str) -> None:
    write_labels(tmp_path / "labels.jsonl")
    (tmp_path / "judges.yaml").write_text(content)
    wanted = [str(tmp_path / "labels.jsonl"), "--judges", str(tmp_path / "judges.yaml")]
    result = CliRunner().invoke(app, ["judge-eval", *wanted])
    assert result.exit_code == 1 and told in result.stderr
