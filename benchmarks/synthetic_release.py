"""A made-up release of any size with the paper's table, in our layout or in the official one.

    python benchmarks/synthetic_release.py OUT [--scale 0.01] [--official] [--seed 0]

Texts are random sentences of realistic length (observation about 100 words, think about 150); rewards are
what the scorers give. Nothing in it describes a real clip. The same seed and scale give the same rows.
"""

from __future__ import annotations

import argparse
import gzip
import random
from collections import Counter
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson
import pyarrow.parquet as pq
import yaml

from videop2r_data.builders import ConfigWriter
from videop2r_data.builders.verify import PAPER_TABLE, nested
from videop2r_data.files import config_digest, file_lock
from videop2r_data.schemas import (
    BuildLock,
    Ledger,
    ProblemType,
    Recipe,
    SftRow,
    SourceLock,
    StepModel,
    feature_info,
)
from videop2r_data.validators import score

THRESHOLD = 0.6
_SENTENCES = 4_000
_TEXT = """
red blue green small large round square moving still left right first second person hand table door street
ball
cup car tree light dark slowly quickly behind before after beside above below turns lifts opens closes walks
carries places points shows holds frame scene object colour shape number label corner edge centre background a
the one two three of in on with and then while near from to is are has was it this that
"""
_WORDS = _TEXT.split()
_SOURCES = {
    "video": ("CLEVRER", "NeXT-QA", "STAR", "PerceptionTest"),
    "image": ("Math", "Chart", "OCR", "General"),
}


_ENDINGS = (
    "So the answer is {answer}.",
    "So the answer is {answer}.",
    "Therefore, the correct answer should be {answer}.",
    "Does that make sense? Yes, it does. The answer must be {answer}.",
    "I am confident in {answer}. Nothing else fits what was seen.",
    "Wait, let me double-check the other options; none of them fits. It has to be {answer}.",
)
"""How think segments end; real ones do not all conclude in the same words."""

_SHARED = (
    *("problem_id", "problem", "problem_type", "data_type", "options", "solution", "path", "data_source"),
    *("observation", "process", "output", "reward"),
)


def counts(scale: float) -> dict[tuple[str, str], int]:
    """(data type, problem type) -> rows: the paper's table times `scale`, at least one each."""
    return {
        (data_type, kind): max(1, round(rows * scale))
        for data_type, row in PAPER_TABLE.items()
        for kind, rows in row.items()
    }


def make_rows(scale: float, seed: int) -> Iterator[dict[str, Any]]:
    """Rows of `sft`, in a random order that the seed fixes."""
    rng = random.Random(seed)
    sentences = [_sentence(rng) for _ in range(_SENTENCES)]
    cells = [cell for cell, number in counts(scale).items() for _ in range(number)]
    rng.shuffle(cells)
    for number, (data_type, kind) in enumerate(cells):
        yield _row(rng, sentences, number, data_type, kind)


def _sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(8, 17))).capitalize() + "."


def _row(rng: random.Random, sentences: list[str], number: int, data_type: str, kind: str) -> dict[str, Any]:
    options, reference, answer = _question(rng, kind)
    reward = _score(kind, answer, reference, options)
    if reward < THRESHOLD:
        answer, reward = reference, _score(kind, reference, reference, options)
    opening = f"Based on the question, I need to notice object {number}."
    observation = " ".join([opening, *rng.choices(sentences, k=rng.randint(5, 9))])
    steps = " ".join(rng.choices(sentences, k=rng.randint(8, 14)))
    ending = rng.choice(_ENDINGS).format(answer=answer)
    think = f"Based on the observations, let me look again. {steps} {ending}"
    process = f"<think>{think}</think><answer>{answer}</answer>"
    source = rng.choice(_SOURCES[data_type])
    frames = 16 if data_type == "video" else 1
    key = sha256(str(number).encode()).hexdigest()
    return {
        "problem_id": str(number),
        "problem": f"{rng.choice(sentences)[:-1]}, what is true of object {number}?",
        "problem_type": kind,
        "data_type": data_type,
        "options": options,
        "solution": f"<answer>{reference}</answer>",
        "path": f"{source}/part{number % 97}/{number:07d}.{'mp4' if data_type == 'video' else 'png'}",
        "data_source": source,
        "sample_id": f"synthetic/{number}",
        "observation": observation,
        "think": think,
        "answer": answer,
        "process": process,
        "output": f"<observation>{observation}</observation> {process}",
        "reward": reward,
        "attempt": 0,
        "judgement": "Yes",
        "judge_explanation": f"{rng.choice(sentences)} {rng.choice(sentences)}",
        "frame_indices": [i * 19 for i in range(frames)],
        "frame_times_s": [i * 19 / 30 for i in range(frames)],
        "source_fps": 30.0 if data_type == "video" else None,
        "times": "exact" if data_type == "video" else "",
        "media_missing": 0.0,
        "media_sha256": key,
        "generation_key": key,
        "judge_key": key[::-1],
        "synthetic": True,
    }


