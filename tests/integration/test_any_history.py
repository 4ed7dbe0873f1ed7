"""Any history of one data set ends where a fresh build begins: the same bytes, nothing lost, nothing paid twice.

A history is a list of operations that hypothesis draws: builds that end early or meet a bad server, changes of the
pool, the files and the recipe and back, accidents of the journal. What must hold is in `Life.complete` and `Life._run`.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.fakes.openai_server import Call, FakeServer, Reply
from tests.integration.test_build import Silent, digests, question, write_pool
from videop2r_data.backends import Journal, mirror_of, origin, segments
from videop2r_data.builders import pipeline, remote, run, steps
from videop2r_data.builders.merging import merge
from videop2r_data.builders.pipeline import BuildReport, build
from videop2r_data.builders.replay import reproduce
from videop2r_data.builders.retries import RETRY_KINDS, RetryKind
from videop2r_data.builders.run import Stop, Tally
from videop2r_data.builders.verify import verify_release
from videop2r_data.builders.workspace import Shard, Workspace
from videop2r_data.cards.card import as_written
from videop2r_data.cards.card.dataset import write_dataset_card
from videop2r_data.media import DecodePool, sample_media
from videop2r_data.schemas import WHOLE, Focus, Frames, Recipe

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

PROMPT = (Path(steps.__file__).parents[1] / "prompts/judge-v1.txt").read_text()
PRICE = 3, 15
"""US dollars of a million input and output tokens."""


# The server: an answer depends on the request alone, and names it.


def number(digest: str, salt: object) -> int:
    """A number that a request and a word decide."""
    return zlib.crc32(f"{digest}{salt}".encode())


def blank(mark: str) -> str:
    """A text without a visible character, and yet its own."""
    return f"{int(mark, 16):b}".translate({48: " ", 49: "\t"})


def text_of(call: Call) -> str:
    """Traces and verdicts, some of them wrong, malformed, silent; each holds the first bits of the digest."""
    mark, kind = call.digest[:12], number(call.digest, "kind") % 16
    if kind == 0:
        return blank(mark)
    if b"<judgement>" in call.raw:
        verdict = {1: "No", 2: "perhaps"}.get(kind, "Yes")
        return f"Shape {mark} is named. <judgement>{verdict}</judgement>"
    if kind == 1:
        return f"I see shape {mark}."
    answer = "B" if kind in (2, 3, 4) else "A"
    return (
        f"<observation>Based on the question, I need to notice shape {mark}.</observation> "
        f"<think>Shape {mark} settles it, so the answer is {answer}.</think><answer>{answer}</answer>"
    )


def mark_of(text: str) -> str:
    """The first bits of the digest of the request that a text answers."""
    if text.strip():
        return str(re.findall(r"[Ss]hape ([0-9a-f]{12})", text)[0])
    return f"{int(text.translate({32: '0', 9: '1'}), 2):012x}"


class Server(FakeServer):
    """Refuses some requests for ever; in a bad mood, more of them are refused, or fail."""

    def __init__(self) -> None:
        super().__init__(answer=text_of, script=self.moody)
        self.mood, self.salt = "", 0
        self.given: Counter[str] = Counter()
        """Mark -> answers that were given."""
        self.refused: Counter[str] = Counter()
        self.nusd = 0
        """What the answers cost."""

    def is_ill(self, call: Call, mood: str) -> bool:
        """Whether a mood shows in the answer to a request."""
        return self.mood == mood and number(call.digest, self.salt) % 3 == 0

    def is_blind(self, call: Call) -> bool:
        """What a judge that only records was refused costs no row, so that `--retry` leaves it as it is."""
        return call.body["model"] == "j" and b"<judgement>" not in call.raw

    def moody(self, call: Call) -> Reply | None:
        """Status 400 or 503, or the answer."""
        strict = self.is_ill(call, "strict") and not self.is_blind(call)
        if number(call.digest, "refuse") % 12 == 0 or strict:
            self.refused[call.digest[:12]] += 1
            return Reply(status=400)
        return Reply(status=503) if self.is_ill(call, "sick") else None

    def completion(self, call: Call) -> bytes:
        """The answer, and what it costs."""
        mark = call.digest[:12]
        text = self.answer(call)
        self.given[mark] += 1
        used = {"prompt_tokens": len(call.prompt) // 4, "completion_tokens": len(text) // 4}
        self.nusd += 1000 * sum(n * price for n, price in zip(used.values(), PRICE, strict=True))
        message = {"role": "assistant", "content": text}
        return orjson.dumps(
            {
                "id": "one",
                "object": "chat.completion",
                "created": 0,
                "model": call.body["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": used | {"total_tokens": sum(used.values())},
            }
        )


# The journal, as a stranger reads it.


@dataclass
class Lines:
    """What the lines of a journal say."""

    nusd: int = 0
    calls: int = 0
    refused: int = 0
    answers: dict[str, set[bytes]] = field(default_factory=dict)
    """Key -> its answers."""
    withdrawn: dict[str, set[bytes]] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    """Mark -> key."""

    def may_ask(self, mark: str) -> bool:
        """Whether a request has no answer that counts."""
        key = self.keys.get(mark, "")
        return len(self.answers.get(key, ())) <= len(self.withdrawn.get(key, ()))


_LINE = re.compile(
    rb'\{"key":"([0-9a-f]{64})","kind":"([a-z]+)","nusd":(\d+),"crc":"([0-9a-f]{8})","data":(.*)\}\n'
)


def read(folder: Path) -> Lines:
    """Read the segments of a journal."""
    found = Lines()
    for path in sorted(folder.glob("segment-*.jsonl")):
        for line in path.read_bytes().splitlines(keepends=True):
            match = _LINE.fullmatch(line)
            if match is None or zlib.crc32(b"%b %b %b %b" % match.group(1, 2, 3, 5)) != int(match[4], 16):
                continue
            key, kind, data = match[1].decode(), match[2].decode(), match[5]
            if kind == "call":
                found.nusd += int(match[3])
                found.calls += 1
                found.keys[mark_of(json.loads(data)["text"])] = key
            found.refused += kind == "refused"
            if kind in ("call", "refused"):
                found.answers.setdefault(key, set()).add(data)
            elif kind == "retry":
                found.withdrawn.setdefault(key, set()).add(data)
    return found


def written(folder: Path) -> Counter[tuple[str, bytes]]:
    """The lines of a journal, in a folder or a store, with the name of who wrote them."""
    found: Counter[tuple[str, bytes]] = Counter()
    for path in folder.glob("segment-*.jsonl"):
        who = origin(Path(path.name.partition(".")[0]))
        found.update(
            (who, line) for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"}\n")
        )
    return found


# A life.


class Here(DecodePool):
    """Decodes in this process: a process of its own takes longer to start than all else in a history."""

    async def sample(self, path: Path, data_type: Any, focus: Focus = WHOLE) -> Frames:
        """As a decoder process does it."""
        return replace(sample_media(path, data_type, self.spec, want=self.want, focus=focus), path=path)


class Watch(Silent):
    """Stops a build after some questions, or does something else then; keeps what was counted last."""

    def __init__(self, stop: Stop, after: int, then: Callable[[], object] | None) -> None:
        super().__init__(stop if after and then is None else None, after)
        self.then, self.calling, self.tally = then, False, Tally()

    def begin(self, what: str, total: int | None) -> None:
        """A phase begins."""
        super().begin(what, total)
        self.calling = what == "calls"

    def step(self, tally: Tally, parts: Any) -> None:
        """One more question is done."""
        if self.calling:
            self.tally = tally
            if self.then is not None and tally.rows >= self.after:
                self.then()
                self.then = None
        super().step(tally, parts)


JUDGES: dict[str, Any] = {
    "one": "judge-v1",
    "own": "own.txt",
    "none": None,
    "list": [
        {"name": "blind", "decides": "blind", "does": "record", "prompt": "blind-v1"},
        {"name": "enough", "decides": "sufficiency", "does": "filter", "prompt": "judge-v1"},
    ],
    "first": [
        {"name": "blind", "decides": "blind", "does": "filter", "prompt": "blind-v1"},
        {"name": "enough", "decides": "sufficiency", "does": "filter", "prompt": "own.txt"},
    ],
}
SETTINGS: dict[str, tuple[Any, ...]] = {
    "threshold": (0.6, 0.0),
    "profile": ("robust", "paper"),
    "judges": tuple(JUDGES),
    "words": (PROMPT, PROMPT.replace("\n", " \n", 1)),
    "temperature": (0.0, 0.5),
    "attempts": (1, 3),
    "max_pixels": (100352, 784),
    "passthrough": (False, True),
    "model": ("g", "h"),
    "target": (None, 1, 6),
    "limit": (None, 4, 9),
    "paid": (False, True),
    "concurrency": (4, 1),
}
Op = tuple[Any, ...]


class Life:
    """One data set from its first build on."""

    def __init__(self, folder: Path, server: Server, pool: list[int], chosen: dict[str, Any]) -> None:
        self.folder, self.server = folder, server
        self.settings = {name: values[0] for name, values in SETTINGS.items()} | chosen
        self.fresh = self.next = self.clock = 0
        self.rows: list[dict[str, Any]] = []
        self.moody = False
        """Something was refused that another time is answered."""
        self.url: str | None = None
        self.versions: dict[int, list[tuple[bytes, int]]] = {}
        """Picture -> what lay there, and since when."""
        (folder / "own.txt").write_text(self.settings["words"])
        for picture in range(4):
            self._paint(picture, picture)
        for kind in pool:
            self._add(kind)

    # what people do to pool, files and recipe

    def _add(self, kind: int) -> None:
        i, more = self.next, {}
        self.next += 1
        if kind >= 4:
            more = {"data_type": "image", "path": f"{kind % 4}.png"}
        self.rows.append(question(i, **more))

    def _paint(self, picture: int, colour: int) -> None:
        file = BytesIO()
        Image.new("RGB", (28 + 28 * (colour % 2), 28), (40 * colour, 90, 200 - 40 * colour)).save(file, "png")
        self._put(picture, file.getvalue())

    def _put(self, picture: int, data: bytes, since: int | None = None) -> None:
        self.clock += 10**9
        path, since = self.folder / f"{picture}.png", since or self.clock
        path.write_bytes(data)
        os.utime(path, ns=(since, since))
        self.versions.setdefault(picture, []).append((data, since))

    def change(self, what: str, i: int, j: int) -> None:
        """Change the pool."""
        rows = self.rows
        if what == "add" or len(rows) < 2:
            return self._add(i % 8)
        i, j = i % len(rows), j % len(rows)
        if what == "edit":
            self.next += 1
            rows[i] = rows[i] | {"problem": f"What is shape {self.next}?"}
        elif what == "drop":
            del rows[i]
        elif what == "swap":
            rows[i], rows[j] = rows[j], rows[i]
        elif what == "copy":
            rows.insert(j, dict(rows[i]))
        elif what == "same id":
            rows[i] = rows[i] | {"problem_id": rows[j]["problem_id"]}
        elif what == "spoil":
            rows[i] = rows[i] | {"problem_type": "?"}
        elif what == "turn":
            rows[i] = rows[i] | {"solution": "<answer>B</answer>"}

    def picture(self, what: str, picture: int, colour: int) -> None:
        """Change a file."""
        path = self.folder / f"{picture}.png"
        if what == "paint":
            self._paint(picture, colour)
        elif what == "touch" and path.exists():
            self._put(picture, path.read_bytes())
        elif what == "remove":
            path.unlink(missing_ok=True)
        elif what == "back":
            versions = self.versions[picture]
            self._put(picture, *versions[colour % len(versions)])
        elif what == "spoil":
            self._put(picture, b"no picture")

    def set(self, name: str, which: int) -> None:
        """Change the recipe."""
        self.settings[name] = SETTINGS[name][which]
        (self.folder / "own.txt").write_text(self.settings["words"])

    def recipe(self, **more: Any) -> Recipe:
        """The recipe of now."""
        chosen, url = self.settings, self.server.url
        backend: dict[str, Any] = {"kind": "openai", "base_url": url, "retries": 0}
        backend["concurrency"] = chosen["concurrency"]
        if chosen["paid"]:
            backend["price"] = {"input": PRICE[0], "output": PRICE[1]}
        judge, asked = JUDGES[chosen["judges"]], {**backend, "model": "j"}
        judging: dict[str, Any] = {}
        if isinstance(judge, list):
            judging["judges"] = [one | {"backend": asked} for one in judge]
        elif judge is not None:
            judging["judge"] = {"backend": asked, "prompt": judge}
        source = {"name": "pool", "kind": "video-r1", "path": "pool.json", "media_root": "."}
        return Recipe.model_validate(
            {
                "name": "set",
                "sources": [source | {"limit": chosen["limit"]}],
                "media": {
                    "max_pixels": chosen["max_pixels"],
                    "passthrough": chosen["passthrough"],
                },
                "generate": {
                    "backend": {**backend, "model": chosen["model"]},
                    "temperature": chosen["temperature"],
                    "attempts": chosen["attempts"],
                },
                "verify": {"threshold": chosen["threshold"], "policy": {"profile": chosen["profile"]}},
                "target": chosen["target"],
                **judging,
                **more,
            }
        )

    # accidents

    @property
    def journal(self) -> Path:
        """Where the journal can be read."""
        return self.place("set").journal

    def place(self, name: str) -> Workspace:
        """Where a data set of this name is built."""
        work = self.url if name == "set" else None
        return Workspace.at(self.folder / name, base=self.folder, work=work)

    def accident(self, what: str, i: int) -> None:
        """Something happens to the files of the journal."""
        lines, indexes = (sorted(self.journal.glob(f"segment-*.{end}")) for end in ("jsonl", "idx"))
        if what == "no index":
            for path in indexes:
                path.unlink()
        elif what == "wrong index" and indexes:
            data = bytearray(indexes[-1].read_bytes())
            data[i * 7919 % len(data)] ^= 1 + i % 200
            indexes[i % len(indexes)].write_bytes(data)
        elif what == "no set":
            shutil.rmtree(self.folder / "set", ignore_errors=True)
        elif what == "no mirror" and self.url:
            shutil.rmtree(mirror_of(self.url), ignore_errors=True)
        elif lines and what == "cut":
            data = bytearray(lines[-1].read_bytes())
            lines[-1].write_bytes(data[: max(0, len(data) - 1 - i * 37 % 900)])
        elif lines and what == "damage":
            path = lines[i % len(lines)]
            data = bytearray(path.read_bytes())
            data[i * 7919 % max(1, len(data)) : i * 7919 % max(1, len(data)) + 1] = bytes([i % 200])
            path.write_bytes(data)
        elif lines and what == "gone":
            lines[i % len(lines)].unlink()

    # builds

    async def _run(
        self,
        name: str = "set",
        *,
        after: int = 0,
        end: str = "stop",
        retry: Collection[RetryKind] = (),
        shard: Shard | None = None,
        **more: Any,
    ) -> BuildReport | None:
        """A build that asks for nothing that its journal knows, and whose journal then knows every answer."""
        place, server = self.place(name), self.server
        write_pool(self.folder, self.rows)
        before, given = read(place.journal), Counter(server.given)
        nusd, refused = server.nusd, server.refused.total()
        with Journal(place.journal, readonly=True) as journal:
            total = journal.spending.total_nusd
        stop = Stop()
        task, snapshot = asyncio.current_task(), self.folder / "snapshot"
        assert task is not None

        def kill() -> None:
            """What a killed process leaves is what lies there at this moment."""
            shutil.copytree(place.work, snapshot)
            stop.ask()

        ends: dict[str, Callable[[], object]] = {"cancel": task.cancel, "kill": kill}
        watch = Watch(stop, after, ends.get(end))
        args: dict[str, Any] = {
            "stop": stop,
            "retry": retry,
            "shard": shard,
            "keep_going": True,
            "replace": True,
        }
        report = None
        try:
            report = await build(self.recipe(**more), place, observer=watch, card=write_dataset_card, **args)
        except asyncio.CancelledError:
            if end != "cancel":
                raise
        if snapshot.exists():
            report = None
            shutil.rmtree(place.work)
            snapshot.rename(place.work)
        known, asked = read(place.journal), server.given - given
        lost = (
            0
            if report is not None
            else 2 * self.settings["concurrency"]
            if end == "cancel"
            else asked.total()
        )
        if name != "set" or self.url is None:  # a mirror that was damaged is mended
            new, paid = known.calls - before.calls, server.nusd - nusd
            assert asked.total() - lost <= new <= asked.total(), "each answer is in the journal"
            assert lost or not (self.settings["paid"] or more) or known.nusd - before.nusd == paid, (
                "its cost too"
            )
            assert lost or known.refused - before.refused == server.refused.total() - refused
            if not retry:
                again = {mark for mark in asked if not before.may_ask(mark)}
                assert not again, "an answer that the journal had was paid for again"
        assert asked.total() == len(asked), "asked twice in one run"
        with Journal(place.journal, readonly=True) as journal:
            assert journal.spending.finished_nusd == known.nusd
            if self.settings["paid"] and end != "kill":
                assert journal.spending.total_nusd >= total + server.nusd - nusd, "money is written ahead"
        if report is not None:
            assert round(report.spent.finished_usd * 1e9) == known.nusd
            if report.state == "complete":
                self._adds_up(report, watch.tally)
        return report

    def _adds_up(self, report: BuildReport, tally: Tally) -> None:
        ledger = report.ledger
        assert ledger is not None and ledger.rows_in == ledger.kept + ledger.rejected + ledger.failed
        assert ledger.rows_in + ledger.surplus == min(
            self.settings["limit"] or len(self.rows), len(self.rows)
        )
        if self.settings["target"] is None and not report.unanswered and not self.moody:
            seen = tally.rows, tally.kept, tally.rejected, tally.failed, +tally.reasons
            written = ledger.rows_in, ledger.kept, ledger.rejected, ledger.failed, Counter(ledger.reasons)
            assert seen == written, "what was seen is what was written"

    async def stopped(self, after: int, end: str) -> None:
        """A build that is stopped, cancelled or killed after some questions."""
        await self._run(after=after, end="stop" if self.url and end == "kill" else end)

    async def unwell(self, mood: str, salt: int) -> None:
        """A build while the server is in a bad mood."""
        with self._mood(mood, salt):
            await self._run()

    @contextmanager
    def _mood(self, mood: str, salt: int) -> Iterator[None]:
        self.server.mood, self.server.salt = mood, salt
        self.moody = self.moody or mood == "strict"
        yield
        self.server.mood = ""

    async def frugal(self, mills: int) -> None:
        """A build with a limit of money, which holds."""
        paid, self.settings["paid"] = self.settings["paid"], True
        before, limit = read(self.journal).nusd, (1 + mills) / 1000
        await self._run(max_cost=limit)
        assert read(self.journal).nusd <= max(limit * 1e9, before)
        self.settings["paid"] = paid

    async def shared(self, index: int, count: int) -> None:
        """The calls of one share."""
        if self.settings["target"] is None and self.url is None:
            report = await self._run(shard=Shard(index % count + 1, count))
            assert report is not None and report.state == "shard_complete" and report.ledger is None

    async def retried(self, after: int) -> None:
        """A build that asks again what came to nothing, perhaps stopped."""
        await self._run(after=after, retry=RETRY_KINDS)

    async def elsewhere(self, after: int, mood: str, salt: int, limit: int) -> None:
        """A part is built in another folder, whose journal is brought here."""
        kept, self.settings["limit"] = self.settings["limit"], limit
        with self._mood(mood, salt):
            await self._run("other", after=after)
        self.settings["limit"] = kept
        await self.brought()

    async def brought(self) -> None:
        """The journal of the other folder is brought here, perhaps once more."""
        other, here = self.place("other"), self.place("set")
        if read(other.journal).answers:
            before = written(here.journal)
            await merge(self.url or str(here.work), [str(other.work)], tell=lambda _: None)
            if self.url is None:  # else a mirror that was damaged is mended
                assert written(here.journal) == before | written(other.journal), (
                    "no line is lost, and none comes twice"
                )

    async def moved(self) -> None:
        """The journal moves into a store, or back into a folder."""
        work = self.folder / "set.build"
        if self.url is not None:
            before = written(work / "journal")
            await merge(str(work), [self.url], tell=lambda _: None)
            assert written(work / "journal") == before | written(self.folder / "store/journal")
            self.url = None
        elif read(work / "journal").answers:
            url = (self.folder / "store").as_uri()
            await merge(url, [str(work)], tell=lambda _: None)
            self.url = url

    async def complete(self) -> None:
        """A complete build is what a fresh one is, and no further call is made."""
        report, done = await self._run(), digests(self.folder / "set")
        while self.moody:
            report, before, done = await self._run(retry=RETRY_KINDS), done, digests(self.folder / "set")
            if before == done:
                break
        assert report is not None and report.state in ("complete", "withheld") and not report.unanswered
        name = f"fresh{self.fresh}"
        self.fresh += 1
        fresh = await self._run(name)
        assert fresh is not None and fresh.ledger == report.ledger
        again = await self._run()
        assert again is not None and again.calls_made == 0
        if report.state == "complete":
            assert done == digests(self.folder / "set") == digests(self.folder / name)
            local = replace(self.place("set"), store=None)
            rebuilt = await reproduce(local, card=write_dataset_card, observer=Silent())
            assert rebuilt.same, rebuilt.causes
            checked = verify_release(self.folder / "set", workers=1, as_written=as_written)
            assert checked.ok and not checked.findings, checked.findings
        for path in (self.folder / name, self.folder / f"{name}.build"):
            shutil.rmtree(path, ignore_errors=True)

    async def live(self, ops: list[Op]) -> None:
        """Do it all, one after the other."""
        for what, *args in ops:
            done = getattr(self, what)(*args)
            if done is not None:
                await done
        await self.complete()


MOODS = ("sick", "strict")
CHANGES = ("add", "edit", "drop", "swap", "copy", "same id", "spoil", "turn")
ACCIDENTS = ("no index", "wrong index", "no set", "no mirror", "cut", "damage", "gone")


def op(name: str, *args: Any) -> st.SearchStrategy[Op]:
    """An operation; a tuple stands for one of its items, a number for up to so much."""
    drawn = (st.sampled_from(arg) if isinstance(arg, tuple) else st.integers(0, arg) for arg in args)
    return st.tuples(st.just(name), *drawn)


OPS: st.SearchStrategy[Op] = st.one_of(
    op("stopped", 12, ("stop", "cancel", "kill")),
    op("complete"),
    op("unwell", MOODS, 5),
    op("frugal", 60),
    op("shared", 2, (1, 2, 3)),
    op("retried", 8),
    op("elsewhere", 8, ("", *MOODS), 5, (1, 3, 9)),
    op("brought"),
    op("moved"),
    op("change", CHANGES, 30, 30),
    op("picture", ("paint", "touch", "remove", "spoil", "back", "back"), 3, 4),
    st.one_of([op("set", (name,), len(values) - 1) for name, values in SETTINGS.items()]),
    op("accident", ACCIDENTS, 100_000),
)
CHOSEN = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(values) for name, values in SETTINGS.items()}
)


@contextmanager
def small_scale(large: bool) -> Iterator[None]:
    """Segments, blocks and, if `large`, what counts as a large pool are small; nothing waits for its turn."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline, "KEPT_CHARS", 3_000 if large else 2**20)
        patch.setattr(segments, "BLOCK", 8)
        patch.setattr(segments, "SEGMENT_BYTES", 20_000)
        patch.setattr(run, "RAMP_S", 0.0)
        patch.setattr(remote, "SETTLE_S", 0.0)
        patch.setattr(steps, "DecodePool", Here)
        yield


