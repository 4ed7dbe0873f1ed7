"""Answer held-out questions and grade them, with the collator, the engine and the judge of the training.

Each process takes its share of the questions. While a batch is generated, the judge works on the one before.
A question's draw depends on its id and the seed alone: batches, processes and restarts change no row.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from videop2r_data.prompts import load_prompt
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.data.loader import LoadedBatch, MediaLoader
from videop2r_data.trainer.data.specs import DataSpec
from videop2r_data.trainer.evaluate.ranks import Ranks
from videop2r_data.trainer.evaluate.report import EvalReport, summarise
from videop2r_data.trainer.evaluate.rows import EvalRow, graded_row, skipped_row
from videop2r_data.trainer.evaluate.specs import EvalSpec
from videop2r_data.trainer.evaluate.store import RowStore
from videop2r_data.trainer.judging.base import Judge, JudgeItem, Ticket
from videop2r_data.trainer.process.masks import TokenTable, segment_masks
from videop2r_data.trainer.rollout.base import RolloutEngine
from videop2r_data.trainer.rollout.hf import HfEngine

Progress = Callable[[int, int], None]
"""Told (questions done, questions in all) of this process."""


@dataclass(frozen=True)
class Evaluator:
    """What answers and grades.

    Attributes:
        collator: makes prompts.
        engine: draws completions.
        table: bytes of the tokens.
        data: how media are sampled and which template is meant.
        spec: how to draw and to grade.
        judge: a started judge, or None: perception is not judged.
    """

    collator: Collator
    engine: RolloutEngine
    table: TokenTable
    data: DataSpec
    spec: EvalSpec
    judge: Judge | None = None

    def rows(self, chosen: Sequence[tuple[int, Example]]) -> Iterator[list[EvalRow]]:
        """Rows of the chosen (index, question) pairs, batch by batch.

        Raises:
            AuthError, BudgetError: the judge cannot go on.
        """
        size = self.spec.batch
        chunks = [chosen[at : at + size] for at in range(0, len(chosen), size)]
        waiting: deque[tuple[list[EvalRow], Ticket | None]] = deque()
        batches = ([example for _, example in chunk] for chunk in chunks)
        with MediaLoader(
            batches, self.data.media, workers=self.data.workers, ahead=self.data.ahead
        ) as loader:
            for chunk, loaded in zip(chunks, loader, strict=True):
                rows, examples = self._answer(chunk, loaded)
                waiting.append((rows, self.hand_in(rows, examples)))
                if len(waiting) > 1:
                    yield settle(*waiting.popleft())
        while waiting:
            yield settle(*waiting.popleft())

    def hand_in(self, rows: Sequence[EvalRow], examples: Sequence[Example]) -> Ticket | None:
        """Ask the judge about rows, each with its question; None if nobody judges."""
        if self.judge is None or self.data.style == "agnostic":
            return None
        asked = [(r, e) for r, e in zip(rows, examples, strict=True) if not r.skipped]
        return self.judge.submit([JudgeItem(example, row.observation) for row, example in asked])

    def _answer(
        self, chunk: Sequence[tuple[int, Example]], loaded: LoadedBatch
    ) -> tuple[list[EvalRow], list[Example]]:
        """Rows of one batch in its order, without verdicts, and the question of each."""
        prompts = self.collator(loaded.examples, loaded.frames)
        asked = [chunk[loaded.kept[at]] for at in prompts.kept]
        seeds = [_seed(self.spec.seed, example.sample_id) for _, example in asked]
        done = self.engine.generate(prompts, group_size=1, seeds=seeds) if asked else []
        rows = {
            index: graded_row(
                index,
                example,
                segment_masks(one.ids, self.table, style=self.data.style),
                finished=one.finished,
                policy=self.spec.scoring,
            )
            for (index, example), one in zip(asked, done, strict=True)
        }
        why = {skip.sample_id: skip for skip in (*loaded.skipped, *prompts.skipped)}
        for index, example in chunk:
            if index not in rows:
                rows[index] = skipped_row(index, example, why[example.sample_id])
        return [rows[index] for index, _ in chunk], [example for _, example in chunk]


def evaluate(
    net: Any,
    processor: Any,
    examples: Sequence[Example],
    *,
    data: DataSpec,
    spec: EvalSpec | None = None,
    judge: Judge | None = None,
    engine: RolloutEngine | None = None,
    collator: Collator | None = None,
    ranks: Ranks | None = None,
    store: RowStore | None = None,
    progress: Progress | None = None,
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
        collator: None: made from `processor` and `data`.
        ranks: None: as `torch.distributed` was set up.
        store: keeps rows; those it has already are not made again, but for verdicts that are still missing.
        progress: is told how far this process is.

    Returns:
        the same report in every process.

    Raises:
        ConfigError: settings that do not fit the model.
        AuthError, BudgetError: the judge cannot go on; rows that were finished are in the store.
    """
    spec, ranks = spec or EvalSpec(), ranks or Ranks.here()
    evaluator = Evaluator(
        collator=collator or Collator(processor, load_prompt(data.prompt_name), data.media),
        engine=engine or HfEngine(net, processor.tokenizer, spec.sampling),
        table=TokenTable.from_tokenizer(processor),
        data=data,
        spec=spec,
        judge=judge,
    )
    known = _known(store, examples)
    mine = ranks.share(range(len(examples)))
    rows = {index: known[index] for index in mine if index in known}
    missing = [(index, examples[index]) for index in mine if index not in rows]
    _keep(_again(evaluator, rows, examples), rows, store)
    for batch in evaluator.rows(missing):
        _keep(batch, rows, store)
        if progress is not None:
            progress(len(rows), len(mine))
    every = [row for part in ranks.gather(list(rows.values())) for row in part]
    report = summarise(every, spec)
    if store is not None and ranks.rank == 0:
        store.write_report(report)
    return report


def settle(rows: Sequence[EvalRow], ticket: Ticket | None) -> list[EvalRow]:
    """Rows with their verdicts; waits for them."""
    if ticket is None:
        return list(rows)
    verdicts = iter(ticket.wait())
    return [row if row.skipped else row.judged(next(verdicts)) for row in rows]


def _again(evaluator: Evaluator, rows: dict[int, EvalRow], examples: Sequence[Example]) -> list[EvalRow]:
    """Rows of an earlier run whose verdict was late or failed, asked about once more."""
    open_rows = [row for row in rows.values() if row.verdict_open]
    if not open_rows:
        return []
    ticket = evaluator.hand_in(open_rows, [examples[row.index] for row in open_rows])
    return settle(open_rows, ticket)


def _known(store: RowStore | None, examples: Sequence[Example]) -> dict[int, EvalRow]:
    found = {} if store is None else store.rows()
    return {
        index: row
        for index, row in found.items()
        if index < len(examples) and examples[index].sample_id == row.sample_id
    }


def _keep(made: Sequence[EvalRow], rows: dict[int, EvalRow], store: RowStore | None) -> None:
    rows.update({row.index: row for row in made})
    if store is not None:
        store.add(made)


def _seed(seed: int, sample_id: str) -> int:
    """63 bits from the seed and the question's id."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{sample_id}".encode(), digest_size=8).digest(), "big") >> 1
