"""Does the longest request fit? Worked out by hand from one call whose tokens were counted."""

from __future__ import annotations

from typing import Any

import pytest

from videop2r_data.builders.checks.trial import groups, look_at_room, needed_tokens
from videop2r_data.schemas import DataType, ProblemType, Sample
from videop2r_data.schemas.calls import MediaRecord, Message, Request, SamplingParams
from videop2r_data.schemas.judges import BackendSpec
from videop2r_data.schemas.media import MediaSpec
from videop2r_data.schemas.recipe import GenerateSpec, Recipe, SourceSpec

SAMPLE = Sample(
    row=0,
    sample_id="p/1",
    source="p",
    problem_id="1",
    problem="x" * 100,
    problem_type=ProblemType.FREE_FORM,
    data_type=DataType.VIDEO,
    options=(),
    solution="<answer>r</answer>",
    path="a.mp4",
    data_source="",
)


def backend(kind: str = "openai", **changes: Any) -> BackendSpec:
    return BackendSpec(kind=kind, model="m", base_url="http://localhost/v1", **changes)


def recipe(spec: BackendSpec, **media: Any) -> Recipe:
    return Recipe(
        name="x",
        sources=(SourceSpec(name="p", kind="video-r1", path="p.json"),),
        media=MediaSpec(**media),
        generate=GenerateSpec(backend=spec, max_tokens=1000),
    )


def record(count: int, data_type: str = "video") -> MediaRecord:
    return MediaRecord(
        data_type=data_type,
        frames_sha256="0",
        count=count,
        width=224,
        height=112,
        indices=tuple(range(count)),
        times_s=tuple(map(float, range(count))),
        source_frames=99,
        source_width=224,
        source_height=112,
        file_sha256="0",
        file_bytes=1,
        sampler="t/1",
    )


@pytest.mark.parametrize(
    ("spec", "media", "counted", "usual", "most"),
    [
        # one frame of 8 x 4 = 32 tokens and 100 of text; 16 frames make 8 pairs; 128 tokens a frame at most
        (backend(), record(1), 132, 100 + 8 * 32, 100 + 8 * 128 + 100),
        # the whole clip was sent: nothing is added but the largest size and the longer question
        (backend(), record(16), 356, 356, 100 + 8 * 128 + 100),
        # each frame an image of its own
        (backend(extra={"video": "frames"}), record(1), 132, 100 + 16 * 32, 100 + 16 * 128 + 100),
        # Anthropic: 224 x 112 / 750 = 33.4, 100,352 / 750 = 133.8, no pairs
        (backend("anthropic"), record(1), 134, 100 + 16 * 34, 100 + 16 * 134 + 100),
        (backend(), record(1, "image"), 132, 132, 100 + 128 + 100),
        (backend(), None, 100, 100, 200),
    ],
)
def test_tokens_of_the_usual_and_of_the_longest_request(
    spec: BackendSpec, media: MediaRecord | None, counted: int, usual: int, most: int
) -> None:
    found = needed_tokens(recipe(spec), spec, input_tokens=counted, sample=SAMPLE, media=media, longest=400)
    assert found == (usual, most), "300 more bytes of text at 3 bytes a token"


@pytest.mark.parametrize(("seconds", "pairs"), [(3.0, 3), (0.5, 2), (60.0, 8), (None, 8)])
def test_frames_by_rate_count_as_the_clip_of_the_call_gives_them(seconds: float | None, pairs: int) -> None:
    """At 2 a second; the longest request has the most frames, for no other clip's duration is known."""
    spec, media = backend(), record(1).model_copy(update={"duration_s": seconds})
    made = recipe(spec, fps=2.0)
    found = needed_tokens(made, spec, input_tokens=132, sample=SAMPLE, media=media, longest=100)
    assert found == (100 + pairs * 32, 100 + 8 * 128)


def test_a_shorter_clip_counts_as_a_whole_one() -> None:
    spec = backend()
    assert groups(3, "video", spec) == 2
    assert needed_tokens(
        recipe(spec, frames=4), spec, input_tokens=100 + 2 * 32, sample=SAMPLE, media=record(3), longest=0
    ) == (100 + 2 * 32, 100 + 2 * 128)


@pytest.mark.parametrize(
    ("context", "state"), [(2224, "ok"), (2223, "warning"), (1356, "warning"), (1355, "error")]
)
def test_the_answer_counts_where_prompt_and_answer_share_the_context(context: int, state: str) -> None:
    spec = backend()
    request = Request("generate", "m", (Message("user", "x"),), SamplingParams(max_tokens=1000), record(1))
    needed, finding = look_at_room(
        recipe(spec), spec, request, SAMPLE, counted=132, longest=400, context=context
    )
    assert (needed, finding.state) == (2224, state) and bool(finding.hint) == (state != "ok")
    claude = backend("anthropic")
    needed, finding = look_at_room(
        recipe(claude),
        claude,
        request,
        SAMPLE,
        counted=134,
        longest=400,
        context=100 + 16 * 134 + 100,
        prompt_alone=True,
    )
    assert (needed, finding.state) == (2344, "ok"), "its limit is that of the prompt"
