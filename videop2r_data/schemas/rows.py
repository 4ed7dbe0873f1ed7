"""The released rows (configs `sft`, `rl`, `rejected`); Arrow schema and features are derived from them."""

from __future__ import annotations

import types
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, Field, create_model

from videop2r_data.schemas.base import Model
from videop2r_data.schemas.grammar import TraceGrammar, default_grammar
from videop2r_data.schemas.sample import DataType, ProblemType
from videop2r_data.schemas.verdict import Outcome, Stage, Unit

if TYPE_CHECKING:
    import pyarrow as pa

# Columns that the official release has keep its names: `observation` is the perception segment P, `process`
# the reasoning segment R, `output` the whole trace, `reward` the score of the answer.

Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31), "int32"]


def _either(names: list[str]) -> str:
    """Names as a list in words; a last word that the last two share is said once.

    >>> _either(["number", "old box", "new box"])
    'number, old or new box'
    """
    *front, last = names
    if front and front[-1].rpartition(" ")[2] == last.rpartition(" ")[2]:
        front[-1] = front[-1].rpartition(" ")[0]
    return f"{', '.join(front)} or {last}"


class QuestionColumns(Model):
    """What every config says of its question.

    The text behind a column is the one declaration of what it holds: cards and Croissant print it, the page
    docs/data-format.md begins with it, and the Arrow schema, the features and `verify` follow the types.
    """

    problem_id: str
    """id in its source"""
    problem: str
    """the question"""
    problem_type: str = Field(description=_either([kind.value for kind in ProblemType]))
    data_type: str
    """image, video or text"""
    options: list[str]
    """"A. text" and so on; empty unless multiple choice"""
    solution: str
    """the reference answer, in its answer tags"""
    path: str
    """media file below the media root of its source; empty for text"""
    data_source: str
    """where the question comes from, as the pool says it"""
    sample_id: str
    """unique in the data set and stable across builds: source/problem_id"""


class RlRow(QuestionColumns):
    """One question of the pool whose row and media could be read: config `rl`."""

    problem_type: ProblemType
    data_type: DataType


class SftRow(QuestionColumns):
    """One accepted trace: config `sft`."""

    problem_type: ProblemType
    data_type: DataType
    observation: str
    """what is visible that matters (the perception process), without its tags"""
    think: str
    """the reasoning, without its tags"""
    answer: str
    """the model's answer, without its tags"""
    process: str
    """think and answer with their tags (the reasoning process)"""
    output: str
    """the whole trace; in rejected: the raw completion of the last try"""
    reward: Unit
    """score of the answer against the solution by the metric of its type, 0 to 1"""
    attempt: Int32
    """which try it is, from 0"""
    judgement: str
    """Yes, or empty when there was no judge"""
    judge_explanation: str
    """the judge's words before its verdict"""
    frame_indices: list[Int32]
    """the frames that the generator saw, in display order"""
    frame_times_s: list[float]
    """their times in seconds from the first shown frame"""
    source_fps: float | None
    """average frames per second of the file, where it has them"""
    times: str
    """where those times come from: exact, repaired or assumed"""
    media_missing: float | None
    """share of the file that its container promises and that could not be decoded"""
    media_sha256: str
    """sha256 of the media file; empty for text"""
    generation_key: str
    """sha256 of the generating request: its key in the journal"""
    judge_key: str
    """the same for the judge's request"""
    synthetic: bool
    """made by a program, not from real media"""


class SegmentCell(Model):
    """One segment of a trace, as it stands in the column `segments`."""

    name: str
    """what the grammar calls it"""
    text: str
    """its content, without its marks"""


class JudgementCell(Model):
    """What one judge of a list said of a row, as it stands in the column `judgements`."""

    judge: str
    """its name in the recipe"""
    decides: str
    """sufficiency, faithfulness, blind or conclusion"""
    verdict: str
    """Yes or No; faithful or contradicted; answered or unanswered; of a conclusion the answer that think
    settles on, or No; empty: it gave none"""
    score: float | None
    """share of Yes among the votes, of supported claims, or the score of the blind answer; of a conclusion 1
    if the answer given is the same, else 0"""
    votes: list[str]
    """what each of its models said, in their order; a cascade's last: votes that differ are a disagreement"""
    detail: str
    """its words"""
    keys: list[str]
    """sha256 of the requests that decided: their keys in the journal"""


