"""The contract: every record that passes between the rooms."""

from videop2r_data.schemas.base import canonical_bytes, digest, digest_bytes
from videop2r_data.schemas.sample import DataType, ProblemType, Sample
from videop2r_data.schemas.trace import (
    ProcessTrace,
    SegmentSpans,
    Span,
    parse_trace,
    render_trace,
    segment_spans,
)
from videop2r_data.schemas.verdict import (
    PAPER,
    ROBUST,
    Check,
    Judgement,
    Outcome,
    Policy,
    RejectReason,
    Score,
    ScoreReason,
    Stage,
    Sufficiency,
    TraceFault,
)

__all__ = [
    "PAPER",
    "ROBUST",
    "Check",
    "DataType",
    "Judgement",
    "Outcome",
    "Policy",
    "ProblemType",
    "ProcessTrace",
    "RejectReason",
    "Sample",
    "Score",
    "ScoreReason",
    "SegmentSpans",
    "Span",
    "Stage",
    "Sufficiency",
    "TraceFault",
    "canonical_bytes",
    "digest",
    "digest_bytes",
    "parse_trace",
    "render_trace",
    "segment_spans",
]
