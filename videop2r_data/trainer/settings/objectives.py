"""The objectives of RL, one entry each: which parts of the reward are normalised together, for which tokens,
and which other settings of the recipe belong to it.

To add an objective, add an entry to `_ENTRIES`: recipes, command line, schema, judge, rewards and streams
follow, and the table in docs/training.md (`python scripts/recipe_reference.py` writes it).

Process-agnostic SFT, SFT only and RL only [paper Table 2] are choices of data and of the starting checkpoint,
not objectives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import lru_cache
from typing import Any, Literal, NamedTuple, get_args

from videop2r_data.schemas import Role, TraceGrammar, default_grammar

Part = Literal[
    "accuracy_p", "format_p", "length_p", "accuracy_r", "format_r", "length_r",
    "answer", "format", "length", "temporal", "overlong",
]  # fmt: skip
"""Parts of the reward [paper §3.3], weighted as `RewardSpec` says; `_p` is of every stream of
perception, `_r` of every other one. `answer`, `format` and `length` are of the whole completion, as plain
GRPO pays: the answer, the form of the whole trace, and the length of the answer's stream. `temporal` is the
bonus of T-GRPO, `overlong` what DAPO takes from completions near the limit of their length."""
Tokens = Literal["p", "r", "all"]
"""Tokens that an advantage reaches: those of each stream of perception, of each other one, or all."""
TOKENS: tuple[Tokens, ...] = get_args(Tokens)
_KEYS = {"perception": "p", "reasoning": "r"}
TAKEN = frozenset({"p", "r", "all", "sum", "plain", "total"})
"""Names of metrics, which no stream of a grammar may have."""


class TraceStream(NamedTuple):
    """One reward of a grammar, and the segments that it is about."""

    name: str
    sees: bool
    """It has a perception segment: its accuracy is the judge's verdict."""
    answers: bool
    """It has the final answer: its accuracy is that of the answer. With both it earns the sum."""

    @property
    def key(self) -> str:
        """In names of metrics: `p` of `perception`, `r` of `reasoning`, else the name."""
        return _KEYS.get(self.name, self.name)

    @property
    def kind(self) -> Literal["p", "r"]:
        """Whether it counts as perception: it sees, and does not answer."""
        return "p" if self.sees and not self.answers else "r"


@lru_cache(maxsize=64)
def trace_streams(grammar: TraceGrammar | None = None) -> tuple[TraceStream, ...]:
    """The streams of a grammar, in its order; None: the default.

    >>> [(stream.key, stream.sees, stream.answers) for stream in trace_streams()]
    [('p', True, False), ('r', False, True)]
    """
    grammar = grammar or default_grammar()
    named = grammar.named
    sees = {named[name].reward for name in grammar.of_role(Role.PERCEPTION)}
    answers = {named[name].reward for name in grammar.answers}
    return tuple(TraceStream(name, name in sees, name in answers) for name in grammar.streams)


class Earned(NamedTuple):
    """One advantage under a grammar."""

    reaches: str
    """Key of the stream whose tokens it reaches, or `all`."""
    sums: tuple[tuple[str, ...], ...]
    """Parts that are added and normalised together; of several such sums the advantages are added."""
    batch: bool = False
    """Single parts whose advantages are added with the weights of their rewards, and the sum normalised over
    the whole batch [GDPO eq. 4-7]."""


