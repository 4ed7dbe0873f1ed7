"""Trial calls: the rows they are made for, one real call, and whether the longest request fits."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import ceil
from pathlib import Path
from typing import TypeVar

from yarl import URL

from videop2r_data.backends import (
    Useless,
    advice_on,
    cost_usd,
    make_batches,
    useless_reply,
    useless_trace,
    useless_verdict,
)
from videop2r_data.builders.checks.report import Finding, State, TrialCall, of_error
from videop2r_data.errors import AuthError, BackendError, MediaError, RefusedError, TransientError
from videop2r_data.files import resolve_media
from videop2r_data.media import DecodePool, frame_count
from videop2r_data.schemas import (
    Backend,
    BackendSpec,
    Completion,
    DataType,
    Frames,
    MediaRecord,
    MediaSpec,
    ProblemType,
    Recipe,
    Request,
    Sample,
    Shown,
    TraceGrammar,
)
from videop2r_data.validators import parse_faithfulness, parse_judgement, parse_settled, verify_completion

# Rows of a trial call: the first ones of each kind whose media can be decoded, and the longest question.


CANDIDATES = 20
"""Rows of each data type that are tried until one's file can be decoded."""


def question_bytes(sample: Sample) -> int:
    """Length of what a prompt shows of a question, UTF-8 bytes."""
    return len("\n".join((sample.problem, *sample.options)).encode())


class TrialRows:
    """The first rows of each data type, and the length of the longest question of the pool.

    Attributes:
        longest: `question_bytes` of the longest question.
        good: rows seen.
    """

    def __init__(self) -> None:
        self.longest = 0
        self.good = 0
        self._first: dict[DataType, list[tuple[Sample, Path | None]]] = {}

    def see(self, sample: Sample, root: Path | None) -> None:
        """One good row, and the folder that its path is relative to."""
        self.good += 1
        self.longest = max(self.longest, question_bytes(sample))
        kept = self._first.setdefault(sample.data_type, [])
        if len(kept) < CANDIDATES:
            kept.append((sample, root))

    def types(self) -> list[DataType]:
        """The data types that a call is made for: those with media, as text alone is the easier case."""
        shown: list[DataType] = [kind for kind in (DataType.VIDEO, DataType.IMAGE) if kind in self._first]
        return shown or [kind for kind in (DataType.TEXT,) if kind in self._first]

    def any(self) -> Sample | None:
        """The first row that the judge can be asked about."""
        return next((kept[0][0] for kept in self._first.values()), None)

    async def decode(self, kind: DataType, pool: DecodePool) -> tuple[Sample, Frames | None]:
        """The first row of a type whose file can be decoded, with its frames.

        Raises:
            MediaError: none of the first `CANDIDATES` can; the last one's fault.
        """
        failed: MediaError | None = None
        for sample, root in self._first[kind]:
            if kind is DataType.TEXT:
                return sample, None
            if root is None:
                continue  # the pool's own report says that a media root is missing
            try:
                path = resolve_media(root, sample.path)
                return sample, await pool.sample(
                    path,
                    "video" if kind is DataType.VIDEO else "image",
                    pool.spec.focus(sample.focus, sample.problem),
                )
            except MediaError as error:
                failed = error
        raise failed or MediaError("the source has no media_root", reason="media_missing")


# One real call, and what its reply says of a build's calls: truncation, speed, traces that parse.


TRIES = 3
MAX_WAIT_S = 5.0
"""Seconds between two tries; shorter than in a build, as a person waits."""
SHOWN_CHARS = 300
_USELESS: dict[Useless, str] = {
    "empty": "the answer is empty: every row would be lost",
    "reasoning": "the first part of the trace was taken for reasoning: every row would be lost",
    "filtered": "the model declined to answer",
}
Result = TypeVar("Result")


@dataclass
class Trial:
    """What became of one call: its answer, the same for the report, and what is to say about it."""

    completion: Completion | None = None
    call: TrialCall | None = None
    findings: list[Finding] = field(default_factory=list)


async def patiently(ask: Callable[[], Awaitable[Result]]) -> Result:
    """Ask up to `TRIES` times while the server says that it is busy.

    Raises:
        TransientError: it stays busy, or there is no connection at all. What `ask` raises else.
    """
    for tried in range(1, TRIES + 1):
        try:
            return await ask()
        except TransientError as error:
            if tried == TRIES or not (error.rate_limited or error.retry_after_s):
                raise
            await asyncio.sleep(min(error.retry_after_s or float(tried), MAX_WAIT_S))
    raise AssertionError("unreachable")


