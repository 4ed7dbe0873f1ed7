"""A list of judges over real HTTP: panels, cascades, the judge that sees and the blind check, end to end."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

import videop2r_data as p2r
from tests.fakes.openai_server import Call, FakeServer
from tests.integration.test_build import digests, question, recipe, rows_of, run, write_pool
from tests.integration.test_judge_eval import Background
from tests.media.clips import picture, write_clip
from tests.pools import read_pool
from tests.validators.test_claims import FORGERIES, WAYS, quoting
from videop2r_data.builders.checks.needs import look_at_servers
from videop2r_data.builders.checks.report import ServerLook
from videop2r_data.builders.checks.trial import TrialRows
from videop2r_data.builders.verify import verify_release
from videop2r_data.builders.workspace import Workspace
from videop2r_data.cli.main import app
from videop2r_data.errors import ConfigError
from videop2r_data.files import read_lock
from videop2r_data.schemas import Price, Recipe, Sample

pytestmark = pytest.mark.integration

SEES = {"name": "sees", "decides": "faithfulness"}
SUFFICES = {"name": "suffices"}
BLIND = {"name": "guess", "decides": "blind"}
THINKS = {"name": "thinks", "decides": "conclusion"}
TRUE, FALSE, UNSEEN = "The ball is red.", "The ball rolls left.", "The ball is heavy."
TAG = re.compile(r"^(\d+)\. (.*)$", re.MULTILINE)


def purpose(call: Call) -> str:
    if "take a written observation" in call.prompt:
        return "claims"
    if "You check claims" in call.prompt:
        return "faithfulness"
    if "that you are not given" in call.prompt:
        return "blind"
    if "You read the reasoning" in call.prompt:
        return "conclusion"
    return "judge" if b"<judgement>" in call.raw else "generate"


def number(call: Call) -> int:
    found = re.search(r"shape (\d+)", call.prompt)
    assert found is not None
    return int(found.group(1))


def world(*, claims: dict[int, list[str]] | None = None, **models: Any) -> Any:
    """A server: what it sees is `TRUE`; `models` overrules the answer of one model by a function."""

    def answer(call: Call) -> str:
        asked = purpose(call)
        overruled = models.get(call.body["model"].replace("-", "_"))
        said = overruled(call, asked) if overruled else None
        if said is not None:
            return str(said)
        if asked == "generate":
            n = number(call)
            words = " ".join((claims or {}).get(n, [TRUE]))
            return (
                f"<observation>I look closely at shape {n}, and this is what I see. {words}</observation> "
                "<think>So it is round, and the answer is A.</think><answer>A</answer>"
            )
        if asked == "claims":
            found = [claim for claim in (TRUE, FALSE, UNSEEN) if claim in call.prompt]
            return "\n".join(f"{n}. {claim}" for n, claim in enumerate(found, 1))
        if asked == "faithfulness":
            assert b"image_url" in call.raw or b"video_url" in call.raw
            verdicts = {TRUE: "supported", FALSE: "contradicted"}
            shown = TAG.findall(call.prompt.split("Claims:")[-1])
            return "\n".join(
                f'<claim n="{n}" at="0.5">{verdicts.get(claim, "unseen")}</claim>' for n, claim in shown
            )
        if asked == "blind":
            return "<answer>A</answer>" if number(call) % 2 else "<answer>B</answer>"
        return "It says so. <judgement>Yes</judgement>"

    return answer


def judged(server: FakeServer, *judges: dict[str, Any], **changes: Any) -> Recipe:
    backend = {"kind": "openai", "base_url": server.url, "retries": 0, "extra": {"video": "frames"}}

    def whole(judge: dict[str, Any]) -> dict[str, Any]:
        made = {"backend": {**backend, "model": f"m-{judge['name']}"}} | judge
        made["panel"] = [{**backend, "model": name} for name in judge.get("panel", ())]
        if "unsure_to" in judge:
            made["unsure_to"] = {**backend, "model": judge["unsure_to"]}
        return made

    found = recipe(server, generate__backend={**backend, "model": "g"}, judge=None, **changes)
    data = found.model_dump(mode="json") | {"judges": [whole(judge) for judge in judges]}
    return Recipe.model_validate(data)


def pool(folder: Path, count: int = 4) -> None:
    """Questions about a clip (odd numbers), and one about an image and one without media."""
    from PIL import Image

    write_clip(folder / "clip.mp4", frames=12, size=(64, 48))
    Image.fromarray(picture(3, 64, 48)).save(folder / "still.png")
    rows = [question(n, data_type="video", path="clip.mp4") for n in range(1, count + 1)]
    rows[1:2] = [row | {"data_type": "image", "path": "still.png"} for row in rows[1:2]]
    write_pool(folder, [*rows, question(90)])


def cells(folder: Path) -> dict[str, dict[str, Any]]:
    return {
        row["problem_id"]: row for config in ("sft", "rejected") for row in rows_of(folder / "set", config)
    }


def test_a_false_claim_is_found_by_the_judge_that_sees_and_by_no_other(tmp_path: Path) -> None:
    pool(tmp_path)
    answer = world(claims={1: [TRUE], 2: [TRUE, FALSE], 3: [TRUE, UNSEEN], 4: [FALSE]})
    report, _ = run(tmp_path, lambda s: judged(s, BLIND, SUFFICES, SEES), answer=answer)
    assert report.state == "complete" and report.ledger is not None
    assert report.ledger.reasons == {"judge/contradicted": 2}
    rows = cells(tmp_path)
    assert rows["2"]["detail"] == FALSE and rows["2"]["stage"] == "judge"
    said = {j["judge"]: j for j in rows["3"]["judgements"]}
    assert list(said) == ["guess", "suffices", "sees"]
    assert said["sees"]["verdict"] == "faithful" and said["sees"]["score"] == 0.5
    assert said["suffices"]["verdict"] == rows["3"]["judgement"] == "Yes"
    assert said["suffices"]["keys"] == [rows["3"]["judge_key"]] and len(said["sees"]["keys"]) == 2
    assert rows["3"]["claims"] == [
        {"text": TRUE, "verdict": "supported", "at": [0.5]},
        {"text": UNSEEN, "verdict": "unseen", "at": [0.5]},
    ]
    assert [rows[str(n)]["blind"] for n in (1, 2, 3, 4, 90)] == [True, False, True, False, None]
    assert [j["judge"] for j in rows["90"]["judgements"]] == ["suffices"]  # a text row shows nothing to see
    found = verify_release(tmp_path / "set")
    assert found.ok, found.findings
    view = p2r.look(tmp_path / "set", "2")
    assert [one.judge for one in view.judgements] == ["guess", "suffices", "sees"]
    words = ["guess: unanswered: B", f"sees: contradicted: {FALSE}", f"claim: contradicted: {FALSE}"]
    assert set(words) <= set(str(view).splitlines())
    printed = CliRunner().invoke(app, ["show", str(tmp_path / "set"), "2"]).stdout
    assert f"contradicted: {FALSE}" in printed and "unanswered: B" in printed


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(tmp_path: Path) -> None:
    pool(tmp_path)

    def make(server: FakeServer) -> Recipe:
        return judged(server, BLIND, SUFFICES, SEES | {"frames": 4, "panel": ["p"], "unsure_to": "dear"})

    run(tmp_path, make, answer=world(claims={3: [UNSEEN]}))
    before = digests(tmp_path / "set")
    report, server = run(tmp_path, make, answer=world(claims={3: [UNSEEN]}))
    assert report.calls_made == 0 and server.requests == 0
    after = digests(tmp_path / "set")
    assert {k: v for k, v in after.items() if k.startswith("data/")} == {
        k: v for k, v in before.items() if k.startswith("data/")
    }


def test_the_card_says_what_each_judge_costs(tmp_path: Path) -> None:
    pool(tmp_path)
    price = Price(input=2.0, output=10.0)

    def make(server: FakeServer) -> Recipe:
        judges = (BLIND, SUFFICES | {"panel": ["two"]}, SEES | {"unsure_to": "dear"})
        made = judged(server, *judges)
        first, *others = made.judges
        priced = first.with_backends(lambda spec: spec.model_copy(update={"price": price}))
        return Recipe.model_validate(made.model_dump() | {"judges": [priced.model_dump(), *others]})

    answer = world(claims={1: [TRUE], 2: [TRUE, FALSE], 3: [UNSEEN], 4: [FALSE]})
    _, server = run(tmp_path, make, answer=answer)
    lock = read_lock(tmp_path / "set")
    spent = {step: model.spent for step, model in lock.models.items() if model.spent is not None}
    # of the 5 questions one is text alone; the claim of the third cannot be seen: `dear` decides
    rows = {"generate": 5, "guess": 4, "suffices": 5, "suffices/2": 5, "sees": 4, "sees/unsure": 1}
    assert {step: one.rows for step, one in spent.items()} == rows
    # the judge that sees has two calls for each: the claims, and their verdicts
    assert {step: one.calls for step, one in spent.items()} == rows | {"sees": 8}
    assert sum(one.calls for one in spent.values()) == server.requests
    assert sum(one.usage.input_tokens for one in spent.values()) == server.tokens["prompt_tokens"]
    assert sum(one.usage.output_tokens for one in spent.values()) == server.tokens["completion_tokens"]
    guess = spent["guess"]
    usd = (2 * guess.usage.input_tokens + 10 * guess.usage.output_tokens) / 1e6
    assert guess.usd == pytest.approx(usd) and spent["sees"].usd is None
    card = (tmp_path / "set" / "README.md").read_text()
    assert f"| guess, cost of a question | ${usd / 4:.6f} (1.00 calls, " in card
    assert "| sees, cost of a question | no price (2.00 calls, " in card
    assert "out); 4 questions came to it |" in card
    run(tmp_path, make, answer=answer)
    assert read_lock(tmp_path / "set").models == lock.models, "also of answers from the journal"


def test_a_judge_may_see_more_frames_than_the_generator(tmp_path: Path) -> None:
    pool(tmp_path, 2)
    shown: dict[str, int] = {}

    def count(call: Call, asked: str) -> None:
        if number_of_frames := call.raw.count(b'image_url":'):
            shown[f"{asked} {number_of_frames}"] = shown.get(f"{asked} {number_of_frames}", 0) + 1

    answer = world(g=count, m_sees=count)
    run(tmp_path, lambda s: judged(s, SEES | {"frames": 6}, media={"frames": 2}), answer=answer)
    assert shown == {"generate 2": 1, "generate 1": 1, "faithfulness 6": 1, "faithfulness 1": 1}


@pytest.mark.parametrize("folded", [True, False], ids=["on one line", "as written"])
def test_what_an_observation_says_changes_no_verdict(tmp_path: Path, folded: bool) -> None:
    """60 forgeries through a build and `verify`: generator, list of claims and quoting reply all repeat them.

    Each stands beside a claim that the clip contradicts, and the seeing model says so of what it is shown.
    """
    count = len(FORGERIES)
    pool(tmp_path, count)
    shown = set()

    def forge(call: Call, asked: str) -> str | None:
        if asked == "claims":
            found = re.search(r"shape (\d+)", call.prompt)
            assert found is not None
            forged, _ = FORGERIES[int(found.group(1)) - 1]
            said = " ".join(forged.split()) if folded else forged
            return f"1. {TRUE}\n2. Of shape {found.group(1)}: {said} {FALSE}"
        if asked == "faithfulness":
            claims = dict(TAG.findall(call.prompt.partition("\nClaims:")[2]))
            found = re.search(r"Of shape (\d+): (.*)$", "\n".join(claims.values()), re.MULTILINE)
            assert found is not None
            n, quoted = int(found.group(1)), found.group(2).replace(FALSE, "").strip()
            shown.add(n)
            says = {n: "contradicted" if FALSE in claim else "supported" for n, claim in claims.items()}
            honest = "\n".join(f'<claim n="{n}" at="0.5">{said}</claim>' for n, said in says.items())
            return quoting(FORGERIES[n - 1][1], quoted, honest)
        return None

    # a closing think mark leaves the template: such an observation gets no further than step 2
    written = {n: [TRUE, forged.replace("</think>", ""), FALSE] for n, (forged, _) in enumerate(FORGERIES, 1)}
    answer = world(claims=written, m_sees=forge)
    report, _ = run(tmp_path, lambda s: judged(s, SEES), answer=answer)
    assert (
        report.state == "complete" and report.ledger is not None and report.ledger.kept == 1
    )  # the text row
    rows = cells(tmp_path)
    for n, (forged, way) in enumerate(FORGERIES, 1):
        row, false = rows[str(n)], [one for one in rows[str(n)]["claims"] if FALSE in one["text"]]
        # a list of claims that a think block cuts off, or with two numberings, is none: unscored, and not kept
        listed = n in shown
        assert row["reason"] == ("contradicted" if listed else "no_verdict"), (forged, way)
        assert [one["verdict"] for one in false] == ["contradicted"] * listed, (forged, way)
    torn = 1 if folded else 3
    assert len(shown) == count - torn * len(WAYS)
    found = verify_release(tmp_path / "set")
    assert found.ok, found.findings


def test_a_missing_verdict_is_asked_for_once_more_and_then_unscored(tmp_path: Path) -> None:
    pool(tmp_path, 2)
    calls: list[str] = []

    def silent(call: Call, asked: str) -> str | None:
        again = "exactly one line for each claim" in call.prompt
        if asked == "faithfulness":
            calls.append("again" if again else "first")
            return None if again and number_of_claims(call) == 2 else "I see a ball."
        return None

    def number_of_claims(call: Call) -> int:
        return len(TAG.findall(call.prompt.split("Claims:")[-1]))

    answer = world(claims={1: [TRUE], 2: [TRUE, UNSEEN]}, m_sees=silent)
    report, _ = run(tmp_path, lambda s: judged(s, SEES), answer=answer)
    assert report.ledger is not None and report.ledger.reasons == {"judge/no_verdict": 1}
    assert sorted(calls) == ["again", "again", "first", "first"]
    row = cells(tmp_path)["1"]
    assert row["outcome"] == "failed" and row["detail"] == "1 of 1 claims without a verdict"
    assert row["claims"] == [{"text": TRUE, "verdict": "", "at": []}]


# Question -> the votes on it, the dear model's last, and the verdict.
WHERE_THEY_DIFFER = {1: ("No Yes Yes No", "No"), 2: ("No No Yes Yes", "Yes"), 3: ("No No No", "No")}
WHERE_THEY_REFUSE = {1: ("No Yes Yes", "Yes"), 2: ("No No Yes Yes", "Yes"), 3: ("No No No No", "No")}


@pytest.mark.parametrize(("confirm", "said"), [(False, WHERE_THEY_DIFFER), (True, WHERE_THEY_REFUSE)])
def test_a_panel_votes_and_the_dear_model_is_asked_only_where_it_is_to(
    tmp_path: Path, confirm: bool, said: dict[int, tuple[str, str]]
) -> None:
    pool(tmp_path)

    def no_on(*numbers: int) -> Any:
        def said(call: Call, asked: str) -> str | None:
            return "<judgement>No</judgement>" if number(call) in numbers else None

        return said

    judge = SUFFICES | {"panel": ["two", "three"], "unsure_to": "dear", "confirm": confirm}
    answer = world(m_suffices=no_on(1, 2, 3), two=no_on(2, 3), three=no_on(3), dear=no_on(1, 3))
    report, _ = run(tmp_path, lambda s: judged(s, judge), answer=answer)
    rows = cells(tmp_path)
    for n, (votes, verdict) in (said | {4: ("Yes Yes Yes", "Yes")}).items():
        (cell,) = rows[str(n)]["judgements"]
        assert (cell["votes"], cell["verdict"]) == (votes.split(), verdict)
    refused = sum(verdict == "No" for _, verdict in said.values())
    assert report.ledger is not None and report.ledger.reasons == {"judge/insufficient": refused}


@pytest.mark.parametrize(("does", "kept"), [("record", 5), ("filter", 3)])
def test_a_question_that_its_text_answers_is_recorded_or_refused(
    tmp_path: Path, does: str, kept: int
) -> None:
    pool(tmp_path)
    report, server = run(tmp_path, lambda s: judged(s, BLIND | {"does": does}), answer=world())
    assert report.ledger is not None and report.ledger.kept == kept
    rows = cells(tmp_path)
    assert rows["1"]["blind"] is True and rows["2"]["blind"] is False
    if does == "filter":
        assert rows["1"]["reason"] == "answered_blind" and rows["1"]["generation_key"] == ""
        assert server.requests == 4 + 3  # no trace is written for a question that is refused before


def test_flags_of_the_command_reach_every_judge(tmp_path: Path) -> None:
    write_pool(tmp_path, [question(n) for n in range(12)])
    with Background(FakeServer(answer=world(), latency=0.05)) as server:
        made = judged(server, SUFFICES, SUFFICES | {"name": "more", "panel": ["two"]})
        (tmp_path / "r.yaml").write_text(made.model_dump_json())
        flags = ["--concurrency", "1", "--judge-concurrency", "1", "--out", str(tmp_path / "set")]
        result = CliRunner().invoke(app, ["build", str(tmp_path / "r.yaml"), *flags])
        assert result.exit_code == 0, result.output
        assert 1 < server.max_in_flight <= 4, "one at a time of each of four models"


def test_judges_of_a_recipe_are_measured_and_asked_by_their_names(tmp_path: Path) -> None:
    """`judge-eval --recipe` and `p2r.judge`: every model of sufficiency, or the one that is named."""

    def asked(server: FakeServer, *more: str) -> Result:
        judge = SUFFICES | {"panel": ["two"], "unsure_to": "dear"}
        made = judged(server, SEES, judge, SUFFICES | {"name": "info", "reads": ["think"]})
        (tmp_path / "r.yaml").write_text(made.model_dump_json())
        wanted = ["judge-eval", str(tmp_path / "marks.jsonl"), "--recipe", str(tmp_path / "r.yaml"), *more]
        return CliRunner().invoke(app, [*wanted, "--out", str(tmp_path / "out"), "--json"])

    label = {"sample_id": "a", "sufficient": True, "problem": "?", "reference": "A", "observation": TRUE}
    (tmp_path / "marks.jsonl").write_bytes(orjson.dumps(label))
    row = {"problem": "?", "solution": "A", "observation": TRUE}
    answer = world(two=lambda call, asked: "<judgement>No</judgement>")
    with Background(FakeServer(answer=answer)) as server:
        for more, names, agree in (
            ((), ["suffices/1", "suffices/2", "suffices/unsure"], [1.0, 0.0, 1.0]),
            (("--judge", "suffices/2"), ["suffices/2"], [0.0]),
        ):
            result = asked(server, *more)
            assert result.exit_code == 0, result.output
            found = orjson.loads(result.stdout)["judges"]
            assert [one["name"] for one in found] == names
            assert [one["figures"]["agreement"]["value"] for one in found] == agree
        for name, told in (
            ("sees", "decides faithfulness"),
            ("info", "reads think"),
            ("nobody", "it has sees, suffices, info"),
        ):
            result = asked(server, "--judge", name)
            assert result.exit_code == 1 and told in result.stderr
        recipe_file = tmp_path / "r.yaml"
        assert p2r.judge([row], by=recipe_file, name="suffices/2")[0].verdict == "No"
        assert p2r.judge([row], by=recipe_file, name="suffices/unsure")[0].verdict == "Yes"
        for name_, told in ((None, "3 models judge"), ("suffices", "3 models judge"), ("sees", "faithful")):
            with pytest.raises(ConfigError, match=told):
                p2r.judge([row], by=recipe_file, name=name_)
        with pytest.raises(ConfigError, match="settings of one judge"):
            p2r.judge([row], by={"kind": "demo", "model": "demo"}, name="suffices")


def test_doctor_asks_every_model_of_every_judge_once_for_each_kind_of_media(tmp_path: Path) -> None:
    pool(tmp_path)
    judge = SEES | {"panel": ["two"], "unsure_to": "dear"}

    async def look() -> list[ServerLook]:
        async with FakeServer(answer=world(two=lambda call, asked: "I cannot say.")) as server:
            made = judged(server, BLIND, SUFFICES, judge)
            place = Workspace.at(tmp_path / "set", base=tmp_path)
            rows = TrialRows()
            for sample in read_pool(made.sources, base=place.base, demo_root=place.demo):
                assert isinstance(sample, Sample)
                rows.see(sample, tmp_path)
            return await look_at_servers(made, place, rows, calls="full", tell=lambda _: None)

    looks = {one.step: one for one in asyncio.run(look())}
    assert list(looks) == ["generate", "guess", "suffices", "sees", "sees/2", "sees/unsure"]
    assert [call.data_type for call in looks["sees"].calls] == ["video", "image"]
    said = {step: [f.message for f in one.findings if f.about == "verdict"] for step, one in looks.items()}
    assert said["sees"] == ["a verdict: unseen"] * 2 and said["sees/2"] == ["a claim has no verdict"] * 2
    assert said["suffices"] == ["a verdict: Yes"] and said["guess"] == []


def test_what_the_reasoning_settles_on_is_recorded_and_refuses_nothing(tmp_path: Path) -> None:
    """The rule cannot tell what the reasoning of question 2 settles on; the judge that reads it can."""
    pool(tmp_path)
    whole, asked_about = world(), list[str]()

    def answer(call: Call) -> str:
        asked = purpose(call)
        if asked == "conclusion":
            asked_about.append(call.prompt)
            return "It ends so. <judgement>{}</judgement>".format("B" if "other one" in call.prompt else "A")
        said = str(whole(call))
        if asked == "generate" and number(call) == 2:
            return said.replace("the answer is A", "I take the other one")
        return said

    report, _ = run(tmp_path, lambda s: judged(s, SUFFICES, THINKS), answer=answer)
    assert report.state == "complete" and report.ledger is not None and report.ledger.kept == 5
    said = {n: {j["judge"]: j for j in row["judgements"]}["thinks"] for n, row in cells(tmp_path).items()}
    assert {n: (j["verdict"], j["score"]) for n, j in said.items()} == {
        "1": ("A", 1.0), "2": ("B", 0.0), "3": ("A", 1.0), "4": ("A", 1.0), "90": ("A", 1.0),
    }  # fmt: skip
    assert all("| So" in text and "shape" not in text and TRUE not in text for text in asked_about)
    assert said["2"]["detail"] == "It ends so." and said["2"]["decides"] == "conclusion"
    found = verify_release(tmp_path / "set")
    assert found.ok
    assert len(asked_about) == 2  # four questions have the same reasoning and the same options
    again, _ = run(tmp_path, lambda s: judged(s, SUFFICES, THINKS), answer=answer)
    assert again.state == "complete" and len(asked_about) == 2
