"""Verdicts: reason codes, scores, judgements and checks, and how strict the scorers are."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from videop2r_data.schemas.base import Model


class Stage(StrEnum):
    """Step of the build at which a row was rejected or failed."""

    POOL = "pool"
    MEDIA = "media"
    GENERATE = "generate"
    VERIFY = "verify"
    JUDGE = "judge"


class Outcome(StrEnum):
    """Result of a row; rows in = kept + rejected + failed."""

    KEPT = "kept"
    REJECTED = "rejected"
    """A step looked at the row and said no."""
    FAILED = "failed"
    """A step could not look at the row (bad media, a call that never succeeded)."""


class TraceFault(StrEnum):
    """Why a text is no process-aware trace."""

    MISSING_OBSERVATION = "missing_observation"
    MISSING_THINK = "missing_think"
    MISSING_ANSWER = "missing_answer"
    MISSING_SEGMENT = "missing_segment"
    """A segment with another name than these three."""
    REPEATED_TAG = "repeated_tag"
    NESTED_TAG = "nested_tag"
    OUT_OF_ORDER = "out_of_order"
    UNCLOSED_TAG = "unclosed_tag"
    STRAY_CLOSING_TAG = "stray_closing_tag"
    TEXT_OUTSIDE = "text_outside"
    EMPTY_SEGMENT = "empty_segment"
    BAD_FIELD = "bad_field"
    """A segment that must have a form, such as a time span, has another."""


class ScoreReason(StrEnum):
    """Why a score has its value."""

    # 1.0
    MATCH = "match"
    """Equal after the normalisation of the policy, or a metric at its maximum."""
    # between 0 and 1
    PARTIAL = "partial"
    """A graded metric strictly between 0 and 1."""
    # 0.0
    MISMATCH = "mismatch"
    NO_ANSWER = "no_answer"
    """The completion has no answer segment."""
    EMPTY_ANSWER = "empty_answer"
    SEVERAL_ANSWERS = "several_answers"
    """More than one different answer, option or number was offered."""
    NEGATED_ANSWER = "negated_answer"
    """`not A`: an option is named to be excluded."""
    CONFLICTING_TEXT = "conflicting_text"
    """An option letter stands beside the text of another option."""
    NOT_AN_OPTION = "not_an_option"
    NOT_A_NUMBER = "not_a_number"
    NON_FINITE = "non_finite"
    UNIT_MISMATCH = "unit_mismatch"
    BAD_INTERVAL = "bad_interval"
    BAD_BOX = "bad_box"
    TOO_LONG = "too_long"
    """The answer is longer than any answer of its type may be."""
    # None
    BAD_REFERENCE = "bad_reference"
    """The reference itself cannot be read: unscorable, never 0."""


class RejectReason(StrEnum):
    """Why a row is not in the `sft` config."""

    # pool
    BAD_ROW = "bad_row"
    DUPLICATE_ID = "duplicate_id"
    UNSAFE_PATH = "unsafe_path"
    BAD_REFERENCE = "bad_reference"
    OVERLAPS = "overlaps"
    """The recipe's `leave_out` lists the row: an evaluation set has its clip or its question too."""
    # media
    MEDIA_MISSING = "media_missing"
    MEDIA_EMPTY = "media_empty"
    MEDIA_UNREADABLE = "media_unreadable"
    MEDIA_TRUNCATED = "media_truncated"
    MEDIA_NO_VIDEO = "media_no_video"
    MEDIA_ENCRYPTED = "media_encrypted"
    MEDIA_TOO_LARGE = "media_too_large"
    MEDIA_BAD_PACKETS = "media_bad_packets"
    MEDIA_OUTSIDE = "media_outside"
    """The part that the question is about begins when the clip has ended."""
    DECODE_TIMEOUT = "decode_timeout"
    DECODE_CRASH = "decode_crash"
    DECODE_MEMORY = "decode_memory"
    DECODE_KILLED = "decode_killed"
    """The decoder process was killed from outside: a later run tries again."""
    # calls
    CALL_FAILED = "call_failed"
    """No answer after all retries: a later run tries again."""
    CALL_REFUSED = "call_refused"
    """The server refused the request: `--retry refused` asks again."""
    COMPLETION_CUT = "completion_cut"
    """The completion hit its token limit."""
    COMPLETION_EMPTY = "completion_empty"
    """The reply holds no text at all."""
    CONTENT_FILTERED = "content_filtered"
    # verify
    MISSING_OBSERVATION = "missing_observation"
    MISSING_THINK = "missing_think"
    MISSING_ANSWER = "missing_answer"
    MISSING_SEGMENT = "missing_segment"
    """A segment with another name than these three."""
    REPEATED_TAG = "repeated_tag"
    NESTED_TAG = "nested_tag"
    OUT_OF_ORDER = "out_of_order"
    UNCLOSED_TAG = "unclosed_tag"
    STRAY_CLOSING_TAG = "stray_closing_tag"
    TEXT_OUTSIDE = "text_outside"
    EMPTY_SEGMENT = "empty_segment"
    BAD_FIELD = "bad_field"
    TOO_SHORT = "too_short"
    TOO_LONG = "too_long"
    LOW_SCORE = "low_score"
    UNSCORABLE = "unscorable"
    THINK_ANSWER_MISMATCH = "think_answer_mismatch"
    COPIED_VERDICT = "copied_verdict"
    """The trace holds a judgement tag: it tries to speak for the judge."""
    LEAKED_ANSWER = "leaked_answer"
    """The observation states the answer as an answer: a judge that reads it finds that the answer follows."""
    HOLLOW_OBSERVATION = "hollow_observation"
    """The observation says nothing, or the question once more."""
    SENSELESS_VALUE = "senseless_value"
    """A typed value that cannot be: a time outside the clip, a span or a box turned round."""
    MISSED_EVIDENCE = "missed_evidence"
    """No span or box of the trace meets the reference of the question."""
    # judge
    INSUFFICIENT = "insufficient"
    NO_VERDICT = "no_verdict"
    """The judge's reply holds none of the verdicts on offer: unscored."""
    CONTRADICTED = "contradicted"
    """A judge that sees the clip found a claim of the observation false."""
    UNSUPPORTED = "unsupported"
    """Too few claims of the observation are supported by the clip."""
    ANSWERED_BLIND = "answered_blind"
    """The question can be answered from its text alone."""