async def look_at_batches(spec: BackendSpec, *, clips: bool) -> Finding:
    """Whether the server has a batch API, open to this key, that takes frames of clips if `clips`."""
    if clips and spec.kind == "openai" and spec.extra.get("video") != "frames":
        text = "OpenAI's batches know no clips in the form that vLLM takes"
        hint = "set extra: {video: frames} on the backend"
        return Finding(about="batches", state="error", message=text, hint=hint)
    batches = make_batches(spec)
    try:
        await patiently(lambda: batches.listing(created_after_s=time.time()))
    except BackendError as error:
        found = of_error("batches", error, hint="name a server and a key that have the batch API")
        return found.model_copy(update={"message": f"its batches cannot be listed: {found.message}"})
    finally:
        await batches.close()
    return Finding(about="batches", state="ok", message="the server takes batches")


async def one_call(
    backend: Backend,
    spec: BackendSpec,
    request: Request,
    sample: Sample,
    frames: Frames | None,
    *,
    grammar: TraceGrammar,
) -> Trial:
    """Make one call of a build by a started backend, past the journal, and read how it ended."""
    count = frames.record.count if frames else 0
    what = f"{frames.record.data_type}, {count} frame{'s' * (count > 1)}" if frames else "text"
    began = time.monotonic()
    try:
        completion = await patiently(lambda: backend.complete(request, frames))
    except RefusedError as error:
        hint = error.hint or advice_on("refused", error.message)
        message = f"refused ({what}): {error.message}"
        return Trial(findings=[Finding(about="call", state="error", message=message, hint=hint)])
    except (TransientError, AuthError) as error:
        return Trial(findings=[of_error("call", error, hint=unanswered(spec, error))])
    usage = completion.usage
    call = TrialCall(
        data_type=frames.record.data_type if frames else "text",
        sample_id=sample.sample_id,
        frames=count,
        input_tokens=usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens,
        output_tokens=usage.output_tokens,
        seconds=round(time.monotonic() - began, 3),
        usd=cost_usd(usage, spec.price, batched=False),
        finish=completion.finish_reason,
        reply=completion.text[:SHOWN_CHARS],
    )
    useless = useless_reply(completion)
    if request.purpose == "generate":
        useless = useless_trace(completion, grammar.opening)
    return Trial(completion, call, _reply(completion, request, what, useless))


def addresses(spec: BackendSpec) -> str:
    """The first address of a model and how many more, without what may be secret: user, password, query."""
    shown = ""
    with suppress(ValueError):
        shown = str(URL(spec.base_url or "").with_user(None).with_query(None).with_fragment(None))
    more = len(spec.base_urls) - 1
    return f"{shown} and {more} more" if more > 0 else shown


def unanswered(spec: BackendSpec, error: BackendError) -> str:
    """Advice for a call that got no answer."""
    if not getattr(error, "away", False):
        return "the server is there and gave no answer: look at its log, then ask again"
    if spec.base_url:
        return "start the server, or correct base_url; if it is loading its model, wait and ask again"
    return "look at the connection to the service, then ask again"


def _reply(
    completion: Completion, request: Request, what: str, useless: tuple[Useless, str] | None
) -> list[Finding]:
    """Faults that any answer may have."""
    if useless is not None:
        kind, words = useless
        state: State = "warning" if kind == "filtered" else "error"
        message = f"{_USELESS.get(kind, kind)} ({'; '.join(filter(None, (what, words)))})"
        return [Finding(about="call", state=state, message=message, hint=advice_on(kind, words))]
    cut = completion.finish_reason == "length"
    found = [Finding(about="call", state="ok", message=f"answered ({what})")]
    if cut:
        limit = request.params.max_tokens
        text = f"the answer was cut at max_tokens ({limit:,})"
        found.append(
            Finding(about="call", state="warning", message=text, hint="raise max_tokens in the recipe")
        )
    if not completion.usage.input_tokens and not completion.usage.cache_read_tokens:
        text = "the server counts no tokens: estimates see a price of 0, --max-cost the most a call can cost"
        hint = "switch on usage in the server's answers"
        found.append(Finding(about="call", state="warning", message=text, hint=hint))
    return found


def read_trace(
    completion: Completion, sample: Sample, recipe: Recipe, *, shown: Shown, whole: bool
) -> tuple[list[Finding], str]:
    """What step 2 says of a generator's answer, and its observation (empty if there is none).

    Its score means something only if the call had every frame (`whole`).
    """
    if useless_trace(completion, recipe.trace.opening) is not None:
        return [], ""
    verified = verify_completion(completion.text, sample, recipe.verify, recipe.trace, shown)
    if verified.trace is None:
        return [
            Finding(
                about="trace",
                state="warning",
                message=f"the answer is no process-aware trace: {verified.check.reason}",
                hint="look at the reply: a larger model, another prompt file or guided decoding "
                "(extra.body) may be needed; p2r-data estimate --pilot measures how often",
            )
        ], ""
    if whole and verified.check.reason is not None:
        text = f"step 2 would drop this one row: {verified.check.reason}"
        return [Finding(about="trace", state="note", message=text)], verified.trace.observation
    return [Finding(about="trace", state="ok", message="a process-aware trace")], verified.trace.observation


