"""A small valid release, made by hand: every other one in these tests is this one with one thing changed."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from videop2r_data.files import config_digest
from videop2r_data.schemas.lock import BuildLock, FileLock, Ledger, SourceLock, StepModel
from videop2r_data.schemas.recipe import Recipe
from videop2r_data.schemas.rows import CONFIGS, arrow_schema, feature_info

Row = dict[str, Any]
Rows = dict[str, list[Row]]


def key(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()


def question(number: int, kind: str, data_type: str, reference: str, options: tuple[str, ...] = ()) -> Row:
    suffix = {"video": "mp4", "image": "png", "text": ""}[data_type]
    return {
        "problem_id": str(number),
        "problem": f"What is true of object {number}?",
        "problem_type": kind,
        "data_type": data_type,
        "options": list(options),
        "solution": f"<answer>{reference}</answer>",
        "path": f"clips/{number}.{suffix}" if suffix else "",
        "data_source": "Made",
        "sample_id": f"made/{number}",
    }


def accepted(number: int, kind: str, data_type: str, reference: str, options: tuple[str, ...] = ()) -> Row:
    observation = f"Based on the question, I need to notice object {number}, which is near the door."
    think = f"Based on the observations, it must be this one. The answer is {reference}."
    process = f"<think>{think}</think><answer>{reference}</answer>"
    frames = {"video": 4, "image": 1, "text": 0}[data_type]
    return question(number, kind, data_type, reference, options) | {
        "observation": observation,
        "think": think,
        "answer": reference,
        "process": process,
        "output": f"<observation>{observation}</observation> {process}",
        "reward": 1.0,
        "attempt": 0,
        "judgement": "Yes",
        "judge_explanation": "The observation says so.",
        "frame_indices": [i * 10 for i in range(frames)],
        "frame_times_s": [i * 0.4 for i in range(frames)],
        "source_fps": 25.0 if data_type == "video" else None,
        "times": "exact" if data_type == "video" else "",
        "media_missing": 0.0 if frames else None,
        "media_sha256": key(f"media{number}") if frames else "",
        "generation_key": key(f"generate{number}"),
        "judge_key": key(f"judge{number}"),
        "synthetic": True,
    }


def refused(number: int, stage: str, reason: str, *, output: str = "", reward: float | None = None) -> Row:
    return question(number, "numerical", "image", "7") | {
        "outcome": "failed" if stage in ("pool", "media") else "rejected",
        "stage": stage,
        "reason": reason,
        "detail": "why",
        "output": output,
        "reward": reward,
        "attempt": 0,
        "judge_explanation": "",
        "generation_key": key(f"generate{number}") if output else "",
        "judge_key": "",
        "synthetic": True,
    }


TRACE = "<observation>o</observation> <think>t</think><answer>7</answer>"


def valid_rows() -> Rows:
    options = ("A. a red ball", "B. a blue ball", "C. a green cup", "D. none of them")
    sft = [
        accepted(0, "multiple choice", "video", "B", options),
        accepted(1, "numerical", "image", "42"),
        accepted(2, "multiple choice", "image", "C", options),
        accepted(3, "free-form", "text", "a red ball behind the door"),
        accepted(4, "regression", "video", "12.5"),
        accepted(5, "OCR", "image", "EXIT ONLY"),
    ]
    rejected = [
        refused(6, "verify", "low_score", output=TRACE.replace("7", "8"), reward=0.0),
        refused(7, "verify", "missing_think", output="<observation>o</observation> <answer>7</answer>"),
        refused(8, "judge", "insufficient", output=TRACE, reward=1.0),
        refused(9, "media", "media_missing"),
        refused(10, "pool", "bad_row") | {"problem_type": "", "data_type": "", "solution": "", "path": ""},
    ]
    names = CONFIGS["rl"].model_fields
    rl = [{name: row[name] for name in names} for row in [*sft, *rejected[:3]]]
    return {"sft": sft, "rl": rl, "rejected": rejected}


def recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "made",
            "synthetic": True,
            "sources": [{"name": "made", "kind": "demo"}],
            "generate": {"backend": {"kind": "demo", "model": "m"}},
            "judge": {"backend": {"kind": "demo", "model": "m"}},
        }
    )


def lock_of(rows: Rows, files: dict[str, FileLock]) -> BuildLock:
    table: dict[str, dict[str, int]] = {}
    for row in rows["sft"]:
        kinds = table.setdefault(row["data_type"], {})
        kinds[row["problem_type"]] = kinds.get(row["problem_type"], 0) + 1
    reasons: dict[str, int] = {}
    for row in rows["rejected"]:
        name = f"{row['stage']}/{row['reason']}"
        reasons[name] = reasons.get(name, 0) + 1
    failed = sum(row["outcome"] == "failed" for row in rows["rejected"])
    return BuildLock(
        recipe=recipe().model_dump(mode="json"),
        prompts={"generate-v1": "0" * 64, "judge-v1": "1" * 64},
        sources=[SourceLock(name="made", rows=len(rows["sft"]) + len(rows["rejected"]), sha256="2" * 64)],
        models={name: StepModel(asked="m", served={"m": 1}) for name in ("generate", "judge")},
        versions={"videop2r-data": "0.1.0"},
        ledger=Ledger(
            rows_in=len(rows["sft"]) + len(rows["rejected"]),
            kept=len(rows["sft"]),
            rejected=len(rows["rejected"]) - failed,
            failed=failed,
            reasons=reasons,
            table=table,
        ),
        files=files,
    )


def write_parquet(path: Path, config: str, rows: list[Row], schema: pa.Schema | None = None) -> FileLock:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows, schema=schema or arrow_schema(CONFIGS[config])), path)
    data = path.read_bytes()
    return FileLock(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data), rows=len(rows))


def write_card(folder: Path, lock: BuildLock) -> None:
    """What a loader reads, as a build writes it."""
    shards: dict[str, list[str]] = {}
    for name in lock.files:
        shards.setdefault(name.removeprefix("data/").rpartition("-")[0], []).append(name)
    sizes = {config: sum(text_bytes(folder / name) for name in names) for config, names in shards.items()}
    card = {
        "configs": [
            {
                "config_name": config,
                "description": f"made; content sha256 {config_digest(lock, config)}",
                "data_files": [{"split": "train", "path": f"data/{config}-*.parquet"}],
                **({"default": True} if config == "sft" else {}),
            }
            for config in shards
        ],
        "dataset_info": [
            {
                "config_name": config,
                "features": feature_info(CONFIGS[config]),
                "splits": [
                    {
                        "name": "train",
                        "num_examples": sum(lock.files[name].rows or 0 for name in names),
                        "num_bytes": sizes[config],
                    }
                ],
                "download_size": sum((folder / name).stat().st_size for name in names),
                "dataset_size": sizes[config],
            }
            for config, names in shards.items()
        ],
    }
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card, sort_keys=False)}---\n\nMade up.\n")


def text_bytes(path: Path) -> int:
    meta = pq.read_metadata(path)
    return sum(meta.row_group(i).total_byte_size for i in range(meta.num_row_groups))


def write_lock(folder: Path, lock: BuildLock) -> None:
    (folder / "build.lock.json").write_bytes(orjson.dumps(lock.model_dump(mode="json")))


def write_ours(
    folder: Path, rows: Rows | None = None, *, change: Callable[[BuildLock], BuildLock] | None = None
) -> Path:
    """Our layout: parquet, lock, card."""
    rows = rows or valid_rows()
    files = {
        f"data/{name}-00000.parquet": write_parquet(folder / f"data/{name}-00000.parquet", name, rows[name])
        for name in rows
    }
    lock = lock_of(rows, files)
    write_lock(folder, change(lock) if change else lock)
    write_card(folder, lock)
    return folder


def official_rows(*, text: bool = False) -> list[Row]:
    """The accepted rows with the official columns; as text, like the RL files."""
    names = (
        *("problem", "options", "solution", "path", "data_source", "data_type", "problem_type"),
        *("observation", "process", "output"),
    )
    out = []
    for row in valid_rows()["sft"]:
        one = {name: row[name] for name in names} | {
            "answer": row["solution"],
            "problem_id": int(row["problem_id"]),
            "reward": 1.0,
            "select": True,
            "clean_version": "v1",
        }
        out.append({k: str(v) for k, v in one.items()} if text else one)
    return out


def write_official(
    folder: Path, rows: list[Row], *, prefix: str = "VideoP2R-162k_sft", parts: int = 2
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for part in range(parts):
        mine = rows[len(rows) * part // parts : len(rows) * (part + 1) // parts]
        path = folder / f"{prefix}.part{part + 1}of{parts}.json.gz"
        path.write_bytes(gzip.compress(orjson.dumps(mine)))
    return folder
