"""Answer held-out questions, grade and keep the rows, with the collator, engine and judge of training.

Each process takes its share of the questions. While a batch is generated, the judge works on the one before.
A question's draw depends on its id and the seed alone: batches, processes and restarts change no row. Rows
are written as soon as they are whole, so that a stopped evaluation goes on:

    OUT/rows-0000.jsonl   of process 0, and so on; any number of processes may go on where others stopped
        settings.json     what the rows were made with; rows of other settings are refused
        report.json       the aggregates
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from pydantic import ValidationError

from videop2r_data.errors import ConfigError
from videop2r_data.prompts import load_prompt
from videop2r_data.schemas import TraceGrammar
from videop2r_data.trainer.data.collate import Collator
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.data.loader import LoadedBatch, MediaLoader
from videop2r_data.trainer.evaluate.report import EvalReport, EvalRow, graded_row, skipped_row, summarise
from videop2r_data.trainer.judging.base import Judge, JudgeItem, Ticket
from videop2r_data.trainer.look.curves import read_lines
from videop2r_data.trainer.process.masks import TokenTable, segment_masks
from videop2r_data.trainer.rollout.base import RolloutEngine
from videop2r_data.trainer.rollout.hf import HfEngine
from videop2r_data.trainer.settings.parts import DataSpec, EvalSpec

# Processes.


@dataclass(frozen=True)
class Ranks:
    """One of several processes that evaluate together.

    Attributes:
        rank: of this process, from 0.
        world: how many there are.
        gather: gives every process the objects of all of them, in order of rank.
    """

    rank: int = 0
    world: int = 1
    gather: Callable[[Any], list[Any]] = lambda mine: [mine]

    @classmethod
    def here(cls) -> Ranks:
        """As `torch.distributed` was set up; alone without it."""
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        world = distributed.get_world_size()

        def gather(mine: Any) -> list[Any]:
            every: list[Any] = [None] * world
            distributed.all_gather_object(every, mine)
            return every

        return cls(distributed.get_rank(), world, gather)


# Rows on disk.


SETTINGS, REPORT = "settings.json", "report.json"


class RowStore:
    """The folder of one evaluation.

    Args:
        folder: made if missing.
        settings: everything that affects a row; a JSON object.
        ranks: this process, which writes a file of its own, and the others.
        fresh: forget the rows and settings that are there.

    Raises:
        ConfigError: the folder holds rows that were made with other settings.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, Any], *, ranks: Ranks | None = None, fresh: bool = False
    ) -> None:
        ranks = ranks or Ranks()
        self.folder = folder
        self._path = folder / f"rows-{ranks.rank:04d}.jsonl"
        self._fresh = fresh
        folder.mkdir(parents=True, exist_ok=True)
        known = folder / SETTINGS
        if known.exists() and not fresh:
            self._compare(known, settings)
        elif ranks.rank == 0:
            if fresh:
                (folder / REPORT).unlink(missing_ok=True)
                # Rows of processes that are no longer there; the others remove their own.
                for path in folder.glob("rows-*.jsonl"):
                    number = path.stem.removeprefix("rows-")
                    if number.isdecimal() and int(number) >= ranks.world:
                        path.unlink(missing_ok=True)
            write_json(known, dict(settings))
        if fresh:
            self._path.unlink(missing_ok=True)

    def _forget(self, world: int) -> None:
        """Remove the report, and rows of processes that are no longer there; the others remove their own."""
        (self.folder / REPORT).unlink(missing_ok=True)
        for path in self.folder.glob("rows-*.jsonl"):
            number = path.stem.removeprefix("rows-")
            if number.isdecimal() and int(number) >= world:
                path.unlink(missing_ok=True)

    def rows(self) -> dict[int, EvalRow]:
        """Index -> row, of all processes, as earlier runs left them; of a row written twice the last one."""
        found: dict[int, EvalRow] = {}
        if self._fresh:
            return found
        for path in sorted(self.folder.glob("rows-*.jsonl")):
            for line in read_lines(path).rows:
                try:
                    row = EvalRow.model_validate(line)
                except ValidationError:
                    continue  # written by another version: the question is answered again
                before = found.get(row.index)
                if before is None or before.verdict_open or not row.verdict_open:
                    found[row.index] = row
        return found

    def add(self, rows: Sequence[EvalRow]) -> None:
        """Append rows and close the file."""
        if not rows:
            return
        data = b"".join(orjson.dumps(row.model_dump(mode="json")) + b"\n" for row in rows)
        with self._path.open("a+b") as file:
            if file.tell():
                file.seek(-1, 2)
                if file.read(1) != b"\n":
                    file.write(b"\n")  # end the torn line of a killed process
            file.write(data)

    def write_report(self, report: EvalReport) -> None:
        """Write `report.json` atomically."""
        write_json(self.folder / REPORT, report.model_dump(mode="json"))

    def _compare(self, known: Path, settings: Mapping[str, Any]) -> None:
        try:
            before = orjson.loads(known.read_bytes())
        except ValueError as error:
            raise ConfigError(f"not JSON: {error}", where=str(known), hint="delete this folder") from None
        now = orjson.loads(orjson.dumps(dict(settings)))
        differing = sorted(k for k in {*before, *now} if before.get(k) != now.get(k))
        if differing:
            raise ConfigError(
                f"this folder holds an evaluation with other settings: {', '.join(differing)}",
                where=str(self.folder),
                hint="name another folder with --out, or delete this one",
            )


