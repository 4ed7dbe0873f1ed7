"""Pure scoring: text in, verdict out; no I/O, no torch, no clock."""

from videop2r_data.validators.checks import check_consistency, check_observation, think_choice, think_number
from videop2r_data.validators.judge import holds_verdict_tag, neutralise, parse_judgement, render_judge
from videop2r_data.validators.metrics import (
    box_iou,
    interval_iou,
    mean_relative_accuracy,
    relative_accuracy,
    rouge_mean_f,
    word_error_rate,
)
from videop2r_data.validators.profiles import check_reference
from videop2r_data.validators.scorer import Extracted, extract_answer, score
from videop2r_data.validators.text import count_words
from videop2r_data.validators.verify import Verified, check_length, verify_completion

__all__ = [
    "Extracted",
    "Verified",
    "box_iou",
    "check_consistency",
    "check_length",
    "check_observation",
    "check_reference",
    "count_words",
    "extract_answer",
    "holds_verdict_tag",
    "interval_iou",
    "mean_relative_accuracy",
    "neutralise",
    "parse_judgement",
    "relative_accuracy",
    "render_judge",
    "rouge_mean_f",
    "score",
    "think_choice",
    "think_number",
    "verify_completion",
    "word_error_rate",
]
