"""One, two, three and four streams against numbers worked out by hand, and every grammar as a property."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from videop2r_data.schemas import (
    Piece,
    TraceGrammar,
    load_grammar,
    packaged_grammars,
    trace_parser,
)
from videop2r_data.trainer.process.advantages import pad_masks, streams
from videop2r_data.trainer.process.loss import denominators, policy_loss
from videop2r_data.trainer.process.masks import SegmentMasks, TokenTable, segment_masks
from videop2r_data.trainer.process.rewards import Graded, RewardTable, grade, rewards_of
from videop2r_data.trainer.process.template import read_template
from videop2r_data.trainer.settings.objectives import OBJECTIVES, trace_streams
from videop2r_data.trainer.settings.rl import LossSpec, ObjectiveSpec, RewardSpec

NAMES = ("a", "b", "c", "d")
EXACT = LossSpec(beta=0.0, eps=0.0)
OFF = RewardSpec(length="off")


def grammar(count: int, **roles: str) -> TraceGrammar:
    """`count` tags in order, each a stream of its own; the last is the answer."""
    names = NAMES[:count]
    parts = [
        {"name": n, "tag": n, "stream": n, "role": roles.get(n, "answer" if n == names[-1] else "other")}
        for n in names
    ]
    return TraceGrammar.model_validate({"name": "letters", "segments": parts})


def masks_of(text: str, form: TraceGrammar, *, end: bool = True, **more: Any) -> SegmentMasks:
    """One token per byte, and an end-of-turn token."""
    data = text.encode()
    table = TokenTable((*(bytes([b]) for b in range(256)), b""))
    return segment_masks([*data, *([256] if end else [])], table, grammar=form, **more)


def shown(masks: SegmentMasks) -> str:
    """The owner of every token: a letter, `?` for a shared one, `-` for nobody's."""
    out = []
    for weights in zip(*masks.weights.values(), strict=True):
        owners = [name for name, w in zip(masks.weights, weights, strict=True) if w]
        out.append("-" if not owners else owners[0] if len(owners) == 1 else "?")
    return "".join(out)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_piece_belongs_to_its_stream_with_the_white_space_before_it(count: int) -> None:
    text = " ".join(f"<{n}>x</{n}>" for n in NAMES[:count])
    masks = masks_of(text, grammar(count))
    # a piece is 8 tokens, its blank one more; the end-of-turn token goes with the last piece
    assert shown(masks) == "".join(n * (8 + (i > 0)) for i, n in enumerate(NAMES[:count])) + NAMES[count - 1]
    assert list(masks.lengths.values()) == [8, *[9] * (count - 1)]
    assert masks.template.form and all(masks.template.forms.values())


@pytest.mark.parametrize(
    ("text", "owners", "forms"),
    [
        # b is opened and never closed: its own
        ("<a>x</a><b>xx", "aaaaaaaabbbbbb", "a"),
        # nothing tells whether b or c failed: both in equal shares
        ("<a>x</a>so<c>x</c>", "aaaaaaaa???????????", "ac"),
        # b and c stand, something is behind the end: the last stream's
        ("<a>x</a><b>x</b><c>x</c>!", "aaaaaaaabbbbbbbbcccccccccc", "ab"),
        # nothing stands in its place
        ("so<a>x</a><b>x</b><c>x</c>", "?" * 27, "bc"),
        ("<b>x</b><c>x</c>", "?" * 17, "bc"),
        # a blank piece is in its place
        ("<a> </a><b>x</b><c>x</c>", "aaaaaaaabbbbbbbbccccccccc", "bc"),
        ("", "?", ""),
    ],
)
def test_malformed_texts_of_three_streams(text: str, owners: str, forms: str) -> None:
    masks = masks_of(text, grammar(3))
    assert shown(masks) == owners
    assert "".join(name for name, good in masks.template.forms.items() if good) == forms
    assert not masks.template.form