class ClaimCell(Model):
    """One claim of an observation, as it stands in the column `claims`."""

    text: str
    """what the observation claims"""
    verdict: str
    """supported, contradicted or unseen; empty: no verdict"""
    at: list[float]
    """seconds of the frames that decided"""


class Extra(NamedTuple):
    """Columns that only some data sets have.

    Attributes:
        judged: those of a list of judges, whose words are columns of their own.
        parts: those that say which part of its clip a question is about.
        clips: those that say how long a clip is, where its first and last frames need not be among the
            sampled ones.
    """

    judged: bool = False
    parts: bool = False
    clips: bool = False


PLAIN = Extra()

_PARTS: dict[str, Any] = {
    "start_s": (
        float | None,
        Field(description="where the part of the clip begins that the question is about; null: at its start"),
    ),
    "end_s": (float | None, Field(description="where that part ends; null: at the end of the clip")),
}
"""The columns that a pool with parts of clips adds to every config; seconds from the first shown frame."""

_CLIPS: dict[str, Any] = {
    "clip_s": (
        float | None,
        Field(description="length of the clip, or of the part, in seconds; null: no clip, or not known"),
    ),
    "clip_frames": (Int32 | None, Field(description="frames that it shows; null: no media")),
}
"""The columns that `media.look` adds to `sft` where it selects or drops frames: what times and frames in a
trace are held against."""

_JUDGED: dict[str, Any] = {
    "judgements": (
        list[JudgementCell],
        Field(description="what each judge said, in the order in which they were asked"),
    ),
    "claims": (
        list[ClaimCell],
        Field(description="the claims of the observation with the verdicts of the first judge that sees"),
    ),
    "blind": (
        bool | None,
        Field(description="whether the question was answered from its text alone; null: not asked"),
    ),
}
"""The columns that a list of judges adds, to accepted and to rejected rows."""


@lru_cache(maxsize=64)
def sft_row_of(grammar: TraceGrammar, extra: Extra = PLAIN) -> type[SftRow]:
    """The columns of `sft` for traces of a grammar: for the default those of `SftRow`.

    Another grammar adds a column for each segment that a trace has at most once, and the list of all
    segments. `observation`, `think` and `answer` are then the texts by role: perception, reasoning, final
    answer.

    Raises:
        ValueError: a segment is called as another column is.
    """
    if grammar == default_grammar():
        return _with(SftRow, extra)
    added: dict[str, Any] = {}
    for name in grammar.single:
        if name in ("observation", "think", "answer"):
            continue
        if name in {**SftRow.model_fields, **RejectedRow.model_fields, **_JUDGED, **_PARTS, **_CLIPS} or (
            name == "segments"
        ):
            raise ValueError(f"trace {grammar.name}: {name!r} is a column of its own: rename the segment")
        words = f"the segment {name}, without its marks; empty where there is none"
        added[name] = (str, Field(description=words))
    added["segments"] = (list[SegmentCell], Field(description="all segments of the trace, in order"))
    return _with(create_model("SftRow", __base__=SftRow, **added), extra)


def configs_of(grammar: TraceGrammar | None = None, extra: Extra = PLAIN) -> dict[str, type[QuestionColumns]]:
    """Config -> the model of its rows, for traces of a grammar (None: the default one)."""
    sft = sft_row_of(grammar or default_grammar(), extra)
    return CONFIGS | {"sft": sft, "rl": rl_row_of(extra), "rejected": rejected_row_of(extra)}


@cache
def rl_row_of(extra: Extra) -> type[RlRow]:
    """The columns of `rl`, which knows no judges."""
    return _with(RlRow, Extra(parts=extra.parts))


@cache
def rejected_row_of(extra: Extra) -> type[RejectedRow]:
    """The columns of `rejected`."""
    return _with(RejectedRow, extra._replace(clips=False))


def _with(model: type[_Row], extra: Extra) -> type[_Row]:
    added = (
        (_JUDGED if extra.judged else {}) | (_PARTS if extra.parts else {}) | (_CLIPS if extra.clips else {})
    )
    return create_model(model.__name__, __base__=model, **added) if added else model


class RejectedRow(QuestionColumns):
    """One question that is not in `sft`, with the reason: config `rejected`.

    A row that could not be read from its pool is here too: `problem` is then its raw text, cut. Columns that
    `sft` has too keep the words that stand there.
    """

    outcome: Outcome
    """rejected: a step looked and said no; failed: a step could not look"""
    stage: Stage
    """pool, media, generate, verify or judge"""
    reason: str
    """one enumerated reason of that stage"""
    detail: str
    """what exactly, for people"""
    output: str
    reward: Unit | None
    attempt: Int32
    judge_explanation: str
    generation_key: str
    judge_key: str
    synthetic: bool


