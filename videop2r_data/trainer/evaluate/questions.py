"""Answer held-out questions, and grade them, with the collator, engine and judge of training.

Each process takes its share of the questions. While a batch is generated, the judge works on the one before.
A question's draw depends on its id and the seed alone: batches and processes change no row. Between training
steps rows are written as soon as they are whole:

    RUN/eval/step-000100/rows-0000.jsonl   of process 0, and so on
                         settings.json     what the rows were made with
                         report.json       the aggregates
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import orjson

from videop2r_data.errors import ConfigError
from videop2r_data.prompts import load_prompt
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import ENDLESS, Example
from videop2r_data.trainer.data.loader import LoadedBatch, MediaLoader
from videop2r_data.trainer.data.rows import read_examples
from videop2r_data.trainer.evaluate.report import EvalReport, EvalRow, graded_row, row_of, summarise
from videop2r_data.trainer.judging.base import DemoJudge, Judge, JudgeItem, Ticket
from videop2r_data.trainer.process.masks import TokenTable, segment_masks
from videop2r_data.trainer.ranks import Ranks
from videop2r_data.trainer.rollout.base import RolloutEngine, prompt_room
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.settings.parts import DataSpec, EvalSpec


def evaluate(
    net: Any,
    processor: Any,
    examples: Sequence[Example],
    *,
    data: DataSpec,
    spec: EvalSpec | None = None,
    judge: Judge | None = None,
    engine: RolloutEngine | None = None,
    ranks: Ranks | None = None,
    keep: Callable[[Sequence[EvalRow]], object] | None = None,
) -> EvalReport:
    """Evaluate a policy; callable from a training loop, in every process alike, each gets the same report.

    Args:
        net, processor: the policy, wrapped or not; `net` is not looked at if an `engine` is given.
        examples: the held-out questions, the same in every process.
        data: how media are sampled, the prompt and the style.
        spec: how to draw and to grade.
        judge: started; None: perception is not judged.
        engine: draws the completions as `spec.sampling` says; None: the policy itself.
        ranks: None: as `torch.distributed` was set up.
        keep: is given the rows of this process, a batch as soon as it is whole.

    Raises:
        ConfigError: settings that do not fit the model.
        AuthError, BudgetError: the judge cannot go on.
    """
    spec, ranks = spec or EvalSpec(), ranks or Ranks.here()
    collator = Collator(processor, load_prompt(data.prompt_name, grammar=data.grammar), data.media)
    engine = engine or HfEngine(net, processor.tokenizer, spec.sampling)
    collator.allow(*prompt_room(engine, spec.sampling))
    table = TokenTable.from_tokenizer(processor)
    if data.style == "agnostic":
        judge = None
    # every `world`-th question: equal shares of hard and easy stretches of a file
    mine = [(index, examples[index]) for index in range(ranks.rank, len(examples), ranks.world)]
    chunks = [mine[at : at + spec.batch] for at in range(0, len(mine), spec.batch)]
    batches = ([example for _, example in chunk] for chunk in chunks)
    rows: list[EvalRow] = []
    waiting: list[tuple[list[EvalRow], Ticket | None]] = []

    def settle() -> None:
        """Wait for the verdicts on the oldest batch."""
        found, ticket = waiting.pop(0)
        verdicts = iter(ticket.result() if ticket else ())
        found = [row.judged(next(verdicts)) if ticket and not row.skipped else row for row in found]
        rows.extend(found)
        if keep is not None:
            keep(found)

    with MediaLoader(batches, data.media, workers=data.workers, ahead=data.ahead) as loader:
        for chunk, loaded in zip(chunks, loader, strict=True):
            found = _answer(chunk, loaded, collator, engine=engine, table=table, data=data, spec=spec)
            asked = zip(found, chunk, strict=True)
            items = [JudgeItem(example, row.observation) for row, (_, example) in asked if not row.skipped]
            waiting.append((found, None if judge is None else judge.submit(items)))
            if len(waiting) > 1:
                settle()
    while waiting:
        settle()
    return summarise((row for part in ranks.gather(rows) for row in part), spec)


def _answer(
    chunk: Sequence[tuple[int, Example]],
    loaded: LoadedBatch,
    collator: Collator,
    *,
    engine: RolloutEngine,
    table: TokenTable,
    data: DataSpec,
    spec: EvalSpec,
) -> list[EvalRow]:
    """Rows of one batch of (place, question) in its order, without verdicts."""
    prompts = collator(loaded.examples, loaded.frames)
    asked = [chunk[loaded.kept[at]] for at in prompts.kept]
    names = (f"{spec.seed}/{example.sample_id}".encode() for _, example in asked)
    # 63 bits from the seed and the question's id
    seeds = [int.from_bytes(hashlib.blake2b(n, digest_size=8).digest(), "big") >> 1 for n in names]
    done = engine.generate(prompts, group_size=1, seeds=seeds) if asked else []
    rows: dict[int, EvalRow] = {}
    for (index, example), one in zip(asked, done, strict=True):
        masks = segment_masks(one.ids, table, grammar=data.grammar, style=data.style)
        rows[index] = graded_row(index, example, masks, finished=one.finished, policy=spec.scoring)
    why = {skip.sample_id: skip for skip in (*loaded.skipped, *prompts.skipped)}
    for index, example in chunk:
        if index not in rows:
            skip = why[example.sample_id]
            rows[index] = row_of(index, example, skipped=skip.reason, judge_words=skip.detail[:500])
    return [rows[index] for index, _ in chunk]


# Between training steps: the same questions at each call.


def settings_of(spec: EvalSpec, data: DataSpec, **more: Any) -> dict[str, Any]:
    """Everything that affects a row, and `more`, as a JSON object: not the batch size, intervals, workers,
    look-ahead."""
    idle = {"workers", "ahead", "media_root", "shuffle", "tail", "bucket"}
    return {
        **more,
        "sampling": spec.sampling.model_dump(mode="json", exclude={"rows"}),
        "seed": spec.seed,
        "scoring": spec.scoring.model_dump(mode="json"),
        "data": data.model_dump(mode="json", exclude=idle),
        "prompt_sha256": load_prompt(data.prompt_name, grammar=data.grammar).sha256,
    }


class HeldOut:
    """Evaluates the same questions at each call; they are read once. Every process must call it at a step.

    Args:
        processor, spec, engine: as of `evaluate`.
        data: the held-out questions; the demo stream needs a `limit`.
        judge: the training's, started; None: the exact judge for questions with a scene, else none.
        run: the run's folder: rows and reports go to `RUN/eval/step-000100/`; None: they are not written.

    Raises:
        ConfigError, SourceError: the questions cannot be read, or are the demo's endless stream.
    """

    def __init__(
        self,
        processor: Any,
        data: DataSpec,
        *,
        spec: EvalSpec | None = None,
        judge: Judge | None = None,
        engine: RolloutEngine | None = None,
        run: Path | None = None,
    ) -> None:
        if data.is_demo and (data.limit is None or data.limit >= ENDLESS):
            hint = "set limit, e.g. limit: 200"
            raise ConfigError("the demo stream never ends", where="evaluation data", hint=hint)
        self.examples: Sequence[Example] = read_examples(data)
        first = self.examples[:64]
        if judge is None and first and all(example.scene is not None for example in first):
            judge = DemoJudge()
        self._data, self._spec, self._run = data, spec or EvalSpec(), run
        self._told: dict[str, Any] = {"processor": processor, "examples": self.examples, "data": data}
        self._told |= {"spec": self._spec, "judge": judge, "engine": engine}

    def __call__(self, net: Any, step: int) -> dict[str, float]:
        """Metrics `eval/...` of the policy (wrapped or not) as it is now; `step` names the folder of rows."""
        ranks = Ranks.here()
        if self._run is None:
            return evaluate(net, ranks=ranks, **self._told).metrics()
        folder = self._run / "eval" / f"step-{step:06d}"
        folder.mkdir(parents=True, exist_ok=True)
        # What an earlier attempt left goes: its rows may come from other weights (a changed recipe).
        mine = folder / f"rows-{ranks.rank:04d}.jsonl"
        mine.unlink(missing_ok=True)
        if ranks.rank == 0:
            (folder / "report.json").unlink(missing_ok=True)
            for path in folder.glob("rows-*.jsonl"):
                number = path.stem.removeprefix("rows-")
                if number.isdecimal() and int(number) >= ranks.world:  # of a process that is no longer there
                    path.unlink(missing_ok=True)
            _write_json(folder / "settings.json", settings_of(self._spec, self._data, step=step))

        def keep(rows: Sequence[EvalRow]) -> None:
            """Append rows to those of this process."""
            with mine.open("ab") as file:
                file.write(b"".join(orjson.dumps(row.model_dump(mode="json")) + b"\n" for row in rows))

        report = evaluate(net, ranks=ranks, keep=keep, **self._told)
        if ranks.rank == 0:
            _write_json(folder / "report.json", report.model_dump(mode="json"))
        return report.metrics()


def _write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically: it is whole or not there."""
    draft = path.with_name(f".{path.name}.partial")
    draft.write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n")
    draft.replace(path)
