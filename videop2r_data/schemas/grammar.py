"""The grammar of a trace, as a recipe declares it: segments in order, their marks, roles, streams and fields.

Published models write their process in many forms: `<info>`, `<think>`, `<answer>`; groups of time, caption
and think with free text between them; a boxed answer. A grammar is data, one small YAML file. `trace_parser`
compiles it into a parser.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from functools import cache, cached_property, lru_cache
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Self

from pydantic import BeforeValidator, Discriminator, Field, Tag, model_validator

from videop2r_data.errors import ConfigError
from videop2r_data.schemas.base import Model
from videop2r_data.schemas.trace_fields import Template
from videop2r_data.schemas.yaml_file import is_file, parse_yaml, read_settings

DEFAULT_GRAMMAR = "videop2r"
Word = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,31}$")]
TagName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
Phrase = Annotated[str, Field(min_length=1, max_length=120, pattern=r"^\S(?:.*\S)?$")]


def _as_tuple(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class Role(StrEnum):
    """What a segment is for."""

    PERCEPTION = "perception"
    """What is seen: the judges read it."""
    REASONING = "reasoning"
    """What is concluded from it."""
    ANSWER = "answer"
    """The final answer: it is scored."""
    OTHER = "other"
    """Neither: kept, and read by nobody."""


class Mark(NamedTuple):
    """One spelling of a segment's marks.

    Attributes:
        open: the text in front of the segment; "" for free text.
        close: the text behind it.
    """

    open: str
    close: str


BOX = Mark(r"\boxed{", "}")
FREE = Mark("", "")


class SegmentSpec(Model):
    """One segment: exactly one of `tag`/`marks`, `boxed` and `text` says how it is marked."""

    name: Word
    """Of the segment: its column, its metric, its filter in the gallery."""
    role: Role
    """`perception`, `reasoning`, `answer` or `other`."""
    stream: Word | None = None
    """The reward that its tokens belong to; None: `perception` for perception, else `reasoning`."""
    tag: Annotated[tuple[TagName, ...], BeforeValidator(_as_tuple)] = ()
    """Paired tags, `think` for `<think>...</think>`; the first is written, the others are read as well."""
    marks: tuple[tuple[Phrase, Phrase], ...] = ()
    """Other pairs of an opening and a closing phrase, read as well; the first is written if there is no
    tag."""
    boxed: bool = False
    r"""The segment stands in `\boxed{...}`, with any braces that close again inside."""
    text: bool = False
    """The segment is free text outside all marks; never required."""
    required: bool = True
    """False: a trace without it is a trace."""
    prefilled: bool = False
    """The opening mark may stand at the end of the prompt: a text may begin inside this segment."""
    fields: tuple[str, ...] = ()
    """Typed values inside, as templates: `<t>{at: time seconds}</t>`; see docs/traces.md."""
    holds: str = ""
    """One template that the whole segment must be: `{start: time mm:ss}-{end: time mm:ss}`."""
    after: Annotated[str, Field(pattern=r"^\s*$", max_length=8)] = ""
    """White space that is written behind the segment; in reading, any is allowed."""
    about: str = ""
    """What it holds, in words for the model that writes it."""

    @model_validator(mode="after")
    def _is_marked_in_one_way(self) -> Self:
        ways = [bool(self.tag or self.marks), self.boxed, self.text]
        if sum(ways) != 1:
            raise ValueError(f"segment {self.name!r}: give one of tag (or marks), boxed: true, text: true")
        for template in (*self.fields, *([self.holds] if self.holds else [])):
            Template(template)
        if self.prefilled and not (self.tag or self.marks):
            raise ValueError(f"segment {self.name!r}: prefilled needs a tag or marks")
        return self

    @property
    def spellings(self) -> tuple[Mark, ...]:
        """All marks of the segment, the one that is written first."""
        if self.text:
            return (FREE,)
        if self.boxed:
            return (BOX,)
        return (*(Mark(f"<{t}>", f"</{t}>") for t in self.tag), *(Mark(*pair) for pair in self.marks))

    @property
    def needed(self) -> bool:
        """A trace, or a round of a group, without this segment is none."""
        return self.required and not self.text

    @property
    def reward(self) -> str:
        """Name of the stream."""
        return self.stream or ("perception" if self.role is Role.PERCEPTION else "reasoning")


class GroupSpec(Model):
    """Segments that repeat together, in their order."""

    group: tuple[SegmentSpec, ...] = Field(min_length=1)
    """The segments of one round."""
    min: int = Field(default=1, ge=0)
    """Fewest rounds."""
    max: int | None = Field(default=None, ge=1)
    """Most rounds; None: any number."""

    @model_validator(mode="after")
    def _has_something_to_count(self) -> Self:
        if not any(one.needed for one in self.group):
            raise ValueError("a group needs a required segment with a mark: rounds are told apart by it")
        if self.max is not None and self.max < self.min:
            raise ValueError(f"a group of at least {self.min} and at most {self.max} rounds")
        return self


def _kind(value: Any) -> str:
    """What an entry is meant to be: its errors are told as those of that, and of nothing else."""
    return (
        "a group" if isinstance(value, GroupSpec) or (isinstance(value, dict) and "group" in value) else "one"
    )


_Entry = Annotated[
    Annotated[SegmentSpec, Tag("one")] | Annotated[GroupSpec, Tag("a group")], Discriminator(_kind)
]


class TraceGrammar(Model):
    """What a trace is made of."""

    trace: Literal[1] = 1
    """Version of this format."""
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]{0,47}$")]
    """Of the grammar."""
    about: str = ""
    """Whose form it is, for cards."""
    segments: tuple[_Entry, ...] = Field(min_length=1)
    """In the order in which they stand."""
    answer: tuple[Word, ...] = ()
    """Segments that hold the final answer: the first of them that a trace has; empty: that of role
    `answer`."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        known: dict[str, SegmentSpec] = {}
        for one in self.flat:
            same = known.setdefault(one.name, one)
            if same != one and not (same.text and one.text):
                raise ValueError(f"two different segments are called {one.name!r}")
        if all(one.text for one in self.flat):
            raise ValueError("a trace of free text alone has no marks to read")
        wrong = [name for name in self.answer if name not in known]
        if wrong:
            raise ValueError(f"answer names {', '.join(wrong)}, which no segment is called")
        if not self.answers:
            raise ValueError("no segment has role: answer")
        return self

    @cached_property
    def flat(self) -> tuple[SegmentSpec, ...]:
        """All segments, in order."""
        return tuple(self._flat())

    def _flat(self) -> Iterator[SegmentSpec]:
        for part in self.segments:
            yield from part.group if isinstance(part, GroupSpec) else (part,)

    @cached_property
    def named(self) -> dict[str, SegmentSpec]:
        """Name -> segment, in order, each name once."""
        return {one.name: one for one in self.flat}

    @cached_property
    def answers(self) -> tuple[str, ...]:
        """Names of the segments that hold the final answer, the first that a trace has counts."""
        return self.answer or tuple(dict.fromkeys(s.name for s in self.flat if s.role is Role.ANSWER))

    @cached_property
    def streams(self) -> tuple[str, ...]:
        """Names of the rewards, in the order in which their segments stand: K of them."""
        return tuple(dict.fromkeys(one.reward for one in self.flat))

    @cached_property
    def single(self) -> tuple[str, ...]:
        """Names of the segments that a trace has once at most: each is a column of its own."""
        repeated = {one.name for part in self.segments if isinstance(part, GroupSpec) for one in part.group}
        names = [one.name for one in self.flat]
        return tuple(n for n in dict.fromkeys(names) if n not in repeated and names.count(n) == 1)

    @cached_property
    def opening(self) -> str:
        """How the first mark of a completion begins, in lower case; "" if the prompt may hold it."""
        first = next(one for one in self.flat if not one.text)
        return "" if first.prefilled else first.spellings[0].open.removesuffix(">").lower()

    def of_role(self, role: Role) -> tuple[str, ...]:
        """Names of the segments with a role, in order."""
        return tuple(name for name, one in self.named.items() if one.role is role)


