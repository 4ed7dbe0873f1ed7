"""One question to one model: the frames that it sees, what it writes segment by segment, and its answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, Self

from pydantic import ValidationError

from videop2r_data.backends import (
    Caller,
    Journal,
    Money,
    make_backend,
    make_breaker,
    make_caller,
)
from videop2r_data.builders import MediaStep, RequestBuilder, question_prompt, unusable
from videop2r_data.errors import ConfigError, RefusedError, TraceError
from videop2r_data.files import kind_by_ending
from videop2r_data.media import DecodePool, encode_frames
from videop2r_data.schemas import (
    Completion,
    DataType,
    Frames,
    Model,
    Place,
    ProblemType,
    Recipe,
    Request,
    Role,
    Sample,
    TraceGrammar,
    Usage,
    parse_trace,
    trace_parser,
)
from videop2r_data.validators import Reading, read_reply

SOURCE = "ask"
"""Name of the source that questions asked by hand come from."""


class ShownSegment(Model):
    """One segment of what a model wrote."""

    name: str
    """As the grammar calls it."""
    role: Role
    text: str
    """Without its marks."""


class Asked(Model):
    """A question with what a model made of it."""

    file: str
    """Below the folder that was named; empty: asked without media."""
    data_type: DataType
    start_s: float | None
    end_s: float | None
    problem: str
    options: tuple[str, ...]
    problem_type: ProblemType
    model: str
    """As asked for."""
    served: str
    """As the server calls it."""
    prompt: str
    prompt_sha256: str
    text: str
    """The whole completion."""
    finish: str
    segments: tuple[ShownSegment, ...]
    """What there is of a trace, in order."""
    fault: str
    """Why the completion is no trace of the grammar, in words; empty: it is one."""
    answer: str | None
    """As it was read out of the completion."""
    place: Place
    """Where it was found."""
    blind: str | None
    """The answer to the question without the media, empty: none was found; None: that was not asked."""
    failed: str
    """Why nothing can be read, in words; empty: something can."""
    frame_indices: tuple[int, ...]
    frame_times_s: tuple[float, ...]
    """Seconds from the first shown frame of the clip."""
    frame_width: int
    frame_height: int
    source_frames: int
    duration_s: float | None
    usage: Usage
    seconds: float | None
    """From the call to the answer; None: the same question was asked before, its answer is shown again."""


class Seen(NamedTuple):
    """An answer with the pictures that it is about.

    Attributes:
        asked: the answer.
        pictures: the frames as JPEG or PNG, one per `asked.frame_times_s`.
        mime: their media type.
    """

    asked: Asked
    pictures: tuple[bytes, ...] = ()
    mime: str = "image/jpeg"


def make_question(
    path: str,
    problem: str,
    *,
    options: Sequence[str] = (),
    problem_type: ProblemType | None = None,
    start_s: float | None = None,
    end_s: float | None = None,
) -> Sample:
    """A question about a file, as the pools of a build have them; it has no reference answer.

    Args:
        path: below the asker's folder; a GIF and an unknown ending count as a clip. Empty: no media.
        problem: the question.
        options: with some, the question is multiple choice.
        problem_type: None: multiple choice with options, else free-form.
        start_s, end_s: the part of the clip that is shown; None: from its beginning, to its end.

    Raises:
        ConfigError: the parts do not fit together.
    """
    kind = DataType.TEXT
    if path:
        image = kind_by_ending(Path(path)) is DataType.IMAGE and not path.lower().endswith(".gif")
        kind = DataType.IMAGE if image else DataType.VIDEO
    if len(options) == 1:
        raise ConfigError("one choice is none: name at least two, or none", where=path or None)
    usual = ProblemType.MULTIPLE_CHOICE if options else ProblemType.FREE_FORM
    try:
        return Sample(
            sample_id=f"{SOURCE}/1", problem_id="1", source=SOURCE, row=0, solution="", path=path,
            problem=problem.strip(), problem_type=problem_type or usual, data_type=kind,
            options=tuple(options), start_s=start_s, end_s=end_s,
        )  # fmt: skip
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, e['loc'])) or 'it'}: {str(e['msg']).removeprefix('Value error, ')}"
            for e in error.errors()
        )
        raise ConfigError(f"this question cannot be asked: {wrong}", where=path or None) from None


class Asker:
    """Asks one model, question after question; its model and decoder are started with the first.

    Equal questions are asked once: their answers lie in a journal that ends with the asker.

    Args:
        recipe: its first step says who is asked, and how; one attempt is made.
        root: folder that the files of questions lie in.
        base: folder that a prompt file is relative to; None: the current one.
        blind: prompt that asks each question without its media, too; empty: that is not asked.
        tell: is told why a call is tried again.

    Raises:
        ConfigError: the prompt or the backend's settings do not fit.

    Example::

        async with Asker(plan.recipe, Path("clips")) as asker:
            seen = await asker.ask(make_question("a.mp4", "What moves?"))
    """

    def __init__(
        self,
        recipe: Recipe,
        root: Path,
        *,
        base: Path | None = None,
        blind: str = "",
        tell: Callable[[str], None] | None = None,
    ) -> None:
        self.recipe, self.root = recipe, root
        self._requests = RequestBuilder(recipe, base or Path())
        prompt = question_prompt(blind, base or Path(), recipe.trace) if blind else None
        self._blind = (
            RequestBuilder(recipe, base or Path(), prompt=prompt, purpose="blind") if prompt else None
        )
        self._backend = make_backend(recipe.generate.backend)
        self._arrays = recipe.generate.backend.declared.frames == "array"
        self._tell = tell
        self._stack = AsyncExitStack()
        self._took: dict[str, float] = {}

    async def __aenter__(self) -> Self:
        backend, media = self.recipe.generate.backend, self.recipe.media
        folder = self._stack.enter_context(TemporaryDirectory(prefix="p2r-ask-"))
        journal = self._stack.enter_context(Journal(Path(folder)))
        pool = DecodePool(media, want="array" if self._arrays else "encoded", workers=1)
        self._media = MediaStep(
            media, journal=journal, roots={SOURCE: self.root}, sampler=pool, arrays=self._arrays
        )
        self._caller: Caller = make_caller(
            backend, self._backend, "generate", journal=journal, money=Money(journal, None),
            breaker=make_breaker("generate", keep_going=True, grammar=self.recipe.trace),
            tell=self._tell, took=self._took.__setitem__,
        )  # fmt: skip
        for part in (pool, self._media, self._caller):
            self._stack.push_async_callback(part.close)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def ask(self, sample: Sample) -> Seen:
        """The answer to a question, of `make_question`.

        Raises:
            MediaError: the file cannot be shown.
            RefusedError: the server does not take this question.
            BackendError: it gives no answer.
        """
        if sample.data_type is DataType.TEXT:
            return Seen(await self._answer(sample, None))
        frames = await self._media.take(sample)
        try:
            asked = await self._answer(sample, frames)
        finally:
            self._media.store.release(self._media.key(sample))
        if frames.array is None:
            return Seen(asked, frames.encoded, frames.mime)
        shown = self.recipe.media.model_copy(update={"encoding": "jpeg"})
        return Seen(asked, encode_frames(frames.array, shown))

    async def _completion(self, request: Request, frames: Frames | None = None) -> Completion:
        async def load() -> Frames:
            assert frames is not None
            return frames

        answer = await self._caller.ask(request, load if frames else None)
        if answer is None or answer.completion is None:
            raise RefusedError(answer.refused if answer else "no answer")
        return answer.completion

    def _read(self, sample: Sample, done: Completion) -> Reading:
        cut, grammar = done.finish_reason == "length", self.recipe.trace
        kind, options = sample.problem_type, sample.options
        return read_reply(done.text, problem_type=kind, options=options, grammar=grammar, cut=cut)

    async def _answer(self, sample: Sample, frames: Frames | None) -> Asked:
        request = self._requests.generate(sample, frames.record if frames else None, 0)
        self._took.clear()
        done, media = await self._completion(request, frames), request.media
        why, read, blind = unusable(done), self._read(sample, done), None
        if self._blind is not None and frames is not None:
            alone = await self._completion(self._blind.generate(sample, None, 0))
            blind = self._read(sample, alone).answer or ""
        grammar, prompt = self.recipe.trace, self._requests.generate_prompt
        return Asked(
            file=sample.path,
            data_type=sample.data_type,
            start_s=sample.start_s,
            end_s=sample.end_s,
            problem=sample.problem,
            options=sample.options,
            problem_type=sample.problem_type,
            model=request.model,
            served=done.model,
            prompt=prompt.name,
            prompt_sha256=prompt.sha256,
            text=done.text,
            finish=done.finish_reason,
            segments=_segments(done.text, grammar),
            fault=_fault(done.text, grammar),
            answer=read.answer,
            place=read.place,
            blind=blind,
            failed=why[1] if why else "",
            frame_indices=media.indices if media else (),
            frame_times_s=media.times_s if media else (),
            frame_width=media.width if media else 0,
            frame_height=media.height if media else 0,
            source_frames=media.source_frames if media else 0,
            duration_s=media.duration_s if media else None,
            usage=done.usage,
            seconds=self._took.get(request.key),
        )


def _segments(text: str, grammar: TraceGrammar) -> tuple[ShownSegment, ...]:
    return tuple(
        ShownSegment(name=piece.name, role=grammar.named[piece.name].role, text=text[piece.start : piece.end])
        for piece in trace_parser(grammar).spans(text).pieces
    )


def _fault(text: str, grammar: TraceGrammar) -> str:
    try:
        parse_trace(text, grammar)
    except TraceError as error:
        return error.message
    return ""
