"""Which tokens belong to which stream of a trace, byte by byte.

A byte-level BPE token is a string of bytes: marks may be split over tokens or merged with their neighbours,
and a character may be split over tokens. Decoding and encoding again would move the borders. So the bytes of
the ids are joined, the segments are found in that text (`template.py`), and a token belongs to the stream
that owns its first byte.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, NamedTuple, Self

from videop2r_data.errors import ConfigError
from videop2r_data.schemas import TraceGrammar, default_grammar
from videop2r_data.trainer.process.template import Template, read_template
from videop2r_data.trainer.settings.rl import Style, Unattributable

_PLAIN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_REST = [b for b in range(256) if b not in _PLAIN]
_BYTE = {chr(b): b for b in _PLAIN} | {chr(256 + i): b for i, b in enumerate(_REST)}
"""The alphabet of byte-level BPE: printable Latin-1 bytes are themselves, the rest follow from U+0100."""


@dataclass(frozen=True, slots=True)
class TokenTable:
    """`pieces`: id -> its bytes; b"" for special tokens and for ids that the vocabulary leaves free."""

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
            try:
                pieces[i] = bytes(_BYTE[char] for char in piece)
            except KeyError as error:
                raise ConfigError(
                    f"vocabulary entry {piece!r} holds {error.args[0]!r}, which stands for no byte",
                    where="tokenizer.json",
                    hint="use a checkpoint whose tokenizer is byte-level BPE",
                ) from None
        for token in added:
            pieces[token["id"]] = b"" if token["special"] else token["content"].encode()
        return cls(tuple(pieces))

    def of(self, ids: Sequence[int]) -> list[bytes]:
        """The bytes of each id; ids above the vocabulary (rows that only pad the embedding) have none.

        Raises:
            ValueError: a negative id.
        """
        if min(ids, default=0) < 0:
            wrong = f"token ids are never negative, got {min(ids)}"
            raise ValueError(f"{wrong}: was padding left in the completion?")
        size = len(self.pieces)
        return [self.pieces[i] if i < size else b"" for i in ids]


class SegmentMasks(NamedTuple):
    """Weights of the tokens of one completion (C tokens), and the text they were read from.

    Attributes:
        weights: stream -> [C] weights in [0, 1]; at most 1 together. Every stream of the grammar has some.
        text: the completion as text; bytes that are no UTF-8 are U+FFFD, special tokens are left out.
        template: what was found in it; its offsets are characters of `text`.
        lengths: stream -> tokens that it owns alone and that have bytes.
        tokens: C.
    """

    weights: dict[str, list[float]]
    text: str
    template: Template
    lengths: dict[str, int]
    tokens: int


def segment_masks(
    ids: Sequence[int],
    table: TokenTable,
    *,
    grammar: TraceGrammar | None = None,
    style: Style = "process",
    unattributable: Unattributable = "half",
) -> SegmentMasks:
    """Attribute each token of a completion to the streams of a grammar; linear in its bytes.

    What several streams share cannot be attributed: `unattributable` chooses `half` (equal shares, so that
    the format penalty still reaches the tokens that earned it), `none` (no advantage at all) or `reasoning`
    (all to the stream of the answer). Style `agnostic`: all reasoning.

    Args:
        ids: token ids of the completion, with its end-of-turn token if it has one, without padding.
        grammar: what a trace is; None: the default.

    Raises:
        ValueError: a negative id.
    """
    grammar = grammar or default_grammar()
    pieces = table.of(ids)
    data = b"".join(pieces)
    try:
        text = exact = data.decode()
    except UnicodeDecodeError:
        # The text for people uses U+FFFD, which may stand for three bytes. Offsets need a text that has one
        # character for each undecodable byte: `surrogateescape`.
        text, exact = data.decode(errors="replace"), data.decode(errors="surrogateescape")
    found = read_template(text, style, grammar)
    seen = found if exact is text else read_template(exact, style, grammar)
    weights = {name: [0.0] * len(pieces) for name in grammar.streams}
    lengths = dict.fromkeys(grammar.streams, 0)
    shared = _shares(found.rest, unattributable, grammar)
    for i, (piece, owner) in enumerate(zip(pieces, _owners(pieces, exact, seen.borders), strict=True)):
        for name, share in (shared if owner is None else {owner: 1.0}).items():
            weights[name][i] = share
        alone = owner or (found.rest[0] if len(found.rest) == 1 else None)
        if alone and piece:
            lengths[alone] += 1
    return SegmentMasks(weights, text, found, lengths, len(pieces))


def _shares(rest: Sequence[str], unattributable: Unattributable, grammar: TraceGrammar) -> dict[str, float]:
    """Stream -> its weight on tokens that these streams share."""
    if len(rest) == 1 or unattributable == "half":
        return dict.fromkeys(rest, 1.0 / len(rest))
    return {grammar.named[grammar.answers[0]].reward: 1.0} if unattributable == "reasoning" else {}


def _owners(pieces: Sequence[bytes], text: str, borders: Sequence[tuple[int, str]]) -> Iterator[str | None]:
    """The stream that owns the first byte of each token; None behind the last border."""
    cuts = pairwise([0, *(border for border, _ in borders)])
    ends = list(accumulate(len(text[a:b].encode(errors="surrogateescape")) for a, b in cuts))
    at = 0
    for piece in pieces:
        n = bisect_right(ends, at)
        yield borders[n][1] if n < len(ends) else None
        at += len(piece)
