"""Which tokens belong to perception and which to reasoning, and which of the two broke the template.

A byte-level BPE token is a string of bytes: tags may be split over tokens or merged with their neighbours,
and a character may be split over tokens. Decoding and encoding again would move the borders. So the bytes of
the ids are joined, the tags are found in that text, and a token belongs to the segment that owns its first
byte:

- perception owns the bytes up to the end of `</observation>`, white space before it included;
- reasoning owns all bytes after it: the white space between the segments, and the end-of-turn token.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Self

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import Piece, SegmentSpans, segment_spans
from videop2r_data.trainer.settings.rl import Style, Unattributable

# The template.
#
# `segment_spans` names the first fault of a whole text; the format rewards need to know which segment it is
# in. Perception is judged by the text up to the end of the observation, reasoning by the rest; both are
# faultless exactly if the whole text is a trace.


Case = Literal["split", "unclosed", "unattributable", "agnostic"]
_OPEN, _CLOSE, _THINK = "<observation>", "</observation>", "<think>"
_STAND_IN = "<observation>-</observation>"
"""A faultless observation: put before a text, the parser finds the faults of its reasoning."""


class Template(NamedTuple):
    """A text held against the template.

    Attributes:
        spans: of the whole text, with its first fault against the template of the style.
        case: how its tokens are attributed: `split` (one observation pair at the start: P up to its end, R
            after it), `unclosed` (an observation that never ends: all P), `agnostic` (all R) or
            `unattributable`.
        boundary: `split`: character offset of the end of `</observation>`; else -1.
        form_p: an observation in its tags, not blank, with nothing but white space before it.
        form_r: one think and one answer in their tags, not blank, in this order, with nothing but white space
            around them, and no further segment tag.
        form: the whole template; with style `process` equal to `form_p and form_r`.
        observation: its content if `form_p`, else None: what a judge may be asked about.
    """

    spans: SegmentSpans
    case: Case
    boundary: int
    form_p: bool
    form_r: bool
    form: bool
    observation: str | None


def read_template(text: str, style: Style = "process") -> Template:
    """Hold a text against the template; any text is allowed, in time linear in its length.

    >>> read_template("<observation>o</observation> <think>t").case
    'split'
    >>> found = read_template("<think>t</think><answer>A</answer>")
    >>> (found.form_p, found.form_r, found.case)
    (False, True, 'unattributable')
    """
    if style == "agnostic":
        spans = _without_observation(text)
        good = spans.fault is None
        return Template(spans, "agnostic", -1, False, good, good, None)
    spans = segment_spans(text)
    found = spans.observation
    if found is not None and not text[: found.open].strip():
        content = text[found.start : found.end]
        form_p = bool(content.strip())
        form_r = spans.fault is None or _is_reasoning(text, found.close)
        observation = content if form_p else None
        return Template(spans, "split", found.close, form_p, form_r, form_p and form_r, observation)
    never_closed = text.lstrip().startswith(_OPEN) and _CLOSE not in text
    start = text.find(_THINK)
    form_r = start >= 0 and _is_reasoning(text, start)
    return Template(spans, "unclosed" if never_closed else "unattributable", -1, False, form_r, False, None)


def _is_reasoning(text: str, start: int) -> bool:
    return segment_spans(_STAND_IN + text[start:]).fault is None


def _without_observation(text: str) -> SegmentSpans:
    """The spans of a text that must hold think and answer only."""
    found, n = segment_spans(_STAND_IN + text), len(_STAND_IN)
    think, answer = (
        None if span is None else Piece(span.name, *(offset - n for offset in span[1:]))
        for span in (found.think, found.answer)
    )
    return SegmentSpans(None, think, answer, found.fault, -1 if found.fault is None else max(found.at - n, 0))


# Tokens.


def _byte_of_char() -> dict[str, int]:
    """The alphabet of byte-level BPE: printable Latin-1 bytes are themselves, the rest follow from U+0100."""
    plain = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = [b for b in range(256) if b not in set(plain)]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(rest)}


_BYTE = _byte_of_char()


@dataclass(frozen=True, slots=True)
class TokenTable:
    """The bytes of every token id.

    Attributes:
        pieces: id -> bytes; b"" for special tokens and for ids that the vocabulary leaves free.
    """

    pieces: tuple[bytes, ...]

    @classmethod
    def from_tokenizer(cls, tokenizer: Any) -> Self:
        """The table of a fast tokenizer, of a processor that holds one, or of a `tokenizers.Tokenizer`.

        Added tokens that are special (`<|im_end|>`) have no bytes; added tokens that are text (Qwen3's
        `<think>`) have those of their text.

        Raises:
            ConfigError: the tokenizer is no byte-level BPE: its ids have no exact bytes.
        """
        inner = getattr(tokenizer, "tokenizer", tokenizer)
        backend = getattr(inner, "backend_tokenizer", inner)
        if not hasattr(backend, "to_str"):
            raise ConfigError(
                f"{type(tokenizer).__name__} has no fast tokenizer inside; byte-level BPE is needed",
                where="model",
                hint="use a Qwen2.5-VL or Qwen3-VL checkpoint with its tokenizer.json",
            )
        return cls.from_json(json.loads(backend.to_str()))

    @classmethod
    def from_json(cls, tokenizer: Mapping[str, Any]) -> Self:
        """The table of the content of a `tokenizer.json`; raises as `from_tokenizer`."""
        model, decoder = tokenizer.get("model") or {}, tokenizer.get("decoder") or {}
        decoders = [step.get("type") for step in decoder.get("decoders", [decoder])]
        if model.get("type") != "BPE" or decoders != ["ByteLevel"]:
            raise ConfigError(
                f"the tokenizer is {model.get('type')} with decoder {decoders}; "
                "allowed: BPE with decoder ['ByteLevel']",
                where="tokenizer.json",
                hint="use a Qwen2.5-VL or Qwen3-VL checkpoint: token masks need the bytes of each token",
            )
        vocab: dict[str, int] = model["vocab"]
        added = tokenizer.get("added_tokens") or []
        size = 1 + max((*vocab.values(), *(token["id"] for token in added)), default=-1)
        pieces = [b""] * size
        for piece, i in vocab.items():
            pieces[i] = _piece_bytes(piece)
        for token in added:
            pieces[token["id"]] = b"" if token["special"] else token["content"].encode()
        return cls(tuple(pieces))

    def of(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each id; ids above the vocabulary (rows that only pad the embedding) have none.

        Raises:
            ValueError: a negative id.
        """
        if any(i < 0 for i in ids):
            raise ValueError(
                f"token ids are never negative, got {min(ids)}: was padding left in the completion?"
            )
        size = len(self.pieces)
        return [self.pieces[i] if i < size else b"" for i in ids]


