"""The usual answer of a question, counted by hand."""

from __future__ import annotations

from videop2r_data.schemas import DataType, ProblemType
from videop2r_data.trainer.data.examples import Example
from videop2r_data.trainer.data.usual import ALIKE, UsualAnswers


def asked(problem: str, reference: str, options: tuple[str, ...] = ()) -> Example:
    kind = ProblemType.MULTIPLE_CHOICE if options else ProblemType.NUMERICAL
    return Example("x", problem, options, kind, DataType.VIDEO, None, reference, None)


def test_questions_of_one_text_have_the_usual_answer_of_that_text() -> None:
    many = [asked("How many?", n) for n in "22222311"] + [asked("Which page?", "7")] * 20
    usual = UsualAnswers(many)
    assert usual.holds(asked("how  MANY?", "2")) is True
    assert usual.holds(asked("How many?", "1")) is False
    # a text that is rare: that of all questions of the type
    assert usual.holds(asked("How long?", "7")) is True
    assert usual.holds(asked("How long?", "2")) is False


def test_choices_of_one_text_go_by_the_words_of_the_option_not_by_its_letter() -> None:
    orders = [("A. red", "B. blue"), ("A. blue", "B. red")]
    many = [asked("What colour?", "B" if order[1] == "B. red" else "A", order) for order in orders * 4]
    assert len(many) == ALIKE
    usual = UsualAnswers(many)
    assert usual.holds(asked("What colour?", "B", ("A. blue", "B. Red"))) is True
    assert usual.holds(asked("What colour?", "B", ("A. red", "B. blue"))) is False
    # red is not on offer, and blue was never right: by letter, of which A and B are as frequent, A
    assert usual.holds(asked("What colour?", "A", ("A. green", "B. blue"))) is True


def test_choices_of_many_texts_go_by_the_letter_among_as_many_options() -> None:
    two, three = ("A. x", "B. y"), ("A. x", "B. y", "C. z")
    many = [asked(f"Question {n}?", "B" if n % 3 else "A", two) for n in range(9)]
    many += [asked(f"Question {n}?", "C", three) for n in range(9, 12)]
    usual = UsualAnswers(many)
    assert usual.holds(asked("New?", "B", two)) is True
    assert usual.holds(asked("New?", "A", two)) is False
    assert usual.holds(asked("New?", "C. z", three)) is True


def test_an_answer_that_only_one_question_has_is_not_usual() -> None:
    usual = UsualAnswers([asked("How many?", n) for n in "123456789"])
    assert usual.holds(asked("How many?", "1")) is None
    assert usual.holds(asked("How many?", "1", ("A. 1", "B. 2"))) is None
