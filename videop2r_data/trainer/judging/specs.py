"""Settings of the perception judge in training."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from videop2r_data.schemas import BackendSpec, Model


class JudgingSpec(Model):
    """Who says whether an observation is sufficient, and how long the training waits for it."""

    kind: Literal["backend", "demo", "none"] = "none"
    """`backend`: a model; `demo`: the exact checker of the synthetic world; `none`: nobody is asked."""
    backend: BackendSpec | None = None
    """Of `kind: backend`: Anthropic, any OpenAI-compatible server, or a local model."""
    prompt: str = "judge-v1"
    """Name of a packaged prompt, or path of a text file."""
    temperature: float = Field(default=0.0, ge=0.0, le=2.0)
    """Of the verdict."""
    max_tokens: int = Field(default=512, ge=16)
    """Tokens of a reply at most."""
    concurrency: int | None = Field(default=None, ge=1, le=4096)
    """Calls in flight at most, per process; None: `backend.concurrency`."""
    deadline_s: float = Field(default=120.0, gt=0)
    """Seconds from handing in the observations of a step; what is not judged by then is unscored."""
    cache: Path | None = None
    """Folder of the journal of answers, which several runs may share; None: one in the run folder."""
    max_cost: float | None = Field(default=None, gt=0)
    """US dollars that the journal may hold in all, over all runs and processes; None: no limit."""
    on_max_cost: Literal["stop", "unscored"] = "stop"
    """At the limit: `stop` ends the run with an error, `unscored` trains on without the missing verdicts.

    Without verdicts perception gets no gradient, and the objective is another one: that is why it stops."""

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if (self.kind == "backend") != (self.backend is not None):
            raise ValueError(
                f"kind: {self.kind} {'needs a' if self.kind == 'backend' else 'has no'} judging.backend"
            )
        if self.backend is None:
            if self.max_cost is not None:
                raise ValueError(f"max_cost limits nothing with kind: {self.kind}")
            return self
        if self.backend.kind == "demo":
            raise ValueError("for the demo world set judging.kind: demo, without a backend")
        if self.backend.batch:
            raise ValueError("backend.batch: a batch takes hours, a training step waits for its verdicts")
        if self.max_cost is not None and self.backend.price is None:
            raise ValueError("max_cost needs backend.price: without prices no limit holds")
        return self
