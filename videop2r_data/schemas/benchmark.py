"""What a benchmark is: its rows, media, hints, metrics and aggregates, as one YAML file declares them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.recipe import ColumnMapping, DemoSpec
from videop2r_data.schemas.sample import ProblemType, Sample, safe_relative_path

TagValues = dict[str, tuple[str, ...]]
"""Name of a column or tag -> values, one of which a row must have."""


class Aggregate(Model):
    """How the scores of the questions become one number; `id` names the protocol in every result."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9_.@-]{0,63}$")
    """Protocol id, e.g. `vsi_macro8`."""
    title: str = ""
    """In tables; empty: the id."""
    how: Literal["mean", "macro", "recall", "groups"] = "mean"
    """`mean`: of all questions; `macro`: unweighted mean of the means by `by`; `recall`: share of questions
    whose score is at least `at`; `groups`: mean over the groups of `by`, each worth what `curve` says."""
    by: str = ""
    """Tag, or `problem_type`."""
    merge: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """For `macro`: new value -> values of `by` whose means are averaged to one first."""
    only: TagValues = Field(default_factory=dict)
    """Tag, or `problem_type` -> values; other questions do not count."""
    at: float | None = Field(default=None, ge=0, le=1)
    """For `recall`."""
    curve: Literal["", "relevance", "logic", "video-mme-v2"] = ""
    """For `groups`: what one is worth. `relevance`: the square of the share that is right; `logic`: the
    unbroken chain, a question of stage s weighing 2s - 1; `video-mme-v2`: as the tag `group_type` says."""
    scale: float = 1.0
    """What 1 is printed as; 100 for percent."""
    source: str = ""
    """Who defines the protocol."""

    @model_validator(mode="after")
    def _says_all(self) -> Self:
        needed = {"macro": ("by",), "recall": ("at",), "groups": ("by", "curve")}.get(self.how, ())
        if lacking := " and ".join(name for name in needed if getattr(self, name) in (None, "")):
            raise ValueError(f"{self.how} needs {lacking}")
        return self


# --- from the rows as they are published to rows with a column for each thing ---


class MakeStep(Model):
    """A column is made of others."""

    make: str
    """Name of the column."""
    of: str
    """Template: `{video ID}-{Question ID}`; `{path|video}` is the first of both that a row has, `{#options}`
    the number of entries of a list. Without braces a fixed text; empty: nothing."""
    when: TagValues = Field(default_factory=dict)
    """Column -> values: rows with others pass as they are."""
    after: str = ""
    """Template: take what stands behind the first of these, if it is there, without blanks around."""
    before: str = ""
    """The same: take what stands before the last of these."""
    every: int | None = Field(default=None, ge=1)
    """A whole number becomes the number of its block of so many."""
    values: dict[str, str] = Field(default_factory=dict)
    """Then: what stands there -> what to write."""
    otherwise: str | None = None
    """For what `values` does not name, and for rows that have nothing there; None: such a row is bad."""


# --- where rows lie, and in which form ---


class HubSet(Model):
    """A data set on the Hub."""

    id: str = Field(pattern=r"^[\w.-]+/[\w.-]+$")
    """`owner/name`."""
    aliases: tuple[str, ...] = ()
    """Names it had before; they lead to the same files."""
    branch: str = "main"
    """That the commit lies on."""
    revision: str | None = Field(default=None, pattern=r"^[0-9a-f]{7,40}$")
    """Commit that the declaration was written against, in full or its first digits; None: none is known, and
    the newest one is read and named in results."""
    configs: tuple[str, ...] = ()
    """Read row by row through `datasets`; the config goes to `@part`. Empty: the layout's `files`."""
    split: str = "test"
    """Of those configs."""


class Expected(Model):
    """How many rows the publishers count."""

    rows: int | None = Field(default=None, ge=1)
    """None: it is not known."""
    by: dict[str, dict[str, int]] = Field(default_factory=dict)
    """Tag, or `problem_type` -> value -> rows."""

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        for tag, counts in self.by.items():
            if sum(counts.values()) != self.rows:
                raise ValueError(f"by {tag}: {sum(counts.values())} rows, and {self.rows} in all")
        return self


class Layout(Model):
    """One form in which the rows are published."""

    about: str
    """In words."""
    hub: HubSet | None = None
    """None: the rows have to be given as files."""
    files: tuple[Annotated[str, AfterValidator(safe_relative_path)], ...] = ()
    """Names or globs below the folder of the rows, or in the data set on the Hub; the name of a file without
    its ending (of a shard: its folder) goes to `@part`, the place of a row in it to `@row`."""
    demo: DemoSpec | None = None
    """The rows are those of a synthetic world."""
    unfold: tuple[str | tuple[str, ...], ...] = ()
    """From one object to the rows inside of it, from the outside: a name is the column that the keys of a
    level go to; `[a, b]`: a row for each place of these lists of one length, objects in them become columns;
    `[]`: the level is itself a list. Places go to `@n`."""
    leave_out: dict[str, TagValues] = Field(default_factory=dict)
    """Reason -> column -> values: rows that are no part of what is declared; counted, with the reason."""
    steps: tuple[MakeStep, ...] = ()
    """Columns that are made, in this order."""
    length: str = ""
    """Column with the length of the clip, seconds: a gold interval that ends behind it ends with it."""
    columns: ColumnMapping = ColumnMapping()
    """Which column holds what, after the steps."""
    problem_type: str | None = None
    """For rows without a column for it."""
    data_type: str | None = "video"
    """For rows without a column for it."""
    answer_base: Literal[0, 1, "text", "letter"] | None = None
    """What the answer of a multiple-choice row is, as in a recipe."""
    media: tuple[str, ...] = ()
    """Where the clip of a row may lie below the media root, made of columns; the first that is there counts,
    else the first. Empty: what `columns.path` says."""
    expected: Expected | None = None
    """None: as for the benchmark."""


