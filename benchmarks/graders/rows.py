"""Real benchmark rows of a folder of samples, each with the document that lmms-eval has of it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_TAG = re.compile(r"</?answer>")
_LABEL = re.compile(r"\(?([A-Z])[.:)]\s*")
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Row:
    """A question with its reference, and what lmms-eval knows of it.

    Attributes:
        id: file name and place in it.
        benchmark: name as a declaration has it; empty for rows of no benchmark.
        options: `A. text` and so on, one for each option; empty unless multiple choice.
        reference: letter or letters, number, or text.
        task: lmms-eval's task; empty if it has none for this row.
        doc: the row with the field names of that task.
    """

    id: str
    benchmark: str
    problem_type: str
    problem: str
    options: tuple[str, ...]
    reference: str
    task: str = ""
    doc: dict[str, Any] = field(default_factory=dict)


def read_rows(samples: Path) -> Iterator[Row]:
    """Every row of the benchmarks and of the two sets of numbers, in the order of the files."""
    for name, read in _FILES.items():
        for i, raw in enumerate(lines(samples / f"{name}.jsonl")):
            for row in read(f"{name}#{i}", raw):
                if (
                    len(row.options) != 1
                    and len(set(bare(row.options))) == len(row.options)
                    and row.reference
                ):
                    yield row


def row_of_output(file: str, raw: dict[str, Any], reference: str) -> Row | None:
    """The question of a real output with another reference, if lmms-eval has a task for its benchmark."""
    read = next((read for part, read in _OUTPUTS.items() if part in file), None)
    if read is None:
        return None
    question = dict(raw["question"] if isinstance(raw.get("question"), dict) else raw)
    if not isinstance(question["options"], list):
        question["options"] = []
    return next(read(file, question | {"solution": reference}), None)


def lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a file of JSON lines; none if it is missing."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]


def lettered(texts: list[str]) -> tuple[str, ...]:
    """Texts with the letters that they get in order."""
    return tuple(f"{letter}. {text}" for letter, text in zip(_LETTERS, texts, strict=False))


def bare(options: list[str] | tuple[str, ...]) -> list[str]:
    """The texts of options whose letters rise from A; others as they are."""
    found = [_LABEL.match(option) for option in options]
    if [m.group(1) for m in found if m] != list(_LETTERS[: len(options)]):
        return list(options)
    return [_LABEL.sub("", option, count=1) for option in options]


def _choice(key: str, name: str, problem: str, texts: list[str], right: str, task: str, doc: Any) -> Row:
    return Row(key, name, "multiple choice", problem, lettered(texts), right, task, doc)


def _video_r1(name: str, task: Callable[[dict[str, Any]], tuple[str, dict[str, Any]]]) -> Any:
    """The layout of Video-R1; `task` makes lmms-eval's task and document of a row."""

    def read(key: str, raw: dict[str, Any]) -> Iterator[Row]:
        options = [option for option in raw["options"] or () if len(option) > 2]
        kind = raw["problem_type"]
        reference = _TAG.sub("", str(raw["solution"])).strip()
        if kind not in ("multiple choice", "numerical", "regression") or (kind[0] == "m" and not options):
            return
        texts = bare(options)
        found, doc = task(raw | {"texts": texts, "gold": reference})
        yield Row(key, name, kind, raw["problem"], lettered(texts), reference, found, doc)

    return read