def test_what_is_shared_is_shared_as_the_setting_says() -> None:
    text, form = "<a>x</a>so", grammar(4)
    half = masks_of(text, form)
    assert [half.weights[n][9] for n in NAMES] == [0.0, *[1 / 3] * 3]
    assert half.lengths == {"a": 8, "b": 0, "c": 0, "d": 0}
    assert shown(masks_of(text, form, unattributable="none")) == "a" * 8 + "---"
    assert shown(masks_of(text, form, unattributable="reasoning")) == "a" * 8 + "ddd"


# Losses: K streams of two tokens each, two rollouts.
#
#   rewards 2 and 1 of every stream but the last, 1 and 2 of the last:  A_k = 1, -1 and -1, 1
#   ratio 1 everywhere: each stream's mean over its own tokens is A_k


def graded(form: TraceGrammar) -> list[Graded]:
    """Stream k of the first rollout has its form, and of the second has not; the last stream the other way."""
    *others, last = form.streams
    rows = []
    for good in (True, False):
        forms = {**dict.fromkeys(others, good), last: not good}
        rows.append(Graded(None, 1.0, forms, False, dict.fromkeys(form.streams, 2)))
    return rows


def learnt(count: int, objective: str, logps: torch.Tensor) -> tuple[Any, RewardTable]:
    form = grammar(count)
    spec = ObjectiveSpec.model_validate({"name": objective})
    table = rewards_of(graded(form), OFF, 2, objective=spec, streams=trace_streams(form))
    mask = torch.ones(2, 2 * count, dtype=torch.bool)
    owned = {n: torch.zeros(2, 2 * count) for n in form.streams}
    for i, weights in enumerate(owned.values()):
        weights[:, 2 * i : 2 * i + 2] = 1.0
    found = streams(spec, table, owned, completion_mask=mask, spec=EXACT)
    over = denominators(mask)
    loss = policy_loss(logps, None, None, found, completion_mask=mask, spec=EXACT, denominators=over).loss
    return (found, loss), table


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_pa_grpo_of_any_number_of_streams(count: int) -> None:
    logps = torch.zeros(2, 2 * count, requires_grad=True)
    (found, loss), _ = learnt(count, "pa-grpo", logps)
    signs = [1.0] * (count - 1) + [-1.0]
    assert [s.name for s in found] == list(NAMES[:count])
    assert [s.advantage.tolist() for s in found] == [[sign, -sign] for sign in signs]
    assert loss.item() == pytest.approx(0.0)  # every stream's advantages cancel over the two rollouts
    loss.backward()
    # -1/N 1/n_k A_k: N = 2 rollouts, n_k = 2 tokens
    expected = [
        [-sign / 4 for sign in signs for _ in range(2)],
        [sign / 4 for sign in signs for _ in range(2)],
    ]
    assert logps.grad is not None and logps.grad.tolist() == expected


@pytest.mark.parametrize("count", [2, 3, 4])
@pytest.mark.parametrize("ratio", ["token", "segment"])
@pytest.mark.parametrize("reduction", ["segment", "sequence", "token"])
def test_no_stream_reaches_the_tokens_of_another(count: int, ratio: Any, reduction: Any) -> None:
    spec = LossSpec(beta=0.0, eps=0.0, ratio=ratio, reduction=reduction)
    mask = torch.ones(2, 2 * count, dtype=torch.bool)
    (found, _), _ = learnt(count, "pa-grpo", torch.zeros(2, 2 * count))
    for k, one in enumerate(found):
        logps = (torch.arange(4.0 * count).view(2, -1) / 100).requires_grad_()
        old = torch.zeros(2, 2 * count)
        over = denominators(mask)
        policy_loss(
            logps, old, None, [one], completion_mask=mask, spec=spec, denominators=over
        ).loss.backward()
        assert logps.grad is not None
        own = torch.zeros(2 * count, dtype=torch.bool)
        own[2 * k : 2 * k + 2] = True
        assert (logps.grad[:, ~own] == 0.0).all()
        assert (logps.grad[:, own] != 0.0).all()


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_gdpo_adds_the_advantages_and_reaches_all(count: int) -> None:
    logps = torch.zeros(2, 2 * count, requires_grad=True)
    (found, _), _ = learnt(count, "gdpo", logps)
    (only,) = found
    assert only.name == "all" and bool((only.mask == 1).all())
    # K - 1 streams say 1, -1, the last says -1, 1
    assert only.advantage.tolist() == [count - 2.0, 2.0 - count]
    # one sum, normalised once: K = 3 earns 3 and 2, which is 1 and -1; K = 2 earns 2 and 2, which is nothing
    ((summed,), _), _ = learnt(count, "no-separation", logps)
    sign = float((count > 2) - (count < 2))
    assert summed.advantage.tolist() == [sign, -sign]


