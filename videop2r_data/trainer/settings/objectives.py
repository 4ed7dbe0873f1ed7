"""The objectives of RL, one entry each: which parts of the reward are normalised together, for which tokens.

To add an objective, add an entry to `_ENTRIES`. Everything else follows from it: the names that a recipe and
the command line allow, the schema, whether a judge must be named, the shuffled group of T-GRPO, rewards and
streams, and the table in docs/training.md (`python scripts/recipe_reference.py` writes it).

Process-agnostic SFT, SFT only and RL only [paper Table 2] are choices of data and of the starting checkpoint,
not objectives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

Part = Literal[
    "accuracy_p", "format_p", "length_p", "accuracy_r", "format_r", "length_r", "format", "length", "temporal"
]
"""Parts of the reward [paper §3.3], weighted as `RewardSpec` says; `_p` is of perception, `_r` of reasoning.
`format` is that of the whole template, `length` that of the reasoning, paid under it: as plain GRPO pays.
`temporal` is the bonus of T-GRPO."""
Tokens = Literal["p", "r", "all"]
"""Tokens that an advantage reaches: perception, reasoning, or the whole completion. Also the name of the
stream, in `clip_fraction/<name>` of the metrics and in the advantages of `samples.jsonl`."""
TOKENS: tuple[Tokens, ...] = get_args(Tokens)


@dataclass(frozen=True, slots=True)
class StreamRule:
    """One advantage: these parts are added, normalised within the group, and reach these tokens.

    Raises:
        ValueError: no part, an unknown or repeated one, or unknown tokens.
    """

    tokens: Tokens
    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        unknown = sorted(set(self.parts) - set(get_args(Part)))
        if not self.parts or unknown or len(set(self.parts)) < len(self.parts):
            raise ValueError(f"a stream pays distinct parts of {get_args(Part)}, got {self.parts}")
        if self.tokens not in TOKENS:
            raise ValueError(f"a stream reaches one of {TOKENS}, got {self.tokens!r}")


@dataclass(frozen=True, slots=True)
class Objective:
    """One way to turn rewards into advantages.

    Attributes:
        name: value of `objective.name` in a recipe.
        paper: what the paper calls it; a cell of the table in docs/training.md, as the next two.
        rewards: what is normalised, in words.
        reaches: which tokens get it, in words.
        streams: the advantages; tokens that none of them reaches are held by the KL term alone.

    Raises:
        ValueError: a field is empty, or two streams reach the same tokens.
    """

    name: str
    paper: str
    rewards: str
    reaches: str
    streams: tuple[StreamRule, ...]

    def __post_init__(self) -> None:
        empty = [
            field for field in ("name", "paper", "rewards", "reaches", "streams") if not getattr(self, field)
        ]
        if empty:
            raise ValueError(f"objective {self.name!r} is half declared: {', '.join(empty)} is empty")
        reached = [stream.tokens for stream in self.streams]
        if len(set(reached)) < len(reached) or ("all" in reached and len(reached) > 1):
            raise ValueError(f"objective {self.name!r} has streams that overlap: {', '.join(reached)}")

    @property
    def parts(self) -> frozenset[Part]:
        """Parts of the reward that any stream pays."""
        return frozenset(part for stream in self.streams for part in stream.parts)

    @property
    def needs_judge(self) -> bool:
        """Whether training needs verdicts on observations; a length is paid for sufficient ones only."""
        return bool(self.parts & {"accuracy_p", "length_p"})

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


_P: tuple[Part, ...] = ("accuracy_p", "format_p", "length_p")
_R: tuple[Part, ...] = ("accuracy_r", "format_r", "length_r")
_ENTRIES = (
    Objective(
        name="pa-grpo",
        paper="VideoP2R",
        rewards="R_P and R_R, each normalised in the group",
        reaches="A_P observation, A_R think and answer",
        streams=(StreamRule("p", _P), StreamRule("r", _R)),
    ),
    Objective(
        name="grpo",
        paper="plain GRPO, without R_P",
        rewards="R_R with the format of the whole template",
        reaches="all",
        streams=(StreamRule("all", ("accuracy_r", "format", "length")),),
    ),
    Objective(
        name="no-separation",
        paper="without separation",
        rewards="R_P + R_R, normalised once",
        reaches="all",
        streams=(StreamRule("all", (*_P, *_R)),),
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
        reaches="all",
        streams=(StreamRule("all", ("accuracy_r", "format", "length", "temporal")),),
    ),
)
OBJECTIVES: dict[str, Objective] = {entry.name: entry for entry in _ENTRIES}
"""Name -> objective, in the order of the docs."""


def names_where(holds: Callable[[Objective], bool]) -> str:
    """Names of the objectives for which this holds, for messages.

    >>> names_where(lambda entry: entry.shuffles)
    't-grpo'
    """
    return ", ".join(name for name, entry in OBJECTIVES.items() if holds(entry))
