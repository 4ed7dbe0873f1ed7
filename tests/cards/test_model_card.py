from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from videop2r_data.cards.card.model import base_of, write_model_card
from videop2r_data.errors import ConfigError, ExportError
from videop2r_data.schemas import load_grammar

SHA = "ab" * 32


def figure(protocol: str, value: float | None, *, by: str = "", group: str = "") -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {
        "protocol": protocol, "by": by, "group": group, "value": value, "low": low, "high": high,
        "n": 0 if value is None else 40, "question_only": None if value is None else 0.25,
    }  # fmt: skip


def put(path: Path, data: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data if isinstance(data, str) else json.dumps(data))


def write_run(folder: Path, *, model: str = "Qwen/Qwen2.5-VL-7B-Instruct", source: str = "org/pool") -> Path:
    recipe = {
        "train": 1, "name": "pa", "title": "PA | <b>GRPO</b>", "stage": "rl", "data": {"source": source},
        "model": {"model": model}, "objective": {"name": "pa-grpo"}, "steps": 20, "loss": {"beta": 0.04},
        "judging": {"kind": "backend", "backend": {"kind": "openai", "model": "judge-70b", "base_url": "http://10.0.0.7/v1", "base_urls": ["http://10.0.0.7/v1", "http://10.0.0.8/v1"]}},
    }  # fmt: skip
    put(folder / "recipe.yaml", yaml.safe_dump(recipe))
    put(
        folder / "run.json",
        {
            "steps": 20, "steps_done": 20, "processes": 8, "recipe_sha256": SHA, "versions": {"torch": "2.13"},
            "data": {"data_sha256": SHA, "prompt_sha256": SHA, "examples": 12345},
        },
    )  # fmt: skip
    rows = [
        {
            "step": i, "reward/accuracy_p": 0.5, "reward/accuracy_r": i / 20, "reward/format_p": 1.0,
            "reward/format_r": 1.0, "length/all": 300.0, "collapsed/sum": 2, "groups": 8, "kl": 0.01,
        }
        for i in range(1, 21)
    ]  # fmt: skip
    put(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows) + '{"step": 21, "kl')
    return folder


def with_evaluation(folder: Path) -> Path:
    figures = [
        figure("accuracy", 0.7), figure("sufficiency", None),
        figure("mean", 0.8, by="problem_type", group="multiple | choice"),
        figure("mean", 0.9, by="data_type", group="video"),
    ]  # fmt: skip
    told: dict[str, Any] = {"well_formed": None, "faults": {}, "cut": 0, "places": {}}
    sent = dict.fromkeys(("frames", "pixels", "input_tokens", "output_tokens"))
    benchmark: dict[str, Any] = {
        "name": "held-out", "title": "held-out", "revision": "", "layout": "", "rows_expected": None,
        "rows_found": 42, "rows_bad": {}, "rows_differ": [], "selection": "", "questions": 42, "answered": 40,
        "failed": {"media_missing": 2}, "examples": {}, "unscored": 0, "figures": figures, "told": told,
        "sent": sent, "calls": 80, "usd": None, "pool_sha256": SHA, "file": "rows/held-out.parquet",
        "file_sha256": SHA, "faithful": {"figures": [
            figure("sufficient", 0.6, by="judge", group="reads"), figure("words", 50.0, by="segment", group="think"),
        ], "not_asked": {}, "without_verdict": {}, "rule_against_judge": None},
    }  # fmt: skip
    plan = {
        "media": {"frames": 32, "max_pixels": 200704}, "temperature": 0.01, "top_p": 0.001, "max_tokens": 4096,
        "benchmarks": [{"path": "/home/me/secret/held-out"}],
    }  # fmt: skip
    result = {
        "result": 1, "name": "pa", "plan": plan, "model": "/home/me/secret/final", "served": {}, "prompts": {},
        "versions": {}, "benchmarks": [benchmark],
    }  # fmt: skip
    put(folder / "eval" / "held-out-1" / "result.json", result)
    return folder


def parts(path: Path) -> tuple[dict[str, Any], str]:
    _, head, body = path.read_text().split("---\n", 2)
    return yaml.safe_load(head), body


def test_head_and_tables(tmp_path: Path) -> None:
    run = with_evaluation(write_run(tmp_path / "run"))
    put(run / "figures" / "curves.png", "png")
    (run / "final").mkdir()
    head, body = parts(write_model_card(run, strict=True))
    assert head["base_model"] == "Qwen/Qwen2.5-VL-7B-Instruct" and head["license"] == "apache-2.0"
    assert head["datasets"] == ["org/pool"] and head["pipeline_tag"] == "video-text-to-text"
    assert {"pa-grpo", "rl", "process-aware"} <= set(head["tags"]) and head["library_name"] == "transformers"
    assert "| accuracy | 0.700 | 0.600 to 0.800 | 40 | 0.250 |" in body
    assert "| mean, multiple \\| choice | 0.800 | 0.700 to 0.900 | 40 | 0.250 |" in body
    assert "| sufficiency | - |  | 0 |  |" in body and "video |" not in body
    assert "| sufficient | 0.600 | 0.500 to 0.700 | 40 |" in body and "words" not in body
    assert "2 of 42 got no answer and count as wrong" in body and "32 frames of at most 200704" in body
    assert "| accuracy reward, reasoning | 0.975 |" in body  # mean of steps 19 and 20
    assert "12,345" in body and SHA in body and "2511.11113" in body and "judge-70b" in body
    assert "![Curves of the training](figures/curves.png)" in body
    assert (run / "final" / "figures" / "curves.png").read_text() == "png"


