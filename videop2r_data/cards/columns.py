"""Every column of a released data set in words: for the card and for Croissant."""

from __future__ import annotations

COLUMNS = {
    "problem_id": "id in its source",
    "problem": "the question",
    "problem_type": "multiple choice, numerical, OCR, free-form, regression, temporal or spatial grounding",
    "data_type": "image, video or text",
    "options": '"A. text" and so on; empty unless multiple choice',
    "solution": "the reference answer, in its answer tags",
    "path": "media file below the media root of its source; empty for text",
    "data_source": "where the question comes from, as the pool says it",
    "sample_id": "unique in the data set and stable across builds: source/problem_id",
    "observation": "what is visible that matters (the perception process), without its tags",
    "think": "the reasoning, without its tags",
    "answer": "the model's answer, without its tags",
    "process": "think and answer with their tags (the reasoning process)",
    "output": "the whole trace; in rejected: the raw completion of the last try",
    "reward": "score of the answer against the solution by the metric of its type, 0 to 1",
    "attempt": "which try it is, from 0",
    "judgement": "Yes, or empty when there was no judge",
    "judge_explanation": "the judge's words before its verdict",
    "frame_indices": "the frames that the generator saw, in display order",
    "frame_times_s": "their times in seconds from the first shown frame",
    "source_fps": "average frames per second of the file, where it has them",
    "media_sha256": "sha256 of the media file; empty for text",
    "generation_key": "sha256 of the generating request: its key in the journal",
    "judge_key": "the same for the judge's request",
    "synthetic": "made by a program, not from real media",
    "outcome": "rejected: a step looked and said no; failed: a step could not look",
    "stage": "pool, media, generate, verify or judge",
    "reason": "one enumerated reason of that stage",
    "detail": "what exactly, for people",
    "image": "preview: the image itself",
    "video": "preview: the clip itself",
}
"""Column -> what it holds, the same in every config that has it."""
