"""What a build needs of this machine and of its servers: prompts, decoder, folders, disk, prices, models."""

from __future__ import annotations

import importlib.util
import ipaddress
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from yarl import URL

from videop2r_data.backends import ConclusionRequests, FaithfulnessRequests, to_model
from videop2r_data.builders.checks.report import (
    Finding,
    ServerLook,
    State,
    StepName,
    TrialCall,
    attempted,
    no_error,
    of_error,
)
from videop2r_data.builders.checks.trial import (
    TrialRows,
    addresses,
    look_at_batches,
    look_at_room,
    one_call,
    patiently,
    read_trace,
    read_verdict,
    unanswered,
)
from videop2r_data.builders.judging import Bench, BlindRequests, prompts_of
from videop2r_data.builders.steps import RequestBuilder, backend_of, left_out
from videop2r_data.builders.workspace import Workspace
from videop2r_data.errors import (
    AuthError,
    ConfigError,
    MediaError,
    MissingExtraError,
    P2RError,
    TransientError,
)
from videop2r_data.files import find_model
from videop2r_data.media import DecodePool
from videop2r_data.schemas import (
    NOT_SHOWN,
    Backend,
    BackendSpec,
    Completion,
    DataType,
    Frames,
    KnowsContext,
    ListsModels,
    ProblemType,
    Recipe,
    Request,
    Sample,
)

# This machine, looked at without a call: prompts, decoder, folders, disk, prices.

BYTES_PER_ROW = 8 * 1024
"""Bytes of disk per row and attempt, rounded up: journal, new data set, old data set until the swap."""
LOW_BYTES = 2**30
_NO_ROOM = "free some space, or choose other folders with --out and --work"
_CODECS = {
    "H.264": ("h264",),
    "HEVC": ("hevc",),
    "VP8": ("vp8", "libvpx"),
    "VP9": ("vp9", "libvpx-vp9"),
    "AV1": ("libdav1d", "libaom-av1"),
    "MPEG-4": ("mpeg4",),
}
"""What clips of the usual data sets are made of, and the decoders that read it."""


def look_at_setup(recipe: Recipe, place: Workspace, *, rows: int) -> list[Finding]:
    """Everything that can be known without a server; a build of so many good rows needs room on the disk.

    Nothing is written but one temporary file, which is taken away again.
    """
    return [
        *_prompts(recipe, place),
        *attempted("leave_out", lambda: _left_out(recipe, place)),
        *_decoder(recipe),
        *_folders(place),
        *_disk(recipe, place, rows),
        *_prices(recipe),
    ]


def _prompts(recipe: Recipe, place: Workspace) -> Iterator[Finding]:
    """Each prompt by itself, so that a fault of one does not hide the other's."""
    names = [recipe.generate.prompt]
    errors = []
    try:
        RequestBuilder(recipe, place.base)
    except P2RError as error:
        errors.append(of_error("prompts", error, hint="change generate.prompt in the recipe"))
    for judge in recipe.all_judges:
        alone = {"judge": None, "judges": (judge,)}
        try:
            bench = Bench(recipe.model_copy(update=alone), place.base)
            names += [prompt.name for prompt in prompts_of(bench.judges[0][1])]
        except P2RError as error:
            errors.append(of_error("prompts", error, hint=f"change {judge.name}.prompt in the recipe"))
    yield from errors
    if not errors:
        yield Finding(about="prompts", state="ok", message=f"prompts render: {', '.join(names)}")


def _left_out(recipe: Recipe, place: Workspace) -> str:
    told = "rows of the pool are left out: evaluation sets have them too"
    return f"{count:,} {told}" if (count := len(left_out(recipe, place.base))) else ""


def _decoder(recipe: Recipe) -> Iterator[Finding]:
    import av

    if recipe.media.decoder == "decord":
        from videop2r_data.media import require_decord

        try:
            require_decord()
        except P2RError as error:
            yield of_error("decoder", error)
    missing = [name for name, ways in _CODECS.items() if not av.codecs_available & set(ways)]
    if missing:
        yield Finding(
            about="decoder",
            state="warning",
            message=f"PyAV {av.__version__} has no decoder for {', '.join(missing)}",
            hint="install PyAV's own wheel: pip install --force-reinstall --only-binary av av",
        )
    else:
        known = ", ".join(_CODECS)
        yield Finding(about="decoder", state="ok", message=f"decoder {recipe.media.decoder} reads {known}")