def _score(kind: str, answer: str, reference: str, options: list[str]) -> float:
    got = score(ProblemType(kind), prediction=answer, reference=reference, options=tuple(options))
    assert got.value is not None, (kind, reference, got)
    return got.value


def _question(rng: random.Random, kind: str) -> tuple[list[str], str, str]:
    """Options, reference and the model's answer."""
    if kind == "multiple choice":
        texts = rng.sample(_WORDS, k=8)
        options = [f"{letter}. {texts[2 * i]} {texts[2 * i + 1]}" for i, letter in enumerate("ABCD")]
        letter = rng.choice("ABCD")
        return options, letter, letter
    if kind == "numerical":
        value = str(rng.randint(0, 40)) if rng.random() < 0.7 else f"{rng.uniform(0, 100):.2f}"
        return [], value, value
    if kind == "regression":
        exact = rng.uniform(1, 500)
        return [], f"{exact:.2f}", f"{exact * rng.uniform(0.8, 1.2):.2f}"
    words = rng.choices(_WORDS, k=rng.randint(5, 12))
    said = list(words)
    if rng.random() < 0.5:
        said[rng.randrange(len(said))] = rng.choice(_WORDS)
    return [], " ".join(words), " ".join(said)


def write_release(folder: Path, *, scale: float = 1.0, seed: int = 0) -> int:
    """Write our layout: parquet, lock and a card with its counts. Returns the number of rows."""
    writer = ConfigWriter(folder, "sft")
    table: Counter[tuple[str, str]] = Counter()
    for row in make_rows(scale, seed):
        writer.add(row)
        table[row["data_type"], row["problem_type"]] += 1
    writer.close()
    rows = writer.rows
    recipe = _recipe()
    asked = {"generate": recipe.generate.backend.model}
    if recipe.judge is not None:
        asked["judge"] = recipe.judge.backend.model
    lock = BuildLock(
        recipe=recipe.model_dump(mode="json"),
        prompts={},
        sources=[SourceLock(name=recipe.sources[0].name, rows=rows, sha256="0" * 64)],
        models={step: StepModel(asked=model, served={model: rows}) for step, model in asked.items()},
        versions={},
        ledger=Ledger(rows_in=rows, kept=rows, rejected=0, failed=0, table=nested(table)),
        files={path.relative_to(folder).as_posix(): file_lock(path, n) for path, n in writer.shards},
    )
    (folder / "build.lock.json").write_bytes(orjson.dumps(lock.model_dump(mode="json")))
    metas = [pq.read_metadata(path) for path, _ in writer.shards]
    text = sum(meta.row_group(i).total_byte_size for meta in metas for i in range(meta.num_row_groups))
    card = {
        "configs": [
            {
                "config_name": "sft",
                "description": f"content sha256 {config_digest(lock, 'sft')}",
                "data_files": [{"split": "train", "path": "data/sft-*.parquet"}],
                "default": True,
            }
        ],
        "dataset_info": [
            {
                "config_name": "sft",
                "features": feature_info(SftRow),
                "splits": [{"name": "train", "num_bytes": text, "num_examples": rows}],
                "download_size": sum(path.stat().st_size for path, _ in writer.shards),
                "dataset_size": text,
            }
        ],
    }
    (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n\nMade up; describes no real clip.\n")
    return rows


def _recipe() -> Recipe:
    return Recipe.model_validate(
        {
            "name": "synthetic",
            "synthetic": True,
            "sources": [{"name": "synthetic", "kind": "demo"}],
            "generate": {"backend": {"kind": "demo", "model": "made-up"}},
            "judge": {"backend": {"kind": "demo", "model": "made-up"}},
        }
    )


def write_official(folder: Path, *, scale: float = 1.0, seed: int = 0, parts: int = 2) -> int:
    """Write the official layout: gzip JSON lists in parts. Returns the number of rows."""
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(counts(scale).values())
    edges = [total * part // parts for part in range(parts + 1)]
    rows = make_rows(scale, seed)
    for part in range(parts):
        name = f"VideoP2R-162k_sft.part{part + 1}of{parts}.json.gz"
        with gzip.open(folder / name, "wb", compresslevel=6) as stream:
            for number in range(edges[part], edges[part + 1]):
                stream.write(b"[" if number == edges[part] else b", ")
                stream.write(orjson.dumps(official_row(next(rows))))
            stream.write(b"]")
    return total


def official_row(row: dict[str, Any]) -> dict[str, Any]:
    """One of our rows with the official columns."""
    return {name: row[name] for name in _SHARED} | {
        "answer": row["solution"],
        "select": True,
        "clean_version": "1",
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--official", action="store_true")
    args = parser.parse_args()
    write = write_official if args.official else write_release
    print(write(args.out, scale=args.scale, seed=args.seed), "rows")