_CALLS = ("CALL_", "COMPLETION_", "CONTENT_")
_BEGINNINGS: dict[Stage, tuple[str, ...]] = {
    Stage.POOL: ("BAD_ROW", "DUPLICATE_ID", "UNSAFE_PATH", "BAD_REFERENCE", "OVERLAPS"),
    # a link that leads out of the media root; a file that no run has come to
    Stage.MEDIA: ("MEDIA_", "DECODE_", "UNSAFE_PATH", "CALL_FAILED"),
    Stage.GENERATE: _CALLS,
    Stage.JUDGE: ("INSUFFICIENT", "NO_VERDICT", "CONTRADICTED", "UNSUPPORTED", "ANSWERED_BLIND", *_CALLS),
}


def reasons_of(stage: Stage) -> frozenset[RejectReason]:
    """The reasons that a stage may give; what no other stage gives is a reason of the verify step.

    >>> sorted(map(str, reasons_of(Stage.POOL)))
    ['bad_reference', 'bad_row', 'duplicate_id', 'overlaps', 'unsafe_path']
    """
    if stage is Stage.VERIFY:
        return frozenset(RejectReason).difference(*map(reasons_of, _BEGINNINGS))
    return frozenset(r for r in RejectReason if r.name.startswith(_BEGINNINGS[stage]))


ASK_AGAIN = frozenset({RejectReason.CALL_FAILED, RejectReason.DECODE_KILLED})
"""Rows that fell for one of these are tried again by the next run, without being told to."""


# --- scores, judgements and checks: a value with its reason, never a bare bool ---

Unit = Annotated[float, Field(ge=0.0, le=1.0)]