def packaged_grammars() -> tuple[str, ...]:
    """Names of the grammars in the package, the default first."""
    folder = resources.files(__package__) / "traces"
    names = sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))
    return (DEFAULT_GRAMMAR, *(name for name in names if name != DEFAULT_GRAMMAR))


@lru_cache(maxsize=64)
def load_grammar(name_or_path: str, *, base: Path | None = None) -> TraceGrammar:
    """Read a packaged grammar by its name, or a YAML file.

    Args:
        name_or_path: `video-thinker`, or a path with an ending.
        base: folder that a relative path starts from; None: the current one.

    Raises:
        ConfigError: there is no such grammar, or every error of the file at once, each with its field.
    """
    if name_or_path in packaged_grammars():
        text = (resources.files(__package__) / "traces" / f"{name_or_path}.yaml").read_text("utf-8")
        return parse_grammar(text, where=name_or_path)
    path = (base or Path()) / name_or_path
    if not is_file(path):
        known = ", ".join(packaged_grammars())
        raise ConfigError(
            f"no trace grammar {name_or_path!r}: neither packaged ({known}) nor a file",
            where="trace",
            hint="trace: <name> or trace: path/to/grammar.yaml, relative to the recipe",
        )
    return parse_grammar(read_settings(path, what="trace grammar"), where=str(path))


@cache
def default_grammar() -> TraceGrammar:
    """The grammar of VideoP2R."""
    return load_grammar(DEFAULT_GRAMMAR)


def parse_grammar(text: str, *, where: str) -> TraceGrammar:
    """Read a grammar from YAML text.

    Raises:
        ConfigError: every error of the file at once, each with its field.
    """
    return parse_yaml(
        text,
        TraceGrammar,
        where=where,
        what="trace grammar",
        valid="a trace grammar is YAML: see docs/traces.md",
        allowed="docs/traces.md lists every field",
    )