def read_verdict(
    completion: Completion, claims: Sequence[str] = (), *, concludes: bool = False
) -> list[Finding]:
    """What step 3 says of a judge's answer.

    Args:
        completion: the answer.
        claims: those that a judge that sees was asked about.
        concludes: the judge was asked what reasoning about a number settles on.
    """
    useless = useless_reply(completion) if claims or concludes else useless_verdict(completion)
    if useless is not None and useless[0] != "no_verdict":
        return []  # reported as a fault of the call
    text, finish = completion.text, completion.finish_reason
    verdict: str | None
    lacking, hint = "the answer holds no verdict", advice_on("no_verdict", "")
    if claims:
        found = parse_faithfulness(text, claims, finish_reason=finish)
        verdict = found.claims[0].verdict if found.score is not None else None
        lacking = "a claim has no verdict"
        hint = "use a model that follows the prompt faithfulness-v1, or raise max_tokens"
    elif concludes:
        kind = ProblemType.NUMERICAL
        verdict = parse_settled(text, problem_type=kind, options=(), finish_reason=finish).option
    else:
        verdict = parse_judgement(text, finish_reason=finish).verdict
    if verdict is not None:
        return [Finding(about="verdict", state="ok", message=f"a verdict: {verdict}")]
    return [Finding(about="verdict", state="warning", message=lacking, hint=hint)]


# Context: tokens are measured on one call and extended to the longest request of the pool.


_TOO_LONG = (
    "start the server with a larger --max-model-len, or lower media.frames, media.max_pixels, max_tokens"
)
BYTES_PER_TOKEN = 3.0
"""Of a question's text: fewer than the four of plain English, so that numbers and other scripts fit too."""


def frame_tokens(pixels: int, spec: BackendSpec, media: MediaSpec) -> int:
    """Tokens of one picture of so many pixels."""
    return ceil(pixels / (spec.declared.pixels_per_token or media.factor**2))


def groups(frames: int, data_type: str, spec: BackendSpec) -> int:
    """Pictures' worth of tokens: Qwen-VL merges two frames of a clip, where it is sent as a clip."""
    paired = spec.declared.pairs_frames and spec.extra.get("video", "vllm") == "vllm"
    return ceil(frames / 2) if paired and data_type == "video" else frames


def needed_tokens(
    recipe: Recipe,
    spec: BackendSpec,
    *,
    input_tokens: int,
    sample: Sample,
    media: MediaRecord | None,
    longest: int,
) -> tuple[int, int]:
    """Prompt tokens of a build's requests, told from one whose tokens its server counted.

    Args:
        input_tokens: of the request that was made about `sample` with `media`.
        longest: `question_bytes` of the longest question of the pool.

    Returns:
        The same request with every frame that the recipe asks for; the longest question, with frames of the
        largest size.
    """
    usual = longest_media = input_tokens
    if media is not None:
        most, count, likely = recipe.media.max_pixels, recipe.media.frames, recipe.media.frames
        if media.data_type == "image":
            most, count, likely = recipe.media.image_max_pixels or most, 1, 1
        elif recipe.media.fps is not None:
            seen = media.seen
            likely = min(frame_count(recipe.media, seen.source_frames, seen.duration_s), seen.source_frames)
        one = frame_tokens(media.width * media.height, spec, recipe.media)
        rest = input_tokens - groups(media.count, media.data_type, spec) * one
        usual = rest + groups(max(likely, media.count), media.data_type, spec) * one
        pictures = groups(max(count, media.count), media.data_type, spec)
        longest_media = rest + pictures * max(one, frame_tokens(most, spec, recipe.media))
    more = max(0, longest - question_bytes(sample))
    return usual, longest_media + ceil(more / BYTES_PER_TOKEN)


def look_at_room(
    recipe: Recipe,
    spec: BackendSpec,
    request: Request,
    sample: Sample,
    *,
    counted: int,
    longest: int,
    context: int,
    prompt_alone: bool = False,
) -> tuple[int, Finding]:
    """Compare the tokens of the longest request with the model's context.

    Args:
        counted: prompt tokens of the request that was made about `sample`, as the server counted them.
        longest: `question_bytes` of the longest question of the pool.
        context: tokens of prompt and answer together.
        prompt_alone: the context is for the prompt; the answer has room of its own.

    Returns:
        Tokens that the longest request needs, and the finding.
    """
    usual, most = needed_tokens(
        recipe, spec, input_tokens=counted, sample=sample, media=request.media, longest=longest
    )
    answer = 0 if prompt_alone else request.params.max_tokens
    told = f"the longest request takes about {most + answer:,} of {context:,} tokens"
    if answer:
        told += f", {answer:,} of them for the answer"
    state: State = "warning" if most + answer > context else "ok"
    if usual + answer > context:
        state, told = "error", f"a request takes about {usual + answer:,} tokens, the model has {context:,}"
    hint = "" if state == "ok" else _TOO_LONG
    return most + answer, Finding(about="context", state=state, message=told, hint=hint)
