"""Answers that are wrong: clearly, by quality, or by one word that the metric cannot see."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from videop2r_data.demo.ask_choice import other_text
from videop2r_data.demo.ask_open import behaviour, portrait
from videop2r_data.demo.question import SceneSample
from videop2r_data.demo.scene import SceneObject, truth
from videop2r_data.demo.statements import moved_box
from videop2r_data.demo.wording import number
from videop2r_data.schemas.sample import ProblemType

_OFF_TOPIC = (
    "Nobody can tell.",
    "It jumps around wildly and then explodes.",
    "Several people walk through a busy street.",
    "A dog barks.",
)


def wrong_answer(sample: SceneSample, rng: Random) -> str:
    """An answer of the right form that scores below 0.6 by the metric of its type."""
    return _WRONG[sample.question.problem_type](sample, rng)


def _other_letter(sample: SceneSample, rng: Random) -> str:
    letters = [option[0] for option in sample.question.options]
    return rng.choice([x for x in letters if x != sample.question.answer])


def _other_number(sample: SceneSample, rng: Random) -> str:
    n = int(sample.question.answer)
    return str(rng.choice([m for m in (n - 2, n - 1, n + 1, n + 2) if m >= 0]))


def _other_words(sample: SceneSample, rng: Random) -> str:
    return other_text(sample.question.answer, rng)


def _off_topic(sample: SceneSample, rng: Random) -> str:
    return rng.choice(_OFF_TOPIC)


def _other_amount(sample: SceneSample, rng: Random) -> str:
    return number(float(sample.question.answer) * rng.choice((0.3, 0.45, 1.5, 1.8)))


def _other_box(sample: SceneSample, rng: Random) -> str:
    box = truth(sample.scene, ("box", sample.question.subjects[0]))
    assert isinstance(box, tuple)
    return str([round(v) for v in moved_box(box, sample.scene.side)])


def _other_interval(sample: SceneSample, rng: Random) -> str:
    """A span that overlaps the true one by less than half of their union."""
    start, end = (float(v) for v in sample.question.answer.strip("[]").split(","))
    length = end - start
    if rng.random() < 0.5:
        return f"[{number(start)}, {number(start + 0.4 * length)}]"
    return f"[{number(end - 0.3 * length)}, {number(end + 0.3 * length)}]"


_WRONG: dict[ProblemType, Callable[[SceneSample, Random], str]] = {
    ProblemType.MULTIPLE_CHOICE: _other_letter,
    ProblemType.NUMERICAL: _other_number,
    ProblemType.OCR: _other_words,
    ProblemType.FREE_FORM: _off_topic,
    ProblemType.REGRESSION: _other_amount,
    ProblemType.TEMPORAL_GROUNDING: _other_interval,
    ProblemType.SPATIAL_GROUNDING: _other_box,
}


def degraded_answer(sample: SceneSample, rng: Random) -> str:
    """OCR with half of its words misread, or a free-form answer that says next to nothing.

    Raises:
        ValueError: any other type.
    """
    question = sample.question
    if question.problem_type is ProblemType.FREE_FORM:
        found = sample.scene.named(question.subjects[0])
        assert found is not None
        return rng.choice(_thin(question.kind, found))
    if question.problem_type is not ProblemType.OCR:
        raise ValueError(f"low_quality needs OCR or free-form, not {question.problem_type.value}")
    words = question.answer.split()
    spoilt = rng.sample(range(len(words)), (len(words) + 1) // 2)
    return " ".join(_misread(w, rng) if i in spoilt else w for i, w in enumerate(words))


def _thin(kind: str, found: SceneObject) -> tuple[str, ...]:
    """True but poor sentences: mean ROUGE of about 0.1 to 0.55 against the reference."""
    if kind == "portray":
        return f"The {found.shape} is in the picture.", f"Some {found.size} object."
    verb = "stays" if found.motion == "still" else "moves"
    return f"The {found.shape} {verb}.", f"It {verb}.", f"An object {verb} here."


def _misread(word: str, rng: Random) -> str:
    at = rng.randrange(len(word))
    pool = "0123456789" if word.isdigit() else "BCDFGHKLMNPRSTVZ"
    letter = rng.choice([c for c in pool if c != word[at]])
    return word[:at] + letter + word[at + 1 :]


def near_miss(sample: SceneSample, rng: Random) -> str:
    """A free-form answer that is wrong in one detail and shares nearly all words with the reference.

    Raises:
        ValueError: any other type.
    """
    question = sample.question
    if question.problem_type is not ProblemType.FREE_FORM:
        raise ValueError(f"near_miss needs free-form, not {question.problem_type.value}")
    found = sample.scene.named(question.subjects[0])
    assert found is not None
    colours = [c for c in ("red", "green", "blue", "yellow") if c != found.colour]
    if question.kind == "portray":
        place = str(truth(sample.scene, ("place", found.name)))
        return portrait(found.name, "large" if found.size == "small" else "small", place)
    if found.motion == "still":
        return behaviour(f"{rng.choice(colours)} {found.shape}", found.motion, found.pace)
    return behaviour(found.name, found.motion, "slow" if found.pace == "fast" else "fast")
