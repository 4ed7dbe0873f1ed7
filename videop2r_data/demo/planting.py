"""Which trace carries which defect, and where a build must reject it."""

from __future__ import annotations

from videop2r_data.demo.forms import fault_of, tells_what_it_sees
from videop2r_data.demo.scene import (
    INVENTIONS,
    TEMPLATE_DEFECTS,
    Defect,
    Profile,
    Question,
    Scene,
    SceneSample,
    applicable,
    stream,
)
from videop2r_data.demo.traces import inventions
from videop2r_data.schemas import DemoSpec, RejectReason, Stage, TraceGrammar, default_grammar

_SHARES = {Defect.INVENTED_EVIDENCE: 4, Defect.INVENTED_DETAIL: 2}
"""How much more often than the other habits a question gets these, where it can have them."""


def planted(
    spec: DemoSpec, scene: Scene, question: Question, number: int, temperature: float = 0.0
) -> Defect | None:
    """The planted defect of a question's trace: a new draw for every temperature, equal for equal arguments.

    Broken templates share one part in six; the other kinds that fit the type share the rest evenly. Traces
    without any of them may have a habit of real generators, at a rate of its own.
    """
    # A stream of its own: the share of defects changes no scene and no question.
    rng = stream(spec.seed, "defect", scene.index, number, f"{temperature:.4f}")
    if rng.random() < spec.defect_rate:
        if rng.random() < 1 / 6:
            return rng.choice(TEMPLATE_DEFECTS)
        return rng.choice([d for d in applicable(question.problem_type) if d not in TEMPLATE_DEFECTS])
    rng = stream(spec.seed, "invention", scene.index, number, f"{temperature:.4f}")
    if rng.random() < spec.invention_rate:
        made = inventions(scene, question)
        return rng.choice([defect for defect in made for _ in range(_SHARES.get(defect, 1))])
    return None


def defect_of(
    sample: SceneSample, spec: DemoSpec, temperature: float, grammar: TraceGrammar | None = None
) -> Defect | None:
    """The defect of the trace that is written at a temperature: the labelled one at 0, else a new draw.

    Where a segment of the grammar must have a form, a quarter of the broken templates break that form.
    """
    defect = sample.defect
    if temperature > 0:
        defect = planted(spec, sample.scene, sample.question, sample.number, temperature)
    formed = grammar is not None and any(one.holds for one in grammar.flat)
    if formed and defect in TEMPLATE_DEFECTS:
        rng = stream(spec.seed, "form", sample.scene.index, sample.number, f"{temperature:.4f}")
        return Defect.BAD_FIELD if rng.random() < 0.25 else defect
    return defect


_LOW = (Stage.VERIFY, RejectReason.LOW_SCORE)
_INSUFFICIENT = (Stage.JUDGE, RejectReason.INSUFFICIENT)
_CONTRADICTED = (Stage.JUDGE, RejectReason.CONTRADICTED)
_CAUGHT = {
    Defect.NEAR_MISS: None,
    Defect.REPETITION: None,
    Defect.WRONG_ANSWER: _LOW,
    Defect.LOW_QUALITY: _LOW,
    Defect.COMPLETION_CUT: (Stage.GENERATE, RejectReason.COMPLETION_CUT),
    Defect.EVIDENCE_OMITTED: _INSUFFICIENT,
    Defect.EVIDENCE_CONTRADICTED: _INSUFFICIENT,
    Defect.HEDGING: _INSUFFICIENT,
    Defect.INVENTED_EVIDENCE: _CONTRADICTED,
    Defect.INVENTED_DETAIL: _CONTRADICTED,
    Defect.RESTATED_QUESTION: (Stage.VERIFY, RejectReason.HOLLOW_OBSERVATION),
}
"""Defects that are not rejected in the verify step under their own name; None: kept."""
_IN_THE_OBSERVATION = {
    *(Defect.EVIDENCE_OMITTED, Defect.EVIDENCE_CONTRADICTED, Defect.COPIED_VERDICT),
    *INVENTIONS,
}
_PASSES_PAPER = {Defect.LEAKED_ANSWER, Defect.RESTATED_QUESTION}
"""What `paper` does not look for by a rule: its evidence is missing, too, and the judge says so."""


def expected_rejection(
    defect: Defect | None, profile: Profile, grammar: TraceGrammar | None = None, *, seeing: bool = True
) -> tuple[Stage, RejectReason] | None:
    """Where a build must reject a trace with this defect (None: a good one), and why.

    Args:
        defect: what is planted.
        profile: of the verify step. `paper` does not check that think and answer agree, nor what an
            observation leaks.
        grammar: of the traces; None: the default. A grammar without perception has no observation to spoil.
        seeing: whether there is a judge that sees; without one, inventions are kept.

    Returns:
        None if the row must be kept: a good trace, or a defect that these steps do not look for.
    """
    if defect is None:
        return None
    grammar = grammar or default_grammar()
    if defect in TEMPLATE_DEFECTS or defect is Defect.BAD_FIELD:
        return Stage.VERIFY, RejectReason(fault_of(defect, grammar)[1].value)
    if defect in _IN_THE_OBSERVATION and not tells_what_it_sees(grammar):
        return None
    if profile == "paper" and defect is Defect.THINK_ANSWER_MISMATCH:
        return None
    hidden = defect is Defect.RESTATED_QUESTION and not tells_what_it_sees(grammar, alone=True)
    if hidden or (profile == "paper" and defect in _PASSES_PAPER):
        return _INSUFFICIENT
    found = _CAUGHT[defect] if defect in _CAUGHT else (Stage.VERIFY, RejectReason(defect.value))
    return None if found == _CONTRADICTED and not seeing else found
