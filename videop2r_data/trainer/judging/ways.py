"""What a model is asked about one observation: whether it suffices, and which of its claims the frames show.

The requests are those of a build: its journal can serve as the cache of a training run, and the reverse.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import ClassVar

from videop2r_data.backends import (
    Answer,
    Asked,
    Caller,
    FaithfulnessRequests,
    JudgeRequests,
    ask_claims,
    ask_faithfulness,
    ask_verdict,
    frames_array,
)
from videop2r_data.media import encode_frames
from videop2r_data.schemas import (
    BackendSpec,
    Decides,
    Frames,
    Judgement,
    JudgeSpec,
    MediaSpec,
    Request,
    Sufficiency,
)
from videop2r_data.trainer.judging.base import Judged, JudgeItem, Reason, faithful
from videop2r_data.trainer.settings.rl import FaithfulnessSpec, JudgingSpec

DETAIL_CHARS = 2000
_CLIPS = 32
"""Clips whose encoded frames are kept for the other observations of a group."""


class Way(ABC):
    """One decision about an observation.

    Attributes:
        decides: what.
        server: what messages call the server.
        backend: whom it asks.
    """

    decides: ClassVar[Decides]
    server: ClassVar[str]

    def __init__(self, how: JudgingSpec | FaithfulnessSpec, backend: BackendSpec | None) -> None:
        assert backend is not None  # the settings see to it
        self.backend = backend
        self.judge = JudgeSpec(
            backend=backend, prompt=how.prompt, temperature=how.temperature, max_tokens=how.max_tokens
        )

    @abstractmethod
    def request(self, item: JudgeItem) -> Request:
        """The first call about an observation; equal ones under equal settings have one key."""

    @abstractmethod
    async def ask(self, caller: Caller, item: JudgeItem) -> Judged:
        """Decide; calls that the journal has are not made.

        Raises:
            TransientError: no answer after all tries.
            AuthError, BudgetError, BackendError: the run must stop.
        """


class SufficiencyWay(Way):
    """Question, correct answer and observation, neutralised; never the media. The same call as in a build
    with the same judge."""

    decides, server = "sufficiency", "judge"

    def __init__(self, spec: JudgingSpec, _: MediaSpec) -> None:
        super().__init__(spec, spec.backend)
        self._requests = JudgeRequests(self.judge)

    def request(self, item: JudgeItem) -> Request:
        """The call, without frames."""
        example = item.example
        return self._requests.request(
            problem=example.problem,
            options=example.options,
            answer=example.reference,
            observation=item.observation or "",
        )

    async def ask(self, caller: Caller, item: JudgeItem) -> Judged:
        """One call, or two where the first reply holds no verdict."""
        request = self.request(item)
        cached = caller.journal.call(request.key) is not None
        return verdict(await ask_verdict(caller.ask, request), cached=cached)


class FaithfulnessWay(Way):
    """The claims of an observation from its text alone, then their verdicts from the frames."""

    decides, server = "faithfulness", "faithfulness"

    def __init__(self, spec: JudgingSpec, media: MediaSpec) -> None:
        how = spec.faithfulness
        super().__init__(how, how.backend or spec.backend)
        self._media = media
        self._requests = FaithfulnessRequests(self.judge, claims_prompt=how.claims_prompt)
        self._encoded: dict[str, asyncio.Future[Frames]] = {}

    def request(self, item: JudgeItem) -> Request:
        """The call for the claims."""
        return self._requests.claims(item.observation or "")

    async def ask(self, caller: Caller, item: JudgeItem) -> Judged:
        """Two calls about an observation, not one for each claim."""
        if item.frames is None:
            return Judged(None, Reason.NO_MEDIA)
        known, request = caller.journal.call, self.request(item)
        cached = known(request.key) is not None
        listed = await ask_claims(caller.ask, request)
        if listed.value is None:
            return unread(listed.answer, cached=cached, why="the reply is no list of claims")
        if not listed.value:
            return Judged(0.0, Reason.JUDGED, cached, "no claim")
        record, claims = item.frames.record, listed.value
        check = self._requests.check(claims, record, self._media.wire_of(record.passthrough))
        cached = cached and known(check.key) is not None
        seen = await ask_faithfulness(caller.ask, check, claims, lambda: self._pictures(item.frames))
        if seen.value is None:
            return unread(seen.answer, cached=cached, why="the reply holds no verdict")
        found = faithful(seen.value, cached=cached)
        return Judged(found.score, found.reason, cached, found.detail[:DETAIL_CHARS])

    async def _pictures(self, frames: Frames | None) -> Frames:
        """The frames as the backend takes them; those of a clip are encoded once for a group."""
        assert frames is not None
        if self.backend.declared.frames == "array":
            return frames
        key = frames.record.frames_sha256
        if key not in self._encoded:
            if len(self._encoded) >= _CLIPS:
                del self._encoded[next(iter(self._encoded))]
            self._encoded[key] = asyncio.ensure_future(asyncio.to_thread(self._encode, frames))
        return await asyncio.shield(self._encoded[key])

    def _encode(self, frames: Frames) -> Frames:
        pictures = encode_frames(frames_array(frames), self._media)
        return Frames(frames.record, encoded=pictures, mime=self._media.mime)


def verdict(asked: Asked[Judgement], *, cached: bool) -> Judged:
    """The judge's reply as `Judged`: unscored, with a reason, if it holds no verdict."""
    judgement = asked.value
    if judgement is None or judgement.verdict is None:
        why = "" if judgement is None else judgement.explanation
        return unread(asked.answer, cached=cached, why=why)
    words = judgement.explanation[:DETAIL_CHARS]
    return Judged(float(judgement.verdict is Sufficiency.YES), Reason.JUDGED, cached, words)


def unread(answer: Answer | None, *, cached: bool, why: str) -> Judged:
    """Why there is nothing to read in an answer."""
    if answer is None or answer.completion is None:
        return Judged(None, Reason.REFUSED, cached, "" if answer is None else answer.refused[:DETAIL_CHARS])
    if answer.completion.finish_reason == "content_filter":
        return Judged(None, Reason.REFUSED, cached, "the judge's model declined to answer")
    return Judged(None, Reason.NO_VERDICT, cached, why[:DETAIL_CHARS])