def _folders(place: Workspace) -> Iterator[Finding]:
    from videop2r_data.builders.export import check_ours

    failed = False
    for look in (place.check, lambda: check_ours(place.out)):
        try:
            look()
        except P2RError as error:
            failed = True
            yield of_error("folders", error)
    for folder, flag in ((place.out, "--out"), (place.work, "--work")):
        try:
            with tempfile.NamedTemporaryFile(dir=_nearest(folder), prefix=".p2r-check-") as file:
                file.write(b"can be written")
        except OSError as error:
            failed = True
            yield Finding(
                about="folders",
                state="error",
                message=f"{folder} cannot be written: {error.strerror or error}",
                hint=f"choose another folder with {flag}, or give yourself the right to write",
            )
    if not failed:
        told = f"folders can be written: {place.out}, {place.work}"
        yield Finding(about="folders", state="ok", message=told)


def _nearest(folder: Path) -> Path:
    """The folder itself, or the nearest one above it that exists: the build makes those between."""
    folder = folder.absolute()
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return folder


def _disk(recipe: Recipe, place: Workspace, rows: int) -> Iterator[Finding]:
    need = rows * recipe.generate.attempts * BYTES_PER_ROW
    seen: set[int] = set()
    for folder in map(_nearest, (place.work, place.out)):
        try:
            device, free = folder.stat().st_dev, shutil.disk_usage(folder).free
        except OSError:
            continue  # reported by the folders' finding
        if device in seen:
            continue
        seen.add(device)
        told = (
            f"{free / 1e9:,.1f} GB free at {folder}, {rows:,} rows need about {max(need / 1e9, 0.1):,.1f} GB"
        )
        state: State = "error" if free < need else "warning" if free < max(2 * need, LOW_BYTES) else "ok"
        hints = {"error": _NO_ROOM, "warning": "free some space before the build"}
        yield Finding(about="disk", state=state, message=told, hint=hints.get(state, ""))


def _prices(recipe: Recipe) -> Iterator[Finding]:
    """A paid service without a price in the recipe: `--max-cost` cannot stop it."""
    for step, spec in recipe.backends.items():
        if spec.price is None and _bills(spec):
            yield Finding(
                about="price",
                state="warning",
                message=f"{step}.backend has no price: its calls count as free everywhere",
                hint="add price: {input: ..., output: ...}, US dollars per million tokens",
            )


def _bills(spec: BackendSpec) -> bool:
    """Whether the server is a public service, by its address."""
    if spec.declared.libraries:
        return False
    if not spec.base_url:
        return bool(spec.declared.billed_by)
    try:
        host = URL(spec.base_url).host or ""
    except ValueError:
        return False
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        return "." in host and not host.endswith((".local", ".internal", ".lan", ".localhost"))


# The servers of a recipe: do they answer, do they list the model, does a real request pass.
#
# A call here is the build's own request, built by the same code, with the recipe's `max_tokens`: what the
# build would be refused is refused here. It does not go through the journal: an answer kept from yesterday
# says nothing about the server of today.


Calls = Literal["none", "models", "one-frame", "full"]
"""Which calls are made: no call and no connection; none, but servers are asked for their models; one frame;
every frame that the recipe asks for."""
LISTED = 20
NO_OBSERVATION = "A person stands beside a table and turns to the left."
"""Observation shown to the judge when the generator wrote none: only the form of the verdict is checked."""
NO_THOUGHT = "Based on the observations, three balls are red and one is blue. So the answer is 4."
"""The same for a judge of reasoning."""


async def look_at_servers(
    recipe: Recipe, place: Workspace, rows: TrialRows, *, calls: Calls, tell: Callable[[str], None],
    also: dict[str, BackendSpec] | None = None,
) -> list[ServerLook]:  # fmt: skip
    """One look per step, those that `also` adds among them; a fault of one server does not hide another's.

    The calls are about `rows`; a model in this process is loaded for `full` alone. `tell` is told what is
    being waited for.
    """
    observed: tuple[Sample, str] | None = None
    looks = []
    for step, spec in (recipe.backends | (also or {})).items():
        server = _Server(recipe, place, rows, step, spec, calls, tell, observed)
        looks.append(await server.look())
        observed = server.observed
    return looks