def test_nothing_private_and_nothing_hostile_gets_on_the_card(tmp_path: Path) -> None:
    run = with_evaluation(write_run(tmp_path / "run", source="/home/me/secret/pool"))
    text = write_model_card(run).read_text()
    assert "secret" not in text and "10.0.0" not in text and "<b>" not in text
    assert "datasets" not in parts(run / "README.md")[0]


def test_without_an_evaluation_the_card_says_so_and_strict_refuses(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert "Not evaluated yet" in write_model_card(run).read_text()
    with pytest.raises(ExportError, match=r"curves\.png[\s\S]*p2r-train plot"):
        write_model_card(run, strict=True)
    put(run / "figures" / "curves.png", "png")
    with pytest.raises(ExportError, match=r"no evaluation[\s\S]*p2r-train eval"):
        write_model_card(run, strict=True)


def test_evaluations_between_steps_are_not_the_result(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    put(run / "eval" / "step-000010" / "report.json", {})
    put(run / "eval" / "step-000010" / "settings.json", {"step": 10})
    assert "Not evaluated yet" in write_model_card(run).read_text()


def empty_evaluation(run: Path) -> None:
    put(run / "eval" / "x" / "result.json", {})


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda run: (run / "run.json").unlink(), r"run\.json"),
        (lambda run: put(run / "run.json", "[]"), "not a JSON object"),
        (lambda run: (run / "metrics.jsonl").unlink(), r"metrics\.jsonl"),
        (lambda run: put(run / "metrics.jsonl", '{"step": 20, "kl": 1}\n'), "no 'reward/accuracy_p'"),
        (lambda run: put(run / "metrics.jsonl", ""), "no step"),
        (empty_evaluation, r"--rescore"),
    ],
)  # fmt: skip
def test_a_missing_number_is_an_error_and_leaves_no_card(tmp_path: Path, spoil: Any, complaint: str) -> None:
    run = write_run(tmp_path / "run")
    spoil(run)
    with pytest.raises(ExportError, match=complaint):
        write_model_card(run)
    assert not (run / "README.md").exists()


def test_a_run_that_has_not_ended_gets_no_card(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    put(run / "run.json", {"steps": 20, "steps_done": 7, "data": {}, "versions": {}})
    with pytest.raises(ExportError, match="step 7 of 20"):
        write_model_card(run)
    (run / "recipe.yaml").unlink()
    with pytest.raises(ConfigError, match=r"recipe\.yaml"):
        write_model_card(run)


def test_what_the_settings_leave_out_is_not_missed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    recipe = yaml.safe_load((run / "recipe.yaml").read_text()) | {
        "judging": {"kind": "none"},
        "loss": {"beta": 0},
    }
    put(run / "recipe.yaml", yaml.safe_dump(recipe))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()[:20]]
    for line in lines:
        del line["kl"], line["reward/accuracy_p"]
    put(run / "metrics.jsonl", "\n".join(json.dumps(line) for line in lines))
    assert "KL to the reference" not in write_model_card(run).read_text()


def test_the_base_is_found_through_the_chain_of_runs(tmp_path: Path) -> None:
    sft, rl = write_run(tmp_path / "sft"), tmp_path / "rl"
    (sft / "final").mkdir()
    write_run(rl, model=str(sft / "final"))
    head, _ = parts(write_model_card(rl))
    assert head["base_model"] == "Qwen/Qwen2.5-VL-7B-Instruct"
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    assert base_of(str(scratch)) is None and base_of("owner/name") == "owner/name"
    write_run(rl, model=str(scratch))
    (rl / "README.md").unlink()
    head, body = parts(write_model_card(rl, license_id="mit"))
    assert "base_model" not in head and head["license"] == "mit" and "made from scratch" in body
    put(
        scratch / "recipe.yaml", yaml.safe_dump({"model": {"model": str(scratch)}})
    )  # a run that begins with itself
    assert base_of(str(scratch)) is None


def test_a_synthetic_run_says_so(tmp_path: Path) -> None:
    head, body = parts(write_model_card(write_run(tmp_path / "run", source="demo")))
    assert "synthetic" in head["tags"] and "**Synthetic.**" in body and "datasets" not in head


def test_what_a_person_said_is_kept_when_the_card_is_written_anew(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", model=str(tmp_path))
    write_model_card(run, base_model="owner/base", license_id="mit")
    head, _ = parts(write_model_card(run))
    assert (head["base_model"], head["license"]) == ("owner/base", "mit")
    assert parts(write_model_card(run, license_id="apache-2.0"))[0]["license"] == "apache-2.0"
    (run / "README.md").write_bytes(b"\xff")
    assert "license" not in parts(write_model_card(run))[0]


def test_a_model_of_another_trace_is_described_by_its_own_streams(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    form = load_grammar("vision-sr1").model_dump(mode="json")
    form["segments"][1]["stream"] = "plan"
    facts = json.loads((run / "run.json").read_text())
    facts["data"]["trace"] = form
    put(run / "run.json", facts)
    with pytest.raises(ExportError, match="no 'reward/format_plan'"):
        write_model_card(run)
    rows = [
        json.loads(line) | {"reward/format_plan": 0.75}
        for line in (run / "metrics.jsonl").read_text().splitlines()[:20]
    ]
    put(run / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    text = write_model_card(run).read_text()
    assert "<description>…</description>\n    <think>…</think>\n    \\boxed{…}" in text
    assert "vision-sr1, Vision-SR1" in text and "in three parts" not in text
    assert "| format reward, plan | 0.75 |" in text and "accuracy reward, plan" not in text
    facts["data"]["trace"] = {"name": "Bad Name"}
    put(run / "run.json", facts)
    with pytest.raises(ConfigError, match="trace grammar"):
        write_model_card(run)
