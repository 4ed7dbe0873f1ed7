"""lmms-eval's own graders over answers in a file; runs in an environment that has lmms-eval 0.7.3.

    python lmms.py ANSWERS VERDICTS

Each line of ANSWERS is one object with `id`, `completion`, `task`, `doc` and `options`; each of VERDICTS says
how one grader took one of them: true, false, or null where it gives no verdict of its own (it draws a letter
at random, asks a model, or breaks).
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

_THRESHOLD = 0.6  # of an estimate
_DEFAULT = [["<think>", "</think>"], ["<analysis>", "</analysis>"]]  # of its --reasoning_tags
_TAGS = [["<observation>", "</observation>"], ["<description>", "</description>"], *_DEFAULT]


class NoVerdict(Exception):
    """The grader would draw a letter, or ask a model."""


def _refuse(*_: Any, **__: Any) -> Any:
    raise NoVerdict


def _utils(task: str, **replaced: Any) -> Any:
    """The module of a task, without dice and without the network."""
    module = import_module(f"lmms_eval.tasks.{task}.utils")
    for name, value in replaced.items():
        setattr(module, name, value)
    return module


Grade = Callable[[dict[str, Any], str], float]


def _graders() -> dict[str, Grade]:
    """Name of a task, or its beginning -> what its grader gives a text, 0 to 1."""
    dice = SimpleNamespace(choice=_refuse, seed=lambda _: None)
    mvbench, videomme, mlvu, vsi = (_utils(name) for name in ("mvbench", "videomme", "mlvu", "vsibench"))
    mmvu, mmmu = _utils("mmvu"), _utils("videommmu")
    holmes, tomato, lvb = (_utils(name, random=dice) for name in ("video_holmes", "tomato", "longvideobench"))
    temp = _utils("tempcompass", get_eval_result=_refuse)

    def of_mmmu(doc: dict[str, Any], text: str) -> float:
        found = mmmu.videommmu_process_results(doc, [text])["mmmu_acc"]
        return float(mmmu.evaluate_videommmu([found])[1]["acc"])

    def of_mlvu(doc: dict[str, Any], text: str) -> float:
        found = mlvu.mlvu_process_results(doc, [text])["mlvu_percetion_score"]
        return float(found["pred_answer"] == found["answer"])

    def of_vsi(doc: dict[str, Any], text: str) -> float:
        found = vsi.vsibench_process_results(dict(doc), [text])["vsibench_overall"]
        return float(found.get("accuracy", found.get("MRA:.5:.95:.05")))

    def of_lvb(doc: dict[str, Any], text: str) -> float:
        found = lvb.longvideobench_process_results(doc, [text])["lvb_acc"]
        return float(lvb.evaluate_longvideobench([found])[1]["acc"])

    def of_mmvu(doc: dict[str, Any], text: str) -> float:
        # the rules; where they refuse an open question, lmms-eval asks a judge
        return float(mmvu.evaluate_with_rule_based(doc, text))

    def by_key(process: Callable[..., Any], metric: str, key: str) -> Grade:
        return lambda doc, text: float(process(doc, [text])[metric][key])

    return {
        "mvbench": by_key(mvbench.mvbench_process_results, "mvbench_accuracy", "score"),
        "mmvu": of_mmvu,
        "video_mmmu": of_mmmu,
        "videomme": by_key(videomme.videomme_process_results, "videomme_perception_score", "score"),
        "video_holmes": by_key(holmes.video_holmes_process_results, "video_holmes_accuracy", "score"),
        "tomato": by_key(tomato.tomato_process_results, "tomato_score", "score"),
        "longvideobench": of_lvb,
        "mlvu": of_mlvu,
        "vsibench": of_vsi,
    } | {
        f"tempcompass_{kind}": by_key(
            getattr(temp, f"tempcompass_process_results_{kind}"), "avg_accuracy", "rating"
        )
        for kind in ("multi_choice", "yes_no", "caption_matching")
    }


def _try(grade: Grade, doc: dict[str, Any], text: str) -> float | None:
    try:
        return grade(doc, text)
    except NoVerdict:
        return None
    except Exception as error:
        print(f"{type(error).__name__}: {error} on {text[-60:]!r}", file=sys.stderr)
        return None


def verdicts(answers: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """What each grader says of each answer that it is made for."""
    from lmms_eval.api.reasoning import strip_reasoning_tags
    from lmms_eval.tasks._task_utils.mcq_extract import extract_mcq_answer

    graders = _graders()
    for answer in answers:
        text = answer["completion"]
        default, stripped = (strip_reasoning_tags(text, tags) for tags in (_DEFAULT, _TAGS))
        if answer["options"] and len(answer["reference"]) == 1:
            letters = [option[0] for option in answer["options"]]
            said = extract_mcq_answer(default, choices=letters) == answer["reference"]
            yield {"id": answer["id"], "grader": "lmms-eval, shared extractor", "verdict": said}
        grade = next((grade for name, grade in graders.items() if answer["task"].startswith(name)), None)
        if answer["task"] and grade:
            for name, given in (("default", default), ("observation cut too", stripped)):
                value = _try(grade, answer["doc"], given)
                yield {
                    "id": answer["id"],
                    "grader": f"lmms-eval, task's grader, {name}",
                    "verdict": None if value is None else value >= _THRESHOLD,
                    "value": value,
                }


def main() -> None:
    """Read answers, write verdicts."""
    with tempfile.TemporaryDirectory() as home:
        os.environ.setdefault("HF_HOME", home)
        rows = [json.loads(line) for line in Path(sys.argv[1]).read_text(encoding="utf-8").splitlines()]
        found = [json.dumps(verdict) + "\n" for verdict in verdicts(rows)]
    Path(sys.argv[2]).write_text("".join(found), encoding="utf-8")


if __name__ == "__main__":
    main()