def lived(pool: list[int], chosen: dict[str, Any], ops: list[Op], *, large: bool) -> None:
    """One history, in a folder of its own."""

    async def main(folder: Path) -> None:
        server = Server()
        async with server:
            await Life(folder, server, pool, chosen).live(ops)

    with tempfile.TemporaryDirectory() as name, small_scale(large), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", f"{name}/cache")
        asyncio.run(main(Path(name)))


POOLS = st.lists(st.integers(0, 7), min_size=3, max_size=14)
PICTURES = [4, 5, 6, 7, 0, 1]
AWAY = [("complete",), ("picture", "remove", 0, 0), ("stopped", 0, "stop"), ("picture", "back", 0, 0)]
SICK = [("unwell", "sick", 2), ("unwell", "sick", 2)]
STORE = [
    ("stopped", 5, "cancel"),
    ("moved",),
    ("elsewhere", 0, "strict", 1, 9),
    ("stopped", 3, "stop"),
    ("accident", "no mirror", 0),
    ("complete",),
    ("moved",),
    ("accident", "damage", 77),
    ("frugal", 20),
]
SHARES = [
    ("shared", 0, 2),
    ("stopped", 4, "kill"),
    ("set", "attempts", 1),
    ("unwell", "strict", 3),
    ("retried", 3),
    ("accident", "cut", 5),
    ("set", "attempts", 0),
    ("shared", 1, 2),
]


@settings(
    max_examples=int(
        os.environ.get("P2R_HISTORIES", "20")
    ),  # more of them, with --hypothesis-seed, find more
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
@example(PICTURES, {}, AWAY, True)
@example([7, 0, 6, 4, 1, 2, 1], {"threshold": 0.0, "target": 1, "judges": "list"}, SICK, True)
@example([*PICTURES, 2, 3], {"paid": True}, STORE, False)
@example([*PICTURES, 2, 3], {"paid": True, "judges": "first"}, SHARES, True)
@given(POOLS, CHOSEN, st.lists(OPS, max_size=12), st.booleans())
def test_any_history_ends_where_a_fresh_build_begins(
    pool: list[int], chosen: dict[str, Any], ops: list[Op], large: bool
) -> None:
    lived(pool, chosen, ops, large=large)