@dataclass(eq=False)
class _Server:
    """One step's server while it is looked at."""

    recipe: Recipe
    place: Workspace
    rows: TrialRows
    step: StepName
    spec: BackendSpec
    calls: Calls
    tell: Callable[[str], None]
    observed: tuple[Sample, str] | None = None
    """What the generator just wrote about a question, for the judge."""
    listed: list[str] | None = None
    has_model: bool = False
    """The server lists the recipe's model."""
    context: int | None = None
    prompt_alone: bool = False
    """`context` is for the prompt alone: the answer has room of its own."""
    needed: int | None = None
    made: list[TrialCall] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def _note(self, about: str, state: State, text: str, hint: str = "") -> None:
        self.findings.append(Finding(about=about, state=state, message=text, hint=hint))

    async def look(self) -> ServerLook:
        """Everything about this server."""
        await self._look()
        return ServerLook(
            step=self.step,
            kind=self.spec.kind,
            model=self.spec.model,
            address=addresses(self.spec),
            listed=self.listed,
            context=self.context,
            needed=self.needed,
            calls=self.made,
            findings=self.findings,
        )

    async def _look(self) -> None:
        if self.spec.declared.libraries:
            self._local()
            if not no_error(self.findings):
                return
            if self.calls != "full":
                self._note("call", "note", "the model is not loaded here: p2r-data doctor loads and asks it")
                return
            self.tell(f"loading {self.spec.model} ({self.step})")
        try:
            backend = backend_of(self.recipe, self.place, self.spec)
            await backend.start()
        except P2RError as error:
            self.findings.append(of_error("backend", error))
            return
        try:
            await self._ask(backend)
        finally:
            await backend.close()

    async def _ask(self, backend: Backend) -> None:
        if self.calls == "none":
            self._note("call", "note", "not asked: no call was to be made")
            return
        try:
            await self._list(backend)
        except AuthError as error:  # a key may be allowed to call a model and not to list them
            self._note("models", "note", f"the server does not list its models to this key: {error.message}")
        except TransientError as error:
            if error.away:
                self.findings.append(of_error("server", error, hint=unanswered(self.spec, error)))
                return
            self._note("models", "note", f"the server does not list its models: {error.message}")
        if self.spec.batch:
            clips = self.step == "generate" and DataType.VIDEO in self.rows.types()
            self.findings.append(await look_at_batches(self.spec, clips=clips))
        if self.calls == "models":
            self._settle_models()
            return
        if isinstance(backend, KnowsContext):
            self.context = backend.context
        try:
            await (self._generate(backend) if self.step == "generate" else self._judge(backend))
        except P2RError as error:  # a prompt that does not render, no decoder process
            self.findings.append(of_error("call", error))
        if self.rows.any() is None:
            self._note("call", "note", "no call was made: the pool has no usable row")
        self._settle_models()

    def _local(self) -> None:
        """A model in this process: its library and, for a folder, its files."""
        kind = self.spec.declared
        missing = [name for name in kind.libraries if importlib.util.find_spec(name) is None]
        if missing:
            error = MissingExtraError(" and ".join(missing), kind.extra)
            self.findings.append(of_error("library", error))
        try:
            here = find_model(self.spec.model, revision=self.spec.revision)
        except ConfigError as error:
            self.findings.append(of_error("model", error))
            return
        if here:
            return
        from huggingface_hub import constants

        text = f"{self.spec.model} is not in the cache of this machine"
        if constants.HF_HUB_OFFLINE:
            self._note("model", "error", text, "fetch it first (hf download), or unset HF_HUB_OFFLINE")
        else:
            self._note("model", "note", f"{text}: it is downloaded when it is loaded")

    async def _list(self, backend: Backend) -> None:
        if not isinstance(backend, ListsModels):
            return
        self.tell(f"asking {addresses(self.spec) or self.spec.kind} for the models")
        listed = await patiently(backend.models)
        if listed is None:
            self._note("models", "note", "the server keeps no list of its models")
            return
        self.listed = [model.model for model in listed[:LISTED]]
        own = next((model for model in listed if model.model == self.spec.model), None)
        if own is None:
            return
        self.has_model = True
        self.context, self.prompt_alone = own.context or own.prompt, own.context is None
        if own.note:
            self._note("models", "warning", f"{self.spec.model} is {own.note}", "choose a model that stays")

    def _settle_models(self) -> None:
        """The model is not on the list: an error, unless the server answered for it all the same."""
        listed = self.listed
        if listed is None or any(finding.about == "models" for finding in self.findings):
            return
        if self.has_model:
            self.findings.insert(0, Finding(about="models", state="ok", message="the server has the model"))
            return
        has = ", ".join(listed) or "none"
        hint = "set model to one of them"
        if self.spec.kind == "openai":
            hint += ", or start the server with --served-model-name"
        state: State = "warning" if self.made else "error"
        told = f"the server does not list {self.spec.model}; it lists: {has}"
        if len(self.spec.base_urls) > 1:
            told = f"not all servers list {self.spec.model}; all of them list: {has}"
        self._note("models", state, told, hint)

    async def _decoded(self, frames: int) -> AsyncIterator[tuple[Sample, Frames | None]]:
        """A question for each kind of media of the pool, with so many frames."""
        media = self.recipe.media.uniform(1 if self.calls == "one-frame" else frames)
        async with DecodePool(media, want=self.spec.declared.frames, workers=1) as pool:
            for kind in self.rows.types():
                try:
                    found = await self.rows.decode(kind, pool)
                except MediaError as error:
                    text = f"no call: no {kind.value} of the first rows can be decoded ({error.message})"
                    self._note("call", "error", text, "p2r-data check names the files that cannot be used")
                    continue
                yield found

    async def _generate(self, backend: Backend) -> None:
        """One call for each kind of media of the pool."""
        requests = RequestBuilder(self.recipe, self.place.base)
        async for sample, frames in self._decoded(self.recipe.media.frames):
            request = requests.generate(sample, frames.record if frames else None, 0)
            completion = await self._call(backend, request, sample, frames)
            if completion is not None:
                shown = frames.record.shown if frames else NOT_SHOWN
                findings, observation = read_trace(
                    completion, sample, self.recipe, shown=shown, whole=self.calls == "full"
                )
                self.findings += findings
                self.observed = (sample, observation) if observation else self.observed

    async def _judge(self, backend: Backend) -> None:
        """One call, about the observation that the generator just wrote if it wrote one.

        A judge that sees gets one for each kind of media, about a claim.
        """
        first = self.rows.any()
        if first is None:
            return
        bench = Bench(self.recipe, self.place.base)
        requests = next(requests for spec, requests in bench.judges if self.step in spec.backends)
        if isinstance(requests, FaithfulnessRequests):
            async for seen, frames in self._decoded(bench.frames[self.step]):
                if frames is None:
                    continue
                wire = self.recipe.media.wire_of(frames.record.passthrough)
                request = requests.check((NO_OBSERVATION,), frames.record, wire)
                completion = await self._call(backend, request, seen, frames)
                if completion is not None:
                    self.findings += read_verdict(completion, (NO_OBSERVATION,))
            return
        if isinstance(requests, ConclusionRequests):
            request = requests.request(
                think=NO_THOUGHT, problem="?", options=(), problem_type=ProblemType.NUMERICAL
            )
            completion = await self._call(backend, request, first, None)
            if completion is not None:
                self.findings += read_verdict(completion, concludes=True)
            return
        sample, observation = self.observed or (first, NO_OBSERVATION)
        if isinstance(requests, BlindRequests):
            await self._call(backend, requests.request(sample), sample, None)
            return
        request = requests.request(
            problem=sample.problem, options=sample.options, answer=sample.reference, observation=observation
        )
        completion = await self._call(backend, request, sample, None)
        if completion is not None:
            self.findings += read_verdict(completion)

    async def _call(
        self, backend: Backend, request: Request, sample: Sample, frames: Frames | None
    ) -> Completion | None:
        self.tell(f"one call to {self.spec.model} ({self.step})")
        request = to_model(request, self.spec)
        trial = await one_call(backend, self.spec, request, sample, frames, grammar=self.recipe.trace)
        self.findings += trial.findings
        if trial.call is not None:
            self.made.append(trial.call)
            if self.context is not None and trial.call.input_tokens:
                needed, finding = look_at_room(
                    self.recipe,
                    self.spec,
                    request,
                    sample,
                    counted=trial.call.input_tokens,
                    longest=self.rows.longest,
                    context=self.context,
                    prompt_alone=self.prompt_alone,
                )
                self.needed = max(needed, self.needed or 0)
                self.findings.append(finding)
        return trial.completion
