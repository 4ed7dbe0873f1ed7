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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Evaluator:
    """Answers and grades questions; fields as the arguments of `evaluate`."""

    collator: Collator
    engine: RolloutEngine
    table: TokenTable
    data: DataSpec
    spec: EvalSpec
    judge: Judge | None

    def rows(self, chosen: Sequence[tuple[int, Example]]) -> Iterator[list[EvalRow]]:
        """Rows of the chosen (index, question) pairs, batch by batch."""
        size, data = self.spec.batch, self.data
        chunks = [chosen[at : at + size] for at in range(0, len(chosen), size)]
        batches = ([example for _, example in chunk] for chunk in chunks)
        waiting: deque[tuple[list[EvalRow], Ticket | None]] = deque()
        with MediaLoader(batches, data.media, workers=data.workers, ahead=data.ahead) as loader:
            for chunk, loaded in zip(chunks, loader, strict=True):
                rows = self._answer(chunk, loaded)
                asked = [(row, e) for row, (_, e) in zip(rows, chunk, strict=True) if not row.skipped]
                items = [JudgeItem(example, row.observation) for row, example in asked]
                waiting.append((rows, None if self.judge is None else self.judge.submit(items)))
                if len(waiting) > 1:
                    yield _settle(*waiting.popleft())
        while waiting:
            yield _settle(*waiting.popleft())

    def _answer(self, chunk: Sequence[tuple[int, Example]], loaded: LoadedBatch) -> list[EvalRow]:
        """Rows of one batch in its order, without verdicts."""
        prompts = self.collator(loaded.examples, loaded.frames)
        asked = [chunk[loaded.kept[at]] for at in prompts.kept]
        names = (f"{self.spec.seed}/{example.sample_id}".encode() for _, example in asked)
        # 63 bits from the seed and the question's id
        seeds = [int.from_bytes(hashlib.blake2b(n, digest_size=8).digest(), "big") >> 1 for n in names]
        done = self.engine.generate(prompts, group_size=1, seeds=seeds) if asked else []
        rows: dict[int, EvalRow] = {}
        for (index, example), one in zip(asked, done, strict=True):
            masks = segment_masks(one.ids, self.table, grammar=self.data.grammar, style=self.data.style)
            policy = self.spec.scoring
            rows[index] = graded_row(index, example, masks, finished=one.finished, policy=policy)
        why = {skip.sample_id: skip for skip in (*loaded.skipped, *prompts.skipped)}
        for index, example in chunk:
            if index not in rows:
                skip = why[example.sample_id]
                rows[index] = row_of(index, example, skipped=skip.reason, judge_words=skip.detail[:500])
        return [rows[index] for index, _ in chunk]


def _settle(rows: Sequence[EvalRow], ticket: Ticket | None) -> list[EvalRow]:
    """Rows with their verdicts; waits for them."""
    if ticket is None:
        return list(rows)
    verdicts = iter(ticket.result())
    return [row if row.skipped else row.judged(next(verdicts)) for row in rows]


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
    """Evaluate a policy; callable from a training loop, in every process alike.

    Args:
        net: the policy, wrapped or not; not looked at if an `engine` is given.
        processor: its processor.
        examples: the held-out questions, the same in every process.
        data: how media are sampled, the prompt and the style.
        spec: how to draw and to grade.
        judge: started; None: perception is not judged.
        engine: draws the completions as `spec.sampling` says; None: the policy itself.
        ranks: None: as `torch.distributed` was set up.
        keep: is given the rows of this process, a batch as soon as it is whole.

    Returns:
        the same report in every process.

    Raises:
        ConfigError: settings that do not fit the model.
        AuthError, BudgetError: the judge cannot go on.
    """
    spec, ranks = spec or EvalSpec(), ranks or Ranks.here()
    collator = Collator(processor, load_prompt(data.prompt_name, grammar=data.grammar), data.media)
    engine = engine or HfEngine(net, processor.tokenizer, spec.sampling)
    collator.allow(*prompt_room(engine, spec.sampling))
    evaluator = _Evaluator(
        collator=collator,
        engine=engine,
        table=TokenTable.from_tokenizer(processor),
        data=data,
        spec=spec,
        judge=None if data.style == "agnostic" else judge,
    )
    # every `world`-th question: equal shares of hard and easy stretches of a file
    mine = [(index, examples[index]) for index in range(ranks.rank, len(examples), ranks.world)]
    rows: list[EvalRow] = []
    for batch in evaluator.rows(mine):
        rows += batch
        if keep is not None:
            keep(batch)
    return summarise((row for part in ranks.gather(rows) for row in part), spec)


# Between training steps: the same questions at each call.


def settings_of(spec: EvalSpec, data: DataSpec, **more: Any) -> dict[str, Any]:
    """Everything that affects a row, as a JSON object: not the batch size, intervals, workers, look-ahead.

    Args:
        spec, data: as of `evaluate`.
        more: further values, e.g. the digest of the model.
    """
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
    """Evaluates the same questions at each call; they are read once.

    Every process must call it at the same step.

    Args:
        processor: of the policy.
        data: the held-out questions; the demo stream needs a `limit`.
        spec: how to draw and to grade.
        judge: the training's, started; None: the exact judge for questions with a scene, else none.
        engine: the training's rollout engine if it draws as `spec.sampling` says; None: the policy itself.
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
        self.data, self.spec = data, spec or EvalSpec()
        self.examples: Sequence[Example] = read_examples(data)
        self._processor, self._engine, self._run = processor, engine, run
        first = self.examples[:64]
        if judge is None and first and all(example.scene is not None for example in first):
            judge = DemoJudge()
        self._judge = judge

    def __call__(self, net: Any, step: int) -> dict[str, float]:
        """Metrics `eval/...` of the policy (wrapped or not) as it is now; `step` names the folder of rows."""
        ranks = Ranks.here()
        folder = None if self._run is None else self._run / "eval" / f"step-{step:06d}"
        if folder is not None:
            _clear(folder, ranks)
            if ranks.rank == 0:
                _write_json(folder / "settings.json", settings_of(self.spec, self.data, step=step))

        def keep(rows: Sequence[EvalRow]) -> None:
            if folder is not None and rows:
                with (folder / _ROWS.format(ranks.rank)).open("ab") as file:
                    file.write(b"".join(orjson.dumps(row.model_dump(mode="json")) + b"\n" for row in rows))

        report = evaluate(
            net,
            self._processor,
            self.examples,
            data=self.data,
            spec=self.spec,
            judge=self._judge,
            engine=self._engine,
            ranks=ranks,
            keep=keep,
        )
        if folder is not None and ranks.rank == 0:
            _write_json(folder / "report.json", report.model_dump(mode="json"))
        return report.metrics()


_ROWS = "rows-{:04d}.jsonl"


def _clear(folder: Path, ranks: Ranks) -> None:
    """Remove what an earlier attempt left: its rows may come from other weights (a changed recipe)."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _ROWS.format(ranks.rank)).unlink(missing_ok=True)
    if ranks.rank == 0:
        (folder / "report.json").unlink(missing_ok=True)
        # Rows of processes that are no longer there; the others remove their own.
        for path in folder.glob("rows-*.jsonl"):
            number = path.stem.removeprefix("rows-")
            if number.isdecimal() and int(number) >= ranks.world:
                path.unlink(missing_ok=True)


def _write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically: it is whole or not there."""
    draft = path.with_name(f".{path.name}.partial")
    draft.write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n")
    draft.replace(path)
