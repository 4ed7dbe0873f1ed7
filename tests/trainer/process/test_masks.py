"""Token masks: every case of the rule by hand, and the rule itself as a property over arbitrary ids."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tiny_model import build_tokenizer
from videop2r_data.errors import ConfigError
from videop2r_data.schemas import TraceFault, segment_spans
from videop2r_data.trainer.process.masks import SegmentMasks, TokenTable, segment_masks
from videop2r_data.trainer.process.template import read_template

EOS = 256
WORDS = [
    "<observation>",
    "</observation>",
    "> <",
    "><think>",
    "<think>",
    "</think><",
    "answer>",
    "</answer>",
    "éa",
]


def hand_table() -> TokenTable:
    """Ids 0-255 are the bytes themselves, 256 the end of turn, then tokens that cross every border."""
    return TokenTable((*(bytes([b]) for b in range(256)), b"", *(w.encode() for w in WORDS)))


TABLE = hand_table()
WORD = {w: 257 + i for i, w in enumerate(WORDS)}


def ids_of(*parts: str | int | bytes) -> list[int]:
    out: list[int] = []
    for part in parts:
        if isinstance(part, int):
            out.append(part)
        elif isinstance(part, str) and part in WORD:
            out.append(WORD[part])
        else:
            out += part.encode() if isinstance(part, str) else part
    return out


def split_at(masks: SegmentMasks) -> int:
    """Number of P tokens of a clean split; all before are P, all after R."""
    k = int(sum(masks.weights["perception"]))
    assert masks.weights["perception"] == [1.0] * k + [0.0] * (masks.tokens - k)
    assert masks.weights["reasoning"] == [0.0] * k + [1.0] * (masks.tokens - k)
    return k


def test_a_clean_trace_with_the_end_of_turn_in_r() -> None:
    # tokens: <observation> | a | </observation> || space | <think> | b | </think>< | answer> | A | </answer> | EOS
    ids = ids_of(
        "<observation>",
        "a",
        "</observation>",
        " ",
        "<think>",
        "b",
        "</think><",
        "answer>",
        "A",
        "</answer>",
        EOS,
    )
    masks = segment_masks(ids, TABLE)
    assert split_at(masks) == 3
    assert (masks.lengths["perception"], masks.lengths["reasoning"], masks.tokens) == (3, 7, 11)
    assert masks.text == "<observation>a</observation> <think>b</think><answer>A</answer>"
    assert masks.template.forms["perception"] and masks.template.forms["reasoning"] and masks.template.form


def test_a_token_across_the_border_belongs_to_its_first_byte() -> None:
    # "> <" closes the observation tag, holds the white space and opens the next tag: its first byte is P's
    masks = segment_masks(ids_of("<observation>", "a</observation", "> <", "think>b</think>"), TABLE)
    assert split_at(masks) == 1 + len("a</observation") + 1
    # "><think>" likewise
    masks = segment_masks(ids_of("<observation>", "a</observation", "><think>", "b"), TABLE)
    assert split_at(masks) == 1 + len("a</observation") + 1


def test_white_space_before_is_p_and_between_is_r() -> None:
    masks = segment_masks(ids_of("\n ", "<observation>", "a", "</observation>", "\n\n", "<think>"), TABLE)
    assert split_at(masks) == 5


def test_a_character_split_over_tokens() -> None:
    # é is two bytes and two tokens; offsets in characters would be one short
    masks = segment_masks(ids_of("<observation>", "é", "</observation>", "x"), TABLE)
    assert split_at(masks) == 4
    assert masks.text == "<observation>é</observation>x"


def test_bytes_that_are_no_utf8_keep_the_border_exact() -> None:
    # e2 82 is a truncated character: one U+FFFD for two bytes; ff is one more
    masks = segment_masks(ids_of("<observation>", b"\xe2\x82", b"\xff", "</observation>", "x"), TABLE)
    assert masks.text == "<observation>\ufffd\ufffd</observation>x"
    assert split_at(masks) == 5
    assert masks.lengths["perception"] == 5


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"abc", "abc"),
        ("ééé\u3000日本".encode(), "ééé\u3000日本"),  # 2 to 3 bytes per character
        ("\U0001f600".encode(), "\U0001f600"),  # 4 bytes
        (b"\xf0\x9f\x98", "\ufffd"),  # 3 bytes lost, one character shown
        (b"\xff\xfe\xe2\x82 \xc3\xa9", "\ufffd\ufffd\ufffd é"),
        (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),  # a surrogate in UTF-8 is no UTF-8
    ],
)
def test_the_border_is_exact_to_the_byte(content: bytes, text: str) -> None:
    # every byte is a token of its own: the border can be off by none
    ids = list(b"<observation>" + content + b"</observation> <think>")
    masks = segment_masks(ids, TABLE)
    assert masks.text == f"<observation>{text}</observation> <think>"
    assert split_at(masks) == len("<observation>") + len(content) + len("</observation>")


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u3000"])
def test_a_blank_observation_is_p_but_not_in_form(blank: str) -> None:
    text = f"<observation>{blank}</observation> <think>t</think><answer>A</answer>"
    masks = segment_masks(list(text.encode()), TABLE)
    assert split_at(masks) == len(f"<observation>{blank}</observation>".encode())
    found = masks.template
    assert (found.forms["perception"], found.forms["reasoning"], found.form, found.observation) == (
        False,
        True,
        False,
        None,
    )


@pytest.mark.parametrize(
    ("text", "form_p", "form_r"),
    [
        ("<observation>o</observation><think> </think><answer>A</answer>", True, False),
        ("<observation>o</observation><think>t</think><answer></answer>", True, False),
        ("<observation>o</observation><think>t</think><answer>A</answer> bye", True, False),
        ("<observation>o</observation> so <think>t</think><answer>A</answer>", True, False),
        ("<observation>o</observation><think>t</think><answer>A</answer><answer>B</answer>", True, False),
        ("hm <observation>o</observation><think>t</think><answer>A</answer>", False, True),
        ("<observation>o<think>t</think><answer>A</answer>", False, True),
        ("<think>t</think><answer>A</answer><observation>o</observation>", False, False),
        ("\n<observation>o</observation>\n\n<think>t</think>\n<answer>A</answer>\n", True, True),
    ],
)
def test_each_process_answers_for_its_own_form(text: str, form_p: bool, form_r: bool) -> None:
    found = read_template(text)
    assert (found.forms["perception"], found.forms["reasoning"]) == (form_p, form_r)


def test_special_tokens_have_no_bytes_and_stay_where_they_stand() -> None:
    ids = ids_of("<observation>", EOS, "a", "</observation>", EOS, "<think>", EOS)
    masks = segment_masks(ids, TABLE)
    assert split_at(masks) == 4  # the one inside is P's, the one right after the border is R's
    assert (masks.lengths["perception"], masks.lengths["reasoning"]) == (3, 1)


@pytest.mark.parametrize(
    "tail",
    [
        "",
        "garbage",
        "<think>",
        "<observation>x</observation>",
        "</think>",
        "<answer>A</answer><think>t</think>",
    ],
)
def test_one_good_observation_at_the_start_splits_whatever_follows(tail: str) -> None:
    masks = segment_masks(ids_of("<observation>", "a", "</observation>", tail.encode(), EOS), TABLE)
    assert split_at(masks) == 3
    assert (
        masks.template.forms["perception"]
        and not masks.template.forms["reasoning"]
        and not masks.template.form
    )


def test_opened_and_never_closed_is_all_p() -> None:
    masks = segment_masks(ids_of(" ", "<observation>", "abc", EOS), TABLE)
    assert masks.weights["perception"] == [1.0] * 6 and masks.weights["reasoning"] == [0.0] * 6
    assert masks.template.rest == ("perception",)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "just words",
        "<think>t</think><answer>A</answer>",
        "so <observation>a</observation> <think>t</think><answer>A</answer>",
        "<observation>a<think>b</observation></think>",
    ],
)
def test_the_rest_is_unattributable(text: str) -> None:
    ids = [*ids_of(text), EOS]
    half = segment_masks(ids, TABLE)
    assert half.template.rest == ("perception", "reasoning")
    assert half.weights["perception"] == half.weights["reasoning"] == [0.5] * len(ids)
    assert (half.lengths["perception"], half.lengths["reasoning"]) == (0, 0)
    none = segment_masks(ids, TABLE, unattributable="none")
    assert none.weights["perception"] == none.weights["reasoning"] == [0.0] * len(ids)
    all_r = segment_masks(ids, TABLE, unattributable="reasoning")
    assert (all_r.weights["perception"], all_r.weights["reasoning"]) == ([0.0] * len(ids), [1.0] * len(ids))


def test_agnostic_style_is_all_r() -> None:
    masks = segment_masks(ids_of("<think>", "t</think><answer>A</answer>", EOS), TABLE, style="agnostic")
    assert split_at(masks) == 0
    assert (
        masks.template.forms["reasoning"] and masks.template.form and not masks.template.forms["perception"]
    )
    assert masks.lengths["reasoning"] == masks.tokens - 1
    bad = segment_masks(
        ids_of("<observation>", "o</observation> <think>t</think><answer>A</answer>"), TABLE, style="agnostic"
    )
    assert not bad.template.form


def test_agnostic_faults_are_those_of_its_own_template() -> None:
    text = "<think>t</think><answer>A</answer>"
    spans = read_template(text, "agnostic").spans
    assert (spans.first("observation"), spans.fault, spans.at) == (None, None, -1)
    think, answer = spans.pieces
    assert text[think.start : think.end] == "t"
    assert text[answer.open : answer.close] == "<answer>A</answer>"
    bad = read_template("<think>t</think> so <answer>A</answer>", "agnostic").spans
    assert (bad.fault, bad.at) == (TraceFault.TEXT_OUTSIDE, 17)
    assert read_template("", "agnostic").spans.fault is TraceFault.MISSING_THINK


def test_ids_outside_the_table() -> None:
    assert segment_masks([len(TABLE.pieces) + 7], TABLE).text == ""
    with pytest.raises(ValueError, match="never negative, got -100"):
        segment_masks([3, -100], TABLE)


def test_no_tokens_at_all() -> None:
    masks = segment_masks([], TABLE)
    assert (masks.weights["perception"], masks.weights["reasoning"], masks.text) == ([], [], "")


PIECES = st.one_of(
    st.sampled_from([WORD[w] for w in WORDS]),
    st.sampled_from([*b"<>/ \n", EOS, 0xE2, 0x82, 0xFF]),
    st.integers(0, len(TABLE.pieces) - 1),
)
WHOLE = [
    "<observation>",
    "x",
    "</observation>",
    " ",
    "<think>",
    "x",
    "</think>",
    "<answer>",
    "x",
    "</answer>",
]
BITS = st.sampled_from(["", " ", "x", "é", "\u3000", "</think>", "<answer>"])


@st.composite
def nearly_traces(draw: st.DrawFn) -> list[str]:
    """A good trace with a part or two replaced."""
    parts = list(WHOLE)
    for _ in range(draw(st.integers(0, 2))):
        parts[draw(st.integers(0, len(parts) - 1))] = draw(BITS)
    return parts


TRACES = nearly_traces() | st.lists(
    st.sampled_from(
        [
            "<observation>",
            "</observation>",
            "<think>",
            "</think>",
            "<answer>",
            "</answer>",
            " ",
            "é",
            "x",
            "\u3000",
            "\x85",
        ]
    ),
    max_size=10,
)


def slow_border(ids: list[int]) -> int | None:
    """The border in bytes, found on the bytes alone."""
    data = b"".join(TABLE.of(ids))
    start = data.find(b"<observation>")
    end = data.find(b"</observation>")
    if start < 0 or end < start or data[:start].decode(errors="replace").strip():
        return None
    inside = data[start + 13 : end]
    tags = [b"<observation>", b"<think>", b"</think>", b"<answer>", b"</answer>"]
    return None if any(tag in inside for tag in tags) else end + len(b"</observation>")


@settings(deadline=None, max_examples=400)
@given(st.lists(PIECES, max_size=40))
def test_the_rule_over_arbitrary_ids(ids: list[int]) -> None:
    masks = segment_masks(ids, TABLE)
    data = b"".join(TABLE.of(ids))
    assert masks.text == data.decode(errors="replace")
    border = slow_border(ids)
    if border is not None:
        at = 0
        for i, piece in enumerate(TABLE.of(ids)):
            assert (masks.weights["perception"][i], masks.weights["reasoning"][i]) == (
                (1.0, 0.0) if at < border else (0.0, 1.0)
            )
            at += len(piece)
    else:
        assert masks.template.borders == () and masks.template.rest[0] == "perception"
    assert all(
        p + r <= 1.0 for p, r in zip(masks.weights["perception"], masks.weights["reasoning"], strict=True)
    )


@settings(deadline=None, max_examples=300)
@given(TRACES, st.integers(0, 3), st.randoms())
def test_how_a_text_is_cut_into_tokens_changes_nothing(parts: list[str], cut: int, random: Any) -> None:
    data = "".join(parts).encode()
    single = segment_masks(list(data), TABLE)
    # greedy merges of random WORDS: a different tokenisation of the same bytes
    ids, at = [], 0
    while at < len(data):
        fits = [i for w, i in WORD.items() if data.startswith(w.encode(), at)]
        pick = random.choice(fits) if fits and random.random() < 0.7 else data[at]
        ids.append(pick)
        at += len(TABLE.pieces[pick])
    merged = segment_masks(ids, TABLE)
    assert merged.text == single.text and merged.template == single.template
    at = 0
    for i, piece in enumerate(TABLE.of(ids)):
        assert merged.weights["perception"][i] == single.weights["perception"][at]
        at += len(piece)


@settings(deadline=None, max_examples=300)
@given(TRACES)
def test_both_forms_together_are_the_whole_template(parts: list[str]) -> None:
    text = "".join(parts)
    found = read_template(text)
    assert (
        found.form
        == (found.forms["perception"] and found.forms["reasoning"])
        == (segment_spans(text).fault is None)
    )
    assert (found.observation is None) == (not found.forms["perception"])


# --- real tokenizers -------------------------------------------------------------------------------------


@lru_cache
def tiny_tokenizer() -> Any:
    tokenizer = build_tokenizer(640)
    tokenizer.add_tokens(["<tool_call>", "<think>"])  # text, not special: as Qwen3's vocabulary has them
    return tokenizer


@lru_cache
def tiny_table() -> TokenTable:
    return TokenTable.from_tokenizer(tiny_tokenizer())


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_the_text_is_what_the_tokenizer_decodes(data: st.DataObject) -> None:
    tokenizer = tiny_tokenizer()
    ids = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    assert segment_masks(ids, tiny_table()).text == tokenizer.decode(ids, skip_special_tokens=True)


@settings(deadline=None, max_examples=100)
@given(st.text(max_size=40))
def test_the_bytes_of_a_text_come_back(text: str) -> None:
    tokenizer = tiny_tokenizer()
    ids = tokenizer.encode(text, add_special_tokens=False)
    special = set(tokenizer.all_special_ids)
    if not special & set(ids):
        assert b"".join(
            tiny_table().of(ids)
        ).decode() == tokenizer.backend_tokenizer.normalizer.normalize_str(text)


def test_added_text_tokens_have_bytes_and_special_ones_have_none() -> None:
    tokenizer, table = tiny_tokenizer(), tiny_table()
    token = tokenizer.convert_tokens_to_ids
    assert table.of([token("<think>"), token("<|im_end|>"), token("<|video_pad|>")]) == [b"<think>", b"", b""]
    ids = tokenizer.encode(
        "<observation>a red square</observation> <think>so</think><answer>B</answer><|im_end|>"
    )
    masks = segment_masks(ids, table)
    assert masks.template.form
    assert masks.weights["reasoning"][-1] == 1.0
    first = masks.weights["reasoning"].index(1.0)
    assert tokenizer.decode(ids[:first]) == "<observation>a red square</observation>"


def test_a_processor_may_be_handed_in() -> None:
    class Processor:
        tokenizer = tiny_tokenizer()

    assert TokenTable.from_tokenizer(Processor()) == tiny_table()


def test_other_tokenizers_are_refused() -> None:
    from tokenizers import Tokenizer, decoders, models

    unigram = Tokenizer(models.Unigram([("a", 0.0)], unk_id=0))
    unigram.decoder = decoders.Metaspace()
    with pytest.raises(ConfigError, match=r"Unigram with decoder \['Metaspace'\]; allowed: BPE"):
        TokenTable.from_tokenizer(unigram)
    fallback = Tokenizer(models.BPE(byte_fallback=True))
    fallback.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    with pytest.raises(ConfigError, match="ByteFallback"):
        TokenTable.from_tokenizer(fallback)
    with pytest.raises(ConfigError, match="no fast tokenizer"):
        TokenTable.from_tokenizer(object())
    with pytest.raises(ConfigError, match="stands for no byte"):
        TokenTable.from_json({"model": {"type": "BPE", "vocab": {"▁a": 0}}, "decoder": {"type": "ByteLevel"}})