class Score(Model):
    """How right an answer is.

    `value` lies in [0, 1]; None means unscorable: left out of means, never paid, never 0 by accident.
    """

    value: Unit | None
    reason: ScoreReason
    detail: str = ""
    """What was compared, for people; at most a few hundred characters."""


class Sufficiency(StrEnum):
    """What the judge may say of an observation."""

    YES = "Yes"
    NO = "No"


class Judgement(Model):
    """The judge's verdict; None when its reply holds none of those on offer (unscored)."""

    verdict: Sufficiency | None
    explanation: str = ""
    """The judge's words before the verdict."""


class ClaimVerdict(StrEnum):
    """What a model that sees the clip may say of one claim."""

    SUPPORTED = "supported"
    CONTRADICTED = "contradicted"
    UNSEEN = "unseen"
    """The frames do not show whether it is so."""


class Claim(Model):
    """One atomic claim of an observation."""

    text: str
    verdict: ClaimVerdict | None = None
    """None: the reply holds no verdict for this number (unscored)."""
    at: tuple[float, ...] = ()
    """Seconds of the frames that decided."""


class Faithfulness(Model):
    """The claims of one observation with their verdicts."""

    claims: tuple[Claim, ...]

    @property
    def score(self) -> Unit | None:
        """Share of supported claims, among all; None if a claim has no verdict. No claim at all scores 0."""
        if any(claim.verdict is None for claim in self.claims):
            return None
        supported = sum(claim.verdict is ClaimVerdict.SUPPORTED for claim in self.claims)
        return supported / len(self.claims) if self.claims else 0.0

    @property
    def contradicted(self) -> tuple[Claim, ...]:
        """The claims that are false of the clip."""
        return tuple(claim for claim in self.claims if claim.verdict is ClaimVerdict.CONTRADICTED)


class Check(Model):
    """One check of the verify step: passed, or a reason for the rejection."""

    reason: RejectReason | None = None
    """None: passed."""
    detail: str = ""


# --- how strict the scorers are ---


class Policy(Model):
    """Settings of `validators.score`; `PAPER` and `ROBUST` are the named ones.

    Every switch says what it accepts when on. The switches act on the profile `robust`; the profile `paper`
    compares as the paper and its predecessor do and has only the two that say where an answer is found
    (`uppercase_tags`, `unclosed_answer`).
    """

    profile: Literal["paper", "robust"] = "robust"
    """`paper`: what the paper and its predecessor compute, where defined; `robust`: a careful grader."""
    option_text_alone: bool = True
    """Multiple choice: the exact text of one option, without its letter."""
    lowercase_letter: bool = True
    """Multiple choice: `a` and `(a)` count as `A`."""
    answer_phrase: bool = True
    """`The answer is A` inside the answer segment counts as `A`, and so do other answers in a sentence
    (`Based on the video, it is a dog.`); also `Answer: 42`, `x = 42`."""
    ignore_case: bool = True
    """OCR: `STOP` equals `stop`. (Free-form text and option texts are always compared without case.)"""
    percent_as_fraction: bool = False
    """`50 %` equals `0.5`, in both directions."""
    number_words: bool = False
    """`three` equals `3`, `2 million` equals `2000000`."""
    missing_unit: bool = True
    """A bare number answers a reference with a unit.

    The other way round (a unit in the answer, none in the reference) is always accepted; two units must be
    the same unit, nothing is converted."""
    uppercase_tags: bool = False
    """`<ANSWER>` counts as `<answer>` when an answer is taken from a completion."""
    unclosed_answer: bool = False
    """`<answer>A` at the very end of a completion counts as closed."""

    box_scale: float = Field(default=1.0, gt=0.0, le=1e6)
    """Spatial grounding, both profiles: a coordinate of the answer times this is one of the reference.

    1.0: nothing is converted. 0.001: the answer is in thousandths of the picture's sides, the reference in
    shares of them. Pixels against shares need the picture's size, and so a pool that holds one of the two."""


PAPER = Policy(profile="paper")
ROBUST = Policy(profile="robust")
READING = Policy(number_words=True, uppercase_tags=True, unclosed_answer=True)
"""What counts where a completion is evaluated; of the answer that is read, `ROBUST` scores all."""
