"""The `demo` backend: answers from the scene truth, with planted defects, by the common protocol."""

from __future__ import annotations

import math
import re
from pathlib import Path

import orjson

from videop2r_data.demo.question import LABEL, Defect, SceneSample
from videop2r_data.demo.statements import holds, observation_is_sufficient, read_claims
from videop2r_data.demo.traces import write_trace
from videop2r_data.demo.world import SCENES, planted, read_spec
from videop2r_data.errors import RefusedError, SourceError
from videop2r_data.schemas import BackendSpec, Completion, DemoSpec, FinishReason, Frames, Request, Usage

MODEL = "demo-world/1"
"""Model id that every completion reports, whatever was asked for: marks it as synthetic."""
CHARS_PER_TOKEN = 4
_OPENER = "Based on the question, I need to notice"
_FENCED = re.compile(r"^BEGIN OBSERVATION\n(.*)\nEND OBSERVATION\s*$", re.DOTALL | re.MULTILINE)
_TAGGED = re.compile(r"<observation[^<>]*>(.*)</observation[^<>]*>", re.DOTALL | re.IGNORECASE)


class DemoBackend:
    """Generator and judge that know the scene behind each question.

    A question is found by its own words in the prompt: the number of its scene, then its exact text; if media
    come with the request, they must be the file of that scene. For `generate` the answer is the planted
    trace. At a temperature above 0 the defect is drawn anew (same rate, equal for equal temperatures), so
    that further attempts can succeed. For `judge` the observation is read out of the prompt and decided by
    `observation_is_sufficient`.

    Usage is an estimate by length (four characters a token; 28 x 28 pixels a visual token, two frames
    merged), since nothing is tokenised here.

    Args:
        spec: `kind: demo`; its model id is recorded as asked for, completions report `demo-world/1`.
        world: folder of `write_world`.
    """

    def __init__(self, spec: BackendSpec, world: Path) -> None:
        self.model = spec.model
        self._folder = world
        self._spec: DemoSpec | None = None
        self._lines: dict[int, list[tuple[str, bytes]]] = {}

    async def start(self) -> None:
        """Read the world.

        Raises:
            SourceError: the folder holds no finished world.
        """
        self._spec = read_spec(self._folder)
        try:
            lines = (self._folder / SCENES).read_bytes().splitlines()
        except OSError as error:
            raise SourceError(f"no finished demo world: {error}", where=str(self._folder)) from None
        for line in lines:
            row = orjson.loads(line)
            entry = (row["question"]["problem"], line)
            self._lines.setdefault(row["scene"]["index"], []).append(entry)

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """Answer as the model would; `frames` are not looked at.

        Raises:
            RefusedError: the prompt holds no question of this world, or another scene's media.
        """
        text = "\n".join(m.text for m in request.messages)
        sample = self._find(text, request)
        if request.purpose == "judge":
            reply, cut = judge_reply(sample, observation_in(request)), False
        else:
            reply, cut = self._trace(sample, request.params.temperature)
        limit = request.params.max_tokens * CHARS_PER_TOKEN
        finish: FinishReason = "length" if cut or len(reply) > limit else "stop"
        reply = reply[:limit]
        usage = Usage(input_tokens=_input_tokens(text, request), output_tokens=_tokens(reply))
        return Completion(text=reply, finish_reason=finish, model=MODEL, usage=usage)

    async def close(self) -> None:
        """Forget the world; safe to call twice."""
        self._lines = {}

    def _trace(self, sample: SceneSample, temperature: float) -> tuple[str, bool]:
        assert self._spec is not None
        defect = sample.defect
        if temperature > 0:
            kind = sample.question.problem_type
            defect = planted(self._spec, sample.scene.index, sample.number, kind, temperature)
        seed = f"{self._spec.seed}/{temperature:.4f}"
        return write_trace(sample, defect, seed=seed), defect is Defect.COMPLETION_CUT

    def _find(self, text: str, request: Request) -> SceneSample:
        best: tuple[str, bytes] | None = None
        for number in {m[1] for m in LABEL.finditer(text) if len(m[1]) < 12}:
            for entry in self._lines.get(int(number), ()):
                if entry[0] in text and (best is None or len(entry[0]) > len(best[0])):
                    best = entry
        if best is None:
            raise RefusedError("the prompt holds no question of this demo world")
        sample = SceneSample.model_validate_json(best[1])
        if request.media is not None and request.media.file_sha256 != sample.media_sha256:
            raise RefusedError(f"the media are not those of {sample.scene.label}")
        return sample


def observation_in(request: Request) -> str:
    """The observation that a judge prompt holds.

    Between the first BEGIN OBSERVATION and the last END OBSERVATION of the packaged prompt, or between
    observation tags of another one, else from the opening words of a trace to the end.
    """
    text = next((m.text for m in reversed(request.messages) if m.role == "user"), "")
    framed = _FENCED.search(text) or _TAGGED.search(text)
    if framed:
        return framed[1]
    at = text.find(_OPENER)
    return text[at:] if at >= 0 else text


def judge_reply(sample: SceneSample, observation: str) -> str:
    """The judge's words: a short reason, then the verdict."""
    scene, question = sample.scene, sample.question
    if observation_is_sufficient(scene, question, observation):
        reason = "Each fact that the answer needs is stated, so the answer follows from the text alone."
        verdict = "Yes"
    else:
        false = [c for c in read_claims(observation) if holds(scene, c) is False]
        reason = (
            f"What the text says of the {false[0].key[0]} of {false[0].key[1] or 'the sign'} is not so."
            if false
            else "A fact that the answer needs is not stated, so the answer cannot be derived from the text."
        )
        verdict = "No"
    return f"{reason}\n<judgement>{verdict}</judgement>"


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARS_PER_TOKEN)


def _input_tokens(text: str, request: Request) -> int:
    media = request.media
    if media is None:
        return _tokens(text)
    steps = math.ceil(media.count / 2) if media.data_type == "video" else 1
    return _tokens(text) + steps * math.ceil(media.width * media.height / 28**2)