# Rewards.


def test_a_stream_earns_by_its_segments() -> None:
    """Four streams: one sees, one sees and answers not at all, one does both, one does neither."""
    form = TraceGrammar.model_validate(
        {
            "name": "mixed",
            "segments": [
                {"name": "look", "tag": "look", "role": "perception", "stream": "seen"},
                {"name": "plan", "tag": "plan", "role": "other", "stream": "plan"},
                {"name": "check", "tag": "check", "role": "perception", "stream": "final"},
                {"name": "answer", "tag": "answer", "role": "answer", "stream": "final"},
            ],
        }
    )
    assert [(s.key, s.kind, s.sees, s.answers) for s in trace_streams(form)] == [
        ("seen", "p", True, False),
        ("plan", "r", False, False),
        ("final", "r", True, True),
    ]
    row = Graded(1.0, 0.5, dict.fromkeys(form.streams, True), True, {"seen": 20, "plan": 20, "final": 20})
    bounds = dict.fromkeys(form.streams, (10, 30))
    table = rewards_of([row], RewardSpec(bounds=bounds), 1, streams=trace_streams(form))
    # accuracy + form + length: 1 + 1 + 0.2; 0 + 1 + 0.2; 1.5 + 1 + 0.2
    assert [table.of(k)[0].item() for k in form.streams] == pytest.approx([2.2, 1.2, 2.7])
    assert table.total[0].item() == pytest.approx(6.1)
    assert table.plain[0].item() == pytest.approx(0.5 + 1 + 0.2)
    late = rewards_of([row._replace(acc_p=None)], OFF, 1, streams=trace_streams(form))
    assert {key: bool(known) for key, known in late.scored.items()} == {
        "seen": False,
        "plan": True,
        "final": False,
    }
    assert not late.total[1] and bool(late.plain[1])


def test_plain_grpo_pays_the_answer_also_where_one_stream_does_everything() -> None:
    form = grammar(2, a="perception")
    one = TraceGrammar.model_validate(
        {"name": "one", "segments": [s.model_copy(update={"stream": "s"}) for s in form.flat]}
    )
    assert [s.kind for s in trace_streams(one)] == ["r"]
    row = Graded(1.0, 0.5, {"s": True}, True, {"s": 20})
    table = rewards_of([row], OFF, 1, streams=trace_streams(one))
    assert (table.of("s")[0].item(), table.plain[0].item()) == (2.5, 1.5)
    earned = {name: entry.earned(trace_streams(one)) for name, entry in OBJECTIVES.items()}
    assert earned["no-reasoning"] == [] and earned["pa-grpo"][0].reaches == "s"
    judged = {name for name, entry in OBJECTIVES.items() if entry.judged(trace_streams(one))}
    assert judged == {"pa-grpo", "gdpo", "gdpo-published", "no-separation", "no-perception", "no-length"}


def test_a_grammar_without_perception_needs_no_judge() -> None:
    known = trace_streams(load_grammar("think-answer"))
    assert [stream.key for stream in known] == ["r"]
    assert not any(entry.judged(known) for entry in OBJECTIVES.values())
    masks = masks_of("<think>two red</think>\n<answer>B</answer>", load_grammar("think-answer"))
    got = grade(masks, problem_type="multiple choice", reference="B", options=["A. one", "B. two"])
    assert (got.acc_p, got.acc_r, got.observation) == (None, 1.0, None)
    table = rewards_of([got], OFF, 1, streams=known)
    assert table.of("r")[0].item() == 2.0 and bool(table.total[1])


