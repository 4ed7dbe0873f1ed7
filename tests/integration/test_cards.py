"""The card of a built data set: its snippet runs, its counts are those of the files, its Croissant has the rows."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import DatasetCard
from typer.testing import CliRunner

from tests.integration import test_judges as shapes
from tests.integration.test_build import question, rows_of, run, write_pool
from tests.integration.test_declared_traces import answers, declared
from tests.integration.test_loading import build
from videop2r_data.builders.export import ConfigWriter
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.cli.main import app
from videop2r_data.errors import ExportError
from videop2r_data.files import file_lock, release
from videop2r_data.schemas import load_grammar

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    build(folder, "videop2r-demo", 60)  # its name in the recipe, as the snippet has it
    return folder / "videop2r-demo"


def records(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """All rows of all record sets, read through Croissant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlcroissant as mlc

        data = mlc.Dataset(jsonld=folder / "croissant.json")
        assert not list(data.metadata.ctx.issues.errors)
        return {name: list(data.records(record_set=name)) for name in ("sft", "rl", "rejected")}


def test_the_snippet_of_the_card_runs_and_gives_the_rows_that_the_card_counts(
    demo: Path, tmp_path: Path
) -> None:
    text = (demo / "README.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code
    env = os.environ | {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code[1] + "print(len(ds))"],
        cwd=demo.parent,
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    counted = {info["config_name"]: info["splits"][0]["num_examples"] for info in front(text)["dataset_info"]}
    assert int(done.stdout) == counted["sft"]
    assert f"| sft | {counted['sft']:,} |" in text and f"| rl | {counted['rl']:,} |" in text


def front(text: str) -> dict[str, Any]:
    found = yaml.safe_load(text.split("---\n")[1])
    assert isinstance(found, dict)
    return found


def test_the_front_matter_is_what_the_hub_accepts(demo: Path) -> None:
    card = DatasetCard.load(demo / "README.md")
    assert card.data.license == "apache-2.0" and {"video", "image", "synthetic"} <= set(card.data.tags or ())
    assert {c["config_name"] for c in card.data.to_dict()["configs"]} == {"sft", "rl", "rejected"}


def test_the_card_names_models_prompts_lock_sources_limits_and_version(demo: Path) -> None:
    text = (demo / "README.md").read_text()
    for said in (
        "demo-world/1",
        "generate-v1",
        "judge-v1",
        "lock | sha256",
        "Limits",
        "Contamination",
        "1.0.0",
    ):
        assert said in text
    assert "| demo | 60 | apache-2.0 |" in text


def test_croissant_has_every_row_of_every_shard(
    demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    folder = tmp_path / "shards"
    monkeypatch.setattr(release, "SHARD_BYTES", 20_000)
    monkeypatch.setattr(release, "ROW_GROUP_BYTES", 5_000)
    writer = ConfigWriter(folder, "sft")
    rows = pq.read_table(demo / "data" / "sft-00000.parquet").to_pylist()
    for row in rows:
        writer.add(row)
    writer.close()
    assert len(writer.shards) > 1
    for config in ("rl", "rejected"):
        (folder / "data" / f"{config}-00000.parquet").write_bytes(
            (demo / f"data/{config}-00000.parquet").read_bytes()
        )
    lock = json.loads((demo / "build.lock.json").read_text())
    lock["files"] = {
        path.relative_to(folder).as_posix(): file_lock(path, pq.read_metadata(path).num_rows).model_dump()
        for path in sorted(folder.glob("data/*.parquet"))
    }
    (folder / "build.lock.json").write_text(json.dumps(lock))
    write_dataset_card(folder)
    found = records(folder)
    assert [r["sft/problem_id"].decode() for r in found["sft"]] == [r["problem_id"] for r in rows]
    assert len(found["rl"]) == 60 and len(found["rejected"]) == 60 - len(rows)
    assert found["sft"][0]["sft/output"].decode() == rows[0]["output"]


def plain(value: Any) -> Any:
    """A value of Croissant as the Parquet file has it."""
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, dict):
        return {name.rpartition("/")[2]: plain(one) for name, one in value.items()}
    if isinstance(value, float) and value != value:
        return None
    return [plain(one) for one in value] if isinstance(value, list | tuple) else value


def test_croissant_has_the_records_that_the_judges_of_a_list_wrote(tmp_path: Path) -> None:
    shapes.pool(tmp_path)
    answer = shapes.world(
        claims={1: [shapes.TRUE], 2: [shapes.TRUE, shapes.FALSE], 3: [shapes.TRUE, shapes.UNSEEN]},
        silent=lambda call, asked: "I cannot say.",  # of unscored claims, and of a score that is none
    )
    silent = shapes.SEES | {"name": "silent", "does": "record", "panel": ["silent"]}
    judges = (shapes.BLIND, shapes.SUFFICES | {"panel": ["two"]}, silent, shapes.SEES)
    run(tmp_path, lambda server: shapes.judged(server, *judges), answer=answer)
    assert_same_records(tmp_path / "set", "judgements", "claims")


def test_croissant_has_the_segments_of_a_declared_trace(tmp_path: Path) -> None:
    grammar = load_grammar("video-thinker")
    write_pool(tmp_path, [question(i, problem=f"question {i}, please?") for i in range(12)])
    run(tmp_path, lambda server: declared(server, grammar), answer=answers(grammar))
    assert_same_records(tmp_path / "set", "segments")


def assert_same_records(folder: Path, *columns: str) -> None:
    """The named columns hold records: Croissant says so, without a fault, and gives each as the files have it."""
    document = json.loads((folder / "croissant.json").read_text())
    found = records(folder)
    for record_set in document["recordSet"]:
        config = record_set["name"]
        fields = {field["name"].partition("/")[2]: field for field in record_set["field"]}
        for column in columns if config == "sft" else fields.keys() & set(columns):
            assert fields[column]["isArray"] and len(fields[column]["subField"]) > 1
            for part in fields[column]["subField"]:
                assert "dataType" in part and part["source"]["transform"]["jsonPath"] in part["name"]
            rows = rows_of(folder, config)
            assert rows and any(row[column] for row in rows)
            assert [plain(record[f"{config}/{column}"]) for record in found[config]] == [
                row[column] for row in rows
            ]


def test_a_wrong_count_in_the_ledger_fails_the_card(demo: Path, tmp_path: Path) -> None:
    folder = copy(demo, tmp_path)
    path = folder / "build.lock.json"
    lock = json.loads(path.read_text())
    kind = next(iter(lock["ledger"]["table"]))
    task = next(iter(lock["ledger"]["table"][kind]))
    lock["ledger"]["table"][kind][task] += 1
    path.write_text(json.dumps(lock))
    with pytest.raises(ExportError, match="sum of the table differ"):
        write_dataset_card(folder)


def copy(demo: Path, to: Path) -> Path:
    import shutil

    return Path(shutil.copytree(demo, to / "demo"))


AGREEMENT = {
    "judges": [
        {
            "model": "a | judge",
            "labels": 200,
            "unscored": 3,
            "figures": {
                name: {"value": 0.95, "low": 0.91, "high": 0.97}
                for name in ("agreement", "precision", "recall")
            },
        }
    ]
}


def test_measured_agreement_is_shown_and_half_a_report_is_an_error(demo: Path, tmp_path: Path) -> None:
    folder = copy(demo, tmp_path)
    (folder / "judge-agreement.json").write_text(json.dumps(AGREEMENT))
    write_dataset_card(folder)
    assert "| a \\| judge | 200 | 95.0% (91.0% to 97.0%) |" in (folder / "README.md").read_text()
    broken = json.loads(json.dumps(AGREEMENT))
    broken["judges"][0]["figures"]["recall"]["value"] = None
    (folder / "judge-agreement.json").write_text(json.dumps(broken))
    with pytest.raises(ExportError, match="judge-eval"):
        write_dataset_card(folder)


def test_the_command_attaches_a_report_and_leaves_nothing_of_a_bad_one(demo: Path, tmp_path: Path) -> None:
    folder = copy(demo, tmp_path)
    report = tmp_path / "report.json"
    report.write_text("{}")
    command = [sys.executable, "-m", "videop2r_data.cli", "card", str(folder), "--judge-report", str(report)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "judge-eval" in done.stderr
    assert not (folder / "judge-agreement.json").exists()
    report.write_text(json.dumps(AGREEMENT))
    assert subprocess.run(command, check=False).returncode == 0
    assert "a \\| judge" in (folder / "README.md").read_text()


def test_a_rebuild_keeps_the_measured_agreement_and_drops_figures_of_other_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    build(tmp_path, "set", 20)
    (tmp_path / "set" / "judge-agreement.json").write_text(json.dumps(AGREEMENT))
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> None:
        done = CliRunner().invoke(app, list(arguments))
        assert done.exit_code == 0, done.output

    run("card", "set", "--figures")
    card = tmp_path / "set" / "README.md"
    names = re.findall(r'(?:src|srcset)="([^"]+)"', card.read_text())
    assert len(names) >= 10 and all((card.parent / name).is_file() for name in names)
    assert "a \\| judge" in card.read_text()
    run("reproduce", "set")
    run("verify", "set")
    build(tmp_path, "set", 25)
    assert "a \\| judge" in card.read_text()
    assert "figures/" not in card.read_text(), "they show other rows now"
    assert (tmp_path / "set" / "figures" / "index.json").is_file()
    run("reproduce", "set")
    run("verify", "set")