@dataclass(frozen=True, slots=True)
class StreamRule:
    """Parts that are added and normalised within the group, for the tokens of each stream apart or for all.

    Raises:
        ValueError: no part, an unknown or repeated one, or unknown tokens.
    """

    tokens: Tokens
    parts: tuple[Part, ...]
    apart: Literal["", "streams", "parts"] = ""
    """Of `all`: what is normalised apart, before the advantages are added: the parts of each stream, or each
    part, and then the sum over the batch too."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.parts) - set(get_args(Part)))
        if not self.parts or unknown or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"a stream pays distinct parts of {get_args(Part)}, got {self.parts}")
        if self.tokens not in TOKENS:
            raise ValueError(f"a stream reaches one of {TOKENS}, got {self.tokens!r}")

    def under(self, streams: Sequence[TraceStream]) -> Iterator[Earned]:
        """The advantages under a grammar; none where it has no such stream."""
        if self.tokens == "all":
            groups = [(stream,) for stream in streams] if self.apart == "streams" else [tuple(streams)]
            sums = tuple(parts for group in groups if (parts := self._of(group)))
            single = tuple((part,) for parts in sums for part in parts)
            found = [Earned("all", single, batch=True) if self.apart == "parts" else Earned("all", sums)]
        else:
            others = [stream for stream in streams if stream.kind != self.tokens]
            own = [stream for stream in streams if stream.kind == self.tokens]
            found = [Earned(stream.key, (self._of((stream, *others)),)) for stream in own]
        return (one for one in found if any(one.sums))

    def _of(self, streams: Sequence[TraceStream]) -> tuple[str, ...]:
        """The parts of these streams, in the order of the rule."""
        names: list[str] = []
        for part in self.parts:
            kind, _, of = part.partition("_")
            names += [f"{kind}_{stream.key}" for stream in streams if stream.kind == of] if of else [part]
        return tuple(names)


@dataclass(frozen=True, slots=True)
class Objective:
    """One way to turn rewards into advantages.

    Raises:
        ValueError: a field is empty, or two streams reach the same tokens.
    """

    name: str
    """Value of `objective.name` in a recipe."""
    rewards: str
    """What is normalised, in words; a cell of the table in docs/training.md, as `paper` and `reaches`."""
    streams: tuple[StreamRule, ...]
    """The advantages; tokens that none of them reaches are held by the KL term alone."""
    paper: str = "-"
    """What the paper calls it."""
    reaches: str = "all"
    """Which tokens get it, in words."""
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Section of a recipe -> settings there that the publication fixes; what the recipe itself says goes
    first."""

    def __post_init__(self) -> None:
        empty = [one.name for one in fields(self)[:-1] if not getattr(self, one.name)]
        if empty:
            raise ValueError(f"objective {self.name!r} is half declared: {', '.join(empty)} is empty")
        reached = [rule.tokens for rule in self.streams]
        if len(set(reached)) < len(reached) or ("all" in reached and len(reached) > 1):
            raise ValueError(f"objective {self.name!r} has streams that overlap: {', '.join(reached)}")

    @property
    def parts(self) -> frozenset[Part]:
        """Parts of the reward that any stream pays."""
        return frozenset(part for stream in self.streams for part in stream.parts)

    def earned(self, streams: Sequence[TraceStream]) -> list[Earned]:
        """The advantages under a grammar."""
        return [one for rule in self.streams for one in rule.under(streams)]

    def judged(self, streams: Sequence[TraceStream]) -> bool:
        """Whether training needs verdicts on observations; a length is paid for sufficient ones only."""
        asked = {
            f"{part}_{stream.key}" for stream in streams if stream.sees for part in ("accuracy", "length")
        }
        return any(asked.intersection(parts) for one in self.earned(streams) for parts in one.sums)

    @property
    def needs_observation(self) -> bool:
        """Whether anything is paid for an observation, so that the prompt must ask for one."""
        return bool(self.parts & {"accuracy_p", "format_p", "length_p"})

    @property
    def pays_length(self) -> bool:
        """Whether any length is paid."""
        return bool(self.parts & {"length_p", "length_r", "length"})

    @property
    def shuffles(self) -> bool:
        """Whether each video question also needs a group drawn with its frames in random order (T-GRPO)."""
        return "temporal" in self.parts


def _loss(**values: Any) -> dict[str, dict[str, Any]]:
    return {"loss": values}