@pytest.mark.parametrize(
    ("name", "text", "seen", "answer"),
    [
        ("vision-sr1", "<description>a disc</description><think>so</think>\\boxed{B}", "a disc", "B"),
        ("visionary-r1", "<info>a disc</info>\n<think>so</think>\n<answer>B</answer>", "a disc", "B"),
        ("videoauto-r1", "\\boxed{A}<think>no</think>\\boxed{B}", None, "B"),
        ("videoauto-r1", "\\boxed{A}", None, "A"),
        ("llava-cot", "<SUMMARY>s</SUMMARY>\n\n<CAPTION>a disc</CAPTION>\n\n<REASONING>r</REASONING>\n\n"
         "<CONCLUSION>B</CONCLUSION>", "a disc", "B"),
        ("video-thinker", "<time>00:01-00:02</time><caption>a disc</caption>so<time>00:03-00:04</time>"
         "<caption>a box</caption><answer>B</answer>", "00:01-00:02 a disc\n00:03-00:04 a box", "B"),
    ],
)  # fmt: skip
def test_what_the_judge_reads_and_what_is_scored(name: str, text: str, seen: str | None, answer: str) -> None:
    masks = masks_of(text, load_grammar(name))
    assert masks.template.form
    got = grade(masks, problem_type="multiple choice", reference="B", options=["A. one", "B. two"])
    assert (got.observation, got.answer, got.acc_r) == (seen, answer, float(answer == "B"))


def test_a_broken_time_is_the_fault_of_perception_alone() -> None:
    text = "<time>soon</time><caption>a disc</caption><think>so</think><answer>B</answer>"
    masks = masks_of(text, load_grammar("video-thinker"))
    assert masks.template.forms == {"reasoning": True, "perception": False}
    assert masks.lengths["perception"] == text.index("<think>")


# Properties.

FORMS = [load_grammar(name) for name in packaged_grammars()] + [grammar(n) for n in (1, 3, 4)]


@st.composite
def texts(draw: Any) -> tuple[TraceGrammar, str]:
    """A grammar and words of its own: marks, whole segments, blanks, letters."""
    form = draw(st.sampled_from(FORMS))
    words = [" ", "\n", "x", "é", "}", "00:01-00:02"]
    for spec in form.flat:
        for mark in spec.spellings:
            words += [mark.open, mark.close, f"{mark.open}x{mark.close}"]
    return form, "".join(draw(st.lists(st.sampled_from(words), max_size=12)))


@settings(deadline=None, max_examples=500)
@given(texts())
def test_weights_forms_and_owners_of_any_text(case: tuple[TraceGrammar, str]) -> None:
    form, text = case
    masks = masks_of(text, form)
    spans = trace_parser(form).spans(text)
    assert masks.template.form == (spans.fault is None)
    assert masks.template.form <= all(masks.template.forms.values())
    assert set(masks.weights) == set(form.streams) and masks.template.rest
    for weights in zip(*masks.weights.values(), strict=True):
        assert sum(weights) == pytest.approx(1.0)  # `half`: every token is somebody's
    if spans.fault is None:
        placed: tuple[Piece, ...] = spans.pieces
        for piece in placed:
            own = masks.weights[form.named[piece.name].reward]
            low, high = (len(text[:at].encode()) for at in (piece.open, piece.close))
            assert own[low:high] == [1.0] * (high - low)
        assert sum(masks.lengths.values()) == len(text.encode())
    assert pad_masks(list(masks.weights.values()), masks.tokens).sum().item() == pytest.approx(masks.tokens)


@settings(deadline=None, max_examples=300)
@given(texts())
def test_a_trace_cut_anywhere_keeps_the_owners_of_what_stands(case: tuple[TraceGrammar, str]) -> None:
    form, text = case
    if trace_parser(form).spans(text).fault is not None:
        return
    whole = masks_of(text, form, end=False)
    for cut in range(len(text)):
        borders = read_template(text[:cut], grammar=form).borders
        if borders:
            stands = len(text[: borders[-1][0]].encode())
            part = masks_of(text[:cut], form, end=False)
            for name, weights in part.weights.items():
                assert weights[:stands] == whole.weights[name][:stands]
