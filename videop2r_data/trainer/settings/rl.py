"""Settings of RL: rewards, objective, loss, sampling, vLLM and the judge. Loads neither torch nor vLLM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BeforeValidator, Field

from videop2r_data.schemas import BackendSpec, Model
from videop2r_data.trainer.settings.objectives import OBJECTIVES, Objective, names_where
from videop2r_data.trainer.settings.section import Section, unless

if TYPE_CHECKING:
    ObjectiveName = str
else:
    # The schema lists the names of the table; a type checker cannot read a Literal that is made from it.
    ObjectiveName = Literal[tuple(OBJECTIVES)]
Style = Literal["process", "agnostic"]
Unattributable = Literal["half", "none", "reasoning"]
Reward = Literal["sufficiency", "faithfulness", "self"]
"""What an observation can earn: see `judging.base`."""
Rewards = Annotated[
    tuple[Reward, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)
]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
PERCEPTION_BOUNDS = (128, 320)
REASONING_BOUNDS = (320, 512)
"""Tokens, both inclusive [paper §3.3]."""


def _ordered(value: tuple[int, int]) -> tuple[int, int]:
    if not 0 <= value[0] <= value[1]:
        raise ValueError(f"got {list(value)}; give [low, high] in tokens with 0 <= low <= high")
    return value


Bounds = Annotated[tuple[int, int], AfterValidator(_ordered)]


class DynamicLengthSpec(Section):
    """Length bounds that follow the question instead of being fixed for all of them.

    The paper finds its fixed bounds harmful where a question needs more or fewer words and asks for dynamic
    ones; the rule here is this project's. The lengths of a group's rollouts that would be paid for length
    (accuracy and format both non-zero) give the bounds: their quantiles, widened by `slack`. A resumed run,
    or one on more ranks, computes the same bounds.
    """

    low: Share = 0.25
    """Lower quantile of the correct rollouts' lengths."""
    high: Share = 0.75
    """Upper quantile."""
    slack: float = Field(default=0.1, ge=0.0, le=1.0)
    """Bounds are widened by this share of themselves, so that a token more or less decides nothing."""
    at_least: int = Field(default=3, ge=2)
    """Fewer such rollouts in the group say nothing about the right length: nobody earns the bonus."""

    def _problems(self) -> Iterator[str]:
        if self.low > self.high:
            yield f"low quantile {self.low:g} above the high one {self.high:g}: swap them"


class RewardSpec(Section):
    """What a rollout earns: `R_k = accuracy + format + length` for k in {P, R} [paper §3.3].

    Weights matter between the parts of one process only: normalisation removes a common factor.
    """

    accuracy: float = Field(default=1.0, ge=0.0)
    """Weight of acc_k in [0, 1]: the judge's verdict (P), the metric of the problem type (R)."""
    form: float = Field(default=1.0, ge=0.0)
    """Weight of form_k in {0, 1}."""
    length_bonus: float = Field(default=0.2, ge=0.0)
    """len_k, for acc_k and form_k both non-zero and a length within its bounds [paper §3.3]."""
    length: Literal["fixed", "dynamic", "off"] = "fixed"
    """`fixed`: the two bounds below; `dynamic`: see `DynamicLengthSpec`; `off`: nobody earns it."""
    perception_bounds: Bounds = PERCEPTION_BOUNDS
    """Tokens of the observation segment with its tags, both bounds inclusive."""
    reasoning_bounds: Bounds = REASONING_BOUNDS
    """Tokens of think and answer with their tags (end-of-turn not counted), both inclusive."""
    bounds: dict[str, Bounds] = Field(default_factory=dict, exclude_if=lambda value: not value)
    """Of streams of other names: `{plan: [10, 80]}`; with `fixed` a stream without bounds earns no length."""
    dynamic: DynamicLengthSpec = DynamicLengthSpec()
    """Used with `length: dynamic`."""
    overlong: float = Field(ge=0.0, **unless(0.5))
    """`dapo`: what a completion of `sampling.max_new_tokens` loses. DAPO takes 1 where a right answer earns 2
    more than a wrong one; here it earns 1 more."""
    overlong_share: float = Field(gt=0.0, le=1.0, **unless(0.2))
    """`dapo`: the last share of that limit, over which the loss rises from 0; there 4,096 of 20,480."""

    def bounds_of(self, stream: str) -> tuple[int, int] | None:
        """Fixed bounds of a stream of the trace, both inclusive."""
        usual = {"perception": self.perception_bounds, "reasoning": self.reasoning_bounds}
        return self.bounds.get(stream, usual.get(stream))

    def _problems(self) -> Iterator[str]:
        if self.accuracy == 0 and self.form == 0:
            yield "accuracy and form are both 0: no rollout could earn anything; raise one of them"
        if "dynamic" in self.model_fields_set and self.length != "dynamic":
            yield f"dynamic bounds are set, but length is {self.length!r}: set length: dynamic"