def write_json(path: Path, data: Any) -> None:
    """Write a JSON file atomically: it is whole or not there."""
    draft = path.with_name(f".{path.name}.partial")
    draft.write_bytes(orjson.dumps(data, option=orjson.OPT_INDENT_2) + b"\n")
    draft.replace(path)


# Answering.


Progress = Callable[[int, int], None]
"""Called with (questions done, questions in all) of this process."""


@dataclass(frozen=True)
class Evaluator:
    """Answers and grades questions.

    Attributes:
        collator: makes prompts.
        engine: draws completions.
        table: bytes of the tokens.
        data: how media are sampled.
        grammar: what a trace is.
        spec: how to draw and to grade.
        judge: a started judge, or None: perception is not judged.
    """

    collator: Collator
    engine: RolloutEngine
    table: TokenTable
    data: DataSpec
    grammar: TraceGrammar
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
                rows = self._answer(chunk, loaded)
                waiting.append((rows, self.hand_in(rows, [example for _, example in chunk])))
                if len(waiting) > 1:
                    yield settle(*waiting.popleft())
        while waiting:
            yield settle(*waiting.popleft())

    def hand_in(self, rows: Sequence[EvalRow], examples: Sequence[Example]) -> Ticket | None:
        """Submit the observations of rows to the judge; None without a judge."""
        if self.judge is None or self.data.style == "agnostic":
            return None
        asked = [(r, e) for r, e in zip(rows, examples, strict=True) if not r.skipped]
        return self.judge.submit([JudgeItem(example, row.observation) for row, example in asked])

    def _answer(self, chunk: Sequence[tuple[int, Example]], loaded: LoadedBatch) -> list[EvalRow]:
        """Rows of one batch in its order, without verdicts."""
        prompts = self.collator(loaded.examples, loaded.frames)
        asked = [chunk[loaded.kept[at]] for at in prompts.kept]
        names = (f"{self.spec.seed}/{example.sample_id}".encode() for _, example in asked)
        # 63 bits from the seed and the question's id
        seeds = [int.from_bytes(hashlib.blake2b(n, digest_size=8).digest(), "big") >> 1 for n in names]
        done = self.engine.generate(prompts, group_size=1, seeds=seeds) if asked else []
        rows = {
            index: graded_row(
                index,
                example,
                segment_masks(one.ids, self.table, grammar=self.grammar, style=self.data.style),
                finished=one.finished,
                policy=self.spec.scoring,
            )
            for (index, example), one in zip(asked, done, strict=True)
        }
        why = {skip.sample_id: skip for skip in (*loaded.skipped, *prompts.skipped)}
        for index, example in chunk:
            if index not in rows:
                rows[index] = skipped_row(index, example, why[example.sample_id])
        return [rows[index] for index, _ in chunk]


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
        ranks: None: as `torch.distributed` was set up.
        store: keeps rows; those it has already are not made again, but for verdicts that are still missing.
        progress: called after each batch.

    Returns:
        the same report in every process.

    Raises:
        ConfigError: settings that do not fit the model.
        AuthError, BudgetError: the judge cannot go on; finished rows are in the store.
    """
    spec, ranks, grammar = spec or EvalSpec(), ranks or Ranks.here(), data.grammar
    evaluator = Evaluator(
        collator=Collator(processor, load_prompt(data.prompt_name, grammar=grammar), data.media),
        engine=engine or HfEngine(net, processor.tokenizer, spec.sampling),
        table=TokenTable.from_tokenizer(processor),
        data=data,
        grammar=grammar,
        spec=spec,
        judge=judge,
    )
    known = {} if store is None else store.rows()
    # every `world`-th question: equal shares of hard and easy stretches of a file
    mine = range(ranks.rank, len(examples), ranks.world)
    rows = {i: known[i] for i in mine if i in known and known[i].sample_id == examples[i].sample_id}
    missing = [(index, examples[index]) for index in mine if index not in rows]

    def keep(made: Sequence[EvalRow]) -> None:
        rows.update({row.index: row for row in made})
        if store is not None:
            store.add(made)

    late = [row for row in rows.values() if row.verdict_open]
    if late:
        keep(settle(late, evaluator.hand_in(late, [examples[row.index] for row in late])))
    for batch in evaluator.rows(missing):
        keep(batch)
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
    verdicts = iter(ticket.result())
    return [row if row.skipped else row.judged(next(verdicts)) for row in rows]
