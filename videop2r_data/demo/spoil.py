"""Break the template of a good trace in one of the ways that the parser names."""

from __future__ import annotations

from random import Random

from videop2r_data.demo.defects import Defect
from videop2r_data.schemas.trace import ProcessTrace, parse_trace


def spoil_template(whole: str, defect: Defect, rng: Random) -> str:
    """A text whose first template fault is the one that `defect` names.

    Args:
        whole: a good trace.
        defect: one of `defects.TEMPLATE_DEFECTS`.
        rng: picks one of several ways to break it.

    Raises:
        ValueError: another defect.
    """
    trace = parse_trace(whole)
    p, t, a = _segments(trace)
    ways: dict[Defect, tuple[str, ...]] = {
        Defect.MISSING_OBSERVATION: (f"{t}{a}",),
        Defect.MISSING_THINK: (f"{p} {a}",),
        Defect.MISSING_ANSWER: (f"{p} {t}", f"{p} {t}{trace.answer}"),
        Defect.REPEATED_TAG: (f"{p} {t}{a}{a}", f"{p} {t}{t}{a}", f"{p} {p} {t}{a}"),
        Defect.NESTED_TAG: (
            f"<observation>{trace.observation} {t}</observation> {t}{a}",
            f"{p} <think>{trace.think} {a}</think>{a}",
        ),
        Defect.OUT_OF_ORDER: (f"{t}{p} {a}", f"{a}{p} {t}", f"{p} {a}{t}"),
        Defect.UNCLOSED_TAG: (whole.removesuffix("</answer>"),),
        Defect.STRAY_CLOSING_TAG: (f"{p} </observation> {t}{a}", f"{p} {t}{a}</answer>"),
        Defect.TEXT_OUTSIDE: (
            f"Sure, here is my answer. {whole}",
            f"{whole} I hope this helps!",
            f"{p} Now I think about it. {t}{a}",
        ),
        Defect.EMPTY_SEGMENT: (
            f"<observation></observation> {t}{a}",
            f"{p} <think> </think>{a}",
            f"{p} {t}<answer>\n</answer>",
        ),
    }
    if defect not in ways:
        raise ValueError(f"{defect.value} does not break the template")
    return rng.choice(ways[defect])


def _segments(trace: ProcessTrace) -> tuple[str, str, str]:
    return (
        f"<observation>{trace.observation}</observation>",
        f"<think>{trace.think}</think>",
        f"<answer>{trace.answer}</answer>",
    )