_Row = TypeVar("_Row", bound=QuestionColumns)

CONFIGS: dict[str, type[QuestionColumns]] = {"sft": SftRow, "rl": RlRow, "rejected": RejectedRow}

ADDED_LATER: dict[str, dict[str, Any]] = {"sft": {"times": "", "media_missing": None}}
"""Config -> columns that earlier data sets lack, and the cell that stands for "not noted". Such data sets
stay valid; what is written today has every column."""


def column_words(models: Mapping[str, type[QuestionColumns]] | None = None) -> dict[str, str]:
    """Column -> what it holds, the same words in every config that has it; of `configs_of`, or of the default
    trace."""
    known = models or CONFIGS
    words: dict[str, str] = {}
    for model in (QuestionColumns, known["sft"], known["rejected"]):
        words |= {name: info.description for name, info in model.model_fields.items() if info.description}
    return words


# Arrow schema and `datasets` features, derived from the row models so that they cannot drift.

_PLAIN: dict[type, str] = {str: "string", bool: "bool", int: "int64", float: "float64"}
_ALIASES = {"string": "string", "bool": "bool", "int64": "int64", "int32": "int32", "float64": "double"}
"""Column kind, as `datasets` names it -> pyarrow's alias of the type."""


def arrow_schema(model: type[BaseModel]) -> pa.Schema:
    """The one explicit schema of every shard of a config.

    Raises:
        TypeError: for a field type that has no column type.
    """
    import pyarrow as pa

    fields = []
    for name, (kind, nullable) in _columns(model):
        listed = isinstance(kind, tuple)
        inner = _element_type(kind[1] if isinstance(kind, tuple) else kind)
        of_many = pa.list_(pa.field("element", inner, nullable=False))
        fields.append(pa.field(name, of_many if listed else inner, nullable=nullable))
    return pa.schema(fields)


def _element_type(kind: str | type[BaseModel]) -> pa.DataType:
    import pyarrow as pa

    return pa.type_for_alias(_ALIASES[kind]) if isinstance(kind, str) else pa.struct(list(arrow_schema(kind)))


def feature_info(model: type[BaseModel]) -> list[dict[str, Any]]:
    """The `dataset_info.features` entry of a dataset card."""
    found: list[dict[str, Any]] = []
    for name, (kind, _) in _columns(model):
        if isinstance(kind, tuple):
            inner = feature_info(kind[1]) if isinstance(kind[1], type) else kind[1]
            found.append({"name": name, "list": inner})
        elif isinstance(kind, str):
            found.append({"name": name, "dtype": kind})
        else:
            found.append({"name": name, "struct": feature_info(kind)})
    return found


def _columns(model: type[BaseModel]) -> Iterator[tuple[str, tuple[ColumnKind, bool]]]:
    """Each field with its column kind and whether it may be null, in the order of the model."""
    for name, info in model.model_fields.items():
        annotation: Any = info.annotation
        if info.metadata:  # pydantic takes `Annotated` apart: the mark of a narrow integer is among these
            annotation = Annotated[(annotation, *info.metadata)]
        yield name, _column(annotation)


ColumnKind = str | type[BaseModel] | tuple[str, str | type[BaseModel]]
"""`"string"`, a model of records, `("list", "string")`, or `("list", <model of its records>)`."""


def _column(annotation: Any) -> tuple[ColumnKind, bool]:
    """Column kind and whether it may be null."""
    origin = get_origin(annotation)
    if origin is Annotated:
        base, *marks = get_args(annotation)
        width = next((m for m in marks if isinstance(m, str) and m in _ALIASES), None)
        return (width, False) if width else _column(base)
    if origin in (Union, types.UnionType):
        inner = [a for a in get_args(annotation) if a is not type(None)]
        if len(inner) == 1:
            return _column(inner[0])[0], True
    elif origin in (list, tuple):
        element = get_args(annotation)[0]
        if isinstance(element, type) and issubclass(element, BaseModel):
            return ("list", element), False
        kind, _ = _column(element)
        if isinstance(kind, str):
            return ("list", kind), False
    elif isinstance(annotation, type):
        if issubclass(annotation, Enum):
            return "string", False
        if issubclass(annotation, BaseModel):
            return annotation, False
        if annotation in _PLAIN:
            return _PLAIN[annotation], False
    raise TypeError(f"no column type for {annotation}")