class TemporalSpec(Model):
    """The bonus of T-GRPO and its second, shuffled group [T-GRPO eq. 1-2]."""

    alpha: float = Field(default=0.3, gt=0.0)
    """What a correct ordered rollout earns more."""
    margin: float = Field(default=0.8, ge=0.0)
    """The ordered share of correct answers is at least this times the shuffled one. 0.8: Video-R1's code."""
    shuffled: int | None = Field(default=None, ge=1)
    """Rollouts with shuffled frames per video question; None: half the group, as in that code."""
    correct_above: float = Field(default=0.1, ge=0.0, lt=1.0)
    """An answer counts as correct if its accuracy is above this (metrics like ROUGE are rarely 1)."""

    def shuffled_size(self, group_size: int) -> int:
        """Rollouts of the shuffled group, at least one."""
        return self.shuffled or max(1, group_size // 2)


class ObjectiveSpec(Section):
    """Which rewards reach which tokens."""

    name: ObjectiveName = "pa-grpo"
    """Which of the objectives of docs/training.md."""
    temporal: TemporalSpec = TemporalSpec()
    """Settings of `t-grpo`."""

    def _problems(self) -> Iterator[str]:
        if "temporal" in self.model_fields_set and not self.entry.shuffles:
            readers = names_where(lambda entry: entry.shuffles)
            yield f"temporal is set, but the objective is {self.name!r}: only {readers} reads it"

    @property
    def entry(self) -> Objective:
        """What the objective pays, and to which tokens."""
        return OBJECTIVES[self.name]


class LossSpec(Model):
    """How advantages become a loss; `process/loss.py` has the formulas."""

    epsilon: float = Field(default=0.2, gt=0.0, lt=1.0)
    """Ratios below 1 - epsilon are clipped."""
    epsilon_high: float | None = Field(default=None, gt=0.0)
    """Ratios above 1 + epsilon_high are clipped; None: epsilon."""
    beta: float = Field(default=0.04, ge=0.0)
    """Weight of the KL term; 0: no reference model is needed."""
    ratio: Literal["token", "segment", "sequence"] = "token"
    """One likelihood ratio per token; per segment, exp of the mean log ratio of its tokens; per completion,
    each token with its own gradient (GSPO-token; with one advantage per completion, GSPO)."""
    reduction: Literal["segment", "sequence", "token", "constant"] = "segment"
    """`segment`: each stream's mean over its own tokens, streams added, mean over rollouts; `sequence`: sum
    over a completion's tokens / its length, mean over rollouts; `token`: mean over all tokens of the step;
    `constant`: sum over a completion's tokens / `sampling.max_new_tokens`, mean over rollouts."""
    kl_over: Literal["completion", "segments"] = "completion"
    """`completion`: KL once per rollout, over all its tokens, the same for every objective; `segments`: KL
    inside the sum over streams, over each stream's tokens (no stream, no KL)."""
    perception: float = Field(ge=0.0, **unless(0.0))
    """PAPO: weight of the divergence from the answers to a black clip; raised. One more forward pass."""
    blackened: float = Field(ge=0.0, le=1.0, **unless(0.6))
    """PAPO: share of the patches of 14 x 14 pixels that are black."""
    entropy: float = Field(ge=0.0, **unless(0.0))
    """PAPO: weight of the sampled tokens' mean negative log-probability; lowered."""
    std: Literal["population", "sample", "none"] = "population"
    """Divisor of the variance in a group: its size, or one less; `none`: rewards are centred only."""
    eps: float = Field(default=1e-4, ge=0.0)
    """Added to the standard deviation."""
    unattributable: Unattributable = "half"
    """Who gets what several streams share: `half`: all of them, in equal shares; `none`: no advantage (KL
    still holds); `reasoning`: the stream of the answer."""
    correction: Literal["ratio", "tis"] | None = Field(**unless(None))
    """For tokens of another policy, by the engine's own log-probabilities: it computes otherwise, or with
    `rl.ahead` has older weights. `ratio`: they are those of the old policy, and the clipped ratio is to them;
    `tis`: truncated importance sampling, a weight beside the ratio to the weights that the step began with.
    None: `ratio` with `rl.ahead`, else no correction."""
    tis_cap: float = Field(gt=0, **unless(2.0))
    """Highest weight of `correction: tis`."""

    @property
    def clip_range(self) -> tuple[float, float]:
        """Lowest and highest ratio that is not clipped."""
        high = self.epsilon if self.epsilon_high is None else self.epsilon_high
        return 1.0 - self.epsilon, 1.0 + high


class SamplingSpec(Model):
    """From which distribution tokens are drawn, for how long, and by what."""

    temperature: float = Field(default=1.0, ge=0)
    """Logits are divided by it; 0: always the likeliest token."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Only the likeliest tokens whose probabilities add up to this; 1: all."""
    top_k: int = Field(default=0, ge=0)
    """Only this many of the likeliest tokens; 0: all."""
    max_new_tokens: int = Field(default=768, ge=1)
    """Longest completion, the closing token included. [recipes the paper follows]"""
    backend: Literal["hf", "vllm", "vllm-server"] = "hf"
    """`hf`: the policy itself; `vllm`: an engine in this process; `vllm-server`: one on other GPUs."""
    rows: int = Field(default=0, ge=0)
    """hf: rollouts drawn at a time, to bound memory; whole groups, at least one; 0: all at once."""

    @property
    def logprobs_mode(self) -> Literal["raw_logprobs", "processed_logprobs"] | None:
        """vLLM's `logprobs_mode` that tells log softmax(logits / temperature) over the whole vocabulary, as
        the trainer computes it; None: none does."""
        # raw ones know no temperature, processed ones are of the tokens that top_p and top_k leave
        if self.temperature == 1:
            return "raw_logprobs"
        whole = self.temperature > 0 and self.top_p == 1 and not self.top_k
        return "processed_logprobs" if whole else None


EXTENSION = "videop2r_data.trainer.rollout.vllm_worker.PackingWorker"
"""For vLLM's `--worker-extension-cls`; by its path, because vLLM imports it in its own workers."""
_OURS = {
    *("model", "revision", "dtype", "generation_config", "chat_template"),
    *("weight_transfer_config", "logprobs_mode"),
}


class VllmSpec(Section):
    """How vLLM runs beside the trainer.

    *In process* (`backend: vllm`) each training process has an engine on its own GPU, for its own prompts.
    *As a server* (`backend: vllm-server`) all of them send their prompts to one, the first one the weights.
    """

    engine: dict[str, Any] = Field(default_factory=dict)
    """In process: further engine arguments of vLLM, e.g. `max_num_seqs: 64`. A server has them as flags."""
    dtype: Literal["policy", "float32", "bfloat16", "float16"] = "policy"
    """Type of the engine's weights; `policy`: as there. float32 weights computed in bf16 want `bfloat16`."""
    memory: float = Field(default=0.3, gt=0, le=1)
    """In process: share of the device's memory for the engine's weights and cache."""
    max_model_len: int = Field(default=16_384, ge=1)
    """Tokens of a prompt and its completion together; a prompt that does not fit is left out, never cut."""
    sleep: Literal[0, 1, 2] = 0
    """In process, on GPUs: what the engine gives up while the update runs. 0: nothing; 1: the cache drops,
    the weights move to the host; 2: both are dropped, the weights are sent again before the next rollout."""
    url: str = ""
    """Server: its root, e.g. `http://10.0.0.2:8000` (no `/v1`)."""
    api_key_env: str = ""
    """Server: environment variable with its key; empty: it asks for none."""
    transfer: Literal["folder", "nccl", "ipc"] = "folder"
    """Server: how weights travel. `folder`: safetensors in `folder`, which both sides see (any device, no
    vLLM on the trainer's side); `nccl`: to other GPUs, `ipc`: to a server on the trainer's GPU, both by
    vLLM's own transfer, which the trainer's side needs too."""
    folder: str = ""
    """Server, transfer `folder`: absolute path for the weights; `/dev/shm/...` when both share a host."""
    master_address: str = "127.0.0.1"
    """Server, transfer `nccl`: address of the first training process, as the server's hosts reach it."""
    master_port: int = Field(default=29_600, ge=1, le=65_535)
    """Server, transfer `nccl`: a free port there."""
    packed: bool = True
    """Server, transfer `nccl` or `ipc`: weights travel in large buffers instead of one by one."""
    concurrency: int = Field(default=64, ge=1)
    """Server: requests (one per prompt) that one training process keeps open."""
    timeout_s: float = Field(default=1800.0, gt=0)
    """Server: for the rollouts of one prompt, and for one weight update."""
    retries: int = Field(default=4, ge=0)
    """Server: further tries after a lost connection, a timeout or status 408, 425, 429 or 5xx."""

    def _problems(self) -> Iterator[str]:
        if taken := sorted(self.engine.keys() & _OURS):
            yield f"engine.{taken[0]} is set by the trainer itself: leave it out"
        if self.url and not self.url.startswith(("http://", "https://")):
            yield f"url is {self.url!r}: give http://HOST:PORT"
        if self.url.rstrip("/").endswith("/v1"):
            yield f"url is {self.url!r}: give the root of the server, without /v1"
        if self.folder and not self.folder.startswith("/"):
            yield (
                f"folder is {self.folder!r}: the server has another working directory, give an absolute path"
            )


class FaithfulnessSpec(Model):
    """The judge that sees: every claim of an observation, held against the frames that the policy saw."""

    backend: BackendSpec | None = None
    """A model that takes frames; it lists the claims too, from the text alone. None: `judging.backend`."""
    prompt: str = "faithfulness-v1"
    """Name of a packaged prompt, or path of a text file: the verdicts of numbered claims."""
    claims_prompt: str = "claims-v1"
    """The same: takes an observation apart."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Of both replies."""
    max_tokens: int = Field(default=2048, ge=16)
    """Tokens of a reply at most; it has a line for each claim."""


class JudgingSpec(Section):
    """What an observation is paid for, who says so, and how long training waits for it."""

    kind: Literal["backend", "demo", "none"] = "none"
    """`backend`: a model; `demo`: the exact checker of the synthetic world; `none`: nobody is asked."""
    backend: BackendSpec | None = None
    """Of `kind: backend`: Anthropic, any OpenAI-compatible server, or a local model."""
    reward: Rewards = Field(**unless(("sufficiency",)))
    """What a stream of perception earns. `sufficiency`: whether the answer follows from the observation;
    `faithfulness`: the share of its claims that the frames support; `self`: how well the model in training
    answers from it alone, which needs no judge. One of them, or a list."""
    together: Literal["product", "mean"] = Field(**unless("product"))
    """How several become one. With a product what does not suffice earns nothing, however true it is, and the
    judge that sees is asked about the sufficient ones alone."""
    record: Rewards = Field(**unless(()))
    """Decided and logged, and paid to nobody; costs as much as a reward."""
    prompt: str = "judge-v1"
    """Of the judge of sufficiency: name of a packaged prompt, or path of a text file."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Of the verdict."""
    max_tokens: int = Field(default=512, ge=16)
    """Tokens of a reply at most."""
    faithfulness: FaithfulnessSpec = Field(**unless(FaithfulnessSpec()))
    """Of the judge that sees."""
    concurrency: int | None = Field(default=None, ge=1, le=4096)
    """Calls in flight at most, per process; None: `backend.concurrency`."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Seconds from the end of a rollout; an observation that is not judged by then is unscored."""
    cache: Path | None = None
    """Folder of the journal of answers, which several runs may share; None: one in the run folder."""
    max_cost: float | None = Field(default=None, gt=0)
    """US dollars that the journal may hold, over all runs and processes; None: no limit."""
    on_max_cost: Literal["stop", "unscored"] = "stop"
    """At the limit: `stop` ends the run with an error, `unscored` trains on; without verdicts perception gets
    no gradient, and the objective is another one."""

    @property
    def asked(self) -> tuple[Reward, ...]:
        """Everything that is decided of an observation, the cheap ones first."""
        known: tuple[Reward, ...] = get_args(Reward)
        able = [name for name in known if name == "self" or self.kind != "none"]
        return tuple(name for name in able if name in (*self.reward, *self.record))

    @property
    def pays(self) -> bool:
        """Whether there is anybody who decides all that is paid."""
        return set(self.reward) <= set(self.asked)

    @property
    def backends(self) -> dict[str, BackendSpec]:
        """Field -> whom it names."""
        named = {"backend": self.backend, "faithfulness.backend": self.faithfulness.backend}
        return {name: spec for name, spec in named.items() if spec is not None}

    def _problems(self) -> Iterator[str]:
        named = (*self.reward, *self.record)
        if not self.reward:
            yield "reward is empty: name what perception earns, or an objective that pays none"
        if len(set(named)) < len(named):
            yield "reward and record name one thing twice: what is paid is logged anyway"
        if "together" in self.model_fields_set and len(self.reward) == 1:
            yield f"together joins several rewards, and reward is {self.reward[0]} alone"
        # the default is asked where there is a judge; an objective that pays for it insists on one
        wanted = self.record if self.reward == ("sufficiency",) else named
        if lost := [name for name in wanted if name not in self.asked]:
            yield (
                f"{' and '.join(lost)} cannot be decided with kind: none: set kind: backend with a model, or "
                "kind: demo"
            )
        if (self.kind == "backend") != (self.backend is not None):
            yield f"kind: {self.kind} {'needs a' if self.kind == 'backend' else 'has no'} judging.backend"
        elif self.kind == "backend":
            yield from self._problems_of_backends()
        elif self.backends:
            yield f"kind: {self.kind} has no judging.faithfulness.backend"
        elif self.max_cost is not None:
            yield f"max_cost limits nothing with kind: {self.kind}"

    def _problems_of_backends(self) -> Iterator[str]:
        for field, backend in self.backends.items():
            if backend.kind == "demo":
                yield f"for the demo world set judging.kind: demo, without a {field}"
            if backend.batch:
                yield f"{field}.batch: a batch takes hours, a training step waits for its verdicts"
            if self.max_cost is not None and backend.price is None:
                yield f"max_cost needs {field}.price: without prices no limit holds"


class AlarmSpec(Model):
    """Readings that tell whether observations still depend on the clip; they change no weight.

    A reading draws `2 * prompts * rollouts` completions and asks the judge about as many observations;
    without a judge the policy answers from its observations.
    """

    every: int = Field(default=25, ge=0)
    """Steps between readings, the first one at step 1; 0: none, and no alarm."""
    prompts: int = Field(default=8, ge=1)
    """Questions with a clip or picture in a reading, over all processes, spread over the step's batch."""
    rollouts: int = Field(default=2, ge=1)
    """Completions of each question for its empty clip, and for the clip of another question."""
    seeing: bool = False
    """Ask the judge that sees about so many observations of the own clips too, for the record; where
    faithfulness is paid or recorded anyway, nothing more is asked."""
