"""The reader of completions against its table, which was written before it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.shared import samples_dir
from videop2r_data.schemas import (
    PAPER,
    READING,
    ROBUST,
    Policy,
    ProblemType,
    ScoreReason,
    TraceGrammar,
    default_grammar,
    label_options,
    load_grammar,
    packaged_grammars,
    trace_parser,
)
from videop2r_data.validators import Reading, check_reference, read_reply, score
from videop2r_data.validators.geometry import parse_box, parse_interval
from videop2r_data.validators.metrics import fold
from videop2r_data.validators.numbers import parse_quantity
from videop2r_data.validators.options import text_key


class Case(NamedTuple):
    """One completion of the table, and what a careful human reads in it."""

    about: str
    problem_type: str
    options: tuple[str, ...]
    grammar: str
    text: str
    answer: str | None
    why: str
    place: str | None
    reason: str | None
    cut: bool


def _cases() -> list[Case]:
    table = yaml.safe_load((Path(__file__).parent / "data" / "replies.yaml").read_text("utf-8"))
    cases = []
    for group in table["groups"]:
        for text, answer, why, *more in group["cases"]:
            one: dict[str, Any] = group | (more[0] if more else {})
            options = tuple(table["options"][one["options"]]) if "options" in one else ()
            whole = text * one.get("times", 1) + one.get("tail", "")
            cases.append(
                Case(
                    *(group["about"], group["type"], options, one.get("grammar", "videop2r"), whole, answer),
                    *(why, one.get("place"), one.get("reason"), one.get("cut", False)),
                )
            )
    return cases


CASES = _cases()


def _read(case: Case) -> Reading:
    return read_reply(
        case.text,
        problem_type=case.problem_type,
        options=case.options,
        grammar=load_grammar(case.grammar),
        cut=case.cut,
    )


def _same(case: Case, given: str) -> bool:
    """Whether an answer says what the table says."""
    right = case.answer or ""
    if case.problem_type == "multiple choice":
        return given == right
    if case.problem_type in ("numerical", "regression"):
        a, b = parse_quantity(given), parse_quantity(right)
        assert not isinstance(a, ScoreReason) and not isinstance(b, ScoreReason), (a, b)
        return a.value == b.value and (b.unit == "" or a.unit == b.unit)
    if case.problem_type == "temporal grounding":
        return parse_interval(given) == parse_interval(right)
    if case.problem_type == "spatial grounding":
        return parse_box(given) == parse_box(right)
    return fold(given).strip("\"'") == right or text_key(given) == text_key(right)


@pytest.mark.parametrize("case", CASES, ids=[f"{c.about}: {c.why}: {c.text[:24]!r}" for c in CASES])
def test_a_careful_human(case: Case) -> None:
    found = _read(case)
    if case.answer is None:
        assert found.answer is None and found.place == "", (case.why, found)
        assert found.reason is not None
        if case.reason:
            assert found.reason.value == case.reason, (case.why, found)
    else:
        assert found.answer is not None and _same(case, found.answer), (case.why, found)
        assert found.reason is None
        if case.place:
            assert found.place == case.place, (case.why, found)


def test_the_table_is_large_and_has_no_case_twice() -> None:
    assert len(CASES) >= 220
    keys = [(c.problem_type, c.options, c.grammar, c.text, c.cut) for c in CASES]
    assert len(set(keys)) == len(keys)
    assert {c.grammar for c in CASES} == set(packaged_grammars())


@pytest.mark.parametrize("case", [c for c in CASES if c.answer is not None], ids=lambda c: repr(c.text[:32]))
def test_a_reading_is_worth_what_its_answer_alone_is(case: Case) -> None:
    found = _read(case)
    assert case.answer is not None and found.answer is not None
    references = [o.label for o in label_options(case.options)] or [
        case.answer,
        "7",
        "[1, 2]",
        "[1, 2, 3, 4]",
    ]
    for reference in references:
        if check_reference(case.problem_type, reference, case.options) is None:
            alone, read = (
                score(case.problem_type, prediction=text, reference=reference, options=case.options)
                for text in (case.answer, found.answer)
            )
            assert read.value == alone.value, (reference, read, alone)


# --- what holds for every text

ASKED = [
    ("multiple choice", ("A. cat", "B. dog", "C. bird")),
    ("multiple choice", ()),
    *((kind.value, ()) for kind in ProblemType if kind.traits.form != "option"),
]
GRAMMARS = [load_grammar(name) for name in packaged_grammars()]
PAPER_TAGS = [
    f"<{slash}{name}>" for slash in ("", "/") for name in ("observation", "think", "answer", "ANSWER")
]
MARKS = sorted({text for grammar in GRAMMARS for text in trace_parser(grammar).literals} | {*PAPER_TAGS})
WORDS = [
    *(
        "A",
        "B",
        "(C)",
        "dog",
        "5",
        "five",
        "1/2",
        "[3, 5]",
        "from",
        "3",
        "to",
        "s",
        "The answer is",
        "{",
        "}",
    ),
    *(
        "\\boxed{B}",
        "wait,",
        "not",
        "or",
        "答案是B",
        "```",
        "\u200b",
        '{"answer":',
        '"B"',
        "I think it is",
        "about",
    ),
]
noisy = st.lists(st.sampled_from([*MARKS, *WORDS, "\n", ". "]), max_size=14).map(" ".join)
texts = st.one_of(noisy, st.text(max_size=60))


@settings(deadline=None, max_examples=600)
@given(
    texts,
    st.sampled_from(ASKED),
    st.sampled_from(GRAMMARS),
    st.sampled_from([READING, ROBUST, PAPER]),
    st.booleans(),
)
def test_every_text_has_an_answer_or_a_reason(
    text: str, asked: tuple[str, tuple[str, ...]], grammar: TraceGrammar, policy: Policy, cut: bool
) -> None:
    kind, options = asked
    found = read_reply(text, problem_type=kind, options=options, grammar=grammar, policy=policy, cut=cut)
    assert (found.answer is None) == (found.reason is not None) == (found.place == "")
    if found.answer is not None and policy is not PAPER:
        # What was read reads as itself, alone and inside of a whole trace.
        whole = f"<observation>o</observation> <think>t</think><answer>{found.answer}</answer>"
        if trace_parser(default_grammar()).spans(whole).fault is None:
            again = read_reply(whole, problem_type=kind, options=options, policy=policy)
            assert again.answer == found.answer.strip()


plain = st.one_of(noisy, st.text(max_size=60)).filter(lambda t: "<" not in t and t.strip() != "")


@settings(deadline=None, max_examples=300)
@given(plain, plain, plain, st.sampled_from(ASKED))
def test_what_is_seen_and_thought_never_changes_the_answer_of_a_whole_trace(
    seen: str, thought: str, answer: str, asked: tuple[str, tuple[str, ...]]
) -> None:
    kind, options = asked
    first, second = (
        read_reply(f"{head}<answer>{answer}</answer>", problem_type=kind, options=options)
        for head in (
            "<observation>o</observation> <think>t</think>",
            f"<observation>{seen}</observation> <think>{thought}</think>",
        )
    )
    assert first == second


@settings(deadline=None, max_examples=300)
@given(plain, plain, st.sampled_from(ASKED), st.integers(0, 200))
def test_a_trace_that_is_cut_before_its_answer_has_none(
    seen: str, thought: str, asked: tuple[str, tuple[str, ...]], at: int
) -> None:
    kind, options = asked
    whole = f"<observation>{seen}</observation> <think>{thought}</think><answer>"
    text = whole[: max(len("<observation>"), len(whole) - at)]
    found = read_reply(text, problem_type=kind, options=options, cut=True)
    assert found.answer is None


@settings(deadline=None, max_examples=300)
@given(plain, st.sampled_from(ASKED))
def test_a_whole_trace_is_never_worth_less_than_in_a_build(
    answer: str, asked: tuple[str, tuple[str, ...]]
) -> None:
    kind, options = asked
    by_form = {"option": "B", "number": "5", "interval": "[3, 5]", "box": "[1, 2, 3, 4]"}
    reference = by_form.get(ProblemType(kind).traits.form, "dog 5")
    whole = f"<observation>o</observation> <think>t</think><answer>{answer}</answer>"
    read = read_reply(whole, problem_type=kind, options=options).answer or ""
    built, evaluated = (
        score(kind, prediction=text, reference=reference, options=options).value for text in (whole, read)
    )
    assert built is not None and evaluated is not None
    assert evaluated == built or (built == 0 and evaluated > 0)


# --- 200 KB of junk: a reader that is not linear does not come back

JUNK = [
    *(
        "A ",
        "the answer is B. ",
        "\\boxed{",
        "{",
        "[[",
        '{"answer":',
        "<answer>",
        "<think></think>",
        "5 chairs ",
    ),
    *(
        "from 3 to 5 ",
        "starts at 3 ends ",
        "I think it is ",
        "there are no ",
        '"',
        "- A\n",
        "\u200b",
        "红",
        "```",
    ),
]


@pytest.mark.timeout(60)
@pytest.mark.parametrize("piece", JUNK, ids=repr)
def test_junk_without_end_is_read(piece: str) -> None:
    junk = piece * (200_000 // len(piece))
    for kind, options in ASKED:
        for text in (junk, f"<think>t</think>{junk}", f"<answer>{junk}</answer>"):
            found = read_reply(text, problem_type=kind, options=options)
            assert (found.answer is None) == (found.reason is not None)


def test_real_outputs_are_read_as_their_publishers_read_them() -> None:
    folder = samples_dir()
    if folder is None:
        pytest.skip("no real outputs on this machine")
    seen = 0
    for name in ("out_twgrpo_mmvu", "out_videochatr1_mmvu", "out_zeroshot_mvbench"):
        for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines():
            row = json.loads(line)
            question, text = row["question"], row["model_output"]
            found = read_reply(
                text,
                problem_type="multiple choice",
                options=question["options"],
                grammar=load_grammar("think-answer"),
            )
            assert found.answer == row["extracted_answer"], (text[-200:], found)
            seen += 1
    assert seen > 200


def test_the_profile_paper_leaves_an_answer_as_it_is_written() -> None:
    pets = ("A. cat", "B. dog")
    for text in ("<answer> B. dog </answer>", "B. dog", "<think>t</think>B. dog"):
        found = read_reply(text, problem_type="multiple choice", options=pets, policy=PAPER)
        assert found.answer == "B. dog"


def test_a_type_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="riddle"):
        read_reply("B", problem_type="riddle")


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>A sea.</think><answer>The answer is El Niño.</answer>", "El Niño"),
        ("<answer>Therefore, my final answer is: n log n</answer>", "n log n"),
        ("<answer>The answer is not El Niño.</answer>", "The answer is not El Niño."),
        ("<answer>She asks what the answer is.</answer>", "She asks what the answer is."),
        ("<answer>The answer is</answer>", "The answer is"),
    ],
)
def test_a_text_that_is_announced_in_its_tag_is_read_without_the_words_for_it(text: str, answer: str) -> None:
    assert read_reply(text, problem_type="free-form").answer == answer
    assert read_reply(text, problem_type="free-form", policy=Policy(answer_phrase=False)).answer != "El Niño"