_P: tuple[Part, ...] = ("accuracy_p", "format_p", "length_p")
_R: tuple[Part, ...] = ("accuracy_r", "format_r", "length_r")
_GRPO = (StreamRule("all", ("answer", "format", "length")),)
_ENTRIES = (
    Objective(
        name="pa-grpo",
        paper="VideoP2R",
        rewards="R_P and R_R, each normalised in the group; of any number of streams",
        reaches="A_P observation, A_R think and answer: each stream its own",
        streams=(StreamRule("p", _P), StreamRule("r", _R)),
    ),
    Objective(
        name="grpo",
        paper="plain GRPO, without R_P",
        rewards="R_R with the format of the whole template",
        streams=_GRPO,
    ),
    Objective(
        name="no-separation",
        paper="without separation",
        rewards="R_P + R_R, normalised once",
        streams=(StreamRule("all", (*_P, *_R)),),
    ),
    # Half of PA-GRPO, the first steps of GDPO: each reward has a normalisation of its own, and no tokens.
    Objective(
        name="gdpo",
        rewards="those of `pa-grpo`, each normalised in the group, the advantages added",
        streams=(StreamRule("all", (*_P, *_R), apart="streams"),),
    ),
    # GDPO [arXiv 2601.05242, eq. 4-7]: each reward normalised in its group, the advantages added with their
    # weights, the sum normalised over the batch. The divisor of the variance is that of the authors' code.
    Objective(
        name="gdpo-published",
        rewards="accuracy, form and length of R_P and of R_R, each normalised in the group; the sum of the "
        "advantages over the batch",
        streams=(StreamRule("all", (*_P, *_R), apart="parts"),),
        settings=_loss(std="sample"),
    ),
    # The other reading of "without R_P": the separation stays, and only one of its halves is paid.
    Objective(
        name="no-perception",
        paper='another reading of "without R_P"',
        rewards="R_R",
        reaches="think and answer",
        streams=(StreamRule("r", _R),),
    ),
    Objective(
        name="no-reasoning",
        paper="without R_R",
        rewards="R_P",
        reaches="observation",
        streams=(StreamRule("p", _P),),
    ),
    Objective(
        name="no-length",
        paper="without R_len",
        rewards="those of `pa-grpo` without the length bonus",
        reaches="as `pa-grpo`",
        streams=(StreamRule("p", ("accuracy_p", "format_p")), StreamRule("r", ("accuracy_r", "format_r"))),
    ),
    # T-GRPO [arXiv 2503.21776, eq. 1-2]: the question is also answered with shuffled frames; if the ordered
    # group is right at least `margin` times as often, each of its right rollouts earns `alpha` more.
    Objective(
        name="t-grpo",
        paper="T-GRPO on the same start",
        rewards="those of `grpo` and the temporal bonus",
        streams=(StreamRule("all", ("answer", "format", "length", "temporal")),),
    ),
    # DAPO [arXiv 2503.14476, eq. 8-13]: clip-higher, dynamic sampling, mean over all tokens, no KL, and the
    # soft punishment of overlong completions in place of a paid length. The paper draws until the batch is
    # full; recipes of verl stop after 6 to 32 rounds.
    Objective(
        name="dapo",
        rewards="the answer and the format of `grpo`, less for overlong completions",
        streams=(StreamRule("all", ("answer", "format", "overlong")),),
        settings=_loss(epsilon_high=0.28, reduction="token", beta=0.0) | {"rl": {"redraws": 10}},
    ),
    # Dr. GRPO [arXiv 2503.20783, §3.2]: rewards are centred, not divided by their deviation, and the sum over
    # a completion's tokens is divided by a constant.
    Objective(
        name="dr-grpo",
        rewards="those of `grpo`, centred in the group",
        streams=_GRPO,
        settings=_loss(std="none", reduction="constant", beta=0.0),
    ),
    # GSPO [arXiv 2507.18071, eq. 5-7, 13-14; clip range of §5.1]: the ratio of a whole completion, the n-th
    # root of its likelihood ratio.
    Objective(
        name="gspo",
        rewards="those of `grpo`",
        streams=_GRPO,
        settings=_loss(ratio="sequence", reduction="sequence", epsilon=3e-4, epsilon_high=4e-4, beta=0.0),
    ),
    # PAPO-G [arXiv 2507.06448], as the authors' code runs it for 7B (github.com/MikeWangWZHL/PAPO, fb63bf4):
    # what the policy says to the blackened clip is held fixed; KL of the kind k3, all means over tokens.
    Objective(
        name="papo",
        rewards="those of `grpo`",
        streams=_GRPO,
        settings=_loss(perception=0.02, entropy=0.05, beta=0.01, epsilon_high=0.3, reduction="token"),
    ),
)
OBJECTIVES: dict[str, Objective] = {entry.name: entry for entry in _ENTRIES}
"""Name -> objective, in the order of the docs."""


def names_where(holds: Callable[[Objective], bool]) -> str:
    """Names of the objectives for which this holds, for messages."""
    return ", ".join(name for name, entry in OBJECTIVES.items() if holds(entry))
