"""Stopping a run whose answers cannot be used, with advice on what to change."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
from typing import Literal

from videop2r_data.errors import AwayError, BackendError
from videop2r_data.schemas import Completion

# What to change when a server refuses a request: its own words, read for the few causes that are common.
#
# The words differ from server to server and change between versions. So a cause is guessed from them and told
# as advice beside the quotation, never acted on.


TRUST_FLAG = "--trust-request-mm-kwargs"
"""Of `vllm serve`: it must take the times of frames from a request."""
UNKNOWN = "change what the server names in its own words, then ask again"
_CAUSES = (
    (re.escape(TRUST_FLAG), f"start the server with {TRUST_FLAG}, or set extra.video to frames"),
    (
        r"context length|context window|max_model_len|prompt is too long|too many tokens"
        r"|maximum (?:context|model|input|prompt)|longer than the (?:maximum|model)"
        r"|exceeds? the (?:maximum|limit|model)",
        "prompt and answer do not fit the model's context: start the server with a larger "
        "--max-model-len, or lower media.frames, media.max_pixels or max_tokens in the recipe",
    ),
    (
        r"at most \d+ (?:image|video|audio)|limit.mm.per.prompt|too many images",
        "the server limits pictures or clips per request: start vLLM with "
        """--limit-mm-per-prompt '{"image": 16, "video": 1}', or lower media.frames""",
    ),
    (
        r"max_completion_tokens",
        "set extra.max_tokens_field to max_completion_tokens in this backend of the recipe",
    ),
    (
        r"chat template|system role|roles must alternate",
        "the model's chat template does not take these messages: give the server --chat-template, or use "
        "a prompt file without a system section",
    ),
    (
        r"\b413\b|too large",
        "the request is too large for the server or a proxy before it: lower media.frames, "
        "media.max_pixels or media.quality",
    ),
    (
        r"image|video|multi.?modal|vision|mm_processor|media_io|content.{0,20}(?:list|array|string)",
        "the model takes no such media: serve a vision-language model, or set extra.video to frames if "
        "the server knows pictures but no clips",
    ),
    (r"temperature|top_p", "set temperature (and top_p) in the recipe to what this model takes"),
    (
        r"unknown|unrecogni[sz]ed|unsupported|unexpected|not permitted|not allowed|forbidden",
        "take the field that the server names out of extra.body, or set extra.video to frames",
    ),
)
_READ = tuple((re.compile(pattern, re.IGNORECASE), advice) for pattern, advice in _CAUSES)


def what_to_change(said: str) -> str:
    """Advice for a refusal.

    Args:
        said: the server's words, with the status if there is one.

    >>> what_to_change("status 400: At most 0 video(s) may be provided in one prompt.").split(":")[0]
    'the server limits pictures or clips per request'
    """
    return next((advice for pattern, advice in _READ if pattern.search(said)), UNKNOWN)


def equal_words(words: str) -> str:
    """A message without what differs from request to request: ids and numbers.

    >>> equal_words("too long: 5213 > 4096 (req-7f3a9c1e)"), equal_words("too long: 88 > 4096 (req-00ab12cd)")
    ('too long: # > # (req-#)', 'too long: # > # (req-#)')
    """
    return re.sub(r"\d+", "#", re.sub(r"\b[0-9a-fA-F]{8}[0-9a-fA-F-]*", "#", words))


# Stopping a run whose server gives no usable answer, before every row is rejected for it.
#
# A server that is set up wrongly refuses every request, or returns replies without text, and each of them
# looks like the fault of its row. `IN_A_ROW` such failures are the fault of the server: the run stops, with
# the server's own words and what to change. Until the first good answer all kinds of failure count
# together; after it only equal ones, since a pool may hold many rows of one kind behind each other.


IN_A_ROW = 32
"""Calls in a row without an answer that can be used, after which the run stops."""
Useless = Literal["refused", "empty", "filtered", "reasoning", "no_verdict", "failed"]
_WHAT: dict[Useless, str] = {
    "refused": "were refused",
    "empty": "came back empty",
    "filtered": "were declined by the model or its content filter",
    "reasoning": "came back without the first part of the trace",
    "no_verdict": "came back without a verdict",
    "failed": "got no answer",
}
_PARSER = (
    "the server's reasoning parser takes the text away: serve the model without --reasoning-parser, or "
    "switch thinking off (extra.body: {chat_template_kwargs: {enable_thinking: false}})"
)
_ADVICE: dict[Useless, str] = {
    "filtered": "use another model, or look at the pool: p2r-data show",
    "reasoning": _PARSER,
    "no_verdict": "use a judge that follows the prompt, or a prompt that asks for <judgement>Yes</judgement>",
    "failed": "look at the server and at `base_url`",
}


def useless_reply(completion: Completion) -> tuple[Useless, str] | None:
    """Why a reply cannot be used, by whichever step: the kind and details; None: it can.

    >>> useless_reply(Completion(text=" ", finish_reason="stop", model="m", reasoning_chars=80))
    ('empty', '80 characters came as reasoning')
    """
    if completion.finish_reason == "content_filter":
        return "filtered", "finish reason: content_filter"
    if completion.text.strip():
        return None
    chars = completion.reasoning_chars
    apart = f"{chars:,} characters came as reasoning" if chars else ""
    cut = "cut at max_tokens" if completion.finish_reason == "length" else ""
    return "empty", ", ".join(filter(None, (apart, cut)))


def useless_trace(completion: Completion, opening: str = "<observation") -> tuple[Useless, str] | None:
    """As `useless_reply`, for step 1: also a reply whose first segment was taken out as reasoning."""
    if lacks_its_start(completion, opening):
        return "reasoning", f"{completion.reasoning_chars:,} characters came as reasoning"
    return useless_reply(completion)


def lacks_its_start(completion: Completion, opening: str = "<observation") -> bool:
    """Whether a server's reasoning parser took the first segment out of a reply of step 1.

    Args:
        completion: the reply.
        opening: what every trace holds, in lower case (`TraceGrammar.opening`).
    """
    text = completion.text
    return bool(completion.reasoning_chars and text.strip()) and opening not in text.lower()


def advice_on(kind: Useless, words: str) -> str:
    """What to change when calls fail in this way.

    Args:
        kind: how they fail.
        words: what the server said, or what `useless_reply` found.
    """
    if kind == "refused":
        return what_to_change(words)
    if kind == "empty":
        if "cut" in words:
            return f"raise max_tokens: the model thinks until it is cut. Or {_PARSER}"
        return _PARSER if words else "look at one reply of the server by hand (curl), and at its log"
    return _ADVICE[kind]


@dataclass(eq=False)
class Breaker:
    """Counts the failures of one server in a row.

    Attributes:
        name: what the server is called in messages.
        read: says why a reply is of no use.
        keep_going: never stop for refusals and useless replies.
        flags: the command has `--retry` and `--keep-going`.
        in_a_row: failures since the last good answer; once there was one, equal failures only.
    """

    name: str = "the server"
    _: KW_ONLY
    read: Callable[[Completion], tuple[Useless, str] | None] = useless_reply
    keep_going: bool = False
    flags: bool = False
    in_a_row: int = field(default=0, init=False)
    _answered: bool = field(default=False, init=False)
    _last: tuple[Useless, str] | None = field(default=None, init=False)
    _words: str = field(default="", init=False)

    def answered(self, completion: Completion) -> None:
        """A reply came back."""
        useless = self.read(completion)
        if useless is not None:
            self.failed(*useless)
            return
        self._answered, self.in_a_row, self._last = True, 0, None

    def failed(self, kind: Useless, words: str) -> None:
        """A call failed: `kind` says how, `words` is what the server said."""
        # only refusals are compared by their words: those of replies and lost connections differ by chance
        equal = (kind, equal_words(words) if kind == "refused" else "")
        if self._answered and equal != self._last:
            self.in_a_row = 0
        self.in_a_row += 1
        self._last, self._words = equal, words

    def check(self) -> None:
        """Stop the run after `IN_A_ROW` failures.

        Raises:
            AwayError: no call got an answer. BackendError: every call was refused, or no reply can be used.
        """
        if self._last is None or self.in_a_row < IN_A_ROW:
            return
        kind = self._last[0]
        if kind == "failed":
            raise AwayError(
                f"{self.name}: {self.in_a_row} calls in a row got no answer; the last error: {self._words}",
                hint="look at the server and at `base_url`, then run the same command: nothing is lost",
            )
        if self.keep_going:
            return
        said = f"; the last: {self._words}" if self._words else ""
        raise BackendError(
            f"{self.name}: {self.in_a_row} calls in a row {_WHAT[kind]}{said}",
            hint="\n".join((advice_on(kind, self._words), self._go_on(kind))),
        )

    def _go_on(self, kind: Useless) -> str:
        if not self.flags:
            return "then run the same command: these calls are made again"
        name = "empty" if kind == "reasoning" else kind
        return (
            f"then run the same command with --retry {name}: these calls are made again\n"
            "if the rows are at fault and not the server, go on with --keep-going"
        )