class SegmentMasks(NamedTuple):
    """Weights of the tokens of one completion (C tokens), and the text they were read from.

    Attributes:
        perception, reasoning: [C] weights in {0, 0.5, 1}; at most 1 together.
        text: the completion as text; bytes that are no UTF-8 are U+FFFD, special tokens are left out.
        template: what was found in it; its offsets are characters of `text`.
        tokens_p, tokens_r: length of each segment in tokens that have bytes; both 0 if the text cannot be
            split.
        tokens: C.
    """

    perception: list[float]
    reasoning: list[float]
    text: str
    template: Template
    tokens_p: int
    tokens_r: int

    @property
    def spans(self) -> SegmentSpans:
        """The segments of `text`."""
        return self.template.spans

    @property
    def tokens(self) -> int:
        """Tokens of the completion, special ones included."""
        return len(self.perception)


def segment_masks(
    ids: Sequence[int],
    table: TokenTable,
    *,
    style: Style = "process",
    unattributable: Unattributable = "half",
) -> SegmentMasks:
    """Attribute each token of a completion to perception or reasoning; linear in its bytes.

    One observation pair at the start splits the completion, whatever follows it. With an observation that is
    opened at the start and never closed all tokens are perception's. Any other completion cannot be split:
    `unattributable` chooses `half` (both advantages at half weight, so that the format penalty still reaches
    the tokens that earned it), `none` (no advantage at all) or `reasoning`. Style `agnostic`: all reasoning.

    Args:
        ids: token ids of the completion, with its end-of-turn token if it has one, without padding.
        table: bytes of the ids.

    Raises:
        ValueError: a negative id.
    """
    pieces = table.of(ids)
    data = b"".join(pieces)
    try:
        text = exact = data.decode()
    except UnicodeDecodeError:
        # The text for people uses U+FFFD, which may stand for three bytes. Offsets need a text that has one
        # character for each undecodable byte: `surrogateescape`.
        text, exact = data.decode(errors="replace"), data.decode(errors="surrogateescape")
    found = read_template(text, style)
    count = len(pieces)
    if found.case == "split":
        seen = found if exact is text else read_template(exact, style)
        border = len(exact[: seen.boundary].encode(errors="surrogateescape"))
        first = _tokens_before(pieces, border)
    else:
        first = count if found.case == "unclosed" else 0
    p = [1.0] * first + [0.0] * (count - first)
    r = [0.0] * first + [1.0] * (count - first)
    tokens_p = sum(1 for piece in pieces[:first] if piece)
    tokens_r = sum(1 for piece in pieces[first:] if piece)
    if found.case == "unattributable":
        tokens_p = tokens_r = 0
        share = {"half": (0.5, 0.5), "none": (0.0, 0.0), "reasoning": (0.0, 1.0)}[unattributable]
        p, r = [share[0]] * count, [share[1]] * count
    return SegmentMasks(p, r, text, found, tokens_p, tokens_r)


def _tokens_before(pieces: Sequence[bytes], border: int) -> int:
    """How many tokens start before byte `border`."""
    at = 0
    for i, piece in enumerate(pieces):
        if at >= border:
            return i
        at += len(piece)
    return len(pieces)


def _piece_bytes(piece: str) -> bytes:
    try:
        return bytes(_BYTE[char] for char in piece)
    except KeyError as error:
        raise ConfigError(
            f"vocabulary entry {piece!r} holds {error.args[0]!r}, which stands for no byte",
            where="tokenizer.json",
            hint="use a checkpoint whose tokenizer is byte-level BPE",
        ) from None