def _mvbench(raw: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    gold = raw["texts"][_LETTERS.index(raw["gold"])]
    doc = {"video": raw["video"], "question": raw["problem"], "candidates": raw["texts"], "answer": gold}
    return "mvbench_action_antonym", doc


def _mmvu(raw: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    choices = dict(zip(_LETTERS, raw["texts"], strict=False))
    path = str(raw.get("video") or raw.get("path"))
    return "mmvu_val", {
        "id": str(raw["problem_id"]),
        "video_path": "/".join(path.split("/")[-2:]),
        "question": raw["problem"],
        "question_type": "multiple-choice",
        "choices": choices,
        "answer": raw["gold"],
    }


def _mmmu(raw: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    kind = "multiple-choice" if raw["texts"] else "open"
    doc = {"id": Path(raw["path"]).stem, "question": raw["problem"], "options": raw["texts"]}
    return "video_mmmu_adaptation", doc | {"answer": raw["gold"], "question_type": kind}


def _videomme(raw: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    names = ("videoID", "question_id", "duration", "domain", "sub_category", "task_type", "question")
    return "videomme", {name: raw[name] for name in names} | {
        "options": [f"{letter}. {text}" for letter, text in zip(_LETTERS, raw["texts"], strict=False)],
        "answer": raw["gold"],
    }


def _vsibench(raw: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    path = Path(raw["path"])
    return "vsibench", {
        "id": raw["problem_id"],
        "dataset": path.parent.name,
        "scene_name": path.stem,
        "question_type": raw["original_question_type"],
        "question": raw["problem"],
        "options": list(lettered(raw["texts"])) or None,
        "ground_truth": raw["gold"],
    }


def _official_mmvu(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    open_ended = raw["question_type"] != "multiple-choice"
    path = "/".join(raw["video"].split("/")[-2:])
    names = ("id", "question", "question_type", "choices", "answer")
    doc = {name: raw[name] for name in names} | {"video_path": path}
    if open_ended:
        yield Row(key, "mmvu", "free-form", raw["question"], (), raw["answer"], "mmvu_val", doc)
    else:
        texts = list(raw["choices"].values())
        yield _choice(key, "mmvu", raw["question"], texts, raw["answer"], "mmvu_val", doc)


def _official_mmmu(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    doc = {name: raw[name] for name in ("id", "question", "options", "answer")}
    doc["question_type"] = raw.get(
        "question_type", "multiple-choice"
    )  # the other two tracks have no such field
    task = f"video_mmmu_{raw['track']}"
    if raw["options"]:
        texts = bare([str(option) for option in raw["options"]])
        yield _choice(key, "videommmu", raw["question"], texts, raw["answer"], task, doc)
    elif re.fullmatch(r"-?[\d.,]+", raw["answer"]):
        yield Row(key, "videommmu", "numerical", raw["question"], (), raw["answer"], task, doc)


def _official_vsi(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    if raw["options"]:
        texts = bare(raw["options"])
        yield _choice(key, "vsi-bench", raw["question"], texts, raw["ground_truth"], "vsibench", raw)
    else:
        gold = raw["ground_truth"]
        yield Row(key, "vsi-bench", "regression", raw["question"], (), gold, "vsibench", raw)


def _holmes(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    raw = raw.get("row", raw)
    if "Options" in raw:
        texts = list(raw["Options"].values())
        yield _choice(key, "video-holmes", raw["Question"], texts, raw["Answer"], "video_holmes", raw)


def _tomato(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    row = raw["row"]
    doc = {name: row[name] for name in ("question", "options", "answer", "demonstration_type")}
    kind = Path(raw["file"]).stem
    doc |= {
        "id": raw["qid"],
        "reason_type": kind,
        "video_path": f"{row['demonstration_type']}/{row['key']}.mp4",
    }
    yield _choice(key, "tomato", row["question"], row["options"], _LETTERS[row["answer"]], "tomato", doc)


def _longvideobench(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    texts, right = raw["candidates"], _LETTERS[raw["correct_choice"]]
    names = ("id", "duration_group", "question_category", "correct_choice", "question", "level", "video_path")
    doc = {name: raw.get(name) for name in (*names, "topic_category")}
    doc |= {f"option{i}": texts[i] if i < len(texts) else "N/A" for i in range(5)}
    yield _choice(key, "longvideobench", raw["question"], texts, right, "longvideobench_val_v", doc)


def _mlvu(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    row = raw["row"]
    texts = row.get("candidates")
    if not texts or row["answer"] not in texts:
        return
    right = _LETTERS[texts.index(row["answer"])]
    task = {"findNeedle": "needle", "anomaly_reco": "anomaly_reco"}.get(row["question_type"])
    shown = row["question"] + "".join(f"\n({x}) {text}" for x, text in zip(_LETTERS, texts, strict=False))
    doc = {"question": shown, "answer": right, "task_type": task or row["question_type"]}
    doc |= {"question_id": key, "video_name": row["video"]}
    yield _choice(key, "mlvu-dev", row["question"], texts, right, "mlvu_dev", doc)


def _mlvu_test(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    question = raw["problem"].replace("<image>", "").strip()
    head, *options = re.split(r"\n(?=\([A-F]\) )", question)
    doc = {"question": question, "answer": raw["solution"], "task_type": raw["extra_info"]["task_type"]}
    yield _choice(key, "mlvu-test", head, bare(options), raw["solution"], "mlvu_test", doc)


_TEMPCOMPASS = ("yes_no", "multi-choice", "caption_matching")  # captions need a judge


def _tempcompass(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    for dim, entries in raw["entry"].items():
        for n, entry in enumerate(entries if raw["task"] in _TEMPCOMPASS else ()):
            head, *options = entry["question"].split("\n")
            doc = entry | {"video_id": raw["video_id"], "dim": dim}
            task, row = f"tempcompass_{raw['task'].replace('-', '_')}", f"{key}.{dim}.{n}"
            if raw["task"] == "yes_no":
                right = "A" if entry["answer"].lower() == "yes" else "B"
                yield _choice(row, "tempcompass", entry["question"], ["Yes", "No"], right, task, doc)
            elif raw["task"] == "multi-choice":
                right = entry["answer"][0]
                yield _choice(row, "tempcompass", head, bare(options), right, task, doc)
            elif raw["task"] == "caption_matching" and entry["answer"] in options:
                right = _LETTERS[options.index(entry["answer"])]
                yield _choice(row, "tempcompass", head, options, right, task, doc)


def _nextgqa(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    right = ", ".join(re.findall(r"[A-Z]", raw["answer"]))
    yield _choice(key, "", raw["question"], bare(raw["options"]), right, "", {})


def _number(key: str, raw: dict[str, Any]) -> Iterator[Row]:
    yield Row(key, "", "numerical", raw["question"], (), str(raw["ground_truth"]))


_FILES: dict[str, Callable[[str, dict[str, Any]], Iterator[Row]]] = {
    "twgrpo_eval_mvbench": _video_r1("mvbench", _mvbench),
    "videor1_eval_mvbench": _video_r1("mvbench", _mvbench),
    "twgrpo_eval_mmvu": _video_r1("mmvu", _mmvu),
    "videor1_eval_mmvu": _video_r1("mmvu", _mmvu),
    "official_mmvu_validation": _official_mmvu,
    "official_videommmu": _official_mmmu,
    "videor1_eval_videommmu": _video_r1("videommmu", _mmmu),
    "twgrpo_eval_videomme": _video_r1("video-mme", _videomme),
    "videor1_eval_videomme": _video_r1("video-mme", _videomme),
    "official_videoholmes": _holmes,
    "videoholmes_questions": _holmes,
    "official_tomato": _tomato,
    "official_longvideobench_val": _longvideobench,
    "official_mlvu_dev": _mlvu,
    "converted_mlvu_test": _mlvu_test,
    "official_vsibench": _official_vsi,
    "videor1_eval_vsibench": _video_r1("vsi-bench", _vsibench),
    "official_tempcompass": _tempcompass,
    "twgrpo_nextgqa_val_mixed": _nextgqa,
    "videor1_geoqa_prompts": _number,
    "videor1_superclevr_counts": _number,
}
_OUTPUTS = {
    "out_twgrpo_mmvu": _video_r1("mmvu", _mmvu),
    "out_videochatr1_mmvu": _video_r1("mmvu", _mmvu),
    "out_zeroshot_mvbench": _video_r1("mvbench", _mvbench),
    "videorft3b_videommmu": _video_r1("videommmu", _mmmu),
}
"""Part of the name of a file of outputs -> reader of the questions in it."""
