"""The `demo` backend: generator and judges of the demo world, by the protocol of real models."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from pathlib import Path

import orjson

from videop2r_data.demo.scene import LABEL, Defect, Question, Scene, SceneSample, stream
from videop2r_data.demo.settle import concludes, settles
from videop2r_data.demo.statements import see_statement, split_claims
from videop2r_data.demo.traces import write_trace
from videop2r_data.demo.world import defect_of, read_spec, scene_lines
from videop2r_data.errors import ConfigError, RefusedError
from videop2r_data.schemas import (
    BackendSpec,
    ClaimVerdict,
    Completion,
    DemoSpec,
    FinishReason,
    Frames,
    Request,
    TraceGrammar,
    Usage,
    default_grammar,
)

MODEL = "demo-world/1"
"""Model id that every completion reports, whatever was asked for: marks it as synthetic."""
CHARS_PER_TOKEN = 4
_OPENER = "Based on the question, I need to notice"
_FENCED = re.compile(r"^BEGIN OBSERVATION\n(.*)\nEND OBSERVATION\s*$", re.DOTALL | re.MULTILINE)
_TAGGED = re.compile(r"<observation[^<>]*>(.*)</observation[^<>]*>", re.DOTALL | re.IGNORECASE)
_THINK = re.compile(r"^BEGIN REASONING\n(.*)\nEND REASONING\s*$", re.DOTALL | re.MULTILINE)
_OPTION = re.compile(r"^([A-Z])\. ", re.MULTILINE)
_CLAIM = re.compile(r"^(\d{1,3})\. (.*)$", re.MULTILINE)


class DemoBackend:
    """Generator and judges of the demo world.

    A question is found by its own words in the prompt: the number of its scene, then its exact text; if media
    come with the request, they must be the file of that scene. What is answered depends on the purpose:

    - `generate`: the planted trace. At a temperature above 0 the defect is drawn anew (same rate, equal for
      equal temperatures), so that further attempts can succeed.
    - `judge`: reads the text alone, never the scene: `settles`.
    - `claims`: the sentences of an observation that claim something, as a numbered list.
    - `faithfulness`: has the scene, found by its media file, and says of each claim whether it is so.
    - `blind`: answers a question from its text alone: right for a text puzzle, else a guess.
    - `conclusion`: reads reasoning and options alone: the answer that the last sentence names.
    - `exam`: by the scene if the media come with it, by what an observation `settles`, else a guess.

    With `extra: {error_rate: 0.1, error_seed: 1}` a judge errs: each of its verdicts is turned at that rate,
    the same ones for the same request and seed.

    Usage is an estimate by length (four characters a token; 28 x 28 pixels a visual token, two frames
    merged), since nothing is tokenised here.

    Args:
        spec: `kind: demo`; its model id is recorded as asked for, completions report `demo-world/1`.
        world: folder of `write_world`.
        grammar: of the traces that it writes; None: the default.

    Raises:
        ConfigError: `error_rate` is no share.
    """

    def __init__(self, spec: BackendSpec, world: Path, grammar: TraceGrammar | None = None) -> None:
        self.model = spec.model
        self._folder = world
        self._grammar = grammar or default_grammar()
        self._spec = DemoSpec()
        self._lines: dict[int, list[tuple[str, bytes]]] = defaultdict(list)
        self._media: dict[str, bytes] = {}
        rate = spec.extra.get("error_rate", 0.0)
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
            raise ConfigError(f"a share from 0 to 1, not {rate!r}", where="backend.extra.error_rate")
        self._errors = float(rate), spec.extra.get("error_seed", 0)

    async def start(self) -> None:
        """Read the world.

        Raises:
            SourceError: the folder holds no finished world.
        """
        self._spec = read_spec(self._folder)
        for line in scene_lines(self._folder):
            row = orjson.loads(line)
            self._lines[row["scene"]["index"]].append((row["question"]["problem"], line))
            self._media[row["media_sha256"]] = line

    async def complete(self, request: Request, frames: Frames | None = None) -> Completion:
        """Answer as the model would; `frames` are not looked at.

        Raises:
            RefusedError: the prompt holds no question of this world, or another scene's media.
        """
        text = "\n".join(m.text for m in request.messages)
        cut = False
        if request.purpose == "generate":
            sample = self._find(text, request)
            temperature = request.params.temperature
            defect = defect_of(sample, self._spec, temperature, self._grammar)
            seed = f"{self._spec.seed}/{temperature:.4f}"
            reply = write_trace(sample, defect, seed=seed, grammar=self._grammar)
            cut = defect is Defect.COMPLETION_CUT
        elif request.purpose == "claims":
            claims = split_claims(observation_in(request))
            reply = "\n".join(f"{n}. {claim}" for n, claim in enumerate(claims, 1)) or "NONE"
        elif request.purpose == "faithfulness":
            reply = self._see(request)
        elif request.purpose == "conclusion":
            reply = self._conclude(request)
        else:
            question = self._find(text, request).question
            answers = {"judge": self._judge, "exam": self._sit}.get(request.purpose, self._guess)
            reply = answers(question, request)
        limit = request.params.max_tokens * CHARS_PER_TOKEN
        finish: FinishReason = "length" if cut or len(reply) > limit else "stop"
        reply = reply[:limit]
        usage = Usage(input_tokens=_input_tokens(text, request), output_tokens=_tokens(reply))
        return Completion(text=reply, finish_reason=finish, model=MODEL, usage=usage)

    def _errs(self, request: Request, n: int = 0) -> bool:
        """Whether the nth verdict of this reply is turned."""
        rate, seed = self._errors
        return rate > 0 and stream("error", seed, request.key, n).random() < rate

    def _judge(self, question: Question, request: Request) -> str:
        """The words of the judge that reads the text alone: a short reason, then the verdict."""
        if settles(question, observation_in(request)) != self._errs(request):
            reason = "Each fact that the answer needs is stated, so the answer follows from the text alone."
            return f"{reason}\n<judgement>Yes</judgement>"
        reason = "What the text states does not lead to the correct answer, or contradicts itself."
        return f"{reason}\n<judgement>No</judgement>"

    def _see(self, request: Request) -> str:
        """The verdict of each claim, with the times of the frames that show it."""
        user = next((m.text for m in reversed(request.messages) if m.role == "user"), "")
        scene = None
        if request.media is not None:
            if request.media.file_sha256 not in self._media:
                raise RefusedError("the media are those of no scene of this demo world")
            scene = SceneSample.model_validate_json(self._media[request.media.file_sha256]).scene
        lines = []
        for number, claim in _CLAIM.findall(user):
            # without media, nothing is seen
            verdict = ClaimVerdict.UNSEEN if scene is None else see_statement(scene, claim)
            if self._errs(request, int(number)):
                turned = verdict is ClaimVerdict.SUPPORTED
                verdict = ClaimVerdict.CONTRADICTED if turned else ClaimVerdict.SUPPORTED
            at = _times(request, scene, claim) if verdict is not ClaimVerdict.UNSEEN else ""
            lines.append(f'<claim n="{number}" at="{at}">{verdict.value}</claim>')
        return "\n".join(lines)

    def _conclude(self, request: Request) -> str:
        """What reasoning settles on: an option that is there, or anything where there are none."""
        user = next((m.text for m in reversed(request.messages) if m.role == "user"), "")
        framed = _THINK.search(user)
        said = concludes(framed[1].replace("\n| ", "\n")) if framed else None
        options = _OPTION.findall(user[: framed.start()] if framed else user)
        if said is not None and options and said not in options:
            said = None
        if self._errs(request):
            at = options.index(said) + 1 if said in options else 0
            said = options[at % len(options)] if options else None
        reason = f'It ends in "{said}".' if said else "It ends in no answer."
        return f"{reason}\n<judgement>{said or 'NONE'}</judgement>"

    def _sit(self, question: Question, request: Request) -> str:
        """The answer of somebody who sees the clip, or has an observation in its place, or neither."""
        text: str | None = question.answer
        if request.media is None:
            seen = observation_in(request)
            text = next((a for a in self._possible(question) if settles(_with(question, a), seen)), None)
        if text is None:
            return self._guess(question, request)
        if self._errs(request):
            text = next((option[0] for option in question.options if option[0] != text), "unknown")
        return f"<answer>{text}</answer>"

    def _possible(self, question: Question) -> list[str]:
        """Answers that a question may have: its own, then its options, or those that it has in any scene."""
        if question.options:
            return [question.answer, *(option[0] for option in question.options)]
        same = (
            raw for entries in self._lines.values() for problem, raw in entries if problem == question.problem
        )
        return list(dict.fromkeys(SceneSample.model_validate_json(raw).question.answer for raw in same))

    def _guess(self, question: Question, request: Request) -> str:
        """The answer of somebody who has only the question: known for a puzzle, else a guess."""
        text = question.answer
        if not settles(question, question.problem):
            options = [option[0] for option in question.options]
            text = stream("guess", question.problem).choice(options) if options else "unknown"
        return f"<answer>{text}</answer>"

    async def close(self) -> None:
        """Forget the world; safe to call twice."""
        self._lines.clear()
        self._media.clear()

    def _find(self, text: str, request: Request) -> SceneSample:
        numbers = {int(m[1]) for m in LABEL.finditer(text) if len(m[1]) < 12}
        # The longest problem: one may be the beginning of another.
        found = [entry for n in numbers for entry in self._lines.get(n, ()) if entry[0] in text]
        if not found and not self._spec.numbered:
            return self._find_unnumbered(text, request)
        if not found:
            raise RefusedError("the prompt holds no question of this demo world")
        sample = SceneSample.model_validate_json(max(found, key=lambda entry: len(entry[0]))[1])
        if request.media is not None and request.media.file_sha256 != sample.media_sha256:
            raise RefusedError(f"the media are not those of {sample.scene.label}")
        return sample

    def _find_unnumbered(self, text: str, request: Request) -> SceneSample:
        """The question of a scene without a number: of the file that is shown, or by its lines in the prompt.

        Scenes share questions. Whoever has no media needs no scene: any question with these options and, for
        a judge, this answer is the same question.
        """
        head = text.partition("\nBEGIN OBSERVATION\n")[0]
        lines = Counter(line.strip() for line in head.splitlines())
        best, length = None, 0
        for problem, raw in (entry for entries in self._lines.values() for entry in entries):
            if len(problem) <= length or problem not in head:
                continue
            sample = SceneSample.model_validate_json(raw)
            if request.media is not None and request.media.file_sha256 != sample.media_sha256:
                continue
            asked = sample.question
            options, right = asked.options, asked.answer
            if options and (any(option not in lines for option in options)):
                continue
            chosen = [option for option in options if option.startswith(f"{right}. ")]
            # the right option stands among the options and once more as the answer
            told = lines[chosen[0]] > 1 if chosen else right in lines
            if request.purpose != "judge" or told:
                best, length = sample, len(problem)
        if best is None:
            raise RefusedError("the prompt holds no question of this demo world")
        return best


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


def _with(question: Question, answer: str) -> Question:
    return question.model_copy(update={"answer": answer})


def _times(request: Request, scene: Scene | None, claim: str) -> str:
    """Seconds of the first and the last sampled frame that show what a claim speaks of."""
    if scene is None or request.media is None or request.media.data_type != "video":
        return ""
    things = [o for o in scene.objects if o.name in claim]
    seen = [t for t in request.media.times_s if all(o.appear <= t * scene.fps < o.vanish for o in things)]
    return ", ".join(f"{t:.2f}" for t in dict.fromkeys((*seen[:1], *seen[-1:])))


def _tokens(text: str) -> int:
    return math.ceil(len(text) / CHARS_PER_TOKEN)


def _input_tokens(text: str, request: Request) -> int:
    media = request.media
    if media is None:
        return _tokens(text)
    steps = math.ceil(media.count / 2) if media.data_type == "video" else 1
    return _tokens(text) + steps * math.ceil(media.width * media.height / 28**2)