class Hint(Model):
    """What a prompt says beside the question."""

    text: str
    """A sentence."""
    only: TagValues = Field(default_factory=dict)
    """Tag, or `problem_type` -> values; other questions do not get it."""


Metric = Literal["grader", "mean_relative_accuracy"]
"""`grader`: that of the problem type, as docs/scoring.md has it."""


_IN_BRACES = re.compile(r"\{(\w+)\}")


class LmmsEval(Model):
    """Where lmms-eval has the benchmark."""

    layout: str
    """The one with the rows of lmms-eval's data set, in their order."""
    task: str
    """Name of a question's task, with tags in braces: `mvbench_{task}`; a dash in a tag is `_` there."""
    texts: TagValues = Field(default_factory=dict)
    """Tag -> values: such questions with options are answered by the text of one; others by its letter."""

    @property
    def tags(self) -> list[str]:
        """The tags that the name is made of."""
        return _IN_BRACES.findall(self.task)

    def name(self, tags: Mapping[str, str]) -> str:
        """The task of a question with these tags; empty: no task asks it."""
        parts = {tag: tags.get(tag, "").replace("-", "_") for tag in self.tags}
        # tags are values of rows, and the name becomes that of a file
        if not all(re.fullmatch(r"\w+", part) for part in parts.values()):
            return ""
        return _IN_BRACES.sub(lambda match: parts[match[1]], self.task)

    def in_words(self, tags: Mapping[str, str]) -> bool:
        """Whether a question with these tags is one of `texts`."""
        return any(tags.get(tag) in values for tag, values in self.texts.items())


class Benchmark(Model):
    """A benchmark as one YAML file declares it."""

    benchmark: Literal[1] = 1
    """Version of this format."""
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,63}$")
    """What sources and results call it."""
    title: str
    """In tables."""
    about: str = ""
    """What it asks, in a sentence."""
    paper: str = ""
    """Where it was described."""
    home: str = ""
    """Where it is published."""
    license: str
    """Of the questions."""
    gated: bool = False
    """The Hub gives it to people who accepted its terms."""
    terms: str = ""
    """What its terms allow, in a sentence."""
    get: str = ""
    """How to get the media."""
    expected: Expected = Expected()
    """How many rows the publishers count."""
    layouts: dict[str, Layout] = Field(min_length=1)
    """The first that fits the files is taken."""
    hints: tuple[Hint, ...] = ()
    """What a prompt says beside the question, in this project's words."""
    metrics: dict[ProblemType, Metric] = Field(default_factory=dict)
    """Types that are not named have the grader of their type."""
    aggregates: tuple[Aggregate, ...] = Field(min_length=1)
    """The first is the headline."""
    lmms_eval: LmmsEval | None = None
    """Its tasks in lmms-eval; None: there are none."""
    notes: tuple[str, ...] = ()
    """Traps, contradictions, and what is not done here."""
    sources: dict[str, str] = Field(default_factory=dict)
    """Statement -> where it comes from: [V] computed or read from rows or code, [H] the Hub's page, [I] an
    issue, [P] a paper or project page, [M] memory."""

    @model_validator(mode="after")
    def _hangs_together(self) -> Self:
        ids = [one.id for one in self.aggregates]
        if twice := sorted({one for one in ids if ids.count(one) > 1}):
            raise ValueError(f"aggregates: the id stands twice: {', '.join(twice)}")
        known = {"problem_type", *(tag for one in self.layouts.values() for tag in one.columns.tags)}
        used = {*self.expected.by, *(one.by for one in self.aggregates if one.by)}
        used.update(*(one.only for one in self.aggregates), *(one.only for one in self.hints))
        if self.lmms_eval:
            used.update(self.lmms_eval.tags, self.lmms_eval.texts)
        if used - known:
            lacking, there = (", ".join(sorted(names)) for names in (used - known, known))
            raise ValueError(f"no layout has the tag {lacking}; there are: {there}")
        if self.lmms_eval and self.lmms_eval.layout not in self.layouts:
            raise ValueError(f"lmms_eval: no layout {self.lmms_eval.layout!r}")
        return self

    def hint(self, sample: Sample) -> str:
        """What the prompt of a question says beside it, each hint on a line; empty: nothing."""
        tags = sample.tags | {"problem_type": sample.problem_type.value}
        return "\n".join(h.text for h in self.hints if all(tags.get(t, "") in v for t, v in h.only.items()))

    def metric(self, kind: ProblemType) -> Metric:
        """What scores answers to questions of a type."""
        return self.metrics.get(kind, "grader")

    def expects(self, layout: str) -> Expected:
        """How many rows a layout should hold."""
        return self.layouts[layout].expected or self.expected
